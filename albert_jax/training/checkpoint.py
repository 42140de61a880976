"""Orbax checkpoints of a run, and which of them wins.

A checkpoint is a directory that stands alone: `params`, `training` (all else in the state) and
`about` (its CheckpointMetadata, and digests). To resume, the latest one wins that can be read; to
use the model, the best by the run's metric, or the latest where none has been evaluated.
"""

import contextlib
import dataclasses
import fcntl
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree
from orbax.checkpoint import checkpoint_managers

from albert_jax.cli.errors import UserError, first_line, reason
from albert_jax.interop import old_names, run_folder
from albert_jax.interop.checksums import check_digests, digests
from albert_jax.interop.metadata import CheckpointMetadata
from albert_jax.interop.native import METADATA_ITEM, read_content
from albert_jax.interop.run_folder import FOLDER
from albert_jax.interop.whole import damage_of_arrays
from albert_jax.training import distributed
from albert_jax.training.step import TrainState

# The item with all of a state but its parameters.
STATE_ITEM = 'training'
_ITEMS = ('params', STATE_ITEM)


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
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            # One process holds it for all of them.
            self._lock = _lock(workdir) if distributed.is_main() else None
            self._late_scores = run_folder.read_late_scores(self._directory)
            best = run_folder.BestPolicy(is_lower_better, self._late_scores)
            self._options = ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(
                    [checkpoint_managers.LatestN(keep_last), best]
                ),
                # Orbax keeps metrics only where it is told how to compare them.
                best_fn=lambda metrics: metrics[best_metric],
                best_mode='min' if is_lower_better else 'max',
                cleanup_tmp_directories=True,
            )
            self._manager = ocp.CheckpointManager(self._directory, options=self._options)
        except OSError as error:
            raise UserError(f'{workdir} cannot be written: {reason(error)}.') from error

    def save(
        self, step: int, state: TrainState, metadata: CheckpointMetadata, score: float | None
    ) -> None:
        """Starts to write a checkpoint; the training continues while it is written.

        Args:
          step: of the state.
          state: to be written.
          metadata: of the run.
          score: the metric that has to be best; None where the state was not evaluated.

        Raises:
          UserError: if this or the previous one cannot be written.
        """
        items = _items(state)
        content = metadata.to_json() | {'step': step, 'digests': digests(items)}
        try:
            if self._late_scores.pop(step, None) is not None and distributed.is_main():
                # It was of a checkpoint that this one replaces.
                run_folder.write_late_scores(self._directory, self._late_scores)
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    **{name: ocp.args.StandardSave(items[name]) for name in _ITEMS},
                    **{METADATA_ITEM: ocp.args.JsonSave(content)},
                ),
                metrics=None if score is None else {self._best_metric: float(score)},
                force=True,
            )
        except Exception as error:
            if _is_lost_process(error):
                raise
            raise self._save_error(step, error) from error

    def add_score(self, step: int, score: float) -> None:
        """Gives a checkpoint the score of an evaluation that came after it was saved.

        Raises:
          UserError: if it cannot be written.
        """
        self._late_scores[step] = float(score)
        try:
            if distributed.is_main():
                run_folder.write_late_scores(self._directory, self._late_scores)
        except OSError as error:
            raise UserError(f'{self._directory} cannot be written: {reason(error)}.') from error

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
        return UserError(
            f'{self._directory}: {which} cannot be written ({first_line(error)}); {survivor} on '
            f'disk. Make room and start the same command again.'
        )

    def latest_step(self) -> int | None:
        """The step of the latest checkpoint."""
        return self._manager.latest_step()

    def restore(
        self, abstract_state: TrainState, metadata: CheckpointMetadata
    ) -> TrainState | None:
        """The latest state that can be read, or None if there is no checkpoint.

        A damaged checkpoint is reported, moved aside, and the one before it is used.

        Args:
          abstract_state: shapes, types and shardings of the state.
          metadata: of the run that wants to resume.

        Raises:
          UserError: if the checkpoints are of another run, or all are damaged.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        damaged: dict[int, str] = {}
        for step in steps:
            try:
                restored = self._restore(step, abstract_state, metadata)
                for other, message in damaged.items():
                    self._move_aside(other, message)
                return restored
            except (UserError, MemoryError):
                raise
            except Exception as error:  # whatever the storage raises, this one is of no use
                if _is_lost_process(error):
                    raise
                damaged[step] = first_line(error, 160)
        if damaged:
            raise UserError(
                f'{self._directory}: no checkpoint can be read ({next(iter(damaged.values()))}); '
                f'choose another --workdir to train from the beginning.'
            )
        return None

    def _restore(
        self, step: int, abstract_state: TrainState, metadata: CheckpointMetadata
    ) -> TrainState:
        content = self._manager.restore(
            step, args=ocp.args.Composite(**{METADATA_ITEM: ocp.args.JsonRestore()})
        )[METADATA_ITEM]
        _check_fingerprint(
            old_names.fingerprint_of(content), metadata.resume_fingerprint, self._directory
        )
        for name in _ITEMS:
            if found := damage_of_arrays(self._directory / str(step), name):
                raise ValueError(found)
        items = _items(abstract_state, old_names.is_old(content))
        composite = self._manager.restore(
            step,
            args=ocp.args.Composite(
                **{name: ocp.args.StandardRestore(items[name]) for name in _ITEMS}
            ),
        )
        restored = {name: composite[name] for name in _ITEMS}
        return _state_of(restored, content, abstract_state)

    def _move_aside(self, step: int, message: str) -> None:
        folder = self._directory.parent / 'damaged'
        self._manager.close()
        try:
            if distributed.is_main():
                folder.mkdir(exist_ok=True)
                number = sum(1 for _ in folder.glob(f'{step}-*'))
                (self._directory / str(step)).rename(folder / f'{step}-{number}')
        except OSError as error:
            raise UserError(f'{folder} cannot be written: {reason(error)}.') from error
        distributed.wait_for_all('moved aside')
        self._manager = ocp.CheckpointManager(self._directory, options=self._options)
        if distributed.is_main():
            print(
                f'warning: the checkpoint of step {step} is damaged ({message}); it was moved to '
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
        # The reason why the run ends matters more than an error of the last save.
        with contextlib.suppress(UserError) if error else contextlib.nullcontext():
            self.close()


def _is_lost_process(error: Exception) -> bool:
    """Whether it is the others, and not the disk, that failed."""
    return distributed.is_multiprocess() and isinstance(error, jax.errors.JaxRuntimeError)


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


def _items(state: TrainState, is_stored_old: bool = False) -> dict[str, PyTree]:
    """The items of a checkpoint, by the names that they are stored with."""
    training = {
        field.name: getattr(state, field.name)
        for field in dataclasses.fields(state)
        if field.name != 'params'
    }
    return {
        'params': old_names.stored_params(state.params, is_stored_old),
        STATE_ITEM: old_names.stored_state(training, is_stored_old),
    }


def _state_of(
    restored: Mapping[str, PyTree], content: Mapping[str, Any], abstract_state: TrainState
) -> TrainState:
    """The state of a checkpoint's items, after a check of their digests."""
    check_digests(restored, content['digests'])
    return dataclasses.replace(
        abstract_state,
        params=old_names.todays_params(restored['params']),
        **old_names.todays_state(restored[STATE_ITEM]),
    )


def read_state(checkpoint: Path, abstract_state: TrainState) -> TrainState:
    """The state in a checkpoint of another run, which is only read.

    Args:
      checkpoint: its folder.
      abstract_state: shapes, types and shardings of the state.

    Raises:
      UserError: if it cannot be read.
    """
    try:
        content = read_content(checkpoint)
        items = _items(abstract_state, old_names.is_old(content))
        with ocp.StandardCheckpointer() as reader:
            restored = {
                name: reader.restore(checkpoint.absolute() / name, items[name]) for name in _ITEMS
            }
        return _state_of(restored, content, abstract_state)
    except Exception as error:  # whatever the storage raises
        if _is_lost_process(error):
            raise
        raise UserError(
            f'{checkpoint} cannot be read as the state of a training: {first_line(error, 160)}.'
        ) from error


def _check_fingerprint(saved: Mapping[str, Any], wanted: Mapping[str, Any], where: Path) -> None:
    there, here = (old_names.flatten_fingerprint(fields) for fields in (saved, wanted))
    differing = [
        f'{name} (there {there.get(name)!r}, here {here.get(name)!r})'
        for name in sorted(there.keys() | here.keys())
        if there.get(name) != here.get(name)
    ]
    if differing:
        longer = ''
        if 'loop.num_steps' in there and there.get('loop.num_steps') != here.get('loop.num_steps'):
            longer = f' To train longer, start from its weights: --config.init_from={where.parent}.'
        raise UserError(
            f'{where} holds another run, which differs in {"; ".join(differing)}: choose another '
            f'--workdir, or give the same values.{longer}'
        )
