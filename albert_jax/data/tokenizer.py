"""SentencePiece behind ALBERT's normalisation (docs/REFERENCE.md, 2).

A piece such as `▁2,` is cut before its comma, as google-research/albert does.
"""

import functools
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from albert_jax.cli.errors import UserError, reason
from albert_jax.cli.json_text import check_texts
from albert_jax.data.added_tokens import AddedToken, Matcher, add_pieces
from albert_jax.data.normalization import Aligned, Normalization

_SPACE = '▁'
_SPECIAL = {'pad_id': '<pad>', 'unk_id': '<unk>'} | {
    f'{name.lower()}_id': f'[{name}]' for name in ('CLS', 'SEP', 'MASK')
}
_PUNCTUATION = frozenset('!"#$%&\'()*+,-./:;<=>?@[\\]^_`{|}~£€–—')


class Encoding(NamedTuple):
    """The pieces of a text and the part of it, in characters, that each stands for."""

    ids: list[int]
    offsets: list[tuple[int, int]]


class Tokenizer:
    """Text to piece ids and back.

    Args:
      model: a serialised SentencePiece model.
      normalization: what to do to text first.
      origin: what to call the model in messages.
      added_tokens: that are kept whole; their ids follow those of the model's pieces, or are those
        of its pieces of the same name.

    Raises:
      UserError: if it is not a SentencePiece model, lacks one of ALBERT's special pieces, or the
        added tokens do not fit it.
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
        added_tokens: Sequence[AddedToken] = (),
    ) -> None:
        # Batches can be made of ids without this package (benchmarks.accelerator).
        import sentencepiece

        self.model = model
        self.normalization = normalization
        self.added_tokens = tuple(sorted(added_tokens, key=lambda token: token.id))
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise UserError(f'{origin} is not a SentencePiece model.') from error
        self.num_model_pieces: int = self._processor.get_piece_size()
        self.pieces: list[str] = self._processor.id_to_piece(list(range(self.num_model_pieces)))
        for name, piece in _SPECIAL.items():
            if piece not in self.pieces:
                raise UserError(
                    f'{origin} has no piece {piece}; it is not a vocabulary of ALBERT '
                    f'(it needs {" ".join(_SPECIAL.values())}).'
                )
            setattr(self, name, self.pieces.index(piece))
        self._recut = self._digit_comma_pieces()
        add_pieces(self.pieces, self.added_tokens, [origin] * len(self.added_tokens))
        self.vocab_size = len(self.pieces)
        given = [token for token in self.added_tokens if not token.normalized]
        normalized = [token for token in self.added_tokens if token.normalized]
        self._given_matcher = Matcher(given, [token.content for token in given])
        contents = [normalization(token.content) for token in normalized]
        if '' in contents:
            token = normalized[contents.index('')]
            raise UserError(
                f'{origin}: nothing is left of the added token {token.content!r} after '
                f'normalisation; it must not be normalised.'
            )
        self._normalized_matcher = Matcher(normalized, contents)

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
            raise UserError(f'Vocabulary {path} cannot be read: {reason(error)}.') from error
        return cls(model, normalization, origin=str(path))

    @functools.cached_property
    def sha256(self) -> str:
        """Digest of the model, without normalisation and added tokens."""
        return hashlib.sha256(self.model).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The piece ids of each text, without special pieces.

        Raises:
          UserError: if a text has half a surrogate pair.
        """
        if self.added_tokens:
            return [encoding.ids for encoding in self.encode_with_offsets(texts)]
        try:
            encoded = self._processor.encode(
                [self.normalization(text) for text in texts], num_threads=1
            )
        except TypeError:
            check_texts(texts)
            raise
        if not self._recut:
            return encoded
        return [
            ids if self._recut.keys().isdisjoint(ids) else self._recut_ids(ids) for ids in encoded
        ]

    def encode_with_offsets(self, texts: Sequence[str]) -> list[Encoding]:
        """The same ids, each with the slice of its original text that it stands for.

        A slice has no white space at its ends, unless beside a character that SentencePiece
        deletes; that of a lone ▁ is empty.
        """
        if self.added_tokens:
            return self._encode_around_added(texts)
        return self._encode_aligned([self.normalization.align(text) for text in texts])

    def _encode_aligned(self, aligned: Sequence[Aligned]) -> list[Encoding]:
        texts = [text for text, _, _ in aligned]
        try:
            encoded = self._processor.encode(texts, num_threads=1, return_type='offset_mapping')
        except TypeError:
            check_texts(texts)
            raise
        return [
            self._in_original(one, pieces['ids'], pieces['offsets'])
            for one, pieces in zip(aligned, encoded, strict=True)
        ]

    def _encode_around_added(self, texts: Sequence[str]) -> list[Encoding]:
        """Added tokens as they are, and what lies between them by the model."""
        parts = [list(self._parts(text)) for text in texts]
        between = [part for of_text in parts for part in of_text if isinstance(part, Aligned)]
        encoded = iter(self._encode_aligned(between))
        encodings = []
        for of_text in parts:
            ids: list[int] = []
            offsets: list[tuple[int, int]] = []
            for part in of_text:
                encoding = next(encoded) if isinstance(part, Aligned) else part
                ids += encoding.ids
                offsets += encoding.offsets
            encodings.append(Encoding(ids, offsets))
        return encodings

    def _parts(self, text: str) -> Iterator[Encoding | Aligned]:
        """The added tokens of a text, encoded, and what lies between them, normalised."""
        for token_id, begin, stop in self._given_matcher.split(text):
            if token_id is not None:
                yield Encoding([token_id], [(begin, stop)])
                continue
            normalized, starts, ends = self.normalization.align(text[begin:stop])
            starts, ends = starts + np.int32(begin), ends + np.int32(begin)
            for found_id, first, last in self._normalized_matcher.split(normalized):
                if found_id is not None:
                    yield Encoding([found_id], [(int(starts[first]), int(ends[last - 1]))])
                    continue
                start = last - len(normalized[first:last].lstrip())
                end = len(normalized[:last].rstrip())
                if start < end:
                    yield Aligned(normalized[start:end], starts[start:end], ends[start:end])

    def _in_original(
        self, aligned: Aligned, ids: list[int], spans: list[tuple[int, int]]
    ) -> Encoding:
        starts, ends = aligned.starts.tolist(), aligned.ends.tolist()
        all_ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        for index, (space, end) in zip(ids, spans, strict=True):
            begin = end - len(aligned.text[space:end].lstrip(f' {_SPACE}'))
            parts = self._recut.get(index, [index])
            for part in parts:
                # Of a cut piece every part but the last has as many characters as it shows.
                shown = len(self.pieces[part].lstrip(_SPACE))
                stop = end if part is parts[-1] else min(begin + shown, end)
                if begin < stop:
                    offsets.append((starts[begin], ends[stop - 1]))
                else:
                    place = starts[begin] if begin < len(starts) else ends[-1]
                    offsets.append((place, place))
                all_ids.append(part)
                begin = stop
        return Encoding(all_ids, offsets)

    def decode(self, ids: Sequence[int]) -> str:
        """Readable text; unknown pieces become ⁇."""
        texts: list[str] = []
        added = {token.id: token.content for token in self.added_tokens}
        for is_added, group in itertools.groupby(map(int, ids), added.__contains__):
            if is_added:
                texts += [added[index] for index in group]
            else:
                texts.append(self._processor.decode(list(group)))
        return ' '.join(texts)

    def encode_with_masks(self, text: str) -> list[int]:
        """The ids of a text in which `[MASK]` stands for the mask piece."""
        ids: list[int] = []
        for index, part in enumerate(text.split('[MASK]')):
            if index:
                ids.append(self.mask_id)
            part_ids = self.encode([part])[0]
            # After a mask, "." is a piece of its own, without the space that starts a text.
            if part_ids and index and self.pieces[part_ids[0]] == _SPACE and self._is_glued(part):
                part_ids = part_ids[1:]
            ids += part_ids
        return ids

    def changes_piece(self, piece: str, normalization: Normalization) -> bool:
        """Whether a normalisation leaves nothing like this piece, as SentencePiece shows it."""
        text = piece.replace(_SPACE, ' ').strip()
        normalize = self._processor.normalize
        return normalize(normalization(text)) != normalize(text)

    def _is_glued(self, part: str) -> bool:
        """Whether what follows a mask does so without a space, some of which have no width."""
        shown = self._processor.normalize(self.normalization(f']{part}'))
        return not shown.removeprefix(f'{_SPACE}]').startswith(_SPACE)

    @functools.cached_property
    def starts_word(self) -> Bool[np.ndarray, 'vocab']:
        """Which pieces start a word, for whole-word masking (docs/REFERENCE.md, 2).

        Those that begin with ▁ or <, are punctuation, or hold a character outside a–z; added
        tokens.
        """
        added = {token.id for token in self.added_tokens}
        return np.array(
            [index in added or _starts_word(piece) for index, piece in enumerate(self.pieces)]
        )

    @functools.cached_property
    def ordinary_ids(self) -> Int32[np.ndarray, 'ordinary']:
        """The pieces that stand for text: not padding, unknown, control or unused."""
        processor, special = self._processor, set(_SPECIAL.values())
        special |= {token.content for token in self.added_tokens if token.special}
        ordinary = [
            index
            for index, piece in enumerate(self.pieces[: self.num_model_pieces])
            if piece not in special
            and not processor.is_control(index)
            and not processor.is_unknown(index)
            and not processor.is_unused(index)
        ]
        added = range(self.num_model_pieces, self.vocab_size)
        ordinary += [index for index in added if self.pieces[index] not in special]
        return np.array(ordinary, np.int32)

    @functools.cached_property
    def learned_ids(self) -> Int32[np.ndarray, 'learned']:
        """The pieces that were learned from text: ordinary ones, but not bytes or given symbols."""
        processor = self._processor
        learned = [
            index
            for index in self.ordinary_ids.tolist()
            # SentencePiece gives symbols that are not learned the score 0.
            if index < self.num_model_pieces
            and not processor.is_byte(index)
            and processor.get_score(index) != 0
        ]
        return np.array(learned, np.int32)

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


def _starts_word(piece: str) -> bool:
    is_plain = all('a' <= letter <= 'z' for letter in piece.lower())
    return piece[0] in f'{_SPACE}<' or piece in _PUNCTUATION or not is_plain
