"""Muon against an independent NumPy Muon: what it updates, layer by layer, and what it costs."""

import operator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from albert_jax.cli.errors import UserError
from albert_jax.interop.native import expected_shapes
from albert_jax.model.config import SIZES, AlbertConfig
from albert_jax.model.flops import newton_schulz_flops
from albert_jax.runs.optimizer import OptimizerSettings
from albert_jax.training.optimizer import make_optimizer, update_flops
from tests.reference_lamb import standard_linear
from tests.reference_muon import Muon, newton_schulz
from tests.test_optimizer import flat, random_gradients, run_optax

SETTINGS = OptimizerSettings(
    name='muon', learning_rate=0.003, beta2=0.98, bias_correction=True, warmup_steps=3,
    muon_learning_rate=0.02, weight_decay=0.01, muon_weight_decay=0.05,
)  # fmt: skip
CONFIG = AlbertConfig(num_hidden_layers=3, sharing='none')
# Of the parameters below; all others are AdamW's.
KERNELS = {
    'embeddings/projection/kernel',
    'encoder/layer/attention/query/kernel',
    'encoder/layer/ffn/intermediate/kernel',
    'encoder/layer/ffn/output/kernel',
    'pooler/kernel',
}


@pytest.fixture(autouse=True)
def standard_promotion():
    """optax's bias correction mixes types."""
    with jax.numpy_dtype_promotion('standard'):
        yield


def model_params(rng):
    def kernel(*shape):
        return {
            'kernel': rng.normal(0, 0.1, shape),
            'bias': rng.normal(0, 0.1, shape[:-2] + shape[-1:]),
        }

    return {
        'embeddings': {
            'word': {'embedding': rng.normal(0, 0.1, (11, 4))},
            'layer_norm': {'scale': np.ones(4), 'bias': np.zeros(4)},
            'projection': kernel(4, 6),
        },
        'encoder': {
            'layer': {
                'attention': {'query': kernel(3, 6, 6)},
                'ffn': {'intermediate': kernel(3, 6, 24), 'output': kernel(3, 24, 6)},
            }
        },
        'pooler': kernel(6, 6),
        'mlm': {'transform': kernel(6, 4)},
        'sentence': kernel(6, 2),
        'head': kernel(6, 3),
        'distillation': {'hidden': kernel(6, 8)},
    }


def test_muon_equals_the_reference_over_twenty_steps():
    rng = np.random.default_rng(0)
    params = model_params(rng)
    gradients = random_gradients(params, rng, 20)
    actual = flat(run_optax(make_optimizer(SETTINGS, 30, CONFIG), params, gradients))
    reference = Muon(
        flat(params), lambda path: path in KERNELS, weight_decay=0.05, adam_weight_decay=0.01
    )
    for step, grads in enumerate(gradients):
        rates = (standard_linear(step, peak, 3, 30) for peak in (0.02, 0.003))
        reference.step(flat(grads), *rates)
    for path, wanted in reference.params.items():
        np.testing.assert_allclose(actual[path], wanted, atol=1e-5, err_msg=path)
    moved = {path: np.abs(actual[path] - value).max() for path, value in flat(params).items()}
    assert min(moved.values()) > 1e-3
    # All singular values of an update are alike, so that Muon's kernels move much further.
    assert min(moved[path] for path in KERNELS) > 1.5 * max(
        value for path, value in moved.items() if path not in KERNELS
    )


@pytest.mark.parametrize('shape', [(6, 4), (4, 6)], ids=str)
def test_it_is_optax_contribs_muon(shape):
    """The factor of a kernel with more outputs than inputs too."""
    rng = np.random.default_rng(1)
    params = {'pooler': {'kernel': rng.normal(0, 0.1, shape)}}
    gradients = random_gradients(params, rng, 5)
    settings = OptimizerSettings(name='muon', schedule='constant', warmup_steps=0, clip_norm=0.0)
    actual = run_optax(make_optimizer(settings, 9, CONFIG), params, gradients)
    expected = run_optax(optax.contrib.muon(0.02), params, gradients)
    np.testing.assert_allclose(actual['pooler']['kernel'], expected['pooler']['kernel'], atol=1e-7)


def test_singular_values_of_an_update_are_about_one_in_every_layer():
    rng = np.random.default_rng(2)
    # Layers of very different size, so that one norm for all of them would show.
    scales = np.array([1e-4, 1.0, 100.0]).reshape(3, 1, 1)
    params = {'encoder': {'layer': {'kernel': jnp.zeros((3, 6, 24))}}}
    gradient = {'encoder': {'layer': {'kernel': jnp.float32(rng.normal(size=(3, 6, 24)) * scales)}}}
    settings = OptimizerSettings(name='muon', schedule='constant', warmup_steps=0)
    moved = run_optax(make_optimizer(settings, 9, CONFIG), params, [gradient])
    values = np.linalg.svd(moved['encoder']['layer']['kernel'], compute_uv=False)
    # √(columns / rows) = 2; the iteration leaves singular values between 0.7 and 1.2.
    assert (values > 0.02 * 2 * 0.6).all() and (values < 0.02 * 2 * 1.3).all()


def test_stacked_layers_equal_separate_ones():
    rng = np.random.default_rng(3)
    params = {'encoder': model_params(rng)['encoder']}
    gradients = random_gradients(params, rng, 5)

    def separate(tree):
        return {'encoder': {f'{i}': jax.tree.map(operator.itemgetter(i), tree) for i in range(3)}}

    optimizer = make_optimizer(SETTINGS, 30, CONFIG)
    stacked = run_optax(optimizer, params, gradients)
    apart = run_optax(optimizer, separate(params), [separate(g) for g in gradients])
    for path, wanted in flat(separate(stacked)).items():
        np.testing.assert_allclose(flat(apart)[path], wanted, atol=1e-6, err_msg=path)


def test_a_kernel_without_gradient_stays():
    """The pooler's, where there is no sentence loss: nothing divided by nothing is nothing."""
    params = {'pooler': {'kernel': jnp.ones((4, 4)), 'bias': jnp.ones(4)}}
    zeros = jax.tree.map(jnp.zeros_like, params)
    settings = OptimizerSettings(name='muon', warmup_steps=0)
    moved = run_optax(make_optimizer(settings, 9, CONFIG), params, [zeros] * 3)
    jax.tree.map(np.testing.assert_array_equal, moved, params)


def test_l1_pulls_its_kernels_to_zero_too():
    params = {'pooler': {'kernel': jnp.full((4, 4), 0.5)}}
    zeros = jax.tree.map(jnp.zeros_like, params)
    settings = OptimizerSettings(name='muon', schedule='constant', warmup_steps=0, l1=0.1)
    moved = run_optax(make_optimizer(settings, 9, CONFIG), params, [zeros])
    np.testing.assert_allclose(moved['pooler']['kernel'], 0.5 - 0.02 * 0.1, atol=1e-7)


def test_muons_rate_has_the_course_of_the_other():
    params = {'pooler': {'kernel': jnp.zeros((4, 4)), 'bias': jnp.zeros(4)}}
    gradient = {'pooler': {'kernel': jnp.eye(4), 'bias': jnp.ones(4)}}
    settings = OptimizerSettings(
        name='muon', learning_rate=0.1, end_learning_rate=0.05, warmup_steps=4, clip_norm=0.0,
        bias_correction=True, muon_learning_rate=0.02,
    )  # fmt: skip
    optimizer = make_optimizer(settings, 12, CONFIG)
    steps = [run_optax(optimizer, params, [gradient] * n)['pooler'] for n in range(1, 13)]
    kernels = np.diff([float(step['kernel'][0, 0]) for step in steps])
    biases = np.diff([float(step['bias'][0]) for step in steps])
    np.testing.assert_allclose(kernels / kernels[3], biases / biases[3], rtol=1e-3)


def test_its_arithmetic_is_counted():
    # Each step has X Xᵀ and its product with X, 2mmn each, and the square of the former, 2mmm.
    assert newton_schulz_flops(3, 7, 2) == newton_schulz_flops(7, 3, 2) == 2 * 9 * (4 * 7 + 2 * 3)
    shapes = expected_shapes(SIZES['albert_base'])
    assert update_flops(OptimizerSettings(), shapes) == 0
    attention_and_pooler = 5 * 5 * (6 * 768**3)
    ffn = 2 * 5 * (4 * 768**2 * 3072 + 2 * 768**3)
    projection = 5 * (4 * 128**2 * 768 + 2 * 128**3)
    wanted = attention_and_pooler + ffn + projection
    assert update_flops(SETTINGS, shapes) == pytest.approx(wanted, rel=1e-12)
    layered = expected_shapes(AlbertConfig(sharing='none'))
    pooler = 5 * 6 * 768**3
    wanted = 12 * (attention_and_pooler - pooler + ffn) + pooler + projection
    assert update_flops(SETTINGS, layered) == pytest.approx(wanted, rel=1e-12)


def test_xla_counts_the_same_arithmetic():
    shapes = {'encoder/kernel': (2, 96, 384), 'pooler/kernel': (128, 128), 'mlm/bias': (128,)}
    params = {
        path.partition('/')[0]: {path.partition('/')[2]: jax.ShapeDtypeStruct(shape, jnp.float32)}
        for path, shape in shapes.items()
    }
    optimizer = make_optimizer(SETTINGS, 9, CONFIG)
    state = jax.eval_shape(optimizer.init, params)
    counted = jax.jit(optimizer.update).lower(params, state, params).cost_analysis()
    assert counted is not None
    # The rest is elementwise.
    assert counted['flops'] == pytest.approx(update_flops(SETTINGS, shapes), rel=0.05)


def test_the_iteration_of_the_reference_is_one():
    rng = np.random.default_rng(4)
    for shape in ((5, 9), (9, 5)):
        matrix = rng.normal(size=shape)
        values = np.linalg.svd(newton_schulz(matrix), compute_uv=False)
        assert (values > 0.6).all() and (values < 1.3).all()
        left, _, right = np.linalg.svd(matrix, full_matrices=False)
        # Nearly the closest orthogonal matrix.
        assert np.sum(newton_schulz(matrix) * (left @ right)) > 0.8 * 5


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'muon_learning_rate': 0.0}, 'optimizer.muon_learning_rate is 0.0; it must be above 0'),
        ({'muon_momentum': 1.0}, 'optimizer.muon_momentum is 1.0; it must be at least 0 and below'),
        ({'muon_weight_decay': -0.1}, 'optimizer.muon_weight_decay is -0.1; it must be 0 or above'),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        OptimizerSettings(name='muon', **change)
