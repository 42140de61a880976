"""Kernels kept in the compute dtype, for programs that do not train the parameters."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, BFloat16, Float, Float32, UInt16

from albert_jax.model.paths import is_product_kernel, path_name


def round_kernels(params: dict[str, Any], compute_dtype: str) -> dict[str, Any]:
    """The parameters with their kernels in the compute dtype, to which every product rounds them.

    Kernels with a copy for each layer become the bits of bfloat16: to take one copy out of an array
    of bfloat16, XLA for CPU would first make all of them float32.

    Args:
      params: of a model, with its head if it has one.
      compute_dtype: of the model's config.
    """
    if compute_dtype != 'bfloat16':
        return params
    return jax.tree_util.tree_map_with_path(_round, params)


def _round(path: tuple[Any, ...], leaf: Any) -> Any:
    if not is_product_kernel(path_name(path)):
        return leaf
    kernel = jnp.asarray(leaf, jnp.bfloat16)
    return kernel if kernel.ndim == 2 else to_bits(kernel)


def to_bits(kernel: BFloat16[Array, '*shape']) -> UInt16[Array, '*shape']:
    """The bits of a kernel."""
    return jax.lax.bitcast_convert_type(kernel, jnp.uint16)


def from_bits(kernel: Array) -> Array:
    """The kernel of bits that `to_bits` made; any other array as it is."""
    if kernel.dtype != jnp.uint16:
        return kernel
    return jax.lax.bitcast_convert_type(kernel, jnp.bfloat16)


def rounded(kernel: Float[Array, '*shape'], dtype: jnp.dtype) -> Float32[Array, '*shape']:
    """A kernel rounded to the compute dtype, in float32; gradients pass as they are.

    A kernel may have been rounded before: it travels between devices in the compute dtype.
    """
    wide = kernel.astype(jnp.float32)
    return wide + jax.lax.stop_gradient(wide.astype(dtype).astype(jnp.float32) - wide)
