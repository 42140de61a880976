"""Predictions as files."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from albert_jax.cli.errors import UserError, reason
from albert_jax.cli.json_output import to_json
from albert_jax.tasks.task import Task


def json_lines(predictions: Iterable[Mapping[str, Any]]) -> str:
    """Predictions as JSON Lines."""
    return ''.join(to_json(prediction, ensure_ascii=False) + '\n' for prediction in predictions)


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
