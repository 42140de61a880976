"""Metrics as a table on the terminal and as a file."""

import math
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from albert_jax.cli.errors import UserError, reason
from albert_jax.cli.json_output import to_json


def print_metrics(metrics: Mapping[str, float]) -> None:
    """Prints a table of metrics, a row each; NaN is a metric that has no value."""
    table = Table()
    table.add_column('metric')
    table.add_column('value', justify='right')
    for name, value in metrics.items():
        table.add_row(name, 'undefined' if math.isnan(value) else f'{value:.4f}')
    Console().print(table)


def write_results(metrics: Mapping[str, float], folder: Path) -> Path:
    """Writes metrics by their names as results.json.

    Raises:
      UserError: if it cannot be written.
    """
    file = folder / 'results.json'
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(to_json(dict(metrics), indent=2) + '\n', encoding='utf-8')
    except OSError as error:
        raise UserError(f'{file} cannot be written: {reason(error)}.') from error
    return file
