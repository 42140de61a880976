"""What the runs of a search have reached, by the files that they write."""

import math
from pathlib import Path

from launch import record


def evaluations(root: Path, key: str, metric: str) -> dict[int, float]:
    """A metric on the validation files by step, where it has a value.

    Args:
      root: folder of the search.
      key: of the stage.
      metric: its name.
    """
    values = {}
    for line in record.metric_lines(root, key):
        value = _finite(line.get(metric))
        if line.get('split') == 'validation' and value is not None:
            values[int(line['step'])] = value
    return values


def best_so_far(root: Path, key: str, metric: str, is_lower_better: bool) -> float | None:
    """The best of `evaluations`; None if there is none."""
    values = evaluations(root, key, metric).values()
    return (min if is_lower_better else max)(values, default=None)


def final_value(root: Path, key: str, metric: str, is_lower_better: bool) -> float | None:
    """The metric of the checkpoint that a finished run has kept, over its seeds their median.

    Args:
      root: folder of the search.
      key: of the stage.
      metric: its name.
      is_lower_better: whether lower is better, where only the evaluations have the metric.

    Returns:
      The value; None where it is undefined.
    """
    path = root / key / 'results.json'
    results = record.read_json(path) if path.exists() else {}
    value = results.get(metric)
    if isinstance(value, dict):
        value = value.get('median')
    if metric in results:
        return _finite(value)
    return best_so_far(root, key, metric, is_lower_better)


def _finite(value: object) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return None
