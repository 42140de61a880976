"""Files and lines for tagging that would be misread: other files, other columns, cut words."""

import collections
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from albert_jax.cli.errors import UserError
from albert_jax.tasks.conll import Block, is_conllu, lines_of
from albert_jax.tasks.tables import text_ending

# 7, 7., T7, 3-7: a running number, perhaps with that of its sentence.
_NUMBERED = re.compile(r'[A-Za-z]{0,2}[0-9]{1,18}(?:[-.:][0-9]{1,18})*[.)]?')
_DIGITS = re.compile('[0-9]+')
# Of a line that names the columns.
_WORD_NAMES = frozenset(('word', 'words', 'token', 'tokens', 'form'))
_TAG_NAMES = frozenset(
    ('tag', 'tags', 'label', 'labels', 'pos', 'upos', 'xpos', 'ner', 'ner_tag', 'ner_tags')
)
# What is in all lines of files of other kinds.
_MARKS = {'.csv': ',', '.json': '"', '.jsonl': '"'}


def check_kind(path: Path, blocks: Sequence[Block]) -> None:
    """Refuses a file of another kind by its ending and what is in its lines.

    Raises:
      UserError: if it is CSV or JSON.
    """
    mark = _MARKS.get(text_ending(path))
    if mark and all(mark in line.text for line in lines_of(blocks)):
        check_ending(path)


def check_ending(path: Path) -> None:
    """Refuses a file with the ending of another kind.

    Raises:
      UserError: if it has one.
    """
    if text_ending(path) in _MARKS:
        raise UserError(
            f'{path} is not of tagging: give CoNLL columns (.conll, .txt, .tsv, .conllu), or '
            f'sentences, a line each with spaces between the words (.txt or standard input).'
        )


def check_sentences(blocks: Sequence[Block], origin: str) -> None:
    """Refuses lines that are CoNLL-U or have columns between tabs, and are no sentences.

    Args:
      blocks: of the lines.
      origin: what to call them in messages.

    Raises:
      UserError: if they are.
    """
    lines = lines_of(blocks)
    widths = {len(line.fields) for line in lines}
    if is_conllu(blocks):
        what, ending = 'is CoNLL-U and has no sentences', '.conllu'
    elif len(lines) > 1 and len(widths) == 1 and all('\t' in line.text for line in lines):
        what, ending = f'has {widths.pop()} columns with tabs between them in each line', '.conll'
    else:
        return
    raise UserError(
        f'{origin} {what}; give it as a file with the ending {ending}, or give sentences, a line '
        f'each with spaces between the words.'
    )


def check_widths(path: Path, blocks: Sequence[Block], tag_column: int | None) -> None:
    """Refuses a sentence whose lines have more and fewer columns, where a word would be cut.

    A line of one column lacks its tag, and no word. Tags in a column from the left are where they
    are if there are tabs between the columns, whatever is behind them.

    Args:
      path: of the file, for messages.
      blocks: its words.
      tag_column: of the tags, from the end if negative; None if they are not read.

    Raises:
      UserError: if there is such a sentence.
    """
    for block in blocks:
        lines = [line for line in block if len(line.fields) > 1]
        widths = collections.Counter(len(line.fields) for line in lines)
        if len(widths) < 2:
            continue
        is_from_the_left = tag_column is None or tag_column >= 0
        if is_from_the_left and all('\t' in line.text for line in lines):
            continue
        usual = widths.most_common()[0][0]
        odd = next(line for line in lines if len(line.fields) != usual)
        other = next(line for line in lines if len(line.fields) == usual)
        raise UserError(
            f'{path}, line {odd.number} has {len(odd.fields)} columns, and line {other.number} of '
            f'the same sentence has {usual}; a word with a space in it needs tabs between the '
            f'columns, and every line as many of them.'
        )


def check_header(path: Path, blocks: Sequence[Block], word_column: int, tag_column: int) -> None:
    """Refuses a line that names the columns, the first or that of a file put behind another.

    Args:
      path: of the file, for messages.
      blocks: its words.
      word_column: of the words.
      tag_column: of the tags, from the end if negative.

    Raises:
      UserError: if there is one.
    """
    named, tags = [], set[str]()
    for line in lines_of(blocks):
        word, tag = line.fields[word_column], line.fields[tag_column].strip()
        if word.lower() in _WORD_NAMES and tag.lower() in _TAG_NAMES:
            named.append((line.number, word, tag))
        else:
            tags.add(tag)
    for number, word, tag in named:
        if tag not in tags:
            raise UserError(
                f'{path}, line {number} names the columns ({word} and {tag}); files of columns '
                f'have no header: remove the line.'
            )


def check_words(
    path: Path, blocks: Sequence[Block], word_column: int, tag_column: int | None
) -> None:
    """Refuses a file in which the words' column holds numbers or names of the lines instead.

    Only where all sentences are so: a sentence may consist of numbers.

    Args:
      path: of the file, for messages.
      blocks: its words.
      word_column: of the words.
      tag_column: of the tags; None if they are not read.

    Raises:
      UserError: if the column is 1, 2, 3, … in each sentence or through the file, or the same in
        all of a sentence, and another column could be that of the words.
    """
    lines = lines_of(blocks)
    width = min((len(line.fields) for line in lines), default=0)
    of_tags = None if tag_column is None else tag_column % max(width, 1)
    candidates = [c for c in range(word_column + 1, width) if c != of_tags]
    # With a number and a tag in each line, a single sentence may be one of numbers.
    is_short = of_tags is not None and not candidates and len(blocks) > 1
    others = [
        column
        for column in ([*range(word_column + 1, width)] if is_short else candidates)
        if _varies(blocks, column)
    ]
    sentences = [[line.fields[word_column] for line in b] for b in blocks] if others else []
    if _are_running(sentences) or (not is_short and _are_numbered(sentences)):
        what = 'running numbers'
    elif not is_short and _are_names(sentences):
        what = 'the same text in all lines of a sentence'
    else:
        return
    advice = (
        'give every line its word before its tag'
        if is_short
        else f'name the column of the words with task.word_column, as in '
        f'--config.task.word_column={others[0]}, or remove that column'
    )
    raise UserError(
        f'{path}: column {word_column}, counted from 0, should have the words and has {what} '
        f'(line {lines[0].number}: {lines[0].fields[word_column]!r}); {advice}.'
    )


def check_tags(path: Path, blocks: Sequence[Block], word_column: int, tag_column: int) -> None:
    """Refuses a file in which the tags' column numbers the words.

    Args:
      path: of the file, for messages.
      blocks: its words.
      word_column: of the words.
      tag_column: of the tags, from the end if negative.

    Raises:
      UserError: if it does, a sentence has three words or more, and another column could be that of
        the tags.
    """
    lines = lines_of(blocks)
    width = min(len(line.fields) for line in lines)
    others = [c for c in range(width) if c not in (word_column, tag_column % width)]
    sentences = [[line.fields[tag_column].strip() for line in block] for block in blocks]
    # Tags may be 0 and 1.
    if others and max(map(len, sentences)) > 2 and _are_running(sentences):
        raise UserError(
            f'{path}: column {tag_column} should have the tags and has running numbers (line '
            f'{lines[0].number}: {sentences[0][0]!r}); name the column of the tags with '
            f'task.tag_column, as in --config.task.tag_column={others[-1]}.'
        )


def _varies(blocks: Sequence[Block], column: int) -> bool:
    """Whether lines of a sentence differ in a column; of the file, if sentences have one each."""
    groups = blocks if any(len(block) > 1 for block in blocks) else [lines_of(blocks)]
    return any(len({line.fields[column] for line in group}) > 1 for group in groups)


def _are_running(sentences: Sequence[Sequence[str]]) -> bool:
    """Whether all are numbers that go up by one: from 0 or 1 in each sentence, or all through."""
    # Beside the ranges and empty nodes of CoNLL-U.
    kept = [[w for w in words if not re.fullmatch(r'\d+[-.]\d+', w)] for words in sentences]
    numbers: list[list[int]] = []
    for words in kept:
        if not all(re.fullmatch('[0-9]{1,18}', word) for word in words):
            return False
        numbers.append([int(word) for word in words])
    flat = [*itertools.chain(*numbers)]
    if len(flat) < 2:
        return False
    through = flat == list(range(flat[0], flat[0] + len(flat))) and len(sentences) > 1
    return through or any(
        all(n == list(range(start, start + len(n))) for n in numbers) for start in (0, 1)
    )


def _are_numbered(sentences: Sequence[Sequence[str]]) -> bool:
    """Whether all are numbers in any spelling, which run or, in each of many sentences, go up."""
    words = [*itertools.chain(*sentences)]
    if not words or not all(map(_NUMBERED.fullmatch, words)):
        return False
    numbers = [[[int(x) for x in _DIGITS.findall(word)] for word in one] for one in sentences]
    if _are_running([[str(parts[-1]) for parts in one] for one in numbers]):
        return True
    are_going_up = all(a < b for one in numbers for a, b in itertools.pairwise(one))
    return are_going_up and len(sentences) > 1 and any(len(one) > 1 for one in sentences)


def _are_names(sentences: Sequence[Sequence[str]]) -> bool:
    """Whether each sentence has one text only, in every line: the name of its document."""
    num_long = sum(len(words) > 1 for words in sentences)
    return num_long > 1 and all(len(set(words)) == 1 for words in sentences)
