"""Choosing pieces by chance: temperature, top-k, top-p."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

# As int32, the bits of floats from 0 on are in the order of the floats; these are of just above 1.
_BITS_ABOVE_ONE = 0x3F800001


def sample(logits: Float[Array, 'rows vocab'], uniform: Float[Array, 'rows']) -> Int[Array, 'rows']:
    """One piece of each row, with the probability that its logits give it.

    The piece is where the cumulated probabilities pass a number between 0 and 1: one random number
    a row is drawn and not one a piece.

    Args:
      logits: −∞ for a piece that must not be taken.
      uniform: of each row, at least 0 and below 1.
    """
    cumulated = jnp.cumsum(jax.nn.softmax(logits), -1)
    total = cumulated[:, -1]
    # Rounding must not lead behind the last piece that has a probability.
    limit = jnp.minimum(uniform * total, jnp.nextafter(total, jnp.zeros_like(total)))
    return jnp.argmax(cumulated > limit[:, None], -1)


def keep_likeliest(
    logits: Float[Array, 'rows vocab'], top_k: Int[Array, ''], top_p: Float[Array, '']
) -> Float[Array, 'rows vocab']:
    """The logits with −∞ in place of those that top-k and then top-p leave out.

    Of pieces with equal probability, all are kept or none.

    Args:
      logits: of the pieces.
      top_k: how many are kept; 0 for all.
      top_p: the sum of the probabilities of those that are kept, of what top-k leaves.
    """
    probs = jax.nn.softmax(logits)
    count = jnp.where(top_k > 0, top_k, logits.shape[-1]).astype(jnp.float32)
    least = _threshold(probs, jnp.ones_like(probs), jnp.broadcast_to(count, probs.shape[:1]))
    probs = jnp.where(probs >= least[:, None], probs, 0)
    least = _threshold(probs, probs, top_p * probs.sum(-1))
    is_kept = (probs >= least[:, None]) & (probs > 0)
    return jnp.where(is_kept, logits, -jnp.inf)


def _threshold(
    probs: Float[Array, 'rows vocab'],
    amounts: Float[Array, 'rows vocab'],
    wanted: Float[Array, 'rows'],
) -> Float[Array, 'rows']:
    """The largest probability such that the amounts of those not below it are as much as wanted.

    By bisection over the bits of floats, which ends at the exact value after 31 steps: to sort a
    vocabulary takes a CPU twenty times as long. 0 where all amounts together are too little.
    """

    def halve(_: Int[Array, ''], ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = low + (high - low) // 2
        threshold = jax.lax.bitcast_convert_type(middle, jnp.float32)
        kept = jnp.where(probs >= threshold[:, None], amounts, 0).sum(-1)
        is_enough = kept >= wanted
        return jnp.where(is_enough, middle, low), jnp.where(is_enough, high, middle)

    rows = probs.shape[:1]
    ends = jnp.zeros(rows, jnp.int32), jnp.full(rows, _BITS_ABOVE_ONE, jnp.int32)
    low, _ = jax.lax.fori_loop(0, 31, halve, ends)
    return jax.lax.bitcast_convert_type(low, jnp.float32)


def uniforms(
    key: Key[Array, ''],
    example_ids: Int[Array, 'batch'],
    position: Int[Array, ''],
    num_samples: int,
) -> Float[Array, 'batch samples']:
    """Random numbers that depend on an example's number and not on the batch around it."""

    def of_example(example: Int[Array, '']) -> Float[Array, 'samples']:
        own = jax.random.fold_in(jax.random.fold_in(key, example), position)
        return jax.random.uniform(own, (num_samples,))

    return jax.vmap(of_example)(example_ids)
