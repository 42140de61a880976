"""The attention implementations against each other: values, gradients and speed."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from albert_jax.cli.errors import UserError
from albert_jax.model import attention
from albert_jax.model.config import ATTENTIONS
from benchmarks.accelerator.rows import guarded, seconds_of, tell

_HALF, _FULL = jnp.dtype('bfloat16'), jnp.dtype('float32')
# By how much more than the bfloat16 einsum an implementation may be off: rounding in another order.
_TIMES_EINSUM = 2.0
# Below this a difference is rounding, whatever the einsum's is: half a unit of bfloat16.
_ROUNDING = 2.0**-8


def available(length: int) -> list[str]:
    """The implementations that the devices have for this length, the einsum first."""
    names = ['einsum']
    for name in ATTENTIONS:
        if name in ('auto', 'einsum'):
            continue
        try:
            names.append(attention.choose(name, attention.backend(), length, False))
        except UserError:
            continue
    if attention.backend() != 'cpu' and 'chunked' in names:
        # It is made for the caches of CPUs.
        names.remove('chunked')
    return names


def operands(batch: int, heads: int, length: int, size: int) -> tuple[Array, ...]:
    """Query, key, value and the weights of a loss, in bfloat16, and a mask with padding."""
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=(4, batch, heads, length, size)).astype(np.float32)
    lengths = rng.integers(length // 4, length + 1, batch)
    lengths[0] = length
    mask = (np.arange(length) < lengths[:, None]).astype(np.int32)
    # What padding gives is never used, and has no gradient.
    arrays[3] *= mask[:, None, :, None]
    return *(jnp.asarray(x, _HALF) for x in arrays), jnp.asarray(mask)


def values(name: str, dtype: Any) -> Callable[..., tuple[Array, ...]]:
    """The output, and the gradients of query, key and value, of an implementation."""

    def loss(
        query: Array, key: Array, value: Array, weights: Array, mask: Array
    ) -> tuple[Array, Array]:
        context = attention.attend(query, key, value, mask, dtype, None, name)
        return (context.astype(_FULL) * weights.astype(_FULL)).sum(), context

    def run(*arguments: Array) -> tuple[Array, ...]:
        (_, context), gradients = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(*arguments)
        return context, *gradients

    return jax.jit(run)


def worst_error(found: tuple[Array, ...], exact: tuple[Array, ...], mask: Array) -> list[float]:
    """The largest difference of each array, as a share of its largest number, without padding."""
    is_token = np.asarray(mask)[:, None, :, None] > 0
    errors = []
    for pair in zip(found, exact, strict=True):
        ours, theirs = (np.asarray(x, np.float64) * is_token for x in pair)
        errors.append(float(np.abs(ours - theirs).max() / np.abs(theirs).max()))
    return errors


def compare(length: int, batch: int, heads: int, budget: float) -> None:
    """Tells errors and speed of every implementation at a length.

    Args:
      length: tokens of a sequence.
      batch: sequences.
      heads: each of 64 numbers.
      budget: seconds for the speed of each.
    """
    arguments = operands(batch, heads, length, 64)
    exact = values('einsum', _FULL)(*(x.astype(_FULL) for x in arguments[:4]), arguments[4])
    of_einsum: list[float] = []
    for name in available(length):
        what = {'what': 'attention', 'attention': name, 'length': length, 'batch': batch}

        def measure(name: str = name, what: dict[str, Any] = what) -> None:
            run = values(name, _HALF)
            errors = worst_error(run(*arguments), exact, arguments[4])
            if name == 'einsum':
                of_einsum[:] = errors
            limits = [max(_TIMES_EINSUM * x, _ROUNDING) for x in of_einsum]
            # NaN is within nothing.
            is_within = all(x <= limit for x, limit in zip(errors, limits, strict=True))
            names = ('output', 'query gradient', 'key gradient', 'value gradient')
            tell(
                **what,
                is_within_rounding=is_within,
                errors=dict(zip(names, errors, strict=True)),
                milliseconds=1e3
                * seconds_of(lambda: jax.block_until_ready(run(*arguments)), budget),
            )

        guarded(what, measure)


def main(model: str, budget: float) -> None:
    """Compares the implementations in shapes of a model.

    Args:
      model: 'tiny' for a CPU, else the number of heads is that of `albert_base`.
      budget: seconds for the speed of each.
    """
    if model == 'tiny':
        compare(32, 2, 2, budget)
        return
    for length in (128, 512):
        compare(length, 2**15 // length, 12, budget)
