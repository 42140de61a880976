"""Attention in all its forms against NumPy, the Pallas kernel in interpret mode."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel

from albert_jax.cli.errors import UserError
from albert_jax.model import attention, fused_attention


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """The kernel without a TPU. (`force_tpu_interpret_mode` of jax 0.10 cannot `vmap`.)"""
    name = 'make_splash_mha_single_device'
    make = functools.partial(getattr(splash_attention_kernel, name), interpret=True)
    monkeypatch.setattr(splash_attention_kernel, name, make)


def operands(batch=2, heads=3, length=128, size=64):
    rng = np.random.default_rng(0)
    query, key, value = rng.normal(size=(3, batch, heads, length, size)).astype(np.float32)
    mask = (np.arange(length) < rng.integers(length // 4, length, (batch, 1))).astype(np.int32)
    return tuple(map(jnp.asarray, (query, key, value, mask)))


def reference(query, key, value, mask):
    """Section 3.2.1 of arXiv 1706.03762, in float64."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    mask = np.asarray(mask)
    scores = np.einsum('bhqd,bhkd->bhqk', query, key) / np.sqrt(query.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True)) * mask[:, None, None]
    return np.einsum('bhqk,bhkd->bhqd', weights / weights.sum(-1, keepdims=True), value)


@pytest.mark.parametrize(
    ('implementation', 'length'), [('einsum', 128), ('chunked', 512), ('splash', 128)]
)
def test_each_implementation_equals_numpy(implementation, length):
    query, key, value, mask = operands(1 if length == 512 else 2, 6, length)
    found = attention.attend(query, key, value, mask, jnp.dtype('float32'), None, implementation)
    np.testing.assert_allclose(found, reference(query, key, value, mask), atol=1e-5)


@pytest.mark.parametrize(('implementation', 'length'), [('chunked', 512), ('splash', 128)])
def test_gradients_of_each_implementation_equal_those_of_the_einsum(implementation, length):
    query, key, value, mask = operands(1 if length == 512 else 2, 6, length)
    # What padding gives is never used.
    weights = np.random.default_rng(1).normal(size=query.shape) * np.asarray(mask)[:, None, :, None]

    def gradients(name):
        def total(query, key, value):
            found = attention.attend(query, key, value, mask, jnp.dtype('float32'), None, name)
            return (found * weights.astype(np.float32)).sum()

        return jax.jit(jax.grad(total, (0, 1, 2)))(query, key, value)

    for found, wanted in zip(gradients(implementation), gradients('einsum'), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5 * jnp.abs(wanted).max())


def test_long_sequences_are_really_taken_in_chunks():
    query, key, value, mask = operands(1, 6, 512)

    def attend(name):
        return jax.make_jaxpr(
            lambda: attention.attend(query, key, value, mask, jnp.dtype('float32'), None, name)
        )()

    assert 'scan' in str(attend('chunked'))
    assert 'scan' not in str(attend('einsum'))


def test_dropout_is_the_same_in_chunks():
    query, key, value, mask = operands(2, 6, 256)
    dropout = attention.Dropout(0.4, jax.random.key(0), jnp.array([7, 3]))

    def attend(name):
        return attention.attend(query, key, value, mask, jnp.dtype('float32'), dropout, name)

    np.testing.assert_allclose(attend('chunked'), attend('einsum'), atol=1e-5)
    without = reference(query, key, value, mask)
    assert np.abs(attend('einsum') - without).max() > 0.05


def test_the_machine_chooses_and_says_what_it_could_not_have(caplog):
    attention._note.cache_clear()
    assert attention.choose('auto', 'cpu', 512, False) == 'chunked'
    assert attention.choose('auto', 'gpu', 512, False) == 'cudnn'
    assert attention.choose('auto', 'tpu', 512, False) == 'fused'
    assert attention.choose('auto', 'tpu', 512, True) == 'fused'
    assert attention.choose('auto', 'tpu', 1024, False, 'too long') == 'splash'
    assert attention.choose('splash', 'tpu', 512, False) == 'splash'
    assert attention.choose('chunked', 'tpu', 512, False) == 'chunked'
    assert not caplog.records
    assert attention.choose('auto', 'tpu', 1024, True, 'too long') == 'einsum'
    assert 'no dropout' in caplog.text
    assert attention.choose('auto', 'tpu', 96, False, 'no multiple') == 'einsum'
    assert '96 tokens are no multiple of 128' in caplog.text
    with pytest.raises(UserError, match='that kernel needs a TPU, and this is a cpu'):
        attention.choose('splash', 'cpu', 128, False)
    assert attention.backend() == 'cpu'
    with attention.compiling_for('tpu'):
        assert attention.backend() == 'tpu'
    with pytest.raises(UserError, match='model.attention is splash, but sequences of 96 tokens'):
        attention.choose('splash', 'tpu', 96, False)
    with pytest.raises(UserError, match='model.attention is splash, but it has no dropout'):
        attention.choose('splash', 'tpu', 512, True)
    with pytest.raises(UserError, match='model.attention is fused, but it takes sequences of up'):
        attention.choose('fused', 'tpu', 1024, False, fused_attention.problem(1024, 12, 64))
    with pytest.raises(UserError, match='model.attention is fused, but that kernel needs a TPU'):
        attention.choose('fused', 'cpu', 128, False)
