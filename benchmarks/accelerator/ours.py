"""One model at one length: the loop's own train step and the forward pass, in the largest batch."""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from albert_jax.data.batch import HostBatch
from albert_jax.data.pretraining import PretrainingData
from albert_jax.model import attention
from albert_jax.model.albert import init_params
from albert_jax.model.config import SIZES, AlbertConfig
from albert_jax.model.flops import peak_flops, train_flops
from albert_jax.runs.optimizer import OptimizerSettings
from albert_jax.training import objectives
from albert_jax.training.optimizer import make_optimizer
from albert_jax.training.out_of_memory import is_out_of_memory
from albert_jax.training.sharding import (
    batch_sharding,
    make_mesh,
    put_batch,
    replicated,
    with_shardings,
)
from albert_jax.training.step import (
    TrainState,
    TrainStep,
    init_state,
    make_eval_step,
    make_train_step,
    state_shardings,
)
from benchmarks.accelerator.data import make_batches
from benchmarks.accelerator.rows import guarded, log, seconds_of, tell

TINY = AlbertConfig(
    vocab_size=1000,
    embedding_size=16,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
)
# The largest batch of the paper.
_MOST_ROWS = 4096
# A CPU does not say how much memory it has for us, and its shapes are to be tiny.
_CPU_BYTES = 2**30
_MOST_ROWS_OF_TINY = 8
# Left for what is not in the program: batches ahead, fragments.
_USABLE = 0.92
_NUM_AHEAD = 4


def config_of(model: str, implementation: str = 'auto') -> AlbertConfig:
    """A model in bfloat16; 'tiny' for CPUs."""
    config = TINY if model == 'tiny' else SIZES[f'albert_{model}']
    return dataclasses.replace(config, compute_dtype='bfloat16', attention=implementation)


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled train step for batches of one size."""

    batch_size: int
    step: TrainStep
    compile_seconds: float
    # What the compiler says that it takes on each device.
    num_bytes: int


class Ours:
    """The training of a model on batches of one length.

    Args:
      model: 'tiny', 'base' or 'large'.
      length: tokens of a sequence.
      implementation: of attention.
    """

    def __init__(self, model: str, length: int, implementation: str) -> None:
        self.config = config_of(model, implementation)
        self.length = length
        self.mesh = make_mesh()
        self.objective = objectives.pretraining(self.config)
        # LAMB, as in pretraining.
        settings = OptimizerSettings(schedule='constant', warmup_steps=0, learning_rate=1e-4)
        self._optimizer = make_optimizer(settings, 1000, self.config)
        self.what = {'by': 'albert_jax', 'model': model, 'length': length}
        self.what['attention'] = attention.choose(
            self.config.attention, attention.backend(), length, False, self.config.cudnn_problem
        )

    def batches(self, batch_size: int) -> PretrainingData:
        """batch(step) of so many sequences."""
        return make_batches(self.config.vocab_size, self.length, batch_size)

    def _make_state(self) -> TrainState:
        init = functools.partial(init_params, self.config)
        example = self.batches(1).batch(0)
        return init_state(init, self._optimizer, self.objective, example, 0)

    def new_state(self) -> TrainState:
        """A state where it belongs."""
        shardings = state_shardings(jax.eval_shape(self._make_state), self.mesh)
        return jax.jit(self._make_state, out_shardings=shardings)()

    def compile(self, batch_size: int) -> Program:
        """The train step for batches of so many sequences."""
        shapes = jax.eval_shape(self._make_state)
        state = with_shardings(shapes, state_shardings(shapes, self.mesh))
        sharding = batch_sharding(self.mesh)
        batch = {
            name: jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype, sharding=sharding)
            for name, x in self.batches(1).batch(0).items()
        }
        step = make_train_step(
            self.objective, self._optimizer, self.mesh, 1, 1000, 0, self.config.compute_dtype
        ).on(self.mesh)
        started = time.monotonic()
        compiled = step.lower(state, batch).compile()
        seconds = time.monotonic() - started
        memory = compiled.memory_analysis()
        num_bytes = (
            0
            if memory is None
            else (
                memory.temp_size_in_bytes
                + memory.argument_size_in_bytes
                + memory.output_size_in_bytes
                - memory.alias_size_in_bytes
            )
        )
        log(f'{self.what}: batch {batch_size}, {num_bytes / 2**20:.0f} MiB, {seconds:.1f} s')
        return Program(batch_size, dataclasses.replace(step, jitted=compiled), seconds, num_bytes)

    def largest(self, first: int) -> Program:
        """The step with the largest batch that fits, by two compilations if all goes well.

        Args:
          first: sequences on each device that surely fit.
        """
        count = self.mesh.size
        program = self.compile(first * count)
        limit = _USABLE * device_bytes()
        # What does not grow with the batch is small: parameters, moments, gradients.
        fixed = 24 * sum(x.size for x in jax.tree.leaves(jax.eval_shape(self._make_state).params))
        grows = max(program.num_bytes - fixed, program.num_bytes // 4, 1) / first
        rows = int((limit - fixed) / grows)
        while rows > first:
            most = _MOST_ROWS_OF_TINY if self.config.hidden_size == TINY.hidden_size else _MOST_ROWS
            rows = min(most, rows if rows < 8 else rows // 8 * 8)
            at_most = 0.85 * rows
            try:
                larger = self.compile(rows * count)
                if larger.num_bytes <= limit:
                    self.run_steps(larger, 1)
                    return larger
                # Now that two sizes are known, the line through them.
                slope = (larger.num_bytes - program.num_bytes) / (rows - first)
                at_most = 0.98 * (rows - (larger.num_bytes - limit) / slope)
            except jax.errors.JaxRuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            rows = int(min(at_most, 0.98 * rows))
        return program

    def run_steps(self, program: Program, count: int) -> None:
        """Runs a new state through some steps, to see that they fit."""
        state = self.new_state()
        batch = put_batch(self.mesh, self.batches(program.batch_size).batch(0))
        for _ in range(count):
            state, status = program.step(state, batch)
        jax.block_until_ready(status)


def device_bytes() -> int:
    """Memory of a device that programs can have."""
    stats = jax.local_devices()[0].memory_stats()
    return stats['bytes_limit'] if stats and 'bytes_limit' in stats else _CPU_BYTES


def peak_bytes() -> int | None:
    """The most memory of a device that was in use since the process started."""
    stats = jax.local_devices()[0].memory_stats()
    return stats.get('peak_bytes_in_use') if stats else None


def read_ahead(batch: Callable[[int], HostBatch]) -> Iterator[HostBatch]:
    """Batches made in a thread while the device works, as the loop has them."""
    with ThreadPoolExecutor(1) as pool:
        queue: list[Future[HostBatch]] = []
        for step in itertools.count():
            queue.append(pool.submit(batch, step))
            if len(queue) > _NUM_AHEAD:
                yield queue.pop(0).result()


def speed(ours: Ours, batch_size: int, seconds: float, share: float = 1.0) -> dict[str, Any]:
    """What an amount of time for a batch means.

    Args:
      ours: whose model.
      batch_size: sequences.
      seconds: of a batch.
      share: of a train step's arithmetic.
    """
    num_masked = ours.batches(1).batch(0)['masked_ids'].shape[1]
    flops = share * train_flops(ours.config, ours.length, num_masked)
    per_second = batch_size / seconds
    peak = peak_flops(jax.local_devices()[0].device_kind)
    mfu = None if peak is None else per_second * flops / (peak * ours.mesh.size)
    return {
        'batch': batch_size,
        'milliseconds': 1e3 * seconds,
        'sequences_per_second': per_second,
        'sequences_per_second_per_device': per_second / ours.mesh.size,
        'mfu': mfu,
    }


def measure_step(ours: Ours, program: Program, budget: float) -> None:
    """Tells the speed of the train step in a loop like the real one."""
    data, state = ours.batches(program.batch_size), ours.new_state()
    fixed = put_batch(ours.mesh, data.batch(0))

    def once() -> None:
        nonlocal state
        state, status = program.step(state, fixed)
        jax.block_until_ready(status)

    alone = seconds_of(once, budget / 3)
    batches = read_ahead(data.batch)
    previous, count, waited = None, 0, 0.0
    started = time.monotonic()
    while count < 3 or time.monotonic() - started < budget * 2 / 3:
        before = time.monotonic()
        batch = next(batches)
        waited += time.monotonic() - before
        state, status = program.step(state, put_batch(ours.mesh, batch))
        # As the loop: a step is dispatched before the status of the one before it is read.
        jax.block_until_ready(previous)
        previous, count = status, count + 1
    jax.block_until_ready(previous)
    taken = time.monotonic() - started
    seconds = taken / count
    tell(
        **ours.what,
        what='train step',
        **speed(ours, program.batch_size, seconds),
        num_steps=count,
        loss=float(np.asarray(previous.norms)[0]) if previous is not None else None,
        compile_seconds=program.compile_seconds,
        peak_bytes=peak_bytes(),
        program_bytes=program.num_bytes,
        # Of the loop's time: the host waited for a batch; the device did not work on a step.
        data_wait=waited / taken,
        device_wait=max(0.0, 1 - alone / seconds),
    )


def measure_forward(ours: Ours, batch_size: int, budget: float) -> None:
    """Tells the speed of the forward pass: the losses of held-out batches."""
    params = jax.jit(
        functools.partial(init_params, ours.config), out_shardings=replicated(ours.mesh)
    )(jax.random.key(0))
    batch = put_batch(ours.mesh, ours.batches(batch_size).batch(0))
    evaluate = make_eval_step(ours.objective, ours.mesh)
    started = time.monotonic()
    jax.block_until_ready(evaluate(params, batch))
    first = time.monotonic() - started
    seconds = seconds_of(lambda: jax.block_until_ready(evaluate(params, batch)), budget)
    tell(
        **ours.what,
        what='forward',
        **speed(ours, batch_size, seconds, 1 / 3),
        compile_seconds=max(0.0, first - seconds),
        peak_bytes=peak_bytes(),
    )


def main(model: str, length: int, implementation: str, batch: int, budget: float) -> None:
    """Measures a model at a length.

    Args:
      model: 'tiny', 'base' or 'large'.
      length: tokens of a sequence.
      implementation: of attention.
      batch: sequences on each device; 0 to find the most that fit.
      budget: seconds for each measurement, without compilation.
    """
    what = {'by': 'albert_jax', 'model': model, 'length': length}
    found: list[Program] = []

    def train() -> None:
        ours = Ours(model, length, implementation)
        if batch:
            found.append(ours.compile(batch * ours.mesh.size))
        else:
            found.append(ours.largest(2 if model == 'tiny' else 16))
        measure_step(ours, found[0], budget)

    guarded(what | {'what': 'train step'}, train)
    if found and implementation == 'auto':
        size = found[0].batch_size
        found.clear()
        guarded(
            what | {'what': 'forward'},
            lambda: measure_forward(Ours(model, length, implementation), size, budget),
        )
