"""Which evaluation is the best so far, and whether it is too long ago."""

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from albert_jax.training.metrics_file import METRICS_FILE, read_lines

# What a metric without a value is worth: less than any other. Finite, for JSON.
_UNDEFINED = sys.float_info.max


class History:
    """The metric that has to be best, of all evaluations of a run so far.

    Args:
      best_metric: its name among an evaluation's metrics.
      is_lower_better: whether its lowest value is the best.
      patience: evaluations without a better one after which a run is stale; 0 for never.
    """

    def __init__(self, best_metric: str, is_lower_better: bool, patience: int) -> None:
        self._best_metric = best_metric
        self._is_lower_better = is_lower_better
        self._patience = patience
        self.scores: list[float] = []

    def read(self, workdir: Path, last_step: int) -> None:
        """Takes the evaluations up to a step from the run's metrics file, where they are needed."""
        path = workdir / METRICS_FILE
        lines = read_lines(path) if self._patience and path.exists() else []
        self.scores = [
            self.score(line)
            for line in lines
            if line['split'] == 'validation'
            and line['step'] <= last_step
            and self._best_metric in line
        ]

    def add(self, metrics: Mapping[str, float]) -> float:
        """Takes an evaluation in, unless it did not look for the metric, and gives its score."""
        score = self.score(metrics)
        if self._best_metric in metrics:
            self.scores.append(score)
        return score

    def score(self, metrics: Mapping[str, float | None]) -> float:
        """The metric that has to be best, or worse than any value where it has none."""
        value = metrics.get(self._best_metric)
        if value is None or not np.isfinite(value):
            return _UNDEFINED if self._is_lower_better else -_UNDEFINED
        return value

    @property
    def is_stale(self) -> bool:
        """Whether the best evaluation is too long ago."""
        if not self._patience or not self.scores:
            return False
        best = min(self.scores) if self._is_lower_better else max(self.scores)
        return len(self.scores) - 1 - self.scores.index(best) >= self._patience
