"""The kernels of `fused_attention` and a model with them, interpreted, against the einsum."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from albert_jax.model import attention, fused_attention
from albert_jax.model.albert import PretrainingModel
from tests import tiny


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """The kernels without a TPU. (Remat refuses the effects of `force_tpu_interpret_mode`.)"""
    call = functools.partial(pl.pallas_call, interpret=True)
    monkeypatch.setattr(fused_attention.pl, 'pallas_call', call)


def operands(batch, length, num_heads, head_size, seed=0):
    """Queries, keys and values side by side, what to multiply the result with, and a mask."""
    rng = np.random.default_rng(seed)
    shape = batch, length, num_heads * head_size
    *parts, weights = rng.normal(size=(4, *shape)).astype(np.float32)
    mask = np.arange(length) < rng.integers(length // 4, length, (batch, 1))
    return parts, weights, jnp.asarray(mask, jnp.int32)


def kernel_gradients(parts, weights, mask, num_heads, dropout=None):
    """The result of the kernel, its gradients, and that of the bias."""

    def total(parts, bias):
        projected = fused_attention.interleave(parts, num_heads)
        found = fused_attention.attend(projected, mask, num_heads, bias, dropout)
        return (found.astype(jnp.float32) * weights).sum(), found

    bias = jnp.zeros(3 * parts[0].shape[-1])
    gradients, found = jax.jit(jax.grad(total, (0, 1), has_aux=True))(parts, bias)
    return found, *gradients


def einsum_gradients(parts, weights, mask, num_heads, keep=None, rate=0.0):
    """The same with all scores at once, and with given masks of dropout."""
    batch, length, hidden = weights.shape

    def total(parts):
        query, key, value = (x.reshape(batch, length, num_heads, -1) for x in parts)
        scores = jnp.einsum('bqhd,bkhd->bhqk', query, key) * query.shape[-1] ** -0.5
        scores = jnp.where(mask[:, None, None] > 0, scores, -1e9)
        probs = jax.nn.softmax(scores)
        if keep is not None:
            probs = jnp.where(keep, probs / (1 - rate), 0.0)
        found = jnp.einsum('bhqk,bkhd->bqhd', probs, value).reshape(batch, length, hidden)
        return (found * weights).sum(), found

    gradients, found = jax.jit(jax.grad(total, has_aux=True))(parts)
    return found, gradients


def assert_alike(found, wanted):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        # The gradient of the keys' bias is 0 but for its rounding.
        np.testing.assert_allclose(one, other, atol=1e-5 * max(np.abs(other).max(), 1.0))


@pytest.mark.parametrize(
    ('batch', 'length', 'num_heads', 'head_size'),
    # Two heads in a block of columns; two rows in a step of the grid; five blocks, one a step.
    [(2, 128, 4, 64), (4, 256, 2, 64), (1, 128, 5, 128), (1, 128, 8, 32)],
)
def test_the_kernels_equal_the_einsum(batch, length, num_heads, head_size):
    parts, weights, mask = operands(batch, length, num_heads, head_size)
    context, gradients, to_bias = kernel_gradients(parts, weights, mask, num_heads)
    wanted = einsum_gradients(parts, weights, mask, num_heads)
    assert_alike((context, gradients), wanted)
    sums = [x.sum((0, 1)) for x in wanted[1]]
    np.testing.assert_allclose(to_bias, fused_attention.interleave(sums, num_heads), atol=1e-4)


def test_the_kernels_use_memory_as_a_tpu_has_it(monkeypatch):
    """In the interpreter that simulates buffers, copies and the grid of a TPU."""
    call = functools.partial(pl.pallas_call.func, interpret=pltpu.InterpretParams())
    monkeypatch.setattr(fused_attention.pl, 'pallas_call', call)
    parts, weights, mask = operands(2, 128, 2, 64)
    dropout = attention.Dropout(0.2, jax.random.key(5), jnp.array([3, 70]))
    found = kernel_gradients(parts, weights, mask, 2, dropout)[:2]
    keep = numpy_masks(dropout, 2, 128)
    assert_alike(found, einsum_gradients(parts, weights, mask, 2, keep, dropout.rate))


def test_bfloat16_differs_by_its_rounding():
    parts, weights, mask = operands(2, 128, 2, 64)
    rounded = [jnp.asarray(x, jnp.bfloat16) for x in parts]
    found = kernel_gradients(rounded, weights, mask, 2)[:2]
    exact = einsum_gradients([x.astype(jnp.float32) for x in rounded], weights, mask, 2)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
        assert one.dtype == jnp.bfloat16
        error = np.abs(np.asarray(one, np.float32) - np.asarray(other)).max()
        assert error < 0.02 * np.abs(other).max()


def numpy_masks(dropout, num_heads, length):
    """Which probabilities are kept, by the definition in `keep_bits`, in NumPy."""
    number = np.arange(length, dtype=np.uint32)
    counters = number[:, None] * np.uint32(512) + number[None]
    masks = []
    for example in np.asarray(dropout.example_ids):
        key = jax.random.fold_in(dropout.key, example)
        seeds = np.asarray(jax.random.bits(key, (1, 2 * ((num_heads + 1) // 2)), jnp.uint32))[0]
        for head in range(num_heads):
            first, second = seeds[2 * (head // 2) :][:2]
            bits = counters ^ first
            bits = (bits ^ (bits >> 16)) * np.uint32(0x7FEB352D)
            bits = (bits ^ (bits >> 15) ^ second) * np.uint32(0x846CA68B)
            bits = bits ^ (bits >> 16)
            half = bits >> 16 if head % 2 else bits & 0xFFFF
            masks.append(half >= round(dropout.rate * 2**16))
    return np.stack(masks).reshape(-1, num_heads, length, length)


@pytest.mark.parametrize(('num_heads', 'head_size'), [(4, 64), (3, 128)])
def test_dropout_has_one_mask_forward_and_backward(num_heads, head_size):
    parts, weights, mask = operands(2, 128, num_heads, head_size)
    dropout = attention.Dropout(0.2, jax.random.key(5), jnp.array([3, 70]))
    keep = numpy_masks(dropout, num_heads, 128)
    found = kernel_gradients(parts, weights, mask, num_heads, dropout)[:2]
    assert_alike(found, einsum_gradients(parts, weights, mask, num_heads, keep, dropout.rate))


def test_masks_belong_to_examples_and_heads_and_look_random():
    rate, length = 0.1, 256
    dropout = attention.Dropout(rate, jax.random.key(0), jnp.array([1, 2]))
    keep = numpy_masks(dropout, 4, length)
    alone = dropout._replace(example_ids=jnp.array([2]))
    np.testing.assert_array_equal(numpy_masks(alone, 4, length)[0], keep[1])
    dropped = ~keep.reshape(8, length, length)
    # Five standard deviations of a mean over a head, a row, and a pair of anything.
    deviation = np.sqrt(rate * (1 - rate))
    assert np.abs(dropped.mean((1, 2)) - rate).max() < 5 * deviation / length
    for axis in (1, 2):
        assert np.abs(dropped.mean(axis) - rate).max() < 5 * deviation / np.sqrt(length)
    centered = dropped.reshape(8, -1) - rate
    pairs = centered @ centered.T / centered.shape[1]
    assert np.abs(pairs - np.diag(np.diag(pairs))).max() < 5 * deviation**2 / length
    shifted = dropped - rate
    for axis in (1, 2):
        for distance in (1, 2, 128):
            product = (shifted * np.roll(shifted, distance, axis)).mean((1, 2))
            assert np.abs(product).max() < 5 * deviation**2 / length


@pytest.mark.parametrize('options', [{'remat': 'attention'}, tiny.MODERN | {'remat': 'dense'}])
def test_a_model_for_tpus_equals_one_for_cpus(options):
    """The kernels, products that are not flattened and norms in one pass, in a training step."""
    sizes = {'hidden_size': 128, 'num_attention_heads': 2, 'max_position_embeddings': 128}
    config = tiny.config(**{**options, **sizes, 'num_hidden_layers': 2, 'attention': 'fused'})
    params = tiny.random_params(dataclasses.replace(config, attention='einsum'), scale=0.1)
    ids = (np.arange(256).reshape(2, 128) * 7 % 60).astype(np.int32)
    mask = (np.arange(128) < np.array([[128], [50]])).astype(np.int32)
    weights = np.random.default_rng(0).normal(size=(2, 128, 128)) * mask[:, :, None]

    def gradients(config):
        def total(params):
            outputs = PretrainingModel(config).apply({'params': params}, ids, mask)
            found = outputs.last_hidden_state
            return (found * weights.astype(np.float32)).sum(), found[mask > 0]

        return jax.jit(jax.grad(total, has_aux=True))(params)

    with attention.compiling_for('tpu'):
        found = gradients(config)
    assert_alike(found, gradients(config.plain))


@pytest.mark.parametrize(
    ('shape', 'message'),
    [
        ((96, 2, 64), 'sequences of 96 tokens are no multiple of 128'),
        ((1024, 2, 64), 'up to 512 tokens, not 1024'),
        ((128, 3, 64), '3 heads of 64 do not fill registers of 128 numbers side by side'),
        ((128, 2, 96), '2 heads of 96 do not fill'),
    ],
)
def test_shapes_that_the_kernels_do_not_take(shape, message):
    assert message in fused_attention.problem(*shape)
    assert fused_attention.problem(512, 12, 64) == ''
    assert fused_attention.problem(128, 3, 256) == ''
