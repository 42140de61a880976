"""Orbax checkpoints of a run, and which of them wins.

A checkpoint is a directory that stands alone: `params`, `training` (all else in the state) and
`about` (config, vocabulary, digests). To go on training, the latest one wins that can be read; to
use the model, the best by the run's metric, or the latest where none has been evaluated.
"""

import contextlib
import dataclasses
import fcntl
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree
from orbax.checkpoint import checkpoint_managers

from albert_jax import distributed
from albert_jax.about import About
from albert_jax.digests import check_digests, digests
from albert_jax.errors import UserError
from albert_jax.pretrained import FOLDER
from albert_jax.step import TrainState

_ITEMS = ('params', 'training')
# Fields that earlier versions wrote.
_NOT_OF_IDENTITY = ('model.remat', 'model.attention')


class Checkpoints:
    """The checkpoints of one run.

    Args:
      workdir: of the run.
      keep_last: how many of the latest to keep.
      best_metric: the metric by which one more, the best, is kept.
      is_lower_better: of that metric.
    """

    def __init__(
        self, workdir: Path, keep_last: int, best_metric: str, is_lower_better: bool
    ) -> None:
        self._directory = (workdir / FOLDER).absolute()
        self._best_metric = best_metric
        self._options = _options(keep_last, best_metric, is_lower_better)
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            # One process holds it for all of them.
            self._lock = _lock(workdir) if distributed.is_main() else None
            self._manager = ocp.CheckpointManager(self._directory, options=self._options)
        except OSError as error:
            raise UserError(f'{workdir} cannot be written: {error.strerror}.') from error

    def save(
        self, step: int, state: TrainState, about: About, metrics: Mapping[str, float] | None
    ) -> None:
        """Starts to write a checkpoint; the training may go on while it is written.

        Raises:
          UserError: if this or the previous one cannot be written.
        """
        items = _items(state)
        content = about.to_json() | {'step': step, 'digests': digests(items)}
        if metrics is not None:
            metrics = {self._best_metric: float(metrics[self._best_metric])}
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    **{name: ocp.args.StandardSave(items[name]) for name in _ITEMS},
                    about=ocp.args.JsonSave(content),
                ),
                metrics=metrics,
                force=True,
            )
        except Exception as error:
            if _is_lost_process(error):
                raise
            raise self._save_error(step, error) from error

    def add_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Gives a checkpoint the metrics of an evaluation that came after it was saved.

        Raises:
          UserError: if they cannot be written.
        """
        self._manager.close()
        folder = self._directory / str(step) / 'metrics'
        try:
            # As Orbax writes them, which has no way to add any.
            if distributed.is_main():
                folder.mkdir(exist_ok=True)
                (folder / 'metrics').write_text(json.dumps(dict(metrics)))
        except OSError as error:
            raise UserError(f'{folder} cannot be written: {error.strerror}.') from error
        distributed.wait_for_all('metrics are added')
        self._manager = ocp.CheckpointManager(self._directory, options=self._options)

    def wait(self) -> None:
        """Waits until everything is on disk.

        Raises:
          UserError: if something cannot be written.
        """
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except Exception as error:
            if _is_lost_process(error):
                raise
            raise self._save_error(None, error) from error

    def _save_error(self, step: int | None, error: Exception) -> UserError:
        which = 'the last checkpoint' if step is None else f'the checkpoint of step {step}'
        kept = sorted(self._manager.all_steps())
        survivor = f'step {kept[-1]} is' if kept else 'none was'
        reason = str(error).strip().splitlines() or [type(error).__name__]
        return UserError(
            f'{self._directory}: {which} cannot be written ({reason[0][:200]}); {survivor} on '
            f'disk. Make room and start the same command again.'
        )

    def latest_step(self) -> int | None:
        """The step of the latest checkpoint."""
        return self._manager.latest_step()

    def restore(self, abstract_state: TrainState, about: About) -> TrainState | None:
        """The latest state that can be read, or None if there is no checkpoint.

        A damaged checkpoint is reported, moved aside, and the one before it is used.

        Args:
          abstract_state: shapes, types and shardings of the state.
          about: of the run that wants to go on.

        Raises:
          UserError: if the checkpoints are of another run, or all are damaged.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        damaged: dict[int, str] = {}
        for step in steps:
            try:
                content = self._read_about(step)
                _check_identity(content['identity'], about.identity, self._directory)
                items = _items(abstract_state)
                restored = self._manager.restore(
                    step,
                    args=ocp.args.Composite(
                        **{name: ocp.args.StandardRestore(items[name]) for name in _ITEMS}
                    ),
                )
                restored = {name: restored[name] for name in _ITEMS}
                check_digests(restored, content['digests'])
                for other, reason in damaged.items():
                    self._move_aside(other, reason)
                return dataclasses.replace(
                    abstract_state, params=restored['params'], **restored['training']
                )
            except (UserError, MemoryError):
                raise
            except Exception as error:  # whatever the storage raises, this one is of no use
                if _is_lost_process(error):
                    raise
                reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
                damaged[step] = reason
        if damaged:
            raise UserError(
                f'{self._directory}: no checkpoint can be read ({next(iter(damaged.values()))}); '
                f'choose another --workdir to train from the beginning.'
            )
        return None

    def _read_about(self, step: int) -> dict[str, Any]:
        return self._manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore()))[
            'about'
        ]

    def _move_aside(self, step: int, reason: str) -> None:
        folder = self._directory.parent / 'damaged'
        self._manager.close()
        try:
            if distributed.is_main():
                folder.mkdir(exist_ok=True)
                number = sum(1 for _ in folder.glob(f'{step}-*'))
                (self._directory / str(step)).rename(folder / f'{step}-{number}')
        except OSError as error:
            raise UserError(f'{folder} cannot be written: {error.strerror}.') from error
        distributed.wait_for_all('moved aside')
        self._manager = ocp.CheckpointManager(self._directory, options=self._options)
        if distributed.is_main():
            print(
                f'warning: the checkpoint of step {step} is damaged ({reason}); it was moved to '
                f'{folder} and one before it is used.',
                file=sys.stderr,
            )

    def close(self) -> None:
        """Waits for the writer and lets go of it and of the workdir.

        Raises:
          UserError: if something cannot be written.
        """
        try:
            self.wait()
        finally:
            self._manager.close()
            if self._lock is not None:
                self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A save that was under way is finished; why the run ends matters more than how that went.
        with contextlib.suppress(UserError) if error else contextlib.nullcontext():
            self.close()


def _is_lost_process(error: Exception) -> bool:
    """Whether it is the others, and not the disk, that failed."""
    return distributed.are_many() and isinstance(error, jax.errors.JaxRuntimeError)


def _lock(workdir: Path) -> IO[str]:
    """Keeps a second run out of the workdir for as long as this process lives."""
    file = (workdir / 'lock').open('w')
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise UserError(
            f'Another process trains in {workdir}; wait for it, stop it, or choose another '
            f'--workdir.'
        ) from error
    return file


def _options(
    keep_last: int, best_metric: str, is_lower_better: bool
) -> ocp.CheckpointManagerOptions:
    def metric_of(metrics: Mapping[str, float]) -> float:
        return metrics[best_metric]

    return ocp.CheckpointManagerOptions(
        preservation_policy=checkpoint_managers.AnyPreservationPolicy(
            [
                checkpoint_managers.LatestN(keep_last),
                checkpoint_managers.BestN(
                    get_metric_fn=metric_of,
                    reverse=is_lower_better,
                    n=1,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        ),
        best_fn=metric_of,
        best_mode='min' if is_lower_better else 'max',
        cleanup_tmp_directories=True,
    )


def _items(state: TrainState) -> dict[str, PyTree]:
    training = {
        field.name: getattr(state, field.name)
        for field in dataclasses.fields(state)
        if field.name != 'params'
    }
    return {'params': state.params, 'training': training}


def _check_identity(saved: Mapping[str, Any], wanted: Mapping[str, Any], where: Path) -> None:
    saved_flat, wanted_flat = _flat(saved), _flat(wanted)
    differing = [
        f'{name} (there {saved_flat.get(name)!r}, here {wanted_flat.get(name)!r})'
        for name in sorted(saved_flat.keys() | wanted_flat.keys())
        if name not in _NOT_OF_IDENTITY and saved_flat.get(name) != wanted_flat.get(name)
    ]
    if differing:
        raise UserError(
            f'{where} holds another run, which differs in {"; ".join(differing)}: choose another '
            f'--workdir, or give the same values.'
        )


def _flat(sections: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f'{section}.{name}': value
        for section, fields in sections.items()
        for name, value in fields.items()
    }
