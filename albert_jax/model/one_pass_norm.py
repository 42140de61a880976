"""Layer normalisation in as few passes as there can be: for TPUs.

There, a pass over the activations costs about the same whatever it computes, and nothing where it
is part of a matrix product. Both sums of the forward pass are taken at once, at the end of the
product before it, and kept. The backward pass takes all its sums at once too.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(
    inputs: Float[Array, '... width'],
    scale: Float[Array, '... width'],
    bias: Float[Array, '... width'],
    eps: float,
) -> Float[Array, '... width']:
    """`elementwise.normalize(inputs, eps) * scale + bias`, in float32.

    The variance is E[x²] − E[x]², as in Flax: of its digits are lost as many as the square of the
    mean has more than itself.

    Args:
      inputs: of any float type.
      scale: of any shape that broadcasts along the width alone.
      bias: likewise.
      eps: added to the variance.
    """
    return _layer_norm_forward(inputs, scale, bias, eps)[0]


def _layer_norm_forward(
    inputs: Array, scale: Array, bias: Array, eps: float
) -> tuple[Array, tuple[Array, ...]]:
    inputs32 = inputs.astype(jnp.float32)
    mean = inputs32.mean(-1, keepdims=True)
    variance = jnp.square(inputs32).mean(-1, keepdims=True) - jnp.square(mean)
    inverse = jax.lax.rsqrt(jnp.maximum(variance, 0.0) + eps)
    outputs = (inputs32 - mean) * inverse * scale + bias
    return outputs, (inputs, scale, mean, inverse)


def _layer_norm_backward(
    eps: float, residuals: tuple[Array, ...], gradient: Array
) -> tuple[Array, Array, Array]:
    del eps
    inputs, scale, mean, inverse = residuals
    normalized = (inputs.astype(jnp.float32) - mean) * inverse
    leading = tuple(range(gradient.ndim - 1))
    to_scale = (gradient * normalized).sum(leading).reshape(scale.shape)
    to_bias = gradient.sum(leading).reshape(scale.shape)
    scaled = gradient * scale
    means = scaled.mean(-1, keepdims=True), (scaled * normalized).mean(-1, keepdims=True)
    to_inputs = inverse * (scaled - means[0] - normalized * means[1])
    return to_inputs.astype(inputs.dtype), to_scale, to_bias


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)
