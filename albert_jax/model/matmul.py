"""Matrix products of bfloat16 operands accumulated in float32, in the forward and backward pass.

Autodiff of a product with bfloat16 operands and a float32 result gives products of a bfloat16 and
a float32 operand, which no matrix unit has. Here the incoming gradient is rounded once, and both of
its products run on the matrix unit too. The gradient of a weight is float32, never rounded.

Where a result is rounded to bfloat16 right away, GPUs are asked for the rounded one: cuBLAS writes
what it is asked for, and the rounding of a float32 result is a pass through memory of its own.
Other compilers make it part of the product.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from albert_jax.model import target, unflattened

_FLOAT32 = jnp.dtype(jnp.float32)


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


def dense_with_bias(
    inputs: Float[Array, '*rows inputs'],
    kernel: Float[Array, 'inputs outputs'],
    bias: Float[Array, 'outputs'],
    dtype: jnp.dtype,
) -> Float[Array, '*rows outputs']:
    """`inputs @ kernel + bias` in `dtype`, with operands rounded to it, accumulated in float32.

    Args:
      inputs: of any float type.
      kernel: of any float type.
      bias: of any float type.
      dtype: float32 or bfloat16.
    """
    if dtype == jnp.float32 or target.backend() != 'gpu':
        product = unflattened.dense if target.backend() == 'tpu' else dense
        outputs = product(inputs, kernel, dtype)
        return (outputs + bias.reshape((1,) * (inputs.ndim - 1) + bias.shape)).astype(dtype)
    flat = inputs.astype(dtype).reshape(-1, inputs.shape[-1])
    outputs = _add_bias(matmul(flat, kernel, dtype, dtype), bias)
    return outputs.reshape(*inputs.shape[:-1], kernel.shape[1])


@jax.custom_vjp
def _add_bias(product: Array, bias: Array) -> Array:
    """The sum in bfloat16, which cuBLAS makes part of the product."""
    return product + _rounded(bias)[None]


def _add_bias_forward(product: Array, bias: Array) -> tuple[Array, Array]:
    return _add_bias(product, bias), bias


def _add_bias_backward(bias: Array, gradient: Array) -> tuple[Array, Array]:
    # As of any parameter, the gradient is summed in float32.
    return gradient, gradient.astype(bias.dtype).sum(0)


_add_bias.defvjp(_add_bias_forward, _add_bias_backward)


def matmul(
    left: Float[Array, '*batch rows inner'],
    right: Float[Array, '*batch inner columns'],
    dtype: jnp.dtype,
    out_dtype: jnp.dtype | None = None,
) -> Float[Array, '*batch rows columns']:
    """`left @ right` for each index of `batch`, operands rounded to `dtype`.

    Args:
      left: of any float type.
      right: of any float type.
      dtype: float32 or bfloat16.
      out_dtype: of the result, which is accumulated in float32; float32 if left out.
    """
    out_dtype = jnp.dtype(out_dtype or jnp.float32)
    if dtype == jnp.float32:
        return _by_columns(left.astype(dtype), right.astype(dtype)).astype(out_dtype)
    is_gpu = target.backend() == 'gpu'
    product = jnp.asarray(_matmul(left, right, out_dtype if is_gpu else _FLOAT32, is_gpu))
    return product.astype(out_dtype)


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
    return _matmul_transposed(left, right, target.backend() == 'gpu')


# The platform is an argument of what JAX may trace once and use again.


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _matmul(left: Array, right: Array, out_dtype: jnp.dtype, is_gpu: bool) -> Array:
    return _by_columns(_rounded(left), _rounded(right), out_dtype)


def _matmul_forward(
    left: Array, right: Array, out_dtype: jnp.dtype, is_gpu: bool
) -> tuple[Array, tuple[Array, ...]]:
    residuals = _rounded(left), right, _dtype_of(left)
    return _matmul(left, right, out_dtype, is_gpu), residuals


def _matmul_backward(
    out_dtype: jnp.dtype, is_gpu: bool, residuals: tuple[Array, ...], gradient: Array
) -> tuple[Array, Array]:
    left, right, like = residuals
    gradient = _rounded(gradient)
    to_left = _by_rows(gradient, _rounded(right), like.dtype if is_gpu else _FLOAT32)
    to_right = _by_columns(_transposed(left), gradient, right.dtype if is_gpu else _FLOAT32)
    return to_left.astype(like.dtype), to_right.astype(right.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _matmul_transposed(left: Array, right: Array, is_gpu: bool) -> Array:
    return _by_rows(_rounded(left), _rounded(right))


def _matmul_transposed_forward(
    left: Array, right: Array, is_gpu: bool
) -> tuple[Array, tuple[Array, ...]]:
    residuals = _rounded(left), _rounded(right), _dtype_of(left), _dtype_of(right)
    return _matmul_transposed(left, right, is_gpu), residuals


def _matmul_transposed_backward(
    is_gpu: bool, residuals: tuple[Array, ...], gradient: Array
) -> tuple[Array, Array]:
    left, right, like_left, like_right = residuals
    gradient = _rounded(gradient)
    to_left = _by_columns(gradient, right, like_left.dtype if is_gpu else _FLOAT32)
    to_right = _by_columns(_transposed(gradient), left, like_right.dtype if is_gpu else _FLOAT32)
    return to_left.astype(like_left.dtype), to_right.astype(like_right.dtype)


_matmul.defvjp(_matmul_forward, _matmul_backward)
_matmul_transposed.defvjp(_matmul_transposed_forward, _matmul_transposed_backward)


def _rounded(x: Array) -> Array:
    return x.astype(jnp.bfloat16)


def _dtype_of(x: Array) -> Array:
    """An empty array of the dtype of `x`: residuals must be arrays."""
    return jnp.zeros([0], x.dtype)


def _by_columns(left: Array, right: Array, out_dtype: jnp.dtype = _FLOAT32) -> Array:
    return _product(left, right, right.ndim - 2, out_dtype)


def _by_rows(left: Array, right: Array, out_dtype: jnp.dtype = _FLOAT32) -> Array:
    return _product(left, right, right.ndim - 1, out_dtype)


def _product(left: Array, right: Array, right_axis: int, out_dtype: jnp.dtype) -> Array:
    batch = tuple(range(left.ndim - 2))
    axes = ((left.ndim - 1,), (right_axis,))
    return jax.lax.dot_general(
        left, right, (axes, (batch, batch)), preferred_element_type=out_dtype
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
