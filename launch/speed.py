"""How fast this machine trains: by the members that are finished, or by a matrix product."""

import time
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp

from albert_jax.runs.runs import PretrainRun
from launch.record import FINISHED, read_record
from launch.stages import PRETRAIN

# What a training of the sizes of mini reaches of the product's speed, on two cores.
_FRACTION = 0.4
_MAX_ROWS = 1024
_PROBE_SECONDS = 0.3


def flops_per_second(root: Path, flops: Mapping[str, float], run: PretrainRun) -> tuple[float, str]:
    """The speed of a training on this machine, and where it is known from, as a phrase.

    Args:
      root: folder of the sweep.
      flops: of the pretrainings of its members, by name.
      run: one of them, whose sizes a product is timed with where none is finished.
    """
    seconds = {}
    for name in flops:
        record = read_record(root, f'{name}/{PRETRAIN}')
        if record.state == FINISHED and record.seconds:
            seconds[name] = record.seconds
    if seconds:
        speed = sum(flops[name] for name in seconds) / sum(seconds.values())
        return speed, 'as fast as the members that are finished'
    product = _product_speed(run)
    return _FRACTION * product, (
        f'at {_FRACTION:.0%} of the {product / 1e9:,.0f} GFLOP/s of its matrix products, just timed'
    )


def _product_speed(run: PretrainRun) -> float:
    """FLOP/s of the product of a feed-forward layer of the model."""
    num_rows = min(_MAX_ROWS, run.loop.batch_size * run.pretraining.sequence_length)
    config = run.albert
    rows = jnp.ones((num_rows, config.hidden_size), jnp.float32)
    kernel = jnp.ones((config.hidden_size, config.intermediate_size), jnp.float32)
    product = jax.jit(jnp.dot)
    product(rows, kernel).block_until_ready()
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < _PROBE_SECONDS:
        product(rows, kernel).block_until_ready()
        count += 1
    flops = 2.0 * num_rows * config.hidden_size * config.intermediate_size
    return count * flops / (time.perf_counter() - started)


def duration(seconds: float) -> str:
    """As in `25 minutes` or `3.2 hours`."""
    if seconds < 90:
        return f'{seconds:.0f} seconds'
    if seconds < 2 * 3600:
        return f'{seconds / 60:.0f} minutes'
    return f'{seconds / 3600:,.1f} hours'
