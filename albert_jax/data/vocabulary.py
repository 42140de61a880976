"""Trains ALBERT's kind of vocabulary (docs/REFERENCE.md, 2)."""

import io
import re
from collections.abc import Iterable, Iterator

import sentencepiece

from albert_jax.cli.errors import UserError


def train_vocabulary(
    sentences: Iterable[str], vocab_size: int, num_sentences: int = 10_000_000
) -> bytes:
    """Trains ALBERT's kind of vocabulary: a unigram SentencePiece model.

    Args:
      sentences: normalised text, a sentence each.
      vocab_size: number of pieces, special ones included.
      num_sentences: at most so many are sampled; memory is bounded by this.

    Returns:
      The serialised model.

    Raises:
      UserError: if the text is too small for so many pieces.
    """
    writer = io.BytesIO()
    failures: list[Exception] = []

    def guarded() -> Iterator[str]:
        # SentencePiece would turn what is wrong with the text into an error of its own.
        try:
            yield from sentences
        except Exception as error:
            failures.append(error)

    sentencepiece.set_random_generator_seed(0)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=guarded(),
            model_writer=writer,
            model_type='unigram',
            vocab_size=vocab_size,
            pad_id=0,
            unk_id=1,
            bos_id=-1,
            eos_id=-1,
            control_symbols=['[CLS]', '[SEP]', '[MASK]'],
            user_defined_symbols=list('()"-.–£€'),
            character_coverage=0.99995,
            input_sentence_size=num_sentences,
            shuffle_input_sentence=True,
            # The pieces depend on this number, so it must not depend on the machine.
            num_threads=8,
            minloglevel=2,
        )
    except RuntimeError as error:
        if failures:
            raise failures[0] from None
        reason = str(error)
        limit = re.search(r'value <= (\d+)', reason)
        if limit:
            raise UserError(
                f'The corpus is too small for a vocabulary of {vocab_size} pieces; '
                f'set --vocab_size to at most {limit[1]}, or give more text.'
            ) from error
        raise UserError(
            f'A vocabulary of {vocab_size} pieces cannot be trained on this corpus; give more '
            f'text or another --vocab_size (SentencePiece: {reason.splitlines()[-1].strip()}).'
        ) from error
    if failures:
        raise failures[0]
    return writer.getvalue()
