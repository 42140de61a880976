"""Products that round to bfloat16: exactly what their docstring says, in both directions."""

import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from albert_jax.model import elementwise, matmul, target


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


def test_what_gpus_are_asked_for_is_rounded_once_more_at_most():
    """On the CPU here: the program for a GPU, against float64 of rounded operands."""
    rng = np.random.default_rng(0)
    inputs, kernel, bias, gradient = (
        jnp.asarray(rng.normal(size=shape), jnp.float32)
        for shape in ((4, 8, 64), (64, 32), (32,), (4, 8, 32))
    )
    half = jnp.dtype('bfloat16')

    def run(*operands):
        return matmul.dense_with_bias(*operands, half)

    with target.compiling_for('gpu'):
        value, pull = jax.vjp(jax.jit(run), inputs.astype(half), kernel, bias)
        to_inputs, to_kernel, to_bias = pull(gradient.astype(half))
    assert value.dtype == to_inputs.dtype == half
    assert to_kernel.dtype == to_bias.dtype == jnp.float32
    inputs, kernel, gradient = rounded(inputs), rounded(kernel), rounded(gradient)
    rows, columns = inputs.reshape(-1, 64), gradient.reshape(-1, 32)
    for found, wanted in (
        (value, inputs @ kernel + rounded(bias)),
        (to_inputs, gradient @ kernel.T),
    ):
        np.testing.assert_allclose(rounded(found), wanted, atol=2.0**-7 * np.abs(wanted).max())
    # Gradients of parameters are float32.
    np.testing.assert_allclose(to_kernel, rows.T @ columns, atol=1e-4)
    np.testing.assert_allclose(to_bias, columns.sum(0), atol=1e-4)


def test_the_norm_for_gpus_keeps_no_float32_and_is_the_same():
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.normal(size=(4, 8, 64)), jnp.bfloat16)
    scale, bias = (jnp.asarray(rng.normal(size=(1, 1, 64)), jnp.float32) for _ in range(2))

    def run(*operands):
        return elementwise.layer_norm(*operands, 1e-12).astype(jnp.bfloat16)

    found = {}
    for platform in ('cpu', 'gpu'):
        with target.compiling_for(platform):
            value, pull = jax.vjp(run, inputs, scale, bias)
        kept = [x for x in jax.tree.leaves(pull) if x.ndim == 3 and x.shape[1] == 8]
        assert any(x.dtype == jnp.float32 for x in kept) == (platform == 'cpu')
        found[platform] = value, *pull(jnp.ones_like(value))
    for ours, theirs in zip(found['gpu'], found['cpu'], strict=True):
        np.testing.assert_allclose(rounded(ours), rounded(theirs), rtol=1e-5, atol=1e-6)


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
