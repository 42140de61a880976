"""Predictions as files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.progress import MofNCompleteColumn

from albert_jax.cli.errors import UserError, reason
from albert_jax.cli.progress import Progress
from albert_jax.tasks.task import Task, json_lines


def answering(num_examples: int, is_on_stderr: bool = False) -> Progress:
    """How many of the examples have their answer.

    Args:
      num_examples: of all.
      is_on_stderr: standard output has the answers.
    """
    return Progress(
        'answering', MofNCompleteColumn(), line=_line, total=num_examples, is_on_stderr=is_on_stderr
    )


def _line(done: float, total: float, seconds: float) -> str:
    left = (total - done) * seconds / max(done, 1)
    return f'{done:,.0f} of {total:,.0f} answers, {left:,.0f} s left'


def write_predictions(
    task: Task, examples: Sequence[Any], predictions: Sequence[Mapping[str, Any]], folder: Path
) -> list[Path]:
    """Writes predictions as JSON Lines, and in the form of the benchmark's server.

    Raises:
      UserError: if the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / 'predictions.jsonl'
        file.write_text(json_lines(predictions), encoding='utf-8')
        return [file, *task.write(examples, predictions, folder)]
    except OSError as error:
        raise UserError(f'{folder} cannot be written: {reason(error)}.') from error
