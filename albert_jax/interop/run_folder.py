"""The folder of a run: where its checkpoints are, and which of them is the best.

Orbax keeps the score of a checkpoint that was evaluated before it was saved. Where a run was
stopped during an evaluation, that is made up for when it resumes, and the score is in a file of
our own in the folder of the run, not in Orbax's.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint import checkpoint_managers

from albert_jax.cli.errors import UserError, first_line
from albert_jax.cli.files import new_file
from albert_jax.cli.json_output import to_json

FOLDER = 'checkpoints'
_LATE_SCORES_FILE = 'late_scores.json'


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Keeps Orbax silent: it warns of what is as it should be."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def read_late_scores(folder: Path) -> dict[int, float]:
    """The scores that came after their checkpoints, by step.

    Args:
      folder: of the checkpoints, in that of the run.

    Raises:
      UserError: if their file is damaged.
    """
    file = folder.parent / _LATE_SCORES_FILE
    if not file.exists():
        return {}
    try:
        return {int(step): float(score) for step, score in json.loads(file.read_text()).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(
            f'{file} is damaged ({first_line(error)}); delete it: the best checkpoint is chosen '
            f'without it.'
        ) from error


def write_late_scores(folder: Path, scores: Mapping[int, float]) -> None:
    """Writes them, all or none."""
    with new_file(folder.parent / _LATE_SCORES_FILE) as file:
        file.write_text(to_json({str(step): score for step, score in scores.items()}))


def score_of(metrics: Mapping[str, Any] | None) -> float | None:
    """The one metric that a checkpoint was saved with; None without an evaluation."""
    return next(iter(metrics.values())) if metrics else None


def best_step(scores: Mapping[int, float], is_lower_better: bool) -> int | None:
    """The step with the best score, the latest of equals; None where there is none."""
    sign = 1 if is_lower_better else -1
    return min(scores, key=lambda step: (sign * scores[step], -step), default=None)


def read_scores(folder: Path) -> dict[int, float]:
    """The scores of all evaluated checkpoints of a folder, by step."""
    options = ocp.CheckpointManagerOptions(read_only=True, save_interval_steps=0, create=False)
    # That the folder is only read is what is asked for, and no warning.
    with without_warnings(), ocp.CheckpointManager(folder.absolute(), options=options) as manager:
        at_save = {step: score_of(manager.metrics(step)) for step in manager.all_steps()}
    # A score of Orbax's is that of the checkpoint itself.
    late = {step: score for step, score in read_late_scores(folder).items() if step in at_save}
    return late | {step: score for step, score in at_save.items() if score is not None}


class BestPolicy(checkpoint_managers.PreservationPolicy):
    """Preserves the best checkpoint, of those that were evaluated before or after their save.

    Args:
      is_lower_better: whether the lowest score is the best.
      late_scores: those that came after, by step.
    """

    def __init__(self, is_lower_better: bool, late_scores: dict[int, float]) -> None:
        self._is_lower_better = is_lower_better
        self._late_scores = late_scores

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: checkpoint_managers.PreservationContext
    ) -> Sequence[bool]:
        """Which of the checkpoints, in their order, to preserve."""
        del context
        at_save = {info.step: score_of(info.metrics) for info in checkpoints}
        late = {step: score for step, score in self._late_scores.items() if step in at_save}
        scores = late | {step: score for step, score in at_save.items() if score is not None}
        best = best_step(scores, self._is_lower_better)
        return [info.step == best for info in checkpoints]
