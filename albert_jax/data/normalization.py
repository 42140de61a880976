"""What happens to text before SentencePiece sees it, and where each character came from.

Text is white-space collapsed, its `` and '' become ", then NFKD, combining marks dropped, lower
case (docs/REFERENCE.md, 2).
"""

import dataclasses
import functools
import re
import sys
import unicodedata
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

_QUOTES = re.compile("``|''")


@functools.cache
def _combining_marks() -> re.Pattern[str]:
    marks = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.combining(chr(code))]
    return re.compile(f'[{"".join(marks)}]+')


class Aligned(NamedTuple):
    """A normalised text; character i of it stands for `[starts[i], ends[i])` of the original."""

    text: str
    starts: Int32[np.ndarray, 'characters']
    ends: Int32[np.ndarray, 'characters']


@dataclasses.dataclass(frozen=True)
class Normalization:
    """What happens to text before SentencePiece sees it; the released English models use all."""

    keep_case: bool = False
    keep_accents: bool = False

    def __call__(self, text: str) -> str:
        """The normalised text, on one line."""
        return self._letters(_QUOTES.sub('"', ' '.join(text.split())))

    def _letters(self, text: str) -> str:
        if not self.keep_accents and not text.isascii():
            text = _combining_marks().sub('', unicodedata.normalize('NFKD', text))
        return text if self.keep_case else text.lower()

    def align(self, text: str) -> Aligned:
        """The normalised text with the place of each of its characters in the original.

        Marks that were dropped belong to the character before them, so that a slice of the
        original never cuts a letter from its accent.
        """
        collapsed, starts, ends = _collapse(text)
        collapsed, starts, ends = _join_quotes(collapsed, starts, ends)
        if not collapsed.isascii():
            starts, ends = self._follow_letters(collapsed, starts, ends)
        return Aligned(self._letters(collapsed), starts, ends)

    def _follow_letters(
        self,
        text: str,
        starts: Int32[np.ndarray, 'before'],
        ends: Int32[np.ndarray, 'before'],
    ) -> tuple[Int32[np.ndarray, 'after'], Int32[np.ndarray, 'after']]:
        # Letter by letter is the same as all at once: what NFKD reorders is dropped.
        lengths = {letter: len(self._letters(letter)) for letter in set(text)}
        counts = np.array([lengths[letter] for letter in text])
        kept = np.flatnonzero(counts)
        following = np.append(kept[1:], len(text)) if len(kept) else kept
        repeats = counts[kept]
        return np.repeat(starts[kept], repeats), np.repeat(ends[following - 1], repeats)


def _collapse(text: str) -> Aligned:
    collapsed = ' '.join(text.split())
    if collapsed == text:
        offsets = np.arange(len(text) + 1, dtype=np.int32)
        return Aligned(text, offsets[:-1], offsets[1:])
    starts, ends, end = [], [], 0
    for word in re.finditer(r'\S+', text):
        if starts:
            starts.append([end])
            ends.append([word.start()])
        end = word.end()
        starts.append(range(word.start(), end))
        ends.append(range(word.start() + 1, end + 1))
    return Aligned(collapsed, _flat(starts), _flat(ends))


def _flat(parts: list[range | list[int]]) -> Int32[np.ndarray, 'offsets']:
    return np.array([place for part in parts for place in part], np.int32)


def _join_quotes(
    text: str, starts: Int32[np.ndarray, 'before'], ends: Int32[np.ndarray, 'before']
) -> Aligned:
    seconds = [match.start() + 1 for match in _QUOTES.finditer(text)]
    if not seconds:
        return Aligned(text, starts, ends)
    ends = ends.copy()
    ends[np.array(seconds) - 1] = ends[seconds]
    return Aligned(_QUOTES.sub('"', text), np.delete(starts, seconds), np.delete(ends, seconds))
