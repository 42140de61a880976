"""What the lines of a tagging file are: comments, columns or plain sentences."""

import dataclasses
import operator
import re
from collections.abc import Callable, Collection, Sequence
from typing import Literal

from albert_jax.tasks.conll import Block, Line, lines_of

# CoNLL-2012's marks of a document.
_DOCUMENT = re.compile(r'#(begin|end) document\b')
# `# sent_id = 1` of CoNLL-U, `# id 1` of MultiCoNER.
_DIRECTIVE = re.compile(r'#\s*(?:(?:id|sent_id|text|newdoc|newpar)\b|[\w.:-]+\s*=)')
# A tag of which nothing says that it is one: it can also be the last word of a sentence.
_SENTENCE_END = frozenset('.!?…。！？।;:,"\')»”')
# Tags of the treebanks, not words: NNP, I-NP, -LRB-.
_TAG_LIKE = re.compile(r'[A-Z0-9$#.,:;\'"`|()*+_=<>&/!?\[\]{}-]+')

_NUMBER = re.compile(r'[-+]?[0-9][0-9.,:/-]*|[_-]')
# In letters: punct, propn; and of tags that are hardly there twice: n, vb.
_LONGEST_TAG, _LONGEST_LETTERS = 5, 2


@dataclasses.dataclass(frozen=True)
class _Words:
    """What the lines that begin with no # say about those that do.

    Args:
      widths: how many columns they have.
      tags: that they have.
      tag_column: of the tags.
      is_iob: whether a text is a tag, where this can be seen from its form.
      all_begin: every sentence of the file begins with a line that begins with #.
    """

    widths: Collection[int]
    tags: Collection[str]
    tag_column: int
    is_iob: Callable[[str], bool] | None
    all_begin: bool

    def is_comment(self, line: Line, is_first: bool) -> bool:
        """Whether a line, which may be the first of its sentence, is no word."""
        if not line.text.startswith('#'):
            return False
        tag = _tag(line, self.tag_column)
        is_known = tag is not None and (self.is_iob(tag) if self.is_iob else tag in self.tags)
        fits = not self.widths or len(line.fields) in self.widths
        if fits and is_known:
            return False
        if _DOCUMENT.match(line.text) or (_DIRECTIVE.match(line.text) and (is_first or not fits)):
            return True
        has_space = line.text.strip() == '#' or line.text[1:2].isspace()
        if not fits:
            return not is_known and (has_space or (is_first and len(line.fields) > 1))
        if self.is_iob is None and line.text[1:2] == '\t':
            return False
        return is_first and has_space and (self.is_iob is not None or self.all_begin)


def without_comments(
    blocks: Sequence[Block], tag_column: int, is_iob: Callable[[str], bool] | None
) -> tuple[list[Block], int]:
    """The lines that are words, and how many comments there were between them.

    A line that begins with # is a word (`# O`, `#oslo B-LOC`) where it has as many columns as the
    others and a tag that others have, and within a sentence. `# id 1`, `# text = …` are comments.

    Args:
      blocks: of a file of columns.
      tag_column: of the tags.
      is_iob: whether a text is a tag, where this can be seen from its form.
    """
    lines = [line for line in lines_of(blocks) if not line.text.startswith('#')]
    words = _Words(
        widths={len(line.fields) for line in lines},
        tags={tag for line in lines if (tag := _tag(line, tag_column)) is not None},
        tag_column=tag_column,
        is_iob=is_iob,
        all_begin=bool(lines) and len(blocks) > 1 and all(b[0].text[0] == '#' for b in blocks),
    )
    kept: list[Block] = []
    for block in blocks:
        sentence: Block = []
        for line in block:
            if not words.is_comment(line, is_first=not sentence):
                sentence.append(line)
        if sentence:
            kept.append(sentence)
    return kept, len(lines_of(blocks)) - len(lines_of(kept))


def _tag(line: Line, tag_column: int) -> str | None:
    width = len(line.fields)
    if width < 2 or not -width <= tag_column < width:
        return None
    return line.fields[tag_column].strip()


Kind = Literal['columns', 'likely columns', 'sentences', 'unclear']


def kind_of(
    blocks: Sequence[Block],
    tag_column: int,
    tags: Collection[str],
    is_iob: Callable[[str], bool] | None,
) -> Kind:
    """Whether lines without known tags are columns, a word each, or sentences.

    Args:
      blocks: of the file, without comments.
      tag_column: where tags would be.
      tags: that the model has.
      is_iob: whether a text is a tag, where this can be seen from its form.
    """
    lines = lines_of(blocks)
    if not lines:
        return 'sentences'
    if all('\t' in line.text for line in lines):
        # With a whole sentence before or behind a tab, as beside its number.
        width = min(len(line.fields) for line in lines)
        num_long = max(sum(' ' in line.fields[n] for line in lines) for n in (0, width - 1))
        return 'columns' if num_long <= len(lines) / 2 else 'unclear'
    if share_of_tags(lines, tag_column, tags, is_iob) >= 0.5:
        return 'columns'
    widths = {len(line.fields) for line in lines}
    has_long_blocks = len(blocks) > 1 and any(len(block) > 1 for block in blocks)
    if widths == {1} or (len(widths) == 1 and _are_tag_like(lines)):
        # Without blank lines between sentences, each line may be one: I USA.
        return 'columns' if len(blocks) > 1 or len(lines) == 1 else 'likely columns'
    if len(widths) > 1:
        num_single = sum(len(line.fields) == 1 for line in lines)
        return 'unclear' if has_long_blocks and num_single >= len(lines) / 2 else 'sentences'
    return _kind_of_words(lines, has_long_blocks)


def _kind_of_words(lines: Sequence[Line], has_long_blocks: bool) -> Kind:
    """What lines with as many fields each are, some of them no tags of a treebank.

    Args:
      lines: with two fields or more.
      has_long_blocks: blank lines make sentences of several of them.
    """
    if {line.fields[-1] for line in lines} <= _SENTENCE_END:
        return 'sentences'
    if _are_likely_columns(lines, has_long_blocks):
        return 'likely columns'
    return 'unclear' if has_long_blocks else 'sentences'


def share_of_tags(
    lines: Sequence[Line],
    tag_column: int,
    tags: Collection[str],
    is_iob: Callable[[str], bool] | None,
) -> float:
    """How many of the lines have a known tag where a tag would be."""
    found = [tag for line in lines if (tag := _tag(line, tag_column)) is not None]
    num_known = sum(
        (tag in tags or bool(is_iob and is_iob(tag))) and tag not in _SENTENCE_END for tag in found
    )
    return num_known / max(len(lines), 1)


def _are_tag_like(lines: Sequence[Line]) -> bool:
    """Whether all columns but the first look like those of a treebank, and the first does not."""
    rest = [field for line in lines for field in line.fields[1:]]
    return _are_tags(rest) and not all(_TAG_LIKE.fullmatch(line.fields[0]) for line in lines)


def _are_tags(fields: Sequence[str]) -> bool:
    num_alphabetic = sum(any(letter.isalpha() for letter in field) for field in fields)
    return all(map(_TAG_LIKE.fullmatch, fields)) and num_alphabetic >= len(fields) / 2


def _are_likely_columns(lines: Sequence[Line], has_long_blocks: bool) -> bool:
    """Whether each column but the first could be one of lemmas, tags or numbers.

    Args:
      lines: all with as many fields, two or more.
      has_long_blocks: blank lines make sentences of several of them.
    """
    words, *others = zip(*(line.fields for line in lines), strict=True)
    if all(map(_TAG_LIKE.fullmatch, words)):
        return False
    are_marked = [
        _are_tags(column) or _are_lemmas(words, column) or all(map(_NUMBER.fullmatch, column))
        for column in others
    ]
    are_few = [_are_few_and_short(column) for column in others]
    if len(others) == 1:
        # Two words may also be a sentence: Bye bye.
        return are_few[0] or (are_marked[0] and has_long_blocks)
    return all(map(operator.or_, are_marked, are_few)) and any(are_marked)


def _are_few_and_short(column: Sequence[str]) -> bool:
    """Whether they may be tags of any kind: n, v or noun, propn, of which there are few."""
    is_repetitive = len(set(column)) <= len(column) / 2
    longest = _LONGEST_TAG if is_repetitive else _LONGEST_LETTERS
    return all(field.isascii() and len(field) <= longest for field in column)


def _are_lemmas(words: Sequence[str], column: Sequence[str]) -> bool:
    """Whether most begin as the words do."""
    num_alike = sum(
        one[:2].casefold() == other[:2].casefold() for one, other in zip(words, column, strict=True)
    )
    return num_alike > len(words) / 2
