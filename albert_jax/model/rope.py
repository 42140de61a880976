"""Rotary position embedding (RoPE, arXiv 2104.09864): queries and keys rotated by position."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# Section 3.3 there.
BASE = 10_000.0


def rotate(
    vectors: Float[Array, 'batch length hidden'],
    num_heads: int,
    positions: Int[Array, 'length'] | None = None,
) -> Float[Array, 'batch length hidden']:
    """Each head's vector rotated by its position: products depend on distances only.

    Numbers i and i + head/2 of a head are a pair, rotated by position · BASE^(−2i/head): the
    'rotate half' convention of GPT-NeoX, Llama and ModernBERT. (The paper pairs 2i with 2i + 1.)
    Angles and rotations are float32; the result has the dtype of the vectors.

    Args:
      vectors: queries or keys of all heads, side by side: one by one they would leave most of a
        TPU's vector lanes empty.
      num_heads: each of an even size.
      positions: 0, 1, … if left out.
    """
    length, width = vectors.shape[1:]
    half = width // num_heads // 2
    frequencies = (BASE ** (-np.arange(half) / half)).astype(np.float32)
    positions = jnp.arange(length) if positions is None else positions
    angles = positions.astype(jnp.float32)[:, None] * frequencies[None]
    cosines, sines = (jnp.tile(f(angles), (1, 2 * num_heads))[None] for f in (jnp.cos, jnp.sin))
    is_first = (np.arange(width) % (2 * half) < half)[None, None]
    vectors32 = vectors.astype(jnp.float32)
    partners = jnp.where(is_first, -jnp.roll(vectors32, -half, -1), jnp.roll(vectors32, half, -1))
    return (vectors32 * cosines + partners * sines).astype(vectors.dtype)
