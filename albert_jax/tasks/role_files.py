"""Files of semantic roles: CoNLL-U with columns of predicates and roles, and CoNLL-2009.

After the columns of the words stands one that marks the predicates, then a column for each of them
in their order, with the roles of the words for that predicate.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from albert_jax.cli.errors import UserError
from albert_jax.cli.json_text import check_text, is_visible
from albert_jax.cli.notes import note
from albert_jax.tasks.conll import Block, blocks_of, check_has_text, is_word_id, split_lines
from albert_jax.tasks.role_layout import (
    CONLL_2009,
    CONLL_U,
    FORM,
    NOTHING,
    NUM_CONLLU,
    VERB,
    Layout,
    Sentence,
)


class PredicateMarks(NamedTuple):
    """The column in which a user has the predicates, and the values there that mark them."""

    column: int
    # Empty for all but `_`.
    values: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> 'PredicateMarks':
        """Of COLUMN or COLUMN:VALUE,VALUE.

        Raises:
          UserError: if it is something else.
        """
        column, colon, values = text.partition(':')
        names = tuple(value.strip() for value in values.split(',')) if colon else ()
        if (
            not (column.isascii() and column.isdigit())
            or len(column) > 4
            or not all(map(is_visible, names))
        ):
            raise UserError(
                f'--predicates={text}: give a column, counted from 0, and perhaps the values that '
                f'mark predicates there, as in 10 or 3:VERB,AUX.'
            )
        return cls(int(column), names)


class _Word(NamedTuple):
    """A line of a word."""

    where: str
    number: int
    fields: tuple[str, ...]


def has_columns(blocks: Sequence[Block]) -> bool:
    """Whether the first line that is no comment may be of one of the layouts, and no sentence."""
    first = next((line for b in blocks for line in b if not line.text.startswith('#')), None)
    if first is None:
        return False
    has_spaces = len(first.fields) >= NUM_CONLLU and first.fields[0].isdigit()
    return first.text.count('\t') >= 2 or has_spaces


def read_sentences(
    path: Path, text: str, is_labelled: bool, marks: PredicateMarks | None = None
) -> list[Sentence]:
    """The sentences of a file that have predicates; a note tells how many have none.

    Args:
      path: of the file, for messages.
      text: its content.
      is_labelled: whether its columns of roles are read.
      marks: where the predicates are, if not in the column of the layout.

    Raises:
      UserError: if a line is of no layout, columns do not fit together, or there are no predicates.
    """
    lines = split_lines(text)
    _check_version(path, lines)
    blocks = [(block, words) for block in blocks_of(text) if (words := _words(path, block))]
    all_words = [word for _, words in blocks for word in words]
    if not all_words:
        raise UserError(f'{path} has no sentences.')
    check_has_text(path, [word.fields[FORM] for word in all_words])
    layout = _layout(all_words)
    sentences: list[Sentence] = []
    verbs: list[_Verb] = []
    # What is behind the last sentence with a predicate, and how many lines that is in all.
    before, num_done = '', 0
    for block, words in blocks:
        _check_words(words)
        predicates = _predicates(words, layout, marks)
        roles = _roles(words, predicates, layout) if marks is None else None
        begin, end = block[0].number - 1, block[-1].number
        before += ''.join(f'{line}\n' for line in lines[num_done:begin])
        num_done = end
        numbers = {word.number for word in words}
        sentence = Sentence(
            words[0].where,
            tuple(word.fields[FORM] for word in words),
            predicates,
            _without_verbs(roles) if roles and is_labelled else None,
            layout,
            tuple(lines[begin:end]),
            tuple(number in numbers for number in range(begin + 1, end + 1)),
            before,
        )
        if predicates:
            sentences.append(sentence)
            verbs += _verbs(words, predicates, roles or ())
            before = ''
        elif marks is None:
            before += ''.join(f'{line}\n' for line in lines[begin:end])
        else:
            before = sentence.render({})
    if not sentences:
        raise UserError(_no_predicates(path, all_words, layout, marks))
    # Without the end of the last line, which the file may not have.
    after = before + '\n'.join(lines[num_done:])
    sentences[-1] = dataclasses.replace(sentences[-1], after=after)
    _check_labels(path, sentences)
    _check_verbs(verbs)
    if len(sentences) < len(blocks):
        num_others = len(blocks) - len(sentences)
        note(f'{path}: {num_others} of {len(blocks)} sentences have no predicate and no example.')
    return sentences


def _check_version(path: Path, lines: Sequence[str]) -> None:
    for number, line in enumerate(lines, 1):
        if line.startswith('# global.columns') and 'ARGHEADS' in line:
            raise UserError(
                f'{path}, line {number}: the roles are in one column (UP:ARGHEADS), as in version '
                f'2 of Universal Propositions; give a file with a column for each predicate, as in '
                f'version 1.'
            )


def _words(path: Path, block: Block) -> list[_Word]:
    """The lines of a block that are words."""
    words: list[_Word] = []
    for line in block:
        if line.text.startswith('#'):
            continue
        where = f'{path}, line {line.number}'
        fields = tuple(field.strip(' ') for field in line.text.split('\t'))
        if len(fields) < NUM_CONLLU:
            raise UserError(
                f'{where} has {len(fields)} column(s); CoNLL-U with predicate columns has 11 or '
                f'more and CoNLL-2009 14 or more, with tabs.'
            )
        if is_word_id(fields[0], where):
            words.append(_Word(where, line.number, fields))
    return words


def _layout(words: Sequence[_Word]) -> Layout:
    """CoNLL-2009 where FILLPRED is Y or _ in every line, and CoNLL-U otherwise."""
    column = CONLL_2009.predicate_columns[0]
    if not all(len(word.fields) >= CONLL_2009.first_role for word in words):
        return CONLL_U
    fills = {word.fields[column] for word in words}
    heads = [[word.fields[place].isdigit() for word in words] for place in (6, 9)]
    has_heads = all(heads[1]) and not any(heads[0])
    if fills <= {CONLL_2009.mark, NOTHING} and (CONLL_2009.mark in fills or has_heads):
        return CONLL_2009
    return CONLL_U


def _check_words(words: Sequence[_Word]) -> None:
    """Refuses a sentence whose ids do not count its words, or whose lines differ in length."""
    first = words[0]
    for number, word in enumerate(words, 1):
        form = check_text(word.fields[FORM], word.where)
        if word.fields[0] != str(number):
            raise UserError(
                f'{word.where}: the id is {word.fields[0]}, but this is word {number} of its '
                f'sentence; sentences have a blank line between them.'
            )
        if not form:
            raise UserError(f'{word.where}: the word (FORM) is empty.')
        if len(word.fields) != len(first.fields):
            raise UserError(
                f'{word.where} has {len(word.fields)} columns, but line {first.number} of the same '
                f'sentence has {len(first.fields)}; a sentence has as many in each line.'
            )


def _predicates(
    words: Sequence[_Word], layout: Layout, marks: PredicateMarks | None
) -> tuple[int, ...]:
    column, width = (
        layout.predicate_columns[0] if marks is None else marks.column,
        len(words[0].fields),
    )
    if column >= width and marks is None:
        return ()
    if column >= width:
        raise UserError(
            f'{words[0].where} has {width} columns, counted from 0; --predicates names column '
            f'{column}.'
        )
    cells = [word.fields[column] for word in words]
    if not any(cells):
        # Universal Propositions leave the columns of sentences without predicates empty.
        return ()
    for word, cell in zip(words, cells, strict=True):
        if not is_visible(cell):
            raise UserError(
                f'{word.where}: column {column}, counted from 0, marks predicates and is empty; '
                f'write {NOTHING} where there is none.'
            )
    values = marks.values if marks else (layout.mark,) if layout.mark else ()
    return tuple(
        place for place, cell in enumerate(cells) if (cell in values if values else cell != NOTHING)
    )


def _roles(
    words: Sequence[_Word], predicates: Sequence[int], layout: Layout
) -> list[list[str]] | None:
    """The roles for each predicate, V among them; None where there are no columns of them."""
    width = len(words[0].fields)
    columns = [[word.fields[c] for word in words] for c in range(layout.first_role, width)]
    # A tab at the end of each line makes one more column.
    while columns and not any(columns[-1]):
        columns.pop()
    if not predicates:
        columns = [column for column in columns if set(column) - {NOTHING}]
    if not columns:
        return None
    if len(columns) != len(predicates):
        names = ', '.join(words[place].fields[FORM] for place in predicates) or 'none'
        raise UserError(
            f'{words[0].where}: the sentence has {len(predicates)} predicate(s) ({names}) and '
            f'{len(columns)} column(s) of roles; each predicate has one.'
        )
    for column in columns:
        for word, role in zip(words, column, strict=True):
            if not is_visible(role):
                raise UserError(
                    f'{word.where}: the role is empty; write {NOTHING} at words without one.'
                )
            if ' ' in role:
                raise UserError(f'{word.where}: the role {role!r} has a space, as no role has.')
            if set('()*') & set(role):
                raise UserError(
                    f'{word.where}: {role!r} is part of a span in brackets; roles stand at head '
                    f'words, such as ARG0.'
                )
    return columns


def _without_verbs(columns: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(NOTHING if role == VERB else role for role in c) for c in columns)


class _Verb(NamedTuple):
    """A predicate with V in its column."""

    where: str
    word: str
    # Whether one is at the predicate itself.
    is_own: bool


def _verbs(
    words: Sequence[_Word], predicates: Sequence[int], columns: Sequence[Sequence[str]]
) -> list[_Verb]:
    return [
        _Verb(words[place].where, words[place].fields[FORM], column[place] == VERB)
        for place, column in zip(predicates, columns, strict=False)
        if VERB in column
    ]


def _check_verbs(verbs: Sequence[_Verb]) -> None:
    """Refuses columns of roles in another order than their predicates.

    Single predicates are of several words, or annotated at another one.
    """
    others = [verb for verb in verbs if not verb.is_own]
    if 2 * len(others) > len(verbs):
        raise UserError(
            f'{others[0].where}: {others[0].word!r} is a predicate, but its column of roles has '
            f'{VERB} at another word, and so have {len(others)} of {len(verbs)}; columns of roles '
            f'stand in the order of their predicates.'
        )


def _no_predicates(
    path: Path, words: Sequence[_Word], layout: Layout, marks: PredicateMarks | None
) -> str:
    if marks is None and all(len(word.fields) == NUM_CONLLU for word in words):
        return (
            f'{path} has the {NUM_CONLLU} columns of CoNLL-U, and none behind them that marks '
            f'predicates; predict finds them by another column with --predicates=COLUMN, or '
            f'--predicates=COLUMN:VALUE as in 3:VERB.'
        )
    if marks is None:
        how = f'with {layout.mark} ' if layout.mark else ''
        return (
            f'{path} has no predicates: column {layout.predicate_columns[0]}, counted from 0, '
            f'marks them {how}in {layout.name}, and does so in no line.'
        )
    of_values = f' has none of {", ".join(marks.values)}' if marks.values else f' is {NOTHING}'
    return f'{path} has no predicates: column {marks.column}, counted from 0,{of_values}.'


def _check_labels(path: Path, sentences: Sequence[Sentence]) -> None:
    """Refuses a file in which some sentences with predicates have columns of roles only."""
    known = [sentence for sentence in sentences if sentence.roles is not None]
    if known and len(known) < len(sentences):
        first = next(sentence for sentence in sentences if sentence.roles is None)
        raise UserError(
            f'{first.where}: the sentence has {len(first.predicates)} predicate(s) and no columns '
            f'of roles, while others of {path} have them.'
        )
