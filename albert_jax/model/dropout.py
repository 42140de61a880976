"""Dropout whose masks belong to examples and not to batches."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

# Features → features.
Dropout = Callable[[Array], Array]

# Random bits a mask entry: half of what a uniform float takes, and a rate exact to 2⁻¹⁷.
_BITS = jnp.uint16
_NUM_VALUES = 2**16


def drop(
    inputs: Float[Array, 'batch *rest'],
    rate: float,
    key: Key[Array, ''],
    example_ids: Int[Array, 'batch'],
) -> Float[Array, 'batch *rest']:
    """Dropout whose mask depends on the example's number and not on the batch around it.

    So one big batch, its microbatches and its shards on many devices draw the same masks.
    """
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, example_ids)
    bits = jax.vmap(lambda key: jax.random.bits(key, inputs.shape[1:], _BITS))(keys)
    return jnp.where(bits >= round(rate * _NUM_VALUES), inputs / (1 - rate), 0)


def no_dropout(features: Float[Array, '*shape']) -> Float[Array, '*shape']:
    """Drops nothing: evaluation, prediction and export."""
    return features


def make_dropout(
    rate: float, key: Key[Array, ''] | None, example_ids: Int[Array, 'batch']
) -> Dropout:
    """`drop` as a function of the features alone; `no_dropout` without a key or a rate."""
    if key is None or rate == 0:
        return no_dropout
    return functools.partial(drop, rate=rate, key=key, example_ids=example_ids)
