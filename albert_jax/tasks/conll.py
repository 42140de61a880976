"""Files of CoNLL columns and of CoNLL-U: a word a line, blank lines between sentences."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from albert_jax.cli.errors import UserError
from albert_jax.cli.json_text import is_visible

# Of CoNLL-U's ten columns.
_FORM, _UPOS, _NUM_CONLLU = 1, 3, 10
# What CoNLL-U writes where there is nothing.
_NOTHING = '_'
# The ids of a word, and of a range of words that are written as one or a word that is not written.
_WORD_ID, _OTHER_ID = re.compile('[0-9]+'), re.compile(r'[0-9]+[-.][0-9]+')
_LINE_END = re.compile('\r*\n|\r')
# A byte-order mark before a word.
_MARK = re.compile(r'^\ufeff(?=\S)')


class Line(NamedTuple):
    """A line that is not blank."""

    number: int
    text: str
    fields: tuple[str, ...]


class Row(NamedTuple):
    """A word and its tag, if that is known."""

    # Of the line.
    number: int
    word: str
    tag: str | None


# Lines with no blank one between them: a sentence.
Block = list[Line]


def split_lines(text: str) -> list[str]:
    """The lines of a text, whatever system wrote it."""
    return _LINE_END.split(text)


def blocks_of(text: str) -> list[Block]:
    """The lines of a text by sentence; -DOCSTART- ends one as a blank line does.

    Columns have tabs between them, or else spaces: any other white space, such as a no-break space,
    is part of a word.
    """
    blocks: list[Block] = [[]]
    # A file within another begins with the mark.
    lines = (_MARK.sub('', line) for line in split_lines(text))
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith('-DOCSTART-'):
            blocks.append([])
        else:
            blocks[-1].append(Line(number, line, _fields(line)))
    return [block for block in blocks if block]


def _fields(line: str) -> tuple[str, ...]:
    if '\t' in line:
        return tuple(field.strip(' ') for field in line.split('\t'))
    return tuple(re.split(' +', line.strip(' ')))


def split_at_any_space(blocks: Sequence[Block]) -> list[Block] | None:
    """The blocks with columns that have other white space between them, if all lines are so."""
    widened = [[line._replace(fields=tuple(line.text.split())) for line in b] for b in blocks]
    has_other = all(
        len(line.fields) == 1 and len(wide.fields) > 1
        for block, wide_block in zip(blocks, widened, strict=True)
        for line, wide in zip(block, wide_block, strict=True)
    )
    return widened if has_other else None


def lines_of(blocks: Iterable[Block]) -> list[Line]:
    """All lines in order."""
    return [line for block in blocks for line in block]


def column_rows(
    path: Path, blocks: Sequence[Block], word_column: int, tag_column: int | None
) -> list[list[Row]]:
    """The words of each sentence of a file of columns.

    Args:
      path: of the file, for messages.
      blocks: its lines without comments.
      word_column: of the words.
      tag_column: of the tags, from the end if negative; None if they are not read.

    Raises:
      UserError: if a line has too few columns, or its word or tag is empty.
    """
    if word_column:
        blocks = _without_other_ids(blocks)
    return [
        [_row(f'{path}, line {line.number}', line, word_column, tag_column) for line in block]
        for block in blocks
    ]


def _without_other_ids(blocks: Sequence[Block]) -> list[Block]:
    """Leaves the ranges and empty nodes of CoNLL-U out, where the first column has its ids."""
    ids = [line.fields[0] for line in lines_of(blocks)]
    are_words = [_WORD_ID.fullmatch(name) is not None for name in ids]
    # WebAnno's 1-1, 1-2, 2-1 number words too.
    if not any(are_words) or not all(
        is_word or _OTHER_ID.fullmatch(name) for is_word, name in zip(are_words, ids, strict=True)
    ):
        return list(blocks)
    kept = [[line for line in b if _WORD_ID.fullmatch(line.fields[0])] for b in blocks]
    return [block for block in kept if block]


def _row(where: str, line: Line, word_column: int, tag_column: int | None) -> Row:
    width = len(line.fields)
    if word_column >= width:
        raise UserError(
            f'{where} has {width} column(s); the word is in column {word_column}, counted from 0 '
            f'(task.word_column).'
        )
    word = line.fields[word_column]
    if not word:
        raise UserError(f'{where}: the word is empty (column {word_column}, counted from 0).')
    if tag_column is None:
        return Row(line.number, word, None)
    if width < 2 or not -width <= tag_column < width:
        raise UserError(
            f'{where} has {width} column(s); a word and its tag are needed (task.tag_column is '
            f'{tag_column}).'
        )
    if tag_column % width == word_column:
        raise UserError(
            f'{where}: the word and its tag are both in column {word_column}, counted from 0; set '
            f'task.word_column and task.tag_column.'
        )
    tag = line.fields[tag_column].strip()
    if not is_visible(tag):
        end = line.text.endswith('\t') and tag_column % width == width - 1
        what = 'remove the tab at the end of the line, or ' if end else ''
        raise UserError(
            f'{where}: the tag is empty; {what}name the column of the tags with task.tag_column, '
            f'which is {tag_column}.'
        )
    return Row(line.number, word, tag)


def is_conllu(blocks: Sequence[Block]) -> bool:
    """Whether all lines but the comments are those of CoNLL-U."""
    lines = [line for line in lines_of(blocks) if not line.text.startswith('#')]
    return bool(lines) and all(
        line.text.count('\t') == _NUM_CONLLU - 1
        and (_WORD_ID.fullmatch(line.fields[0]) or _OTHER_ID.fullmatch(line.fields[0]))
        for line in lines
    )


def conllu_rows(path: Path, blocks: Sequence[Block]) -> list[list[Row]]:
    """The words of each sentence of a CoNLL-U file with their UPOS; None if no word has one.

    Raises:
      UserError: if a line is not of CoNLL-U, a word is missing, some have no UPOS, or the ids of a
        sentence do not go up.
    """
    for block in blocks:
        _check_ids(path, block)
    sentences = [
        [row for line in block if (row := _conllu_row(path, line)) is not None] for block in blocks
    ]
    sentences = [rows for rows in sentences if rows]
    rows = [row for rows in sentences for row in rows]
    check_has_text(path, [row.word for row in rows])
    untagged = next((row for row in rows if row.tag is None), None)
    if untagged and any(row.tag is not None for row in rows):
        raise UserError(
            f'{path}, line {untagged.number}: the word {untagged.word!r} has no UPOS, while others '
            f'have one; tag it.'
        )
    return sentences


def _check_ids(path: Path, block: Block) -> None:
    """Refuses ids that start anew, where a blank line between two sentences is missing."""
    last = -1
    for line in block:
        name = line.fields[0]
        if line.text.startswith('#') or not re.fullmatch('[0-9]{1,18}', name):
            continue
        if int(name) <= last:
            raise UserError(
                f'{path}, line {line.number}: the id {name} follows {last}; sentences have a blank '
                f'line between them.'
            )
        last = int(name)


def check_has_text(path: Path, words: Sequence[str]) -> None:
    """Refuses a treebank that is published without its words.

    Raises:
      UserError: if it is one.
    """
    if len(words) > 1 and all(word == _NOTHING for word in words):
        raise UserError(
            f'{path} has no words: FORM is {_NOTHING} in every line; the treebank comes without '
            f'its text, which has to be merged first.'
        )


def is_word_id(field: str, where: str) -> bool:
    """Whether the first column of CoNLL-U is that of a word, and not of a range or an empty node.

    Raises:
      UserError: if it is neither.
    """
    if not _WORD_ID.fullmatch(field) and not _OTHER_ID.fullmatch(field):
        raise UserError(
            f'{where}: the id {field!r} is none of CoNLL-U: a number, a range 1-2, or 1.1.'
        )
    return _WORD_ID.fullmatch(field) is not None


def _conllu_row(path: Path, line: Line) -> Row | None:
    """The word of a line; None for a comment, a range or an empty node."""
    where = f'{path}, line {line.number}'
    if line.text.startswith('#'):
        return None
    fields = line.text.split('\t')
    if len(fields) != _NUM_CONLLU:
        raise UserError(f'{where} has {len(fields)} columns; CoNLL-U has 10, with tabs.')
    if not is_word_id(fields[0], where):
        return None
    word, tag = fields[_FORM].strip(' '), fields[_UPOS].strip()
    for name, is_empty in (('word (FORM)', not word), ('tag (UPOS)', not is_visible(tag))):
        if is_empty:
            raise UserError(f'{where}: the {name} is empty.')
    return Row(line.number, word, None if tag == _NOTHING else tag)
