"""Matrix products of bfloat16 operands accumulated in float32, in the forward and backward pass.

Autodiff of a product with bfloat16 operands and a float32 result gives products of a bfloat16 and
a float32 operand, which no matrix unit has. Here the incoming gradient is rounded once, and both of
its products run on the matrix unit too. The gradient of a weight is float32, never rounded.
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
    flat = inputs.reshape(-1, inputs.shape[-1])
    return matmul(flat, kernel, dtype).reshape(*inputs.shape[:-1], kernel.shape[1])


def matmul(
    left: Float[Array, '*batch rows inner'],
    right: Float[Array, '*batch inner columns'],
    dtype: jnp.dtype,
) -> Float[Array, '*batch rows columns']:
    """`left @ right` for each index of `batch`, operands rounded to `dtype`, the result float32.

    Args:
      left: of any float type.
      right: of any float type.
      dtype: float32 or bfloat16.
    """
    if dtype == jnp.float32:
        return _by_columns(left.astype(dtype), right.astype(dtype))
    return _matmul(left, right)


def matmul_transposed(
    left: Float[Array, '*batch rows inner'],
    right: Float[Array, '*batch columns inner'],
    dtype: jnp.dtype,
) -> Float[Array, '*batch rows columns']:
    """`left @ rightᵀ` for each index of `batch`, operands rounded to `dtype`, the result float32.

    Args:
      left: of any float type.
      right: of any float type.
      dtype: float32 or bfloat16.
    """
    if dtype == jnp.float32:
        return _by_rows(left.astype(dtype), right.astype(dtype))
    return _matmul_transposed(left, right)


@jax.custom_vjp
def _matmul(left: Array, right: Array) -> Array:
    return _by_columns(_rounded(left), _rounded(right))


def _matmul_forward(left: Array, right: Array) -> tuple[Array, tuple[Array, ...]]:
    return _matmul(left, right), (_rounded(left), right, _dtype_of(left))


def _matmul_backward(residuals: tuple[Array, ...], gradient: Array) -> tuple[Array, Array]:
    left, right, like = residuals
    gradient = _rounded(gradient)
    to_left = _by_rows(gradient, _rounded(right))
    to_right = _by_columns(_transposed(left), gradient)
    return to_left.astype(like.dtype), to_right.astype(right.dtype)


@jax.custom_vjp
def _matmul_transposed(left: Array, right: Array) -> Array:
    return _by_rows(_rounded(left), _rounded(right))


def _matmul_transposed_forward(left: Array, right: Array) -> tuple[Array, tuple[Array, ...]]:
    residuals = _rounded(left), _rounded(right), _dtype_of(left), _dtype_of(right)
    return _matmul_transposed(left, right), residuals


def _matmul_transposed_backward(
    residuals: tuple[Array, ...], gradient: Array
) -> tuple[Array, Array]:
    left, right, like_left, like_right = residuals
    gradient = _rounded(gradient)
    to_left = _by_columns(gradient, right)
    to_right = _by_columns(_transposed(gradient), left)
    return to_left.astype(like_left.dtype), to_right.astype(like_right.dtype)


_matmul.defvjp(_matmul_forward, _matmul_backward)
_matmul_transposed.defvjp(_matmul_transposed_forward, _matmul_transposed_backward)


def _rounded(x: Array) -> Array:
    return x.astype(jnp.bfloat16)


def _dtype_of(x: Array) -> Array:
    """An empty array of the dtype of `x`: residuals must be arrays."""
    return jnp.zeros([0], x.dtype)


def _by_columns(left: Array, right: Array) -> Array:
    return _product(left, right, right.ndim - 2)


def _by_rows(left: Array, right: Array) -> Array:
    return _product(left, right, right.ndim - 1)


def _product(left: Array, right: Array, right_axis: int) -> Array:
    batch = tuple(range(left.ndim - 2))
    axes = ((left.ndim - 1,), (right_axis,))
    return jax.lax.dot_general(
        left, right, (axes, (batch, batch)), preferred_element_type=jnp.float32
    )


def _transposed(x: Float[Array, '*batch rows columns']) -> Float[Array, '*batch columns rows']:
    """The matrices transposed: on CPU in memory, elsewhere as the compiler likes.

    XLA for CPU has no bfloat16 kernel for a product over the first axis of its left operand (it
    would compute in float32, at a third of the speed), and folds a transposition into the product.
    """
    return jax.lax.platform_dependent(x, cpu=_transposed_in_memory, default=_swapped)


def _swapped(x: Array) -> Array:
    return x.swapaxes(-1, -2)


def _transposed_in_memory(x: Array) -> Array:
    """Transposes by XLA's blocked copy, of which a branch keeps all fusions away.

    Fused with its neighbours, the transposition would read memory column by column, ten times
    slower (docs/RESULTS.md). The other branch, for a NaN, gives the same result. XLA converts an
    operand of a product to float32 where it is the direct result of a branch, but not where it is
    sliced. A slice of full size is the whole array, whatever start it is given; this start depends
    on the data, so that XLA keeps the slice.
    """
    is_nan = jnp.isnan(x.ravel()[0])
    swapped = jax.lax.cond(is_nan, _swapped_in_turns, _swapped, x)
    starts = (is_nan.astype(jnp.int32),) * x.ndim
    return jax.lax.dynamic_slice(swapped, starts, swapped.shape)


def _swapped_in_turns(x: Array) -> Array:
    # XLA must not recognise it as `_swapped`, or it would merge the two branches.
    return jnp.roll(_swapped(jnp.roll(x, 1, -1)), -1, -2)
