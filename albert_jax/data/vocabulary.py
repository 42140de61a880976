"""Trains ALBERT's kind of vocabulary (docs/REFERENCE.md, 2)."""

import io
import re
import sys
from collections.abc import Iterable, Iterator

import sentencepiece

from albert_jax.cli.errors import UserError

# SentencePiece leaves out longer sentences without an error (its max_sentence_length, which is
# part of the model, so that another value would change every vocabulary).
_MAX_SENTENCE_BYTES = 4192
# What a longer one is cut into. SentencePiece finds more pieces in shorter parts: in 0.5 MB of
# syllables without spaces 10,700 candidates in parts of 100 characters, 1,200 in parts of 1,390.
_PART_CHARACTERS = 128
# SentencePiece leaves out sentences with the character that it writes in place of unknown ones.
_RESERVED = '\u2585'


def train_vocabulary(
    sentences: Iterable[str], vocab_size: int, num_sentences: int = 10_000_000
) -> bytes:
    """Trains ALBERT's kind of vocabulary: a unigram SentencePiece model.

    Nothing is left out: sentences that are too long for SentencePiece are cut, before a word or,
    where there is no white space, anywhere. What was cut or sampled is told on standard error.

    Args:
      sentences: normalised text, a sentence each.
      vocab_size: number of pieces, special ones included.
      num_sentences: at most so many are sampled; memory is bounded by this.

    Returns:
      The serialised model.

    Raises:
      UserError: if the text is too small for so many pieces, or has more characters.
    """
    if vocab_size < 1:
        raise UserError(f'--vocab_size is {vocab_size}; it must be above 0.')
    writer = io.BytesIO()
    reader = _TrainingSentences(sentences)
    sentencepiece.set_random_generator_seed(0)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(reader),
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
        if reader.failure is not None:
            raise reader.failure from None
        raise _explained(str(error), vocab_size) from error
    if reader.failure is not None:
        raise reader.failure
    for note in reader.notes(num_sentences):
        print(f'note: {note}', file=sys.stderr)
    return writer.getvalue()


def _explained(reason: str, vocab_size: int) -> UserError:
    """SentencePiece's error with the size that would do."""
    if 'sentences_.empty()' in reason or 'all_chars_count' in reason:
        return UserError('No text for a vocabulary is left after normalisation; give some text.')
    most = re.search(r'value <= (\d+)', reason)
    if most:
        return UserError(
            f'The corpus is too small for a vocabulary of {vocab_size} pieces; '
            f'set --vocab_size to at most {most[1]}, or give more text.'
        )
    least = re.search(r'smaller than required_chars\. \d+ vs (\d+)', reason)
    if least:
        return UserError(
            f'The corpus has more characters than a vocabulary of {vocab_size} pieces has room '
            f'for; set --vocab_size to {least[1]} or above.'
        )
    return UserError(
        f'A vocabulary of {vocab_size} pieces cannot be trained on this corpus; give more text or '
        f'another --vocab_size (SentencePiece: {reason.splitlines()[-1].strip()}).'
    )


class _TrainingSentences:
    """Sentences as SentencePiece's trainer takes them, and what was done to them.

    Args:
      sentences: normalised.
    """

    def __init__(self, sentences: Iterable[str]) -> None:
        self._sentences = sentences
        # SentencePiece would turn what is wrong with the text into an error of its own.
        self.failure: Exception | None = None
        self._num_given = self._num_reserved = self._num_words_cut = 0

    def __iter__(self) -> Iterator[str]:
        try:
            for sentence in self._sentences:
                usable = sentence
                if _RESERVED in sentence:
                    self._num_reserved += sentence.count(_RESERVED)
                    usable = ' '.join(sentence.replace(_RESERVED, ' ').split())
                for part in self._parts(usable):
                    self._num_given += 1
                    yield part
        except Exception as error:
            self.failure = error

    def _parts(self, sentence: str) -> Iterator[str]:
        # A character has at most four bytes.
        if (
            len(sentence) <= _MAX_SENTENCE_BYTES // 4
            or len(sentence.encode()) <= _MAX_SENTENCE_BYTES
        ):
            yield sentence
            return
        start = 0
        while start < len(sentence):
            end = start + _PART_CHARACTERS
            space = sentence.rfind(' ', start + 1, end + 1) if end < len(sentence) else -1
            if space > 0:
                yield sentence[start:space]
                start = space + 1
            else:
                self._num_words_cut += end < len(sentence)
                yield sentence[start:end]
                start = end

    def notes(self, num_sentences: int) -> Iterator[str]:
        """What a user must know of how the sentences were used.

        Args:
          num_sentences: that are sampled at most.
        """
        if self._num_given > num_sentences:
            yield (
                f'the vocabulary was trained on a sample of {num_sentences:,} of '
                f'{self._num_given:,} sentences.'
            )
        if self._num_words_cut:
            yield (
                f'to train the vocabulary, long sentences were cut in {self._num_words_cut:,} '
                f'places where there is no space.'
            )
        if self._num_reserved:
            yield (
                f'{self._num_reserved:,} characters {_RESERVED} (U+2585), which SentencePiece '
                f'reserves, were left out of the training of the vocabulary.'
            )
