"""What a run takes on a TPU slice: counted on paper, and compiled for chips that are not there."""

import dataclasses
import functools
import re
import time
from typing import Any

import jax
from jaxtyping import PyTree

from albert_jax.cli.errors import UserError, first_line
from albert_jax.cli.phase import phase
from albert_jax.data.batch import batch_shapes
from albert_jax.model import attention
from albert_jax.model.albert import init_params
from albert_jax.model.flops import recomputed_flops, train_flops
from albert_jax.model.paths import flatten
from albert_jax.model.paths import num_params as num_params_of
from albert_jax.planning import hlo
from albert_jax.planning.hlo import Program
from albert_jax.planning.kernels import attention_bound
from albert_jax.planning.topologies import Slice
from albert_jax.runs.runs import PretrainRun
from albert_jax.training import objectives
from albert_jax.training.optimizer import make_optimizer, update_flops
from albert_jax.training.placement import (
    candidate_microbatches,
    is_out_of_memory,
    rows_per_device,
    training_mesh,
)
from albert_jax.training.sharding import batch_sharding, choose_fsdp, with_shardings
from albert_jax.training.step import init_state, make_train_step, state_shardings

_BYTES_PER_NUMBER = 4


@dataclasses.dataclass(frozen=True)
class OnPaper:
    """What follows from the config and the chip's published numbers alone; times in seconds."""

    num_params: int
    params_bytes: int
    optimizer_bytes: int
    num_fsdp: int
    # Of one step over the whole batch: what the model needs, and what remat computes again.
    model_flops: float
    recomputed_flops: float
    # Of one update, on each copy of the state.
    update_flops: float
    # No step can be faster than any of these.
    flops_seconds: float
    memory_seconds: float
    network_seconds: float

    @property
    def bound_seconds(self) -> float:
        """The highest of the lower bounds."""
        return max(self.flops_seconds, self.memory_seconds, self.network_seconds)


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the TPU compiler says of the real train step."""

    num_microbatches: int
    peak_bytes: int
    num_collectives: dict[str, int]
    collective_bytes: dict[str, int]
    # Element types of the reductions of gradients.
    reduced_types: tuple[str, ...]
    trip_counts: tuple[int, ...]
    # The compiler's estimate, without kernels; None where the chip's clock is not published.
    estimated_seconds: float | None
    # What the kernels take at the least, for which the compiler has no estimate, and what of the
    # chip takes so long.
    kernel_seconds: float
    kernel_limit: str
    compile_seconds: float


@dataclasses.dataclass(frozen=True)
class TooBig:
    """The step does not fit, even in the smallest microbatches that were tried."""

    num_microbatches: int
    message: str


def on_paper(run: PretrainRun, where: Slice) -> OnPaper:
    """Counts parameters, arithmetic and traffic of one step.

    Raises:
      UserError: if the devices or the batch do not divide.
    """

    model, pretraining, loop = run.albert, run.pretraining, run.loop
    chip, num_devices = where.chip, where.num_devices
    shapes = _param_shapes(run)
    num_params, num_moments = num_params_of(shapes), _num_moments(run, shapes)
    num_fsdp = loop.num_fsdp or choose_fsdp(num_params, num_devices)
    if loop.num_devices not in (0, num_devices):
        raise UserError(
            f'loop.num_devices is {loop.num_devices}, but {where.name} has {num_devices}; leave it '
            f'at 0 for all.'
        )
    if num_devices % num_fsdp:
        raise UserError(
            f'loop.num_fsdp is {num_fsdp}, which does not divide the {num_devices} devices of '
            f'{where.name}.'
        )
    rows_per_device(loop, num_devices)
    length = pretraining.sequence_length
    flops = train_flops(model, length, pretraining.max_predictions_per_sequence) * loop.batch_size
    again = recomputed_flops(model, length) * loop.batch_size

    # Every dense map reads its input and writes its output once a pass, in bfloat16.
    hidden = model.hidden_size
    passes = 3 + (1 if model.remat in ('full', 'attention') else 0)
    ffn = model.num_ffn_kernels * (hidden + model.ffn_size)
    per_token = 2 * (4 * 2 * hidden + ffn) * passes
    num_blocks = model.num_blocks
    traffic = loop.batch_size * length * num_blocks * per_token / num_devices
    # Read: weights, gradient, moments; written: weights, moments.
    traffic += _BYTES_PER_NUMBER * (3 * num_params + 2 * num_moments) / num_fsdp
    updating = update_flops(run.optimizer, {path: x.shape for path, x in flatten(shapes).items()})

    if num_fsdp > 1:
        # Kernels gathered in bfloat16, gradients scattered in float32, then summed over `data`.
        sent = (2 + 4) * num_params * (num_fsdp - 1) / num_fsdp
        num_replicas = num_devices // num_fsdp
        sent += 2 * 4 * num_params / num_fsdp * (num_replicas - 1) / num_replicas
    else:
        sent = 2 * 4 * num_params * (num_devices - 1) / num_devices
    return OnPaper(
        num_params=num_params,
        params_bytes=_BYTES_PER_NUMBER * num_params,
        optimizer_bytes=_BYTES_PER_NUMBER * num_moments,
        num_fsdp=num_fsdp,
        model_flops=flops,
        recomputed_flops=again,
        update_flops=updating,
        flops_seconds=((flops + again) / num_devices + updating / num_fsdp) / chip.peak_flops,
        memory_seconds=traffic / chip.memory_bandwidth,
        network_seconds=sent / chip.link_bandwidth,
    )


def compile_step(run: PretrainRun, where: Slice) -> Compiled | TooBig:
    """Compiles the train step for the slice.

    With `loop.num_microbatches` 0, in the fewest microbatches that fit.

    Raises:
      UserError: if libtpu is missing, the batch does not divide, or the devices do not.
    """
    rows_per_device(run.loop, where.num_devices)
    num_microbatches = run.loop.num_microbatches
    if num_microbatches:
        return _compile_once(run, where, num_microbatches)
    rows = run.loop.batch_size // where.num_devices
    tried: Compiled | TooBig | None = None
    for parts in candidate_microbatches(rows):
        tried = _compile_once(run, where, parts)
        if isinstance(tried, Compiled):
            return tried
    assert tried is not None
    return tried


def _param_shapes(run: PretrainRun) -> PyTree:

    return jax.eval_shape(functools.partial(init_params, run.albert), jax.random.key(0))


def _num_moments(run: PretrainRun, shapes: PyTree) -> int:
    """Numbers that the optimizer keeps, its counters aside."""
    optimizer = make_optimizer(run.optimizer, run.loop.num_steps, run.albert)
    state = jax.eval_shape(optimizer.init, shapes)
    return sum(leaf.size for leaf in jax.tree.leaves(state) if leaf.ndim)


def lower_step(run: PretrainRun, devices: list[Any], num_microbatches: int) -> Any:
    """The train step, lowered for these devices with the arrays where a run has them."""

    model, pretraining, loop = run.albert, run.pretraining, run.loop
    mesh = training_mesh(loop, _param_shapes(run), devices)
    objective = objectives.pretraining(
        model, pretraining.sentence_loss, pretraining.mlm_weight, pretraining.sentence_weight
    )
    optimizer = make_optimizer(run.optimizer, loop.num_steps, model)
    rows = batch_sharding(mesh)
    batch = {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=rows)
        for name, (shape, dtype) in batch_shapes(pretraining, loop.batch_size).items()
    }
    state = jax.eval_shape(
        lambda: init_state(
            functools.partial(init_params, model), optimizer, objective, batch, loop.seed
        )
    )
    state = with_shardings(state, state_shardings(state, mesh))
    step = make_train_step(
        objective, optimizer, mesh, num_microbatches, loop.log_every, loop.seed, model.compute_dtype
    )
    return step.lower(state, batch)


def _compile_once(run: PretrainRun, where: Slice, num_microbatches: int) -> Compiled | TooBig:

    with attention.compiling_for('tpu'):
        lowered = lower_step(run, where.devices(), num_microbatches)
    started = time.monotonic()
    try:
        with phase(f'Compiling the step for {where.name}; a minute or more for a large model …'):
            compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return TooBig(num_microbatches, _shortfall(error))
    seconds = time.monotonic() - started
    program = hlo.analyse(compiled.as_text())
    memory = compiled.memory_analysis()
    peak = (
        memory.argument_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
    )
    clock = where.chip.clock
    bound = attention_bound(run.albert, run.pretraining.sequence_length, where.chip)
    rows = run.loop.batch_size / where.num_devices
    return Compiled(
        num_microbatches=num_microbatches,
        peak_bytes=peak,
        num_collectives=program.num_collectives,
        collective_bytes=program.collective_bytes,
        reduced_types=_reduced_types(program),
        trip_counts=program.trip_counts,
        estimated_seconds=program.estimated_cycles / clock if clock else None,
        kernel_seconds=rows * bound.seconds if program.num_kernel_calls else 0.0,
        kernel_limit=bound.limit if program.num_kernel_calls else '',
        compile_seconds=seconds,
    )


def _reduced_types(program: 'Program') -> tuple[str, ...]:
    """Element types of all reductions of more than a number here and there."""
    element_types = {
        element_type
        for (kind, element_type), size in program.bytes_by_type.items()
        if kind in ('all-reduce', 'reduce-scatter') and size > 1024
    }
    return tuple(sorted(element_types))


def _shortfall(error: Exception) -> str:
    """What the compiler says about the memory that is needed and that there is."""
    message = str(error)
    sizes = re.search(r'\(([\d.]+\w)\) exceeds available\s+\w*\s*\(([\d.]+\w)\)', message)
    if sizes:
        return f'needs {sizes[1]} of {sizes[2]}'
    used = re.search(r'Used ([\d.]+\w) of ([\d.]+\w) hbm', message)
    return f'needs {used[1]} of {used[2]}' if used else first_line(error, 160)
