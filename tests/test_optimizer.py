"""The optimizer against an independent NumPy LAMB, and schedules against their formulas."""

import operator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from albert_jax.cli.errors import UserError
from albert_jax.model.config import AlbertConfig
from albert_jax.runs.optimizer import OptimizerSettings
from albert_jax.runs.runs import FinetuneRun, PretrainRun
from albert_jax.training.optimizer import (
    add_l1,
    decays,
    is_stacked,
    make_optimizer,
    scale_by_moments,
    schedule,
)
from tests.reference_lamb import Lamb, google_linear, standard_linear


@pytest.fixture(autouse=True)
def standard_promotion():
    """optax's own bias correction and cosine mix types."""
    with jax.numpy_dtype_promotion('standard'):
        yield


LAYERED = AlbertConfig(num_hidden_layers=3, sharing='none')
SHARED = AlbertConfig(num_hidden_layers=3)


def layered_params(rng):
    """Layers of very different size, so that one ratio for all of them would show."""
    scales = np.array([0.01, 0.1, 1.0]).reshape(3, 1, 1)
    return {
        'embeddings': {'word': {'embedding': rng.normal(0, 0.1, (11, 4))}},
        'encoder': {
            'layer': {
                'attention': {
                    'query': {
                        'kernel': rng.normal(0, 1, (3, 4, 5)) * scales,
                        'bias': rng.normal(0, 1e-4, (3, 5)),
                    },
                    'layer_norm': {'scale': rng.normal(1, 0.1, (3, 5)), 'bias': np.zeros((3, 5))},
                }
            }
        },
        'sentence': {'kernel': rng.normal(0, 0.1, (5, 2)), 'bias': np.zeros(2)},
    }


def flat(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator='/'): np.asarray(leaf, np.float64)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def run_optax(optimizer, params, gradients):
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    for grads in gradients:
        params, state = step(params, state, jax.tree.map(jnp.float32, grads))
    return params


def random_gradients(params, rng, num_steps):
    def gradient(leaf):
        return rng.normal(0, 0.5, leaf.shape)

    return [jax.tree.map(gradient, params) for _ in range(num_steps)]


@pytest.mark.parametrize('bias_correction', [False, True])
def test_lamb_equals_the_reference_over_fifty_steps(bias_correction):
    rng = np.random.default_rng(0)
    params = layered_params(rng)
    gradients = random_gradients(params, rng, 50)
    settings = OptimizerSettings(
        learning_rate=0.02, warmup_steps=10, bias_correction=bias_correction
    )
    actual = flat(run_optax(make_optimizer(settings, 60, LAYERED), params, gradients))
    reference = Lamb(
        flat(params),
        is_stacked=lambda path: '/layer/' in path,
        bias_correction=bias_correction,
    )
    for step, grads in enumerate(gradients):
        reference.step(flat(grads), standard_linear(step, 0.02, 10, 60))
    for path, wanted in reference.params.items():
        np.testing.assert_allclose(actual[path], wanted, atol=1e-5, err_msg=path)
    # The comparison would be empty if nothing had moved.
    assert all(np.abs(actual[path] - value).max() > 1e-3 for path, value in flat(params).items())


def test_stacked_layers_equal_separate_ones():
    rng = np.random.default_rng(1)
    params = layered_params(rng)
    gradients = random_gradients(params, rng, 20)

    def separate(tree):
        # `layers/0/kernel` and so on: leaves of their own, which nothing calls stacked.
        layer = tree['encoder']['layer']
        return {f'copy_{i}': jax.tree.map(operator.itemgetter(i), layer) for i in range(3)} | {
            name: tree[name] for name in ('embeddings', 'sentence')
        }

    settings = OptimizerSettings(learning_rate=0.02, warmup_steps=0)
    stacked = run_optax(make_optimizer(settings, 60, LAYERED), params, gradients)
    apart = run_optax(
        make_optimizer(settings, 60, SHARED), separate(params), [separate(g) for g in gradients]
    )
    for path, wanted in flat(separate(stacked)).items():
        np.testing.assert_allclose(flat(apart)[path], wanted, atol=1e-6, err_msg=path)


def test_first_step_is_root_ten_times_adams():
    gradients = {'kernel': jnp.ones((2, 2))}
    first = {}
    for corrected in (False, True):
        transform = scale_by_moments(0.9, 0.999, 1e-6, corrected)
        update, _ = transform.update(gradients, transform.init(gradients))
        first[corrected] = float(update['kernel'][0, 0])
    assert first[False] / first[True] == pytest.approx(0.1 / np.sqrt(0.001), rel=1e-3)


def test_adamw_equals_optax():
    rng = np.random.default_rng(2)
    params = layered_params(rng)
    gradients = random_gradients(params, rng, 30)
    settings = OptimizerSettings(
        name='adamw', learning_rate=0.01, warmup_steps=0, bias_correction=True
    )
    reference = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(optax.linear_schedule(0.01, 0, 60), eps=1e-6, weight_decay=0.01, mask=decays),
    )
    actual = run_optax(make_optimizer(settings, 60, LAYERED), params, gradients)
    expected = run_optax(reference, params, gradients)
    for path, wanted in flat(expected).items():
        np.testing.assert_allclose(flat(actual)[path], wanted, atol=1e-6, err_msg=path)


def test_l1_pulls_weights_but_not_biases_to_zero():
    params = {'kernel': jnp.array([[2.0, -3.0]]), 'bias': jnp.array([1.0, 1.0])}
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = add_l1(0.5).update(zeros, optax.EmptyState(), params)
    np.testing.assert_array_equal(updates['kernel'], [[0.5, -0.5]])
    np.testing.assert_array_equal(updates['bias'], [0, 0])
    settings = OptimizerSettings(learning_rate=1.0, warmup_steps=0, l1=0.1, weight_decay=0.0)
    moved = run_optax(make_optimizer(settings, 10, SHARED), params, [zeros])
    assert (np.abs(moved['kernel']) < np.abs(params['kernel'])).all()


def test_a_path_that_no_rule_knows_is_an_error():
    with pytest.raises(ValueError, match='No weight decay rule matches the parameter head/gain'):
        decays({'head': {'gain': jnp.ones(3)}})


def test_only_sublayers_with_copies_are_stacked():
    config = AlbertConfig(sharing='attention')
    assert not is_stacked(config, 'encoder/layer/attention/query/kernel', 2)
    assert is_stacked(config, 'encoder/layer/ffn/output/kernel', 3)
    assert not is_stacked(config, 'mlm/transform/kernel', 2)
    # A decoder may have one layer where its encoder has twelve, and cross-attentions of its own.
    assert not is_stacked(config, 'decoder/layer/ffn/output/kernel', 2)
    assert is_stacked(config, 'decoder/layer/ffn/output/kernel', 3)
    assert is_stacked(config, 'decoder/cross_attention/query/kernel', 3)


def rates(name, steps, total=125_000, warmup=3125, **settings):
    settings = OptimizerSettings(schedule=name, warmup_steps=warmup, **settings)
    rate = schedule(settings, total)
    return [float(rate(jnp.int32(step))) for step in steps]


def test_googles_schedule_has_the_published_numbers():
    assert rates('google_linear', [0, 3124, 3125, 125_000]) == pytest.approx(
        [0, 0.0017594, 0.001716, 0], abs=5e-8
    )
    steps = [0, 1, 100, 3124, 3125, 3126, 60_000, 124_999]
    expected = [google_linear(step, 0.00176, 3125, 125_000) for step in steps]
    assert rates('google_linear', steps) == pytest.approx(expected, abs=1e-8)


def test_standard_schedule_has_no_jump():
    steps = [0, 1, 3124, 3125, 3126, 60_000, 124_999]
    expected = [standard_linear(step, 0.00176, 3125, 125_000) for step in steps]
    assert rates('linear', steps) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(
    ('name', 'settings', 'formula'),
    [
        ('constant', {}, lambda t: 1.0),
        ('polynomial', {'power': 2.0}, lambda t: (1 - t) ** 2),
        ('wsd', {}, lambda t: 1.0),
        ('wsd', {'num_decay_steps': 100}, lambda t: 1 - np.sqrt(np.maximum(4 * t - 3, 0))),
        ('wsd', {'num_decay_steps': 400}, lambda t: 1 - np.sqrt(t)),
        ('cosine', {}, lambda t: (1 + np.cos(np.pi * t)) / 2),
        ('cosine_restarts', {'num_cycles': 4}, lambda t: (1 + np.cos(np.pi * (4 * t % 1))) / 2),
    ],
)
def test_other_schedules_follow_their_formulas(name, settings, formula):
    steps = [10, 11, 60, 109, 110, 111, 180, 309, 409]
    expected = [0.5 * formula((step - 10) / 400) for step in steps]
    actual = rates(name, steps, 410, 10, learning_rate=0.5, **settings)
    assert actual == pytest.approx(expected, abs=1e-6)
    assert rates(name, [0, 5], 410, 10, learning_rate=0.5, **settings) == [0, 0.25]


def test_wsd_ends_where_it_is_told_to():
    decay = {'num_decay_steps': 4, 'end_learning_rate': 0.1, 'learning_rate': 0.5}
    steps = range(8, 21)
    expected = [0.5] * 9 + [0.5 - 0.4 * np.sqrt(t / 4) for t in range(1, 5)]
    assert rates('wsd', steps, 20, 2, **decay) == pytest.approx(expected, abs=1e-6)


def test_impossible_settings_are_refused():
    too_long = 'num_decay_steps is 91; it must be at most 90, the steps of loop.num_steps'
    with pytest.raises(UserError, match=too_long):
        schedule(OptimizerSettings(schedule='wsd', warmup_steps=10, num_decay_steps=91), 100)
    for run in (PretrainRun, FinetuneRun):
        fields = {'schedule': 'wsd', 'warmup_steps': 10, 'num_decay_steps': 91}
        with pytest.raises(UserError, match=too_long):
            run.from_dict({'optimizer': fields, 'loop': {'num_steps': 100}})
    with pytest.raises(UserError, match='num_decay_steps is 5, which is for optimizer.schedule=w'):
        OptimizerSettings(num_decay_steps=5)
    with pytest.raises(
        UserError, match='warmup_steps is 10; it must be below loop.num_steps, which is 10'
    ):
        schedule(OptimizerSettings(warmup_steps=10), 10)
    with pytest.raises(
        UserError, match='optimizer.name is .*; it must be one of lamb, adamw, muon'
    ):
        OptimizerSettings(name='sgd')
    with pytest.raises(UserError, match='optimizer.learning_rate is 0.0; it must be above 0'):
        OptimizerSettings(learning_rate=0.0)
