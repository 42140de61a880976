"""Attention by cuDNN's kernel: asked for where it can be had, and with the einsum's values.

No GPU is needed. What the kernel computes is taken from JAX's own implementation of the same
function, and the module for CUDA is lowered with a stand-in for the one check that asks for cuDNN.
"""

import dataclasses
import functools
import logging
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax._src.cudnn import fused_attention_stablehlo

from albert_jax.cli.errors import UserError
from albert_jax.model import attention, cudnn, target
from albert_jax.model.albert import PretrainingModel, init_params
from albert_jax.model.config import AlbertConfig
from albert_jax.runs.optimizer import OptimizerSettings
from albert_jax.tasks.prediction import Predictor
from albert_jax.training import objectives
from albert_jax.training.optimizer import make_optimizer
from albert_jax.training.sharding import make_mesh
from albert_jax.training.step import init_state, make_train_step
from tests import tiny

FORWARD, BACKWARD = '__cudnn$fmhaSoftmax(', '__cudnn$fmhaSoftmaxBackward('
HALF = tiny.config(
    hidden_size=32, compute_dtype='bfloat16', max_position_embeddings=128, vocab_size=1000
)


@pytest.fixture(autouse=True)
def detected(monkeypatch):
    """cuDNN 9.13, as JAX would find it on a machine with a GPU."""
    monkeypatch.setattr(fused_attention_stablehlo, 'check_cudnn_version', lambda: 91300)
    attention._note.cache_clear()


def padding(*lengths, length=128):
    return (np.arange(length) < np.array(lengths)[:, None]).astype(np.int32)


def batch_of(config, mask):
    batch = next(tiny.pretraining_batches(1, len(mask), mask.shape[1]))
    return batch | {'attention_mask': mask}


def lowered_for_cuda(config, batch, *, is_right_padded=True, has_gradient=True):
    """The text of the loss and its gradient, lowered for CUDA; of the loss alone, as traced."""
    model = PretrainingModel(config)
    params = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))

    def loss(params, batch, key):
        output = model.apply(
            {'params': params}, batch['input_ids'], batch['attention_mask'],
            deterministic=False, rngs={'dropout': key}, is_right_padded=is_right_padded,
        )  # fmt: skip
        return output.mlm_logits.sum()

    function = jax.grad(loss) if has_gradient else loss
    key = jax.eval_shape(lambda: jax.random.key(0))
    with target.compiling_for('gpu'):
        traced = jax.jit(function).trace(params, batch, key)
        return (
            str(traced.jaxpr)
            if not has_gradient
            else (traced.lower(lowering_platforms=('cuda',)).as_text())
        )


def test_a_train_step_for_cuda_has_the_kernel_forward_and_backward():
    config, mesh = HALF, make_mesh(1)
    batch = batch_of(config, padding(128, 40))
    objective = objectives.pretraining(config)
    optimizer = make_optimizer(OptimizerSettings(warmup_steps=0), 10, config)
    state = jax.eval_shape(
        lambda: init_state(lambda key: init_params(config, key), optimizer, objective, batch, 0)
    )
    with target.compiling_for('gpu'):
        step = make_train_step(objective, optimizer, mesh, 1, 10, 0, 'bfloat16')
        traced = step.jitted.trace(state, {}, batch, step.key)
        text = traced.lower(lowering_platforms=('cuda',)).as_text()
    assert text.count(FORWARD) == text.count(BACKWARD) == 1
    assert 'PADDING' in text and 'x128x128xf32>' not in text
    # Of the 256 tokens no product is float32 and rounded afterwards, a pass through memory of its
    # own on a GPU: eight dense maps and their gradients.
    products = re.findall(r'dot_general.*-> tensor<256x\d+x(\w+)>', text)
    assert len(products) >= 14 and set(products) == {'bf16'}


def test_prediction_for_cuda_has_the_kernel():
    shapes = jax.eval_shape(lambda: tiny.classifier_params(HALF))
    predictor = Predictor(HALF, tiny.CLASSES, make_mesh(8), 8, 128, 0)
    batch = dict.fromkeys(
        ('input_ids', 'attention_mask', 'token_type_ids'), jax.ShapeDtypeStruct((8, 128), jnp.int32)
    )
    with target.compiling_for('gpu'):
        lowered = predictor._predict_batch.function.trace(shapes, batch).lower(
            lowering_platforms=('cuda',)
        )
    assert FORWARD in lowered.as_text()


@pytest.mark.parametrize(
    ('changes', 'length', 'is_right_padded', 'said'),
    [
        ({'compute_dtype': 'float32'}, 128, True, 'compute_dtype bfloat16, and this is float32'),
        ({'attention_probs_dropout_prob': 0.1}, 128, True, 'no dropout of attention'),
        ({'hidden_size': 24}, 128, True, 'heads of a multiple of 8 up to 128, and these are of 12'),
        ({'hidden_size': 272}, 128, True, 'these are of 136'),
        ({}, 96, True, 'no multiple of 128 tokens long'),
        ({}, 128, False, 'padded at the right (is_right_padded)'),
        ({'attention': 'einsum'}, 128, True, ''),
    ],
    ids=str,
)
def test_auto_takes_the_einsum_and_says_why(changes, length, is_right_padded, said, caplog):
    config = dataclasses.replace(HALF, **changes)
    batch = batch_of(config, padding(length, 40, length=length))
    with caplog.at_level(logging.WARNING):
        text = lowered_for_cuda(config, batch, is_right_padded=is_right_padded, has_gradient=False)
    assert 'dot_product_attention' not in text
    # Other tests' event loops may write, too.
    records = [record for record in caplog.records if record.name != 'asyncio']
    assert len(records) == bool(said) and said in caplog.text


def test_what_the_kernel_cannot_is_refused_before_anything_is_traced():
    with pytest.raises(UserError, match='attention is cudnn, but .* and this is float32; use auto'):
        AlbertConfig(attention='cudnn')
    half = AlbertConfig(attention='cudnn', compute_dtype='bfloat16')
    with pytest.raises(UserError, match=r'these are of 12 \(hidden_size 768 / num_attention_hea'):
        dataclasses.replace(half, num_attention_heads=64)
    with pytest.raises(UserError, match='these are of 192'):
        dataclasses.replace(half, num_attention_heads=4)
    assert dataclasses.replace(half, num_attention_heads=6).head_size == 128
    assert half.plain.attention == 'einsum'


def test_the_kernel_needs_an_nvidia_gpu_and_right_padding():
    config = dataclasses.replace(HALF, attention='cudnn')
    batch = batch_of(config, padding(128, 40))
    params = tiny.random_params(config)
    for backend in ('cpu', 'tpu'):
        with (
            target.compiling_for(backend),
            pytest.raises(UserError, match=f'needs an NVIDIA GPU, and this is a {backend}; use'),
        ):
            PretrainingModel(config).apply({'params': params}, batch['input_ids'])
    # A mask that can be read is read: a promise of the caller does not make it right.
    for wrong in (padding(128, 40)[:, ::-1], np.eye(2, 128, dtype=np.int32)):
        with (
            target.compiling_for('gpu'),
            pytest.raises(UserError, match='a row of attention_mask is not tokens and then'),
        ):
            PretrainingModel(config).apply(
                {'params': params}, batch['input_ids'], wrong.copy(), is_right_padded=True
            )
    # Nothing is known under jit, and whoever asks for the kernel by name has looked.
    text = lowered_for_cuda(config, batch, is_right_padded=False, has_gradient=False)
    assert 'dot_product_attention' in text
    with target.compiling_for('gpu'), pytest.raises(UserError, match='no dropout'):
        dropping = dataclasses.replace(config, attention_probs_dropout_prob=0.1)
        PretrainingModel(dropping).apply(
            {'params': params}, batch['input_ids'], deterministic=False,
            rngs={'dropout': jax.random.key(0)},
        )  # fmt: skip


class Device:
    """What `jax.local_devices()` gives, as far as it is asked."""

    def __init__(self, kind, platform_version, compute_capability):
        self.device_kind, self.compute_capability = kind, compute_capability
        self.client = type('Client', (), {'platform_version': platform_version})


@pytest.mark.parametrize(
    ('device', 'said'),
    [
        (('NVIDIA H100', 'PJRT C API\ncuda 13000', '9.0'), ''),
        (('NVIDIA A100', 'PJRT C API\ncuda 13000', '8.0'), ''),
        (('Tesla T4', 'PJRT C API\ncuda 13000', '7.5'), 'capability 8.0, and a Tesla T4 has 7.5'),
        (('MI300X', 'PJRT C API\nrocm 60300', 'gfx942'), 'an NVIDIA GPU, and this is a MI300X'),
    ],
)
def test_the_gpu_that_is_there_decides(monkeypatch, device, said):
    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
    monkeypatch.setattr(jax, 'local_devices', lambda: [Device(*device)])
    assert said in target.nvidia_problem() and bool(said) == bool(target.nvidia_problem())
    chosen = attention.choose('auto', 'gpu', 128, False)
    assert chosen == ('einsum' if said else 'cudnn')


def operands(lengths):
    rng = np.random.default_rng(0)
    shape = (4, len(lengths), 2, 128, 16)
    query, key, value, weights = rng.normal(size=shape).astype(np.float32)
    return *map(jnp.asarray, (query, key, value)), weights, jnp.asarray(padding(*lengths))


@pytest.mark.parametrize('has_padding_loss', [False, True])
def test_values_and_gradients_are_the_einsums_with_padding(has_padding_loss):
    """By lengths and by mask is the same, in every row: those of padded queries too."""
    query, key, value, weights, mask = operands((128, 40, 1))
    if not has_padding_loss:
        weights = weights * np.asarray(mask, np.float32)[:, None, :, None]

    def total(attend):
        def function(query, key, value):
            found = attend(query, key, value)
            return (found * weights).sum(), found

        return jax.jit(jax.value_and_grad(function, (0, 1, 2), has_aux=True))(query, key, value)

    wanted = total(lambda *x: attention.attend(*x, mask, jnp.dtype('float32')))
    found = total(lambda *x: cudnn.attend(*x, mask, 'xla'))
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5 * max(1, np.abs(theirs).max()))


def test_a_row_without_tokens_is_finite():
    query, key, value, _, mask = operands((128, 0))
    assert np.isfinite(cudnn.attend(query, key, value, mask, 'xla')).all()


@given(st.lists(st.lists(st.integers(0, 1), min_size=6, max_size=6), min_size=4, max_size=4))
def test_rows_that_are_not_right_padded_become_nan_and_no_others(rows):
    mask = np.array(rows, np.int32)
    found = np.asarray(cudnn.spoil_wrong_rows(jnp.ones((len(rows), 6, 2)), jnp.asarray(mask)))
    is_right = [row == sorted(row, reverse=True) for row in rows]
    assert [bool(np.isfinite(x).all()) for x in found] == is_right
    assert [bool(np.isnan(x).all()) for x in found] == [not x for x in is_right]
    with target.compiling_for('gpu'):
        assert cudnn.is_right_padded(mask, True) == all(is_right)
        assert cudnn.is_right_padded(None, False) is True


def test_a_broken_promise_under_jit_is_nan_in_that_row(monkeypatch):
    """The whole model, with JAX's implementation in the place of the kernel."""
    attend = functools.partial(cudnn.attend, implementation='xla')
    monkeypatch.setattr(cudnn, 'attend', attend)
    config = dataclasses.replace(HALF, attention='cudnn')
    params = tiny.random_params(config, scale=0.1)
    mask = padding(128, 40)
    mask[0, 5] = 0
    ids = batch_of(config, mask)['input_ids']

    @jax.jit
    def run(ids, mask):
        model = PretrainingModel(config)
        return model.apply({'params': params}, ids, mask, is_right_padded=True).pooled_output

    # JAX's own implementation mixes types.
    with target.compiling_for('gpu'), jax.numpy_dtype_promotion('standard'):
        found = run(ids, mask)
    assert np.isnan(found[0]).all()
    plain = dataclasses.replace(config, attention='einsum')
    wanted = PretrainingModel(plain).apply({'params': params}, ids, mask).pooled_output
    np.testing.assert_allclose(found[1], wanted[1], atol=0.03)
