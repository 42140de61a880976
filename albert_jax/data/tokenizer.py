"""SentencePiece behind ALBERT's normalisation (REFERENCE, 2).

Text is white-space collapsed, its `` and '' become ", then NFKD, combining marks dropped, lower
case; and a piece such as `▁2,` is cut before its comma, as google-research/albert does.
"""

import dataclasses
import functools
import hashlib
import io
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import sentencepiece
from jaxtyping import Bool, Int32

from albert_jax.errors import UserError

_SPACE = '▁'
_SPECIAL = {'pad_id': '<pad>', 'unk_id': '<unk>'} | {
    f'{name.lower()}_id': f'[{name}]' for name in ('CLS', 'SEP', 'MASK')
}
_PUNCTUATION = frozenset('!"#$%&\'()*+,-./:;<=>?@[\\]^_`{|}~£€–—')


@functools.cache
def _combining_marks() -> re.Pattern[str]:
    marks = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.combining(chr(code))]
    return re.compile(f'[{"".join(marks)}]+')


@dataclasses.dataclass(frozen=True)
class Normalization:
    """What happens to text before SentencePiece sees it; the released English models use all."""

    keep_case: bool = False
    keep_accents: bool = False

    def __call__(self, text: str) -> str:
        """The normalised text, on one line."""
        text = ' '.join(text.split()).replace('``', '"').replace("''", '"')
        if not self.keep_accents and not text.isascii():
            text = _combining_marks().sub('', unicodedata.normalize('NFKD', text))
        return text if self.keep_case else text.lower()


class Tokenizer:
    """Text to piece ids and back.

    Args:
      model: a serialised SentencePiece model.
      normalization: what to do to text first.
      origin: what to call the model in messages.

    Raises:
      UserError: if it is not a SentencePiece model or lacks one of ALBERT's special pieces.
    """

    pad_id: int
    unk_id: int
    cls_id: int
    sep_id: int
    mask_id: int

    def __init__(
        self,
        model: bytes,
        normalization: Normalization = Normalization(),
        origin: str = 'the vocabulary',
    ) -> None:
        self.model = model
        self.normalization = normalization
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise UserError(f'{origin} is not a SentencePiece model.') from error
        self.vocab_size: int = self._processor.get_piece_size()
        self.pieces: list[str] = self._processor.id_to_piece(list(range(self.vocab_size)))
        for name, piece in _SPECIAL.items():
            if piece not in self.pieces:
                raise UserError(
                    f'{origin} has no piece {piece}; it is not a vocabulary of ALBERT '
                    f'(it needs {" ".join(_SPECIAL.values())}).'
                )
            setattr(self, name, self.pieces.index(piece))
        self._recut = self._digit_comma_pieces()

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        normalization: Normalization = Normalization(),
    ) -> 'Tokenizer':
        """Reads a `.model` file.

        Raises:
          UserError: if it cannot be read or is not a vocabulary of ALBERT.
        """
        try:
            model = Path(path).read_bytes()
        except OSError as error:
            raise UserError(f'Vocabulary {path} cannot be read: {error.strerror}.') from error
        return cls(model, normalization, origin=str(path))

    @functools.cached_property
    def sha256(self) -> str:
        """Digest of the model: what makes two vocabularies the same."""
        return hashlib.sha256(self.model).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The piece ids of each text, without special pieces."""
        encoded = self._processor.encode(
            [self.normalization(text) for text in texts], num_threads=1
        )
        if not self._recut:
            return encoded
        return [
            ids if self._recut.keys().isdisjoint(ids) else self._recut_ids(ids) for ids in encoded
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """Readable text; unknown pieces become ⁇."""
        return self._processor.decode([int(index) for index in ids])

    def encode_with_masks(self, text: str) -> list[int]:
        """The ids of a text in which `[MASK]` stands for the mask piece."""
        ids: list[int] = []
        for index, part in enumerate(text.split('[MASK]')):
            if index:
                ids.append(self.mask_id)
            if part.strip():
                part_ids = self.encode([part])[0]
                # After a mask, "." is a piece of its own, without the space that starts a text.
                is_glued = index and not part[0].isspace()
                is_space = self.pieces[part_ids[0]] == _SPACE
                ids.extend(part_ids[1:] if is_glued and is_space else part_ids)
        return ids

    @functools.cached_property
    def starts_word(self) -> Bool[np.ndarray, 'vocab']:
        """Which pieces start a word, for whole-word masking (REFERENCE, 2).

        Those that begin with ▁ or <, are punctuation, or hold a character outside a–z.
        """

        def starts(piece: str) -> bool:
            is_plain = all('a' <= letter <= 'z' for letter in piece.lower())
            return piece[0] in f'{_SPACE}<' or piece in _PUNCTUATION or not is_plain

        return np.array([starts(piece) for piece in self.pieces])

    @functools.cached_property
    def ordinary_ids(self) -> Int32[np.ndarray, 'ordinary']:
        """The pieces that stand for text: not padding, unknown, control or unused."""
        processor, special = self._processor, set(_SPECIAL.values())
        return np.array(
            [
                index
                for index, piece in enumerate(self.pieces)
                if piece not in special
                and not processor.is_control(index)
                and not processor.is_unknown(index)
                and not processor.is_unused(index)
            ],
            np.int32,
        )

    def _digit_comma_pieces(self) -> dict[int, list[int]]:
        """For each piece that ends in a digit and a comma, what stands in its place."""
        recut = {}
        for index, piece in enumerate(self.pieces):
            if len(piece) < 2 or piece[-1] != ',' or not piece[-2].isdigit():
                continue
            parts = self._processor.encode(piece[:-1].replace(_SPACE, ''), out_type=str)
            if piece[0] != _SPACE and parts[0][0] == _SPACE:
                parts = parts[1:] if parts[0] == _SPACE else [parts[0][1:], *parts[1:]]
            recut[index] = self._processor.piece_to_id([*parts, ','])
        return recut

    def _recut_ids(self, ids: list[int]) -> list[int]:
        return [part for index in ids for part in self._recut.get(index, (index,))]


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
