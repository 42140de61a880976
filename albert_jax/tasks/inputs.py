"""Unlabelled examples from where a user has them: files of a task, lines, standard input."""

import sys
from collections.abc import Iterable
from pathlib import Path

from albert_jax.cli.errors import UserError
from albert_jax.cli.json_text import check_lines, check_text
from albert_jax.cli.notes import note
from albert_jax.tasks.tables import decode, read_text, split_lines
from albert_jax.tasks.task import ExampleT, Task, check_keys, note_empty


def read_input(task: Task[ExampleT], source: str) -> list[ExampleT]:
    """The examples of a file in the task's layout, of lines, or of standard input.

    Args:
      task: of the examples.
      source: a file or folder of the task, a file of lines, or - for lines of standard input.

    Raises:
      UserError: if there are none, or one is not what the task takes.
    """
    path = Path(source)
    if source == '-':
        text = decode(sys.stdin.buffer.read(), 'Standard input')
        examples = parse_lines(task, _lines(text), 'standard input')
    elif path.is_dir() or task.reads_file(path) or '.tar.gz' in source:
        examples = task.read(path, False, is_labelled=False)
    else:
        examples = parse_lines(task, _lines(read_text(path)), source)
    if not examples:
        raise UserError(f'{"Standard input" if source == "-" else source} has no examples.')
    return examples


def _lines(text: str) -> list[str]:
    *lines, last = split_lines(text)
    # What follows the end of the last line is none.
    return [*lines, last] if last else lines


def _without_mark(line: str, number: int) -> str:
    """A line without a byte-order mark, which several files put together have within, too.

    A line of nothing else, but the first, stays the text that it is.
    """
    text = line.removeprefix('\ufeff')
    return text if text.strip() or not number else line


def parse_lines(task: Task[ExampleT], lines: Iterable[str], origin: str) -> list[ExampleT]:
    """An example for each line that is not empty, or that may be, as `Task.parse_line` takes it.

    An example without an `id` is called by the number of its line, from 0. Notes tell how many
    lines between others are empty, how many texts of several are, and how many ids are there again.

    Args:
      task: of the examples.
      lines: with or without their line ends.
      origin: what to call them in messages.

    Raises:
      UserError: if a line is not what the task takes, or all are something else.
    """
    lines = [_without_mark(line.rstrip('\r\n'), number) for number, line in enumerate(lines)]
    check_lines(lines, origin)
    task.check_lines(lines, origin)
    examples = []
    num_empty = num_empty_between = 0
    for number, line in enumerate(lines):
        if not line.strip() and not task.keeps_empty_lines:
            num_empty += 1
            continue
        num_empty_between = num_empty
        where = f'{origin}, line {number + 1}'
        examples.append(task.parse_line(check_text(line, where), where, str(number)))
    if num_empty_between:
        note(f'{origin}: {num_empty_between} empty lines were skipped.')
    note_empty(task, examples, origin)
    check_keys(examples, origin, is_refused=False)
    return examples
