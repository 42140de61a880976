"""Where the metrics of a run go beside its own file: TensorBoard, and a tracker of experiments.

A further one is a class with the methods of Tracker in a file of its own, its name in
runs/loop.py and its line in `open_trackers`.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from tensorboardX import SummaryWriter

from albert_jax.cli.errors import UserError


@runtime_checkable
class Tracker(Protocol):
    """Takes the records of a run in the order of its steps.

    After a kill, records between the last checkpoint and the kill come a second time, equal to the
    first.
    """

    def write(self, split: str, step: int, values: Mapping[str, float]) -> None:
        """Takes a record of finite values by metric."""
        ...

    def close(self) -> None:
        """Ends the record of this process; a later one may go on with it."""
        ...


class TensorBoard:
    """Event files in the folder `tensorboard` of the run.

    Args:
      workdir: of the run.
      first_step: where the run resumes from: what a killed run has written beyond is dropped.
      is_main: whether this process writes.
    """

    def __init__(self, workdir: Path, first_step: int, is_main: bool) -> None:
        self._board = SummaryWriter(
            str(workdir / 'tensorboard'),
            purge_step=first_step + 1,
            flush_secs=10,
            write_to_disk=is_main,
        )

    def write(self, split: str, step: int, values: Mapping[str, float]) -> None:
        """Adds a scalar for each metric."""
        for name, value in values.items():
            self._board.add_scalar(f'{split}/{name}', value, step)

    def close(self) -> None:
        """Writes what is left."""
        self._board.close()


def check(name: str) -> None:
    """Refuses a tracker whose package is not there.

    Args:
      name: `loop.tracker`.

    Raises:
      UserError: with what to install.
    """
    if name != 'none' and importlib.util.find_spec(name) is None:
        raise UserError(
            f'loop.tracker is {name}, whose package is not installed; run '
            f"pip install -e '.[{name}]' first, or leave it at none."
        )


def open_trackers(
    name: str, workdir: Path, first_step: int, is_main: bool, config: Mapping[str, Any]
) -> list[Tracker]:
    """The trackers of a run.

    Args:
      name: `loop.tracker`, which `check` took.
      workdir: of the run.
      first_step: where the run resumes from.
      is_main: whether this process writes.
      config: of the run, for those who show it.

    Raises:
      UserError: if the tracker cannot be reached.
    """
    trackers: list[Tracker] = [TensorBoard(workdir, first_step, is_main)]
    if name == 'wandb' and is_main:
        from albert_jax.training.wandb_run import WandbRun

        trackers.append(WandbRun(workdir, config))
    return trackers
