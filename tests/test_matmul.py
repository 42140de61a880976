"""Products that round to bfloat16: exactly what their docstring says, in both directions."""

import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from albert_jax.model import matmul


def rounded(x):
    return np.asarray(x).astype(ml_dtypes.bfloat16).astype(np.float64)


@pytest.mark.parametrize('shape', [(7, 3, 5), (32, 64, 128), (96, 256, 2), (1, 64, 64)], ids=str)
@pytest.mark.parametrize('batch', [(), (2, 3)], ids=str)
@pytest.mark.parametrize('is_transposed', [False, True])
def test_values_and_gradients_are_of_rounded_operands(shape, batch, is_transposed):
    rows, inner, columns = shape
    rng = np.random.default_rng(0)
    left = rng.normal(size=(*batch, rows, inner)).astype(np.float32)
    right = rng.normal(size=(*batch, inner, columns)).astype(np.float32)
    gradient = rng.normal(size=(*batch, rows, columns)).astype(np.float32)
    product = matmul.matmul_transposed if is_transposed else matmul.matmul
    operand = right.swapaxes(-1, -2) if is_transposed else right

    def run(left, operand):
        return product(left, operand, jnp.dtype('bfloat16'))

    value, pull = jax.vjp(jax.jit(run), jnp.asarray(left), jnp.asarray(operand))
    to_left, to_right = pull(gradient)
    to_right = to_right.swapaxes(-1, -2) if is_transposed else to_right
    assert value.dtype == to_left.dtype == to_right.dtype == jnp.float32
    left, right, gradient = rounded(left), rounded(right), rounded(gradient)
    for found, wanted in (
        (value, left @ right),
        (to_left, gradient @ right.swapaxes(-1, -2)),
        (to_right, left.swapaxes(-1, -2) @ gradient),
    ):
        np.testing.assert_allclose(found, wanted, atol=1e-5 * np.sqrt(max(shape)) * 3)


def test_float32_is_not_rounded():
    rng = np.random.default_rng(0)
    left, right = (rng.normal(size=(64, 64)).astype(np.float32) for _ in range(2))
    exact = left.astype(np.float64) @ right
    left, right = jnp.asarray(left), jnp.asarray(right)
    np.testing.assert_allclose(matmul.matmul(left, right, jnp.dtype('float32')), exact, atol=1e-4)
    half = matmul.matmul(left, right, jnp.dtype('bfloat16'))
    assert np.abs(half - exact).max() > 1e-2


def test_a_nan_gets_through_the_transposition():
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    for corner in (0.0, np.nan):
        x[0, 0] = corner
        np.testing.assert_array_equal(matmul._transposed(jnp.asarray(x)), x.T)
        np.testing.assert_array_equal(matmul._swapped_in_turns(jnp.asarray(x)), x.T)


@pytest.mark.parametrize('batch', [(), (12,)], ids=str)
@pytest.mark.parametrize('product', [matmul.matmul, matmul.matmul_transposed])
def test_no_product_is_computed_in_float32(batch, product):
    """XLA for CPU turns what its bfloat16 kernels do not take into float32, three times slower."""
    left = jnp.zeros((*batch, 128, 256))
    right = jnp.zeros((*batch, 256, 64) if product is matmul.matmul else (*batch, 64, 256))
    gradient = jnp.zeros((*batch, 128, 64))

    def both(left, right, gradient):
        found, pull = jax.vjp(lambda *x: product(*x, jnp.dtype('bfloat16')), left, right)
        return found, pull(gradient)

    program = jax.jit(both).lower(left, right, gradient).compile().as_text()
    parameters = dict(re.findall(r'%(\S+) = (\w+)\[\S* parameter', program))
    operands = re.findall(r' dot\(%(\S+), %(\S+)\)', program)
    assert len(operands) == 3
    assert {parameters[name] for pair in operands for name in pair} == {'bf16'}
