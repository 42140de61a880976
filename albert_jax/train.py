"""The loop, told in chapters. Pretraining and whatever comes after it runs through here."""

import dataclasses
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from albert_jax import distributed, objectives
from albert_jax.about import About
from albert_jax.checkpoint import Checkpoints
from albert_jax.errors import UserError
from albert_jax.microbatches import fewest_that_fit
from albert_jax.objectives import Objective, Sum
from albert_jax.profile import Profile
from albert_jax.settings import Settings
from albert_jax.sharding import (
    batch_sharding,
    choose_fsdp,
    make_mesh,
    put_batch,
    replicator,
    shardings,
)
from albert_jax.step import (
    IS_STOPPING,
    Status,
    TrainState,
    TrainStep,
    init_state,
    make_eval_step,
    make_train_step,
    state_shardings,
)
from albert_jax.telemetry import METRICS_FILE, Telemetry, Work, read_lines

HostBatch = dict[str, np.ndarray]
_NUM_BATCHES_AHEAD = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopSettings(Settings):
    """How long, how often, how much at once. All durations are in steps.

    Raises:
      UserError: if a value is impossible.
    """

    SECTION: ClassVar[str] = 'loop'

    num_steps: int = 125_000
    batch_size: int = 4096
    # Parts of a device's rows, one after the other, to save memory; 0 for the fewest that fit.
    num_microbatches: int = 1
    # 0 for all, of all processes.
    num_devices: int = 0
    # Devices that each copy of parameters and optimizer state is split over; 0 to let the size of
    # the model choose.
    num_fsdp: int = 0
    seed: int = 0
    log_every: int = 100
    eval_every: int = 1000
    # Held-out batches an evaluation; 0 for all of them.
    num_eval_batches: int = 0
    checkpoint_every: int = 1000
    keep_last: int = 3
    best_metric: str = 'mlm_loss'
    is_lower_better: bool = True
    # So many steps in a row with a loss or gradient that is not finite end the run.
    max_skipped_in_a_row: int = 20
    # So many evaluations in a row without a better one end the run; 0 for never.
    patience: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_positive(
            'num_steps', 'batch_size', 'log_every', 'eval_every', 'checkpoint_every',
            'keep_last', 'max_skipped_in_a_row',
        )  # fmt: skip
        self.check_not_negative(
            'num_devices', 'num_fsdp', 'num_microbatches', 'num_eval_batches', 'seed', 'patience'
        )
        if self.seed >= 2**32:
            raise UserError(f'loop.seed is {self.seed}; it must be below 2³².')
        if self.checkpoint_every % self.eval_every and self.eval_every % self.checkpoint_every:
            raise UserError(
                f'loop.checkpoint_every is {self.checkpoint_every} and loop.eval_every is '
                f'{self.eval_every}; make one a multiple of the other, so that the best checkpoint '
                f'can be told.'
            )


@dataclasses.dataclass(frozen=True)
class Task:
    """What the loop trains, and on what."""

    objective: Objective
    # (key) → parameters, or (key, start_params) where there are any.
    init_params: Callable[..., PyTree]
    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule
    # Rows of the global batch of a step, and of the n-th held-out batch.
    train_batch: Callable[[int, range], HostBatch]
    eval_batch: Callable[[int, range], HostBatch]
    num_eval_batches: int
    # (step) → what one of its examples takes.
    work: Callable[[int], Work]
    about: About
    # What the training starts from, if not from nothing.
    start_params: PyTree | None = None
    # (parameters, mesh, was the run told to stop?) → held-out metrics, or None if it was; in place
    # of the objective's means over `eval_batch`.
    evaluate: Callable[[PyTree, Mesh, Callable[[], bool]], dict[str, float] | None] | None = None
    # Weights that the objective finds beside the parameters and that stay as they are.
    frozen: Mapping[str, PyTree] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    step: int
    # Means over the held-out split at the last evaluation of this process, if there was one.
    metrics: dict[str, float] | None
    # The signal that ended it, if one did.
    signal_number: int | None


def train(task: Task, settings: LoopSettings, workdir: Path, num_profiled: int = 0) -> Outcome:
    """Trains until `settings.num_steps`, going on from the latest checkpoint in `workdir`.

    Args:
      task: what to train.
      settings: for how long.
      workdir: where checkpoints, metrics and the profile go.
      num_profiled: steps to record for TensorBoard's profiler, after those that compile.

    Raises:
      UserError: if the batch does not divide, the workdir is another run's or cannot be written,
        or too many steps in a row were not finite.
    """
    distributed.check_same({**task.about.identity, 'loop': settings.to_dict()})

    # Shapes first, so that nothing is ever built unsharded.
    make_state = _state_maker(task, task.train_batch(0, range(1)), settings.seed)
    abstract_state = jax.eval_shape(make_state, task.start_params)

    # Mesh, and this process's share of the batch.
    mesh = training_mesh(settings, abstract_state.params)
    rows = _local_rows(settings, mesh)
    places = state_shardings(abstract_state, mesh)
    abstract_state = jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
        abstract_state,
        places,
    )

    evaluated = [name for name in abstract_state.window if name not in ('loss', 'grad_norm')]
    if task.evaluate is None and settings.best_metric not in evaluated:
        raise UserError(
            f'loop.best_metric is {settings.best_metric!r}; this run has {", ".join(evaluated)}.'
        )

    # The state: the latest checkpoint, or a new one.
    checkpoints = Checkpoints(
        workdir, settings.keep_last, settings.best_metric, settings.is_lower_better
    )
    distributed.check_shared(workdir)
    state = checkpoints.restore(abstract_state, task.about)
    if state is None:
        state = jax.jit(make_state, out_shardings=places)(task.start_params)
    first_step = int(state.step)
    # It may have been told to stop in the midst of an evaluation.
    is_due = first_step % settings.eval_every == 0 or first_step == settings.num_steps
    lacks_evaluation = bool(first_step) and is_due and not _has_evaluation(workdir, first_step)
    # What process 0 has read decides for all.
    lacks_evaluation, history = distributed.of_main(
        [lacks_evaluation, _history(workdir, settings, first_step)]
    )
    if first_step >= settings.num_steps and not lacks_evaluation:
        checkpoints.close()
        return Outcome(first_step, None, None)
    if first_step and distributed.is_main():
        print(f'Going on from step {first_step} of {settings.num_steps}.')

    frozen = jax.jit(lambda tree: tree, out_shardings=shardings(task.frozen, mesh))(task.frozen)

    # The steps.
    def step_in(num_microbatches: int) -> TrainStep:
        return make_train_step(
            task.objective,
            task.optimizer,
            mesh,
            num_microbatches,
            settings.log_every,
            settings.seed,
            task.about.model.compute_dtype,
            frozen,
        )

    num_microbatches = settings.num_microbatches
    if not num_microbatches:
        num_microbatches = _fewest_microbatches(task, settings, mesh, abstract_state, step_in)
    train_step = step_in(num_microbatches)
    telemetry = Telemetry(
        workdir,
        first_step,
        settings.num_steps,
        settings.batch_size,
        task.work,
        mesh.size,
    )
    reader = _reader(lambda step: task.train_batch(step, rows), first_step, settings.num_steps)
    stop = _StopSignal()
    evaluate = _evaluator(task, settings, mesh, rows, stop, frozen)
    if _is_stale(history, settings):
        checkpoints.close()
        return Outcome(first_step, None, None)

    # The loop. A step is dispatched before the status of the one before it is read.
    profile = Profile(workdir / 'tensorboard', first_step, num_profiled)
    with checkpoints, telemetry, stop, profile:
        previous: Status | None = None
        metrics: dict[str, float] | None = None
        step = first_step
        if lacks_evaluation:
            metrics = evaluate(state.params)
            if metrics is not None:
                telemetry.eval_line(step, metrics)
                history.append(_score(metrics, settings))
                if step % settings.checkpoint_every == 0 or step == settings.num_steps:
                    checkpoints.add_metrics(step, {settings.best_metric: history[-1]})
        is_stopped = False
        while step < settings.num_steps and not is_stopped:
            started = time.monotonic()
            host_batch = next(reader)
            telemetry.waited(time.monotonic() - started)
            if distributed.are_many():
                is_told = np.full(len(rows), stop.number is not None, np.int32)
                host_batch = {**host_batch, IS_STOPPING: is_told}
            profile.before(step)
            state, status = train_step(state, put_batch(mesh, host_batch))
            if step == first_step:
                telemetry.start_clock(step + 1)
            if previous is not None:
                is_stopped |= _read_status(task, settings, telemetry, step, previous)
            previous = status
            step += 1
            if not distributed.are_many():
                is_stopped = stop.number is not None

            is_last = step == settings.num_steps
            is_eval = is_last or step % settings.eval_every == 0
            is_save = is_last or step % settings.checkpoint_every == 0
            if is_eval or is_save:
                is_stopped |= _read_status(task, settings, telemetry, step, previous)
                previous = None
            if is_eval and is_stopped:
                # It is made up for when the run goes on.
                break
            if is_eval:
                with telemetry.paused():
                    metrics = evaluate(state.params)
                    if metrics is None:
                        break
                    telemetry.eval_line(step, metrics)
                history.append(_score(metrics, settings))
            if is_save:
                with telemetry.paused():
                    scores = {settings.best_metric: _score(metrics, settings)} if is_eval else None
                    checkpoints.save(step, state, task.about, scores)
            if is_eval and _is_stale(history, settings):
                telemetry.say(
                    f'No better {settings.best_metric} in {settings.patience} evaluations.'
                )
                break
        if previous is not None:
            _read_status(task, settings, telemetry, step, previous)

        # The end, or a pause: nothing that was learnt is lost.
        if checkpoints.latest_step() != step:
            checkpoints.save(step, state, task.about, None)
    # Another process may have been told.
    return Outcome(step, metrics, stop.number or (signal.SIGTERM if is_stopped else None))


# What a metric without a value is worth: less than any other.
_UNDEFINED = 1e9


def _score(metrics: Mapping[str, float] | None, settings: LoopSettings) -> float:
    """The metric that has to be best, and something worse than any value where it has none."""
    value = (metrics or {}).get(settings.best_metric)
    if value is None or not np.isfinite(value):
        return _UNDEFINED if settings.is_lower_better else -_UNDEFINED
    return value


def _history(workdir: Path, settings: LoopSettings, last_step: int) -> list[float]:
    """The metric that has to be best, of all evaluations up to a step."""
    path = workdir / METRICS_FILE
    lines = read_lines(path) if settings.patience and path.exists() else []
    return [
        _score(line, settings)
        for line in lines
        if line['split'] == 'validation' and line['step'] <= last_step
    ]


def _has_evaluation(workdir: Path, step: int) -> bool:
    path = workdir / METRICS_FILE
    lines = read_lines(path) if path.exists() else []
    return any(line['step'] == step and line['split'] == 'validation' for line in lines)


def _is_stale(history: list[float], settings: LoopSettings) -> bool:
    """Whether the best evaluation is too long ago."""
    if not settings.patience or not history:
        return False
    best = min(history) if settings.is_lower_better else max(history)
    return len(history) - 1 - history.index(best) >= settings.patience


def training_mesh(
    settings: LoopSettings, params: PyTree, devices: Sequence[Any] | None = None
) -> Mesh:
    """The mesh that a run of these settings has, for parameters of these shapes.

    Raises:
      UserError: if the devices are too few or do not divide.
    """
    num_fsdp = settings.num_fsdp
    if not num_fsdp:
        num_params = sum(x.size for x in jax.tree.leaves(params))
        num_devices = settings.num_devices or len(devices or jax.devices())
        num_fsdp = choose_fsdp(num_params, num_devices)
    return make_mesh(settings.num_devices, num_fsdp, devices)


def rows_per_device(settings: LoopSettings, num_devices: int) -> int:
    """Rows of a microbatch on each device.

    Raises:
      UserError: if the batch does not divide.
    """
    num_microbatches = max(settings.num_microbatches, 1)
    num_parts = num_devices * num_microbatches
    if settings.batch_size % num_parts:
        raise UserError(
            f'loop.batch_size is {settings.batch_size}; it must be a multiple of {num_parts} '
            f'({num_devices} devices × {num_microbatches} microbatches).'
        )
    return settings.batch_size // num_parts


def _local_rows(settings: LoopSettings, mesh: Mesh) -> range:
    rows_per_device(settings, mesh.size)
    counts = Counter(device.process_index for device in mesh.devices.flat)
    if len(counts) != jax.process_count() or len(set(counts.values())) != 1:
        raise UserError(
            f'loop.num_devices is {settings.num_devices}, of which the {jax.process_count()} '
            f'processes would have unequal shares; give a multiple of the processes, or 0 for all.'
        )
    size = settings.batch_size // jax.process_count()
    return range(jax.process_index() * size, (jax.process_index() + 1) * size)


def _fewest_microbatches(
    task: Task,
    settings: LoopSettings,
    mesh: Mesh,
    state: TrainState,
    step_in: Callable[[int], TrainStep],
) -> int:
    """As the compiler of these devices finds; one where memory has no such limit.

    Raises:
      UserError: if even the most are too few.
    """
    if mesh.devices.flat[0].platform == 'cpu':
        return 1
    rows = rows_per_device(settings, mesh.size)
    example = task.train_batch(settings.num_steps - 1, range(1))
    batch = {
        name: jax.ShapeDtypeStruct(
            (settings.batch_size * len(x), *x.shape[1:]), x.dtype, sharding=batch_sharding(mesh)
        )
        for name, x in example.items()
    }
    found = fewest_that_fit(
        lambda number: step_in(number).lower(state, batch).compile(),
        rows,
    )
    if found is None:
        raise UserError(
            f'{rows} rows a device do not fit into its memory in any number of microbatches; '
            f'lower loop.batch_size, use more devices, or set model.remat=full.'
        )
    if distributed.is_main():
        print(f'The batch is taken in {found} microbatches.')
    return found


def _state_maker(
    task: Task, example: Mapping[str, np.ndarray], seed: int
) -> Callable[[PyTree | None], TrainState]:
    shapes, frozen_shapes = jax.eval_shape(lambda *trees: trees, example, task.frozen)

    def make_state(start_params: PyTree | None) -> TrainState:
        def init_params(key: Array) -> PyTree:
            if start_params is None:
                return task.init_params(key)
            return task.init_params(key, start_params)

        return init_state(init_params, task.optimizer, task.objective, shapes, seed, frozen_shapes)

    return make_state


def _reader(
    batch: Callable[[int], HostBatch], first_step: int, num_steps: int
) -> Iterator[HostBatch]:
    """The batches of the steps to come, made in a thread while the device works."""
    steps = grain.MapDataset.range(first_step, num_steps).map(lambda step: batch(int(step)))
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=_NUM_BATCHES_AHEAD)
    return iter(steps.to_iter_dataset(options))


def _evaluator(
    task: Task,
    settings: LoopSettings,
    mesh: Mesh,
    rows: range,
    stop: '_StopSignal',
    frozen: Mapping[str, PyTree],
) -> Callable[[PyTree], dict[str, float] | None]:
    """Held-out means, or None if a signal came first: a preemption does not wait for minutes."""
    whole = replicator(mesh)
    custom = task.evaluate
    # What all compute together none may leave alone.
    is_stopped = (lambda: False) if distributed.are_many() else (lambda: stop.number is not None)
    if custom is not None:
        return lambda params: custom(whole(params), mesh, is_stopped)
    eval_step = make_eval_step(task.objective, mesh)
    num_batches = task.num_eval_batches
    if settings.num_eval_batches:
        num_batches = min(num_batches, settings.num_eval_batches)

    whole_frozen = whole(frozen)

    def evaluate(params: PyTree) -> dict[str, float] | None:
        params = {**whole(params), **whole_frozen}
        total: dict[str, Sum] | None = None
        for number in range(num_batches):
            if is_stopped():
                return None
            sums = eval_step(params, put_batch(mesh, task.eval_batch(number, rows)))
            total = sums if total is None else objectives.add(total, sums)
        assert total is not None
        return _means(total)

    return evaluate


def _means(sums: Mapping[str, Sum]) -> dict[str, float]:
    """Means of what there was something to average of."""
    sums = jax.device_get(dict(sums))
    return {
        name: float(pair.sum) / float(pair.weight) for name, pair in sums.items() if pair.weight > 0
    }


def _read_status(
    task: Task, settings: LoopSettings, telemetry: Telemetry, step: int, status: Status
) -> bool:
    """Logs the step before `step` has ended, and stops a run that no longer learns.

    Returns:
      Whether a process was told to stop.

    Raises:
      UserError: if too many steps in a row were skipped.
    """
    status = jax.device_get(status)
    telemetry.step_done(step)
    if status.num_skipped_in_a_row >= settings.max_skipped_in_a_row:
        raise UserError(
            f'Step {step}: the loss or gradient of {int(status.num_skipped_in_a_row)} steps in a '
            f'row was not finite; none of them reached the parameters, and the last checkpoint is '
            f'good. Start in another --workdir with a lower optimizer.learning_rate.'
        )
    if step % settings.log_every == 0:
        telemetry.train_line(
            step,
            {
                **_means(status.window),
                'learning_rate': _rate(task, step - 1 - int(status.num_skipped)),
                'skipped_steps': int(status.num_skipped),
            },
        )
    return bool(status.num_stopping > 0)


def _rate(task: Task, num_updates: int) -> float:
    """The learning rate of an update; skipped steps do not count."""
    return float(jnp.asarray(task.learning_rate(jnp.int32(max(num_updates, 0)))))


class _StopSignal:
    """Turns SIGTERM and the first Ctrl-C into a number that the loop sees."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._handle)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.number = number
        signal.signal(signal.SIGINT, signal.default_int_handler)
