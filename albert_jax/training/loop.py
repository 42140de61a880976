"""The loop. Pretraining, fine-tuning and distillation run through here."""

import contextlib
import dataclasses
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from albert_jax.cli.errors import UserError
from albert_jax.cli.phase import phase
from albert_jax.data.batch import HostBatch
from albert_jax.model.losses import means
from albert_jax.runs.loop import LoopSettings
from albert_jax.training import distributed, memory, trackers
from albert_jax.training.checkpoint import Checkpoints, read_state
from albert_jax.training.evaluation import make_evaluate
from albert_jax.training.job import HeldOutBatches, Outcome, TrainingJob
from albert_jax.training.metrics_file import METRICS_FILE, read_lines
from albert_jax.training.not_finite import nothing_learnt, too_many_in_a_row
from albert_jax.training.patience import History
from albert_jax.training.placement import Placement, choose_microbatches, place
from albert_jax.training.profile import Profile
from albert_jax.training.sharding import put_batch, shardings
from albert_jax.training.step import (
    IS_STOPPING,
    STEP_METRICS,
    Status,
    TrainState,
    TrainStep,
    make_train_step,
)
from albert_jax.training.stop_signal import StopSignal
from albert_jax.training.telemetry import Telemetry

_NUM_BATCHES_AHEAD = 4


def train(
    job: TrainingJob, settings: LoopSettings, workdir: Path, num_profiled: int = 0
) -> Outcome:
    """Trains until `settings.num_steps`, resuming from the latest checkpoint in `workdir`.

    Args:
      job: what to train.
      settings: for how long.
      workdir: where checkpoints, metrics and the profile go.
      num_profiled: steps to record for TensorBoard's profiler, after those that compile.

    Raises:
      UserError: if the batch does not divide, the workdir is another run's or cannot be written,
        the tracker's package is not there, or too many steps in a row, or all of them, were not
        finite.
    """
    trackers.check(settings.tracker)
    distributed.check_same({**job.metadata.resume_fingerprint, 'loop': settings.to_dict()})
    placement = place(job, settings)
    _check_best_metric(job, placement.abstract_state)
    settings = _fit_memory(job, settings, placement)
    with Checkpoints(
        workdir, settings.keep_last, job.best_metric, job.is_lower_better
    ) as checkpoints:
        distributed.check_shared(workdir)
        with phase(f'Reading the latest checkpoint of {workdir} …'):
            state = checkpoints.restore(placement.abstract_state, job.metadata)
        if state is None:
            with phase('Making the parameters and the optimizer state …'):
                state = _first_state(job, placement)
        first_step = int(state.step)
        history = History(job.best_metric, job.is_lower_better, settings.patience)
        history.read(workdir, first_step)
        lacks_evaluation = _lacks_evaluation(settings, workdir, first_step)
        # What process 0 has read decides for all.
        lacks_evaluation, history.scores = distributed.broadcast_from_main(
            [lacks_evaluation, history.scores]
        )
        is_at_end = first_step >= settings.num_steps or history.is_stale
        if is_at_end and int(state.num_skipped) >= first_step:
            raise nothing_learnt(first_step, None)
        is_finished = first_step >= settings.num_steps and not lacks_evaluation
        if is_finished or history.is_stale:
            return Outcome(first_step, None, None)
        if distributed.is_main():
            _print_plan(job, settings, workdir, placement, first_step)
        run = _Run(job, settings, workdir, placement, checkpoints, history, first_step)
        return run(state, lacks_evaluation, num_profiled)


def _fit_memory(job: TrainingJob, settings: LoopSettings, placement: Placement) -> LoopSettings:
    """Refuses what cannot fit; with `num_microbatches` 0 on CPUs, takes as many as it needs."""
    # The longest rows are those of the last step.
    example = job.train_batch(settings.num_steps - 1, range(1))
    mesh, length = placement.mesh, example['input_ids'].shape[-1]
    rows = settings.batch_size // mesh.size
    need = memory.least(job.metadata.model, placement.abstract_state, dict(job.frozen), example)
    number = settings.num_microbatches
    if not number and mesh.devices.flat[0].platform == 'cpu':
        # No compiler for CPUs tells that memory is too small.
        available = memory.device_bytes(mesh)
        number = 1
        if available is not None and need.total(rows) > available:
            number = memory.microbatches_that_fit(need, available, rows) or rows
        # One program for all processes, whose machines may have less.
        number = distributed.broadcast_from_main(number)
        settings = dataclasses.replace(settings, num_microbatches=number)
    memory.check(need, mesh, rows, number, length)
    return settings


def _first_state(job: TrainingJob, placement: Placement) -> TrainState:
    """The state that a training starts with."""
    if job.start_checkpoint is not None:
        return read_state(job.start_checkpoint, placement.abstract_state)
    return placement.make_state(job.start_params)


def _print_plan(
    job: TrainingJob, settings: LoopSettings, workdir: Path, placement: Placement, first_step: int
) -> None:
    """What is trained, on what, for how long, and where it is written."""
    num_params = sum(leaf.size for leaf in jax.tree.leaves(placement.abstract_state.params))
    devices, num_steps = placement.mesh.devices.flat, settings.num_steps
    kinds = ', '.join(sorted({device.device_kind for device in devices}))
    length = job.work(num_steps - 1).num_tokens
    print(
        f'Training {num_params / 1e6:,.2f} M parameters on {placement.mesh.size} × {kinds}: '
        f'{num_steps:,} steps of {settings.batch_size:,} × {length} tokens. Checkpoints and '
        f'metrics go to {workdir}.',
        flush=True,
    )
    if first_step:
        print(f'Resuming from step {first_step} of {num_steps}.', flush=True)


def _check_best_metric(job: TrainingJob, abstract_state: TrainState) -> None:
    evaluated = [name for name in abstract_state.metric_sums if name not in STEP_METRICS]
    if isinstance(job.evaluation, HeldOutBatches) and job.best_metric not in evaluated:
        raise UserError(
            f'loop.best_metric is {job.best_metric!r}; this run has {", ".join(evaluated)}.'
        )


def _lacks_evaluation(settings: LoopSettings, workdir: Path, step: int) -> bool:
    """Whether a run was told to stop during the evaluation of a step that is saved."""
    is_due = step % settings.eval_every == 0 or step == settings.num_steps
    if not step or not is_due:
        return False
    path = workdir / METRICS_FILE
    lines = read_lines(path) if path.exists() else []
    return not any(line['split'] == 'validation' and line['step'] == step for line in lines)


class _Run:
    """The steps of one process, and what is done between them.

    A step is dispatched before the status of the one before it is read, so that the device never
    waits for the host.
    """

    def __init__(
        self,
        job: TrainingJob,
        settings: LoopSettings,
        workdir: Path,
        placement: Placement,
        checkpoints: Checkpoints,
        history: History,
        first_step: int,
    ) -> None:
        self._job, self._settings, self._workdir = job, settings, workdir
        self._placement, self._checkpoints, self._history = placement, checkpoints, history
        self._first_step = self._step = first_step
        self._stop = StopSignal()
        # Whether some process was told to stop.
        self._is_stopped = False
        # The status of a step that was dispatched and not read yet.
        self._unread: Status | None = None
        # Of the last step that was read: how many were skipped up to it, and why it was, if so.
        self._num_skipped = 0
        self._norms: np.ndarray | None = None
        # Of the last evaluation.
        self._metrics: dict[str, float] | None = None
        self._score = 0.0

        frozen = dict(job.frozen)
        frozen = jax.jit(lambda tree: tree, out_shardings=shardings(frozen, placement.mesh))(frozen)
        self._train_step = self._make_step(frozen)
        self._telemetry = Telemetry(
            workdir,
            first_step,
            settings.num_steps,
            settings.batch_size,
            job.work,
            placement.mesh.size,
            settings.tracker,
            {**job.metadata.resume_fingerprint, 'loop': settings.to_dict()},
        )
        self._evaluate = make_evaluate(
            job, placement, frozen, lambda: self._stop.is_set, self._telemetry.evaluating
        )

    def _make_step(self, frozen: Mapping[str, PyTree]) -> TrainStep:
        job, settings = self._job, self._settings

        def step_in(num_microbatches: int) -> TrainStep:
            step = make_train_step(
                job.objective,
                job.optimizer,
                self._placement.mesh,
                num_microbatches,
                settings.log_every,
                settings.seed,
                job.metadata.model.compute_dtype,
                frozen,
            )
            return step.on(self._placement.mesh)

        def longest_example() -> HostBatch:
            return job.train_batch(settings.num_steps - 1, range(1))

        return step_in(choose_microbatches(settings, self._placement, longest_example, step_in))

    def __call__(self, state: TrainState, lacks_evaluation: bool, num_profiled: int) -> Outcome:
        """Runs until the last step, a signal, or the end of the patience."""
        settings, rows = self._settings, self._placement.rows
        batches = _read_ahead(
            lambda step: self._job.train_batch(step, rows), self._first_step, settings.num_steps
        )
        profile = Profile(self._workdir / 'tensorboard', self._first_step, num_profiled)
        with self._telemetry, self._stop, profile:
            if lacks_evaluation:
                self._make_up_for_evaluation(state)
            is_over = False
            while self._step < settings.num_steps and not self._is_stopped and not is_over:
                profile.before(self._step)
                state = self._take_step(state, self._next(batches))
                is_over = self._after_step(state)
            self._read_status()
            if self._num_skipped:
                self._telemetry.say(
                    f'note: {self._num_skipped} of {self._step} steps were skipped, because their '
                    f'loss, gradient or update was not finite.'
                )
            # The end, or a pause: nothing that was learnt is lost.
            if self._checkpoints.latest_step() != self._step:
                self._checkpoints.save(self._step, state, self._job.metadata, None)
        # Another process may have been told.
        number = self._stop.number or (signal.SIGTERM if self._is_stopped else None)
        return Outcome(self._step, self._metrics, number)

    def _next(self, batches: Iterator[HostBatch]) -> HostBatch:
        started = time.monotonic()
        batch = next(batches)
        self._telemetry.waited(time.monotonic() - started)
        return batch

    def _take_step(self, state: TrainState, batch: HostBatch) -> TrainState:
        if distributed.is_multiprocess():
            is_told = np.full(len(self._placement.rows), self._stop.is_set, np.int32)
            batch = {**batch, IS_STOPPING: is_told}
        # What the host sends without being asked would make the device wait for it.
        is_first = self._step == self._first_step
        with (
            self._telemetry.compiling() if is_first else contextlib.nullcontext(),
            jax.profiler.StepTraceAnnotation('train', step_num=self._step),
            jax.transfer_guard('disallow'),
        ):
            state, status = self._train_step(state, put_batch(self._placement.mesh, batch))
        if is_first:
            # Speed is measured without the compilation.
            self._telemetry.start_clock(self._step + 1)
        self._read_status()
        self._unread = status
        self._step += 1
        if not distributed.is_multiprocess():
            self._is_stopped = self._stop.is_set
        return state

    def _after_step(self, state: TrainState) -> bool:
        """Evaluates and saves where that is due, and says whether the run is over."""
        settings, step = self._settings, self._step
        is_last = step == settings.num_steps
        is_eval = is_last or step % settings.eval_every == 0
        is_save = is_last or step % settings.checkpoint_every == 0
        if not (is_eval or is_save):
            return False
        self._read_status()
        if is_eval and (self._is_stopped or not self._evaluated(state)):
            # The evaluation is made up for when the run resumes.
            return True
        if is_save:
            score = self._score if is_eval else None
            with self._telemetry.paused():
                self._checkpoints.save(step, state, self._job.metadata, score)
        if is_eval and self._history.is_stale:
            self._check_learnt()
            self._telemetry.say(
                f'No better {self._job.best_metric} in {settings.patience} evaluations.'
            )
            return True
        return False

    def _check_learnt(self) -> None:
        """Refuses to end as a success where no step has reached the parameters."""
        if self._num_skipped >= self._step:
            raise nothing_learnt(self._step, self._norms)

    def _evaluated(self, state: TrainState) -> bool:
        """Whether there are held-out metrics of the state: no signal came first."""
        with self._telemetry.paused():
            metrics = self._evaluate(state.params, self._step)
            if metrics is None:
                return False
            self._telemetry.eval_line(self._step, metrics)
        self._metrics = metrics
        self._score = self._history.add(metrics)
        return True

    def _make_up_for_evaluation(self, state: TrainState) -> None:
        """Evaluates the state of a checkpoint that was saved without metrics."""
        settings, step = self._settings, self._step
        is_due = step % settings.checkpoint_every == 0 or step == settings.num_steps
        # A state that the training started with is no checkpoint of it.
        is_saved = is_due and self._checkpoints.latest_step() == step
        if self._evaluated(state) and is_saved:
            self._checkpoints.add_score(step, self._score)

    def _read_status(self) -> None:
        """Logs the step that was dispatched last, and stops a run that no longer learns.

        Raises:
          UserError: if too many steps in a row were skipped, or all steps of the run.
        """
        if self._unread is None:
            return
        status, step = jax.device_get(self._unread), self._step
        self._unread = None
        self._telemetry.step_done(step)
        self._num_skipped, self._norms = int(status.num_skipped), status.norms
        if step % self._settings.log_every == 0:
            num_updates = max(step - 1 - self._num_skipped, 0)
            self._telemetry.train_line(
                step,
                {
                    # Of no step since the last line, if all were skipped.
                    'loss': None,
                    **means(status.metric_sums),
                    # A skipped step does not count for the schedule.
                    'learning_rate': float(
                        jnp.asarray(self._job.learning_rate(jnp.int32(num_updates)))
                    ),
                    'skipped_steps': self._num_skipped,
                },
            )
        if status.num_skipped_in_a_row >= self._settings.max_skipped_in_a_row:
            raise too_many_in_a_row(step, int(status.num_skipped_in_a_row), status.norms)
        if step == self._settings.num_steps:
            self._check_learnt()
        self._is_stopped |= bool(status.num_stopping > 0)


def _read_ahead(
    batch: Callable[[int], HostBatch], first_step: int, num_steps: int
) -> Iterator[HostBatch]:
    """The batches of the steps to come, made in a thread while the device works."""
    steps = grain.MapDataset.range(first_step, num_steps).map(lambda step: batch(int(step)))
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=_NUM_BATCHES_AHEAD)
    return iter(steps.to_iter_dataset(options))
