"""Where a run's state and batches are: its mesh, its rows on each device, its microbatches."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from albert_jax.cli.errors import UserError
from albert_jax.model.paths import num_params
from albert_jax.runs.loop import LoopSettings
from albert_jax.training import distributed
from albert_jax.training.job import HostBatch, TrainingJob
from albert_jax.training.out_of_memory import is_out_of_memory
from albert_jax.training.sharding import batch_sharding, choose_fsdp, make_mesh, with_shardings
from albert_jax.training.step import TrainState, TrainStep, init_state, state_shardings


@dataclasses.dataclass(frozen=True)
class Placement:
    """A job's state in shapes and shardings, before any array of it is there.

    Args:
      mesh: of the run.
      rows: this process's of the global batch.
      abstract_state: shapes, types and shardings of the state.
      make_state: builds the state where it belongs, of the start parameters or None.
    """

    mesh: Mesh
    rows: range
    abstract_state: TrainState
    make_state: Callable[[PyTree | None], TrainState]


def place(job: TrainingJob, settings: LoopSettings) -> Placement:
    """The placement of a job on the devices there are. Nothing is ever built unsharded.

    Raises:
      UserError: if the devices are too few, or the batch does not divide.
    """
    example, frozen = jax.eval_shape(
        lambda *trees: trees, job.train_batch(0, range(1)), dict(job.frozen)
    )

    def make_state(start_params: PyTree | None) -> TrainState:
        def init_params(key: Array) -> PyTree:
            given = () if start_params is None else (start_params,)
            return job.init_params(key, *given)

        return init_state(init_params, job.optimizer, job.objective, example, settings.seed, frozen)

    shapes = jax.eval_shape(make_state, job.start_params)
    mesh = training_mesh(settings, shapes.params)
    shardings = state_shardings(shapes, mesh)
    return Placement(
        mesh,
        local_rows(settings, mesh),
        with_shardings(shapes, shardings),
        jax.jit(make_state, out_shardings=shardings),
    )


def training_mesh(
    settings: LoopSettings, params: PyTree, devices: Sequence[Any] | None = None
) -> Mesh:
    """The mesh of a run with these settings, for parameters of these shapes.

    Raises:
      UserError: if the devices are too few or do not divide.
    """
    num_fsdp = settings.num_fsdp
    if not num_fsdp:
        num_devices = settings.num_devices or len(devices or jax.devices())
        num_fsdp = choose_fsdp(num_params(params), num_devices)
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


def local_rows(settings: LoopSettings, mesh: Mesh) -> range:
    """The rows of the global batch that this process makes.

    Raises:
      UserError: if the batch does not divide, or processes would have unequal numbers of rows.
    """
    rows_per_device(settings, mesh.size)
    counts = Counter(device.process_index for device in mesh.devices.flat)
    if len(counts) != jax.process_count() or len(set(counts.values())) != 1:
        raise UserError(
            f'loop.num_devices is {settings.num_devices}, of which the {jax.process_count()} '
            f'processes would have unequal numbers of devices; give a multiple of the processes, '
            f'or 0 for all.'
        )
    size = settings.batch_size // jax.process_count()
    return range(jax.process_index() * size, (jax.process_index() + 1) * size)


def candidate_microbatches(rows: int) -> list[int]:
    """Numbers of microbatches to try: divisors of a device's rows that about double."""
    numbers = [1]
    while numbers[-1] < rows:
        numbers.append(next(n for n in range(2 * numbers[-1], rows + 1) if rows % n == 0))
    return numbers


def fewest_that_fit(compile_with: Callable[[int], object], rows: int) -> int | None:
    """The first number of microbatches that compiles, or None if none of them does.

    Args:
      compile_with: compiles the step in so many microbatches.
      rows: of the batch on each device.
    """
    for number in candidate_microbatches(rows):
        try:
            compile_with(number)
        except jax.errors.JaxRuntimeError as error:
            if not is_out_of_memory(error):
                raise
        else:
            return number
    return None


def choose_microbatches(
    settings: LoopSettings,
    placement: Placement,
    longest_example: Callable[[], HostBatch],
    step_in: Callable[[int], TrainStep],
) -> int:
    """The microbatches of the settings, or the fewest that fit where those are 0.

    Args:
      settings: of the loop.
      placement: of the job.
      longest_example: makes a row of the longest batch.
      step_in: the step in so many microbatches.

    Raises:
      UserError: if even the most are too few.
    """
    if settings.num_microbatches:
        return settings.num_microbatches
    rows = rows_per_device(settings, placement.mesh.size)
    sharding = batch_sharding(placement.mesh)
    batch = {
        name: jax.ShapeDtypeStruct(
            (settings.batch_size * len(x), *x.shape[1:]), x.dtype, sharding=sharding
        )
        for name, x in longest_example().items()
    }
    number = fewest_that_fit(
        lambda number: step_in(number).lower(placement.abstract_state, batch).compile(), rows
    )
    if number is None:
        raise UserError(
            f'{rows} rows a device do not fit into its memory in any number of microbatches; '
            f'lower loop.batch_size, use more devices, or set model.remat=full.'
        )
    if distributed.is_main():
        print(f'The batch is taken in {number} microbatches.')
    return number
