"""A run at Weights & Biases, one over all restarts: its number is kept in the run's folder."""

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from albert_jax.cli.errors import UserError, first_line
from albert_jax.cli.files import new_file
from albert_jax.training.metrics_file import METRICS_FILE, read_lines

ID_FILE = 'wandb_id'


class WandbRun:
    """A tracker. WANDB_MODE=offline, WANDB_PROJECT and the like mean what they mean elsewhere.

    Args:
      workdir: of the run, whose name it has.
      config: of the run.

    Raises:
      UserError: if the run cannot be opened.
    """

    def __init__(self, workdir: Path, config: Mapping[str, Any]) -> None:
        path = workdir / ID_FILE
        if not path.exists():
            with new_file(path) as partial:
                partial.write_text(uuid.uuid4().hex[:12] + '\n')
        try:
            self._run = wandb.init(
                project=wandb.setup().settings.project or 'albert_jax',
                id=path.read_text().strip(),
                resume='allow',
                name=workdir.name,
                dir=str(workdir),
                config=dict(config),
                settings=wandb.Settings(silent=True, console='off'),
            )
        except wandb.Error as error:
            raise UserError(
                f'loop.tracker is wandb, which cannot be reached ({first_line(error, 200)}); log '
                f'in with wandb login, or keep the run on this machine with WANDB_MODE=offline.'
            ) from error

        if self._run.offline:
            # What a killed process had not written to its own file; the rest comes twice, alike.
            for line in read_lines(path.with_name(METRICS_FILE)):
                self.write(line['split'], line['step'], _numbers(line))

    def write(self, split: str, step: int, values: Mapping[str, float]) -> None:
        """Logs a record; one of a step that was logged before is dropped there."""
        self._run.log({f'{split}/{name}': value for name, value in values.items()}, step=step)

    def close(self) -> None:
        """Waits until everything is written or sent."""
        self._run.finish()


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    """The values of a line of the metrics file, the speed's among them."""
    values = {**line, **line.get('speed', {})}
    names = ('step', 'split', 'speed')
    return {name: x for name, x in values.items() if name not in names and x is not None}
