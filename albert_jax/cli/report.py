"""Tables of numbers on the terminal."""

import math
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table


def print_metrics(metrics: Mapping[str, float]) -> None:
    """Prints a table of metrics, a row each; NaN is a metric that has no value."""
    table = Table()
    table.add_column('metric')
    table.add_column('value', justify='right')
    for name, value in metrics.items():
        table.add_row(name, 'undefined' if math.isnan(value) else f'{value:.4f}')
    Console().print(table)
