"""Unlabelled examples from where a user has them: files of a task, lines, standard input."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from albert_jax.cli.errors import UserError
from albert_jax.tasks.tables import read_text
from albert_jax.tasks.task import ExampleT, Task


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
        examples = list(parse_lines(task, _standard_input(), 'standard input'))
    elif path.is_dir() or path.suffix in task.file_endings or '.tar.gz' in source:
        examples = task.read(path, False, is_labelled=False)
    else:
        examples = list(parse_lines(task, read_text(path).split('\n'), source))
    if not examples:
        raise UserError(f'{"Standard input" if source == "-" else source} has no examples.')
    return examples


def parse_lines(task: Task[ExampleT], lines: Iterable[str], origin: str) -> Iterator[ExampleT]:
    """An example for each line that is not empty, as `Task.parse_line` takes it.

    Args:
      task: of the examples.
      lines: with or without their line ends.
      origin: what to call them in messages.

    Raises:
      UserError: if a line is not what the task takes.
    """
    for number, line in enumerate(lines):
        if line.strip():
            where = f'{origin}, line {number + 1}'
            yield task.parse_line(line.rstrip('\r\n'), where, str(number))


def _standard_input() -> list[str]:
    content = sys.stdin.buffer.read()
    try:
        return content.decode('utf-8').split('\n')
    except UnicodeDecodeError as error:
        line = content.count(b'\n', 0, error.start) + 1
        raise UserError(f'Standard input, line {line} is not UTF-8.') from error
