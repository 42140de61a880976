"""Activations and normalization, computed again in the backward pass.

To compute an elementwise map again from the output of the matrix product before it is cheaper than
to write its intermediate values to memory and read them back.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from albert_jax.model import one_pass_norm, target

_recomputed = functools.partial(jax.checkpoint, static_argnums=1, prevent_cse=False)


def _gelu_tanh(x: Float[Array, '*shape']) -> Float[Array, '*shape']:
    return jax.nn.gelu(x, approximate=True)


def _gelu_erf(x: Float[Array, '*shape']) -> Float[Array, '*shape']:
    # jax.nn.gelu takes 1 + erf(x) as erfc(-x), which XLA computes more slowly.
    return 0.5 * x * (1.0 + jax.lax.erf(x * 0.5**0.5))


_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    'gelu_tanh': _gelu_tanh,
    'gelu_erf': _gelu_erf,
    'relu': jax.nn.relu,
}


@_recomputed
def activate(inputs: Float[Array, '*rows'], name: str) -> Float[Array, '*rows']:
    """The activation of that name, `AlbertConfig.hidden_act`, in float32."""
    return _ACTIVATIONS[name](inputs.astype(jnp.float32))


@functools.partial(jax.checkpoint, static_argnums=2, prevent_cse=False)
def activate_gated(
    gate: Float[Array, '*rows'], inputs: Float[Array, '*rows'], name: str
) -> Float[Array, '*rows']:
    """`activate(gate, name) · inputs`, in float32 (arXiv 2002.05202, equation 5)."""
    return _ACTIVATIONS[name](gate.astype(jnp.float32)) * inputs.astype(jnp.float32)


@_recomputed
def normalize(inputs: Float[Array, '... width'], eps: float) -> Float[Array, '... width']:
    """Zero mean and unit variance over the last axis, in float32; no scale and no bias.

    Args:
      inputs: of any float type.
      eps: added to the variance.
    """
    return _normalize(inputs, eps)


def layer_norm(
    inputs: Float[Array, '... width'],
    scale: Float[Array, '... width'],
    bias: Float[Array, '... width'],
    eps: float,
) -> Float[Array, '... width']:
    """`normalize(inputs, eps) * scale + bias`, in float32.

    Args:
      inputs: of any float type.
      scale: with axes of 1 before its own.
      bias: with axes of 1 before its own.
      eps: added to the variance.
    """
    if target.backend() == 'tpu':
        return one_pass_norm.layer_norm(inputs, scale, bias, eps)
    if target.backend() == 'gpu':
        return _recomputed_layer_norm(inputs, scale, bias, eps)
    return normalize(inputs, eps) * scale + bias


@functools.partial(jax.checkpoint, static_argnums=3, prevent_cse=False)
def _recomputed_layer_norm(inputs: Array, scale: Array, bias: Array, eps: float) -> Array:
    # The gradient of the scale needs what is scaled, which is float32 and would be kept.
    return _normalize(inputs, eps) * scale + bias


def _normalize(inputs: Array, eps: float) -> Array:
    inputs = inputs.astype(jnp.float32)
    centered = inputs - inputs.mean(-1, keepdims=True)
    variance = jnp.square(centered).mean(-1, keepdims=True)
    return centered * jax.lax.rsqrt(variance + eps)
