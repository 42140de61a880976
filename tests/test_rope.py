"""Rotary positions: against complex numbers, by distances only, in kernels, in longer texts."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel

from albert_jax.model import attention
from albert_jax.model.albert import PretrainingModel
from albert_jax.model.rope import rotate
from tests import tiny
from tests.reference_albert import rotary

ROPE = tiny.config(position_encoding='rope')


def run(config, params, *arrays):
    return jax.jit(PretrainingModel(config).apply)({'params': params}, *arrays)


def vectors(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_rotations_equal_products_with_complex_numbers():
    given = vectors(2, 40, 3 * 64)
    expected = np.concatenate([rotary(x) for x in np.split(given.astype(np.float64), 3, 2)], 2)
    # Angles are float32: at position 39 they are exact to 2e-6.
    np.testing.assert_allclose(rotate(jnp.asarray(given), 3), expected, atol=1e-5)


def test_the_first_pair_turns_by_one_radian_a_position():
    given = np.zeros((1, 4, 6), np.float32)
    given[..., 0] = 1
    found = np.asarray(rotate(jnp.asarray(given), 1))[0]
    np.testing.assert_allclose(found[:, 0], np.cos(np.arange(4)), atol=1e-6)
    np.testing.assert_allclose(found[:, 3], np.sin(np.arange(4)), atol=1e-6)
    assert not found[:, [1, 2, 4, 5]].any()


@given(
    half=st.sampled_from([1, 2, 5, 16]),
    places=st.lists(st.integers(0, 60), min_size=2, max_size=2),
    shift=st.integers(0, 60),
    seed=st.integers(0, 1000),
)
@example(half=1, places=[0, 60], shift=60, seed=0)
def test_products_depend_on_the_distance_only(half, places, shift, seed):
    """Also: nothing is lost, since rotations keep lengths."""
    query, key = vectors(2, 2 * half, seed=seed)
    length = 121

    def at_every_place(vector):
        tiled = np.broadcast_to(vector, (1, length, 2 * half))
        return np.asarray(_rotate(jnp.asarray(tiled), 1), np.float64)[0]

    queries, keys = at_every_place(query), at_every_place(key)
    first, second = places
    scale = float(np.linalg.norm(query) * np.linalg.norm(key))
    product = queries[first] @ keys[second]
    shifted = queries[first + shift] @ keys[second + shift]
    assert shifted == pytest.approx(product, abs=2e-5 * scale)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=-1), np.linalg.norm(query), rtol=1e-5)


_rotate = jax.jit(rotate, static_argnums=1)


def test_bfloat16_is_rounded_once():
    given = jnp.asarray(vectors(1, 30, 16), jnp.bfloat16)
    found = rotate(given, 2)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, rotate(given.astype(jnp.float32), 2).astype(jnp.bfloat16))


def test_the_order_of_words_matters_and_the_table_is_gone():
    params = tiny.random_params(ROPE)
    assert set(params['embeddings']) == {'word', 'token_type', 'layer_norm', 'projection'}
    ids = np.array([[2, 7, 8, 9, 3], [2, 9, 8, 7, 3]], np.int32)
    pooled = run(ROPE, params, ids).pooled_output
    assert np.abs(pooled[0] - pooled[1]).max() > 1e-3


def test_the_splash_kernel_is_given_the_rotated_vectors(monkeypatch):
    name = 'make_splash_mha_single_device'
    make = functools.partial(getattr(splash_attention_kernel, name), interpret=True)
    monkeypatch.setattr(splash_attention_kernel, name, make)
    config = tiny.config(
        **tiny.MODERN, hidden_size=128, num_hidden_layers=1, max_position_embeddings=128,
        attention='splash',
    )  # fmt: skip
    params, ids = tiny.random_params(config, scale=0.1), np.arange(256).reshape(2, 128) % 60
    mask = (np.arange(128) < np.array([[128], [50]])).astype(np.int32)
    ids = ids.astype(np.int32)
    with attention.compiling_for('tpu'):
        found = run(config, params, ids, mask)
    plain = dataclasses.replace(config, attention='einsum')
    wanted = run(plain, params, ids, mask)
    kept = mask > 0
    np.testing.assert_allclose(
        found.last_hidden_state[kept], wanted.last_hidden_state[kept], atol=2e-5
    )


def test_the_longest_text_is_a_limit_without_weights():
    longer = dataclasses.replace(ROPE, max_position_embeddings=96)
    params = tiny.random_params(ROPE)
    ids = (np.arange(96)[None] % 50).astype(np.int32)
    mask = (np.arange(96) < 64).astype(np.int32)[None]
    short, long = run(ROPE, params, ids[:, :64]), run(longer, params, ids, mask)
    np.testing.assert_allclose(long.mlm_logits[:, :64], short.mlm_logits, atol=1e-5)
    with pytest.raises(ValueError, match='96 tokens; the model has 64 positions'):
        run(ROPE, params, ids)
