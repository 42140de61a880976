"""Rotary position embedding (RoPE, arXiv 2104.09864): queries and keys rotated by position."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Section 3.3 there.
BASE = 10_000.0


def rotate(
    vectors: Float[Array, 'batch heads length head'],
) -> Float[Array, 'batch heads length head']:
    """Each vector rotated by its position 0, 1, …, so that products depend on distances only.

    Numbers i and i + head/2 of a vector are a pair, rotated by position · BASE^(−2i/head): the
    'rotate half' convention of GPT-NeoX, Llama and ModernBERT. (The paper pairs 2i with 2i + 1.)
    Angles and rotations are float32; the result has the dtype of the vectors.

    Args:
      vectors: queries or keys; the size of a head is even.
    """
    length, size = vectors.shape[2:]
    half = size // 2
    frequencies = (BASE ** (-np.arange(half) / half)).astype(np.float32)
    angles = jnp.arange(length, dtype=jnp.float32)[:, None] * frequencies[None]
    cosines, sines = jnp.cos(angles)[None, None], jnp.sin(angles)[None, None]
    vectors32 = vectors.astype(jnp.float32)
    first, second = vectors32[..., :half], vectors32[..., half:]
    rotated = [first * cosines - second * sines, second * cosines + first * sines]
    return jnp.concatenate(rotated, -1).astype(vectors.dtype)
