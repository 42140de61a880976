"""`matmul.dense` without flattening the rows: for TPUs.

A reshape between a product and what is added to its result keeps the compiler from fusing them, in
the backward pass at least, and the sum becomes a pass over memory of its own.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def dense(
    inputs: Float[Array, '*rows inputs'], kernel: Float[Array, 'inputs outputs'], dtype: jnp.dtype
) -> Float[Array, '*rows outputs']:
    """`inputs @ kernel`, with operands rounded to `dtype` and a float32 result.

    Args:
      inputs: of any float type.
      kernel: of any float type.
      dtype: float32 or bfloat16.
    """
    if dtype == jnp.float32:
        return _product(inputs.astype(dtype), kernel.astype(dtype), 0)
    return _dense(inputs, kernel)


@jax.custom_vjp
def _dense(inputs: Array, kernel: Array) -> Array:
    return _product(_rounded(inputs), _rounded(kernel), 0)


def _dense_forward(inputs: Array, kernel: Array) -> tuple[Array, tuple[Array, ...]]:
    # Residuals must be arrays: the last one is there for its dtype.
    return _dense(inputs, kernel), (_rounded(inputs), kernel, jnp.zeros([0], inputs.dtype))


def _dense_backward(residuals: tuple[Array, ...], gradient: Array) -> tuple[Array, Array]:
    inputs, kernel, like = residuals
    gradient = _rounded(gradient)
    to_inputs = _product(gradient, _rounded(kernel), 1)
    rows = tuple(range(inputs.ndim - 1))
    to_kernel = jax.lax.dot_general(
        inputs, gradient, ((rows, rows), ((), ())), preferred_element_type=jnp.float32
    )
    return to_inputs.astype(like.dtype), to_kernel.astype(kernel.dtype)


_dense.defvjp(_dense_forward, _dense_backward)


def _rounded(x: Array) -> Array:
    return x.astype(jnp.bfloat16)


def _product(left: Array, right: Array, right_axis: int) -> Array:
    axes = (((left.ndim - 1,), (right_axis,)), ((), ()))
    return jax.lax.dot_general(left, right, axes, preferred_element_type=jnp.float32)
