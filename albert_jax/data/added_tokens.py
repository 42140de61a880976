"""Tokens that people add to a vocabulary, found in texts as Hugging Face's `tokenizers` finds them.

They are looked for before the vocabulary cuts what lies between them.
"""

import dataclasses
import functools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from albert_jax.cli.errors import UserError


@dataclasses.dataclass(frozen=True)
class AddedToken:
    """A token that is kept whole; the fields are those of `tokenizers.AddedToken`."""

    content: str
    id: int
    # Takes the white space before it, or after it, with it.
    lstrip: bool = False
    rstrip: bool = False
    # Only where no letter, digit or underscore is beside it.
    single_word: bool = False
    # Looked for in the normalised text, and normalised itself; else in the text as it is given.
    normalized: bool = True
    special: bool = False


def add_pieces(pieces: list[str], tokens: Sequence[AddedToken], origins: Sequence[str]) -> None:
    """Appends the added tokens to the pieces of a vocabulary.

    Args:
      pieces: by their ids.
      tokens: in the order of their ids, which go on where the pieces end, or are those of pieces
        of the same names.
      origins: for each token, what to call its source in messages.

    Raises:
      UserError: if an id is another piece's, follows a gap, or a token is there twice.
    """
    places = {piece: index for index, piece in enumerate(pieces)}
    for token, origin in zip(tokens, origins, strict=True):
        place = places.setdefault(token.content, len(pieces))
        if place != token.id:
            raise UserError(
                f'{origin}: the added token {token.content!r} has the id {token.id}, but '
                + _why_not(token.id, place, pieces)
            )
        if place == len(pieces):
            pieces.append(token.content)


def _why_not(given: int, place: int, pieces: Sequence[str]) -> str:
    if place < len(pieces):
        return f'it is in the vocabulary already, as piece {place}.'
    if 0 <= given < len(pieces):
        return f'that is the piece {pieces[given]!r}; the next free id is {place}.'
    return f'the next free id is {place}; ids must go on where the vocabulary ends.'


class Part(NamedTuple):
    """A slice of a text: an added token, or what lies between two of them."""

    # None for what lies between.
    token_id: int | None
    start: int
    end: int


class Matcher:
    """Finds added tokens: the leftmost first, and of those that start together the longest.

    Args:
      tokens: what to look for.
      contents: how each of them is written in the texts.
    """

    def __init__(self, tokens: Sequence[AddedToken], contents: Sequence[str]) -> None:
        # Of two that are written alike the first is found.
        self._by_content = dict(reversed(list(zip(contents, tokens, strict=True))))
        longest_first = sorted(self._by_content, key=len, reverse=True)
        self._pattern = re.compile('|'.join(map(re.escape, longest_first)))

    def split(self, text: str) -> Iterator[Part]:
        """The parts of a text in order; none of them is empty."""
        done = 0
        for match in self._pattern.finditer(text) if self._by_content else ():
            token = self._by_content[match[0]]
            start, end = match.span()
            if token.single_word and (_is_word(text, start - 1) or _is_word(text, end)):
                continue
            if token.lstrip:
                start = len(text[:start].rstrip())
            if token.rstrip:
                end = len(text) - len(text[end:].lstrip())
            # The one before may have taken the white space between them.
            start = max(start, done)
            if done < start:
                yield Part(None, done, start)
            yield Part(token.id, start, end)
            done = end
        if done < len(text):
            yield Part(None, done, len(text))


def _is_word(text: str, place: int) -> bool:
    """Whether there is a character of a word: letters, marks, digits, underscores and joiners."""
    return 0 <= place < len(text) and _is_word_character(text[place])


@functools.cache
def _is_word_character(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] in 'LM' or category in ('Nd', 'Nl', 'Pc') or character in '\u200c\u200d'
