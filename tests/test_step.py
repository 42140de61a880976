"""Devices, microbatches and one big batch agree; a step that is not finite changes nothing."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from albert_jax.model.albert import init_params
from albert_jax.model.losses import Sum, accuracy, cross_entropy
from albert_jax.runs.optimizer import OptimizerSettings
from albert_jax.training import objectives
from albert_jax.training.optimizer import make_optimizer
from albert_jax.training.sharding import make_mesh, put_batch, replicated
from albert_jax.training.step import init_state, make_eval_step, make_train_step, state_shardings
from tests import tiny

CONFIG = tiny.config(vocab_size=60, max_position_embeddings=16)
NUM_STEPS = 10


LAMB = OptimizerSettings(learning_rate=0.01, warmup_steps=2)
MUON = OptimizerSettings(name='muon', learning_rate=0.003, bias_correction=True, warmup_steps=2)


@functools.cache
def programs(config, num_devices, num_microbatches, log_every, num_fsdp, settings):
    """The mesh, what makes the state, and the step: compiled once for all tests."""
    mesh = make_mesh(num_devices, num_fsdp)
    objective = objectives.pretraining(config)
    optimizer = make_optimizer(settings, 2 * NUM_STEPS, config)
    (batch,) = tiny.pretraining_batches(1)

    def make_state():
        return init_state(lambda key: init_params(config, key), optimizer, objective, batch, 0)

    placement = state_shardings(jax.eval_shape(make_state), mesh)
    step = make_train_step(objective, optimizer, mesh, num_microbatches, log_every, seed=0)
    return mesh, jax.jit(make_state, out_shardings=placement), step


def train(
    config,
    num_devices,
    num_microbatches,
    data=None,
    log_every=NUM_STEPS,
    num_fsdp=1,
    settings=LAMB,
):
    mesh, make_state, step = programs(
        config, num_devices, num_microbatches, log_every, num_fsdp, settings
    )
    data = list(tiny.pretraining_batches()) if data is None else data
    state = make_state()
    statuses = []
    for batch in data:
        state, status = step(state, put_batch(mesh, batch))
        statuses.append(jax.device_get(status))
    return jax.device_get(state), statuses


def assert_same_params(actual, expected, atol=1e-5):
    for path, wanted in jax.tree_util.tree_leaves_with_path(expected):
        name = jax.tree_util.keystr(path, simple=True, separator='/')
        if name.endswith('key/bias'):
            # Softmax ignores it: its gradient is rounding noise, which Adam makes full steps of.
            continue
        found = actual
        for key in path:
            found = found[key.key]
        np.testing.assert_allclose(found, wanted, atol=atol, err_msg=name)


# Devices, devices that share a copy of the state, microbatches.
SPLITS = ((8, 1, 1), (1, 1, 4), (8, 8, 1), (8, 4, 2))


@pytest.mark.parametrize(
    ('changes', 'dropout', 'splits'),
    [
        ({}, 0.1, SPLITS),
        (tiny.MODERN | {'num_hidden_groups': 2}, 0.0, SPLITS[-1:]),
        (tiny.OF_DEPTHS | {'num_coda_layers': 1}, 0.0, SPLITS[-1:]),
        pytest.param(tiny.RELAXED, 0.1, SPLITS[-1:], marks=pytest.mark.slow),
        pytest.param({'sharing': 'none'}, 0.0, SPLITS, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_devices_and_microbatches_and_one_big_batch_agree(changes, dropout, splits):
    config = dataclasses.replace(
        CONFIG, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, **changes
    )
    one, (*_, status) = train(config, 1, 1)
    for num_devices, num_fsdp, num_microbatches in splits:
        state, (*_, other) = train(config, num_devices, num_microbatches, num_fsdp=num_fsdp)
        assert_same_params(state.params, one.params)
        for name, pair in status.metric_sums.items():
            np.testing.assert_allclose(
                other.metric_sums[name].sum, pair.sum, rtol=1e-5, err_msg=name
            )
            np.testing.assert_allclose(other.metric_sums[name].weight, pair.weight, rtol=1e-6)


@pytest.mark.parametrize('sharing', ['none', pytest.param('all', marks=pytest.mark.slow)])
def test_muon_makes_the_same_updates_of_a_split_state(sharing):
    """A shard of a kernel is not made orthogonal by itself."""
    config = dataclasses.replace(CONFIG, sharing=sharing, **tiny.MODERN)
    with jax.numpy_dtype_promotion('standard'):
        one, _ = train(config, 1, 1, settings=MUON)
        state, _ = train(config, 8, 2, num_fsdp=4, settings=MUON)
    assert_same_params(state.params, one.params)


def test_microbatches_are_summed_and_not_averaged():
    """An average of means would count a prediction in a microbatch of few for more."""
    [data] = tiny.pretraining_batches(1)
    parts = [{name: x[first : first + 8] for name, x in data.items()} for first in range(0, 32, 8)]

    def loss(batch, num_microbatches):
        _, [status] = train(CONFIG, 1, num_microbatches, [batch])
        return float(status.metric_sums['loss'].mean())

    in_parts, average = loss(data, 4), np.mean([loss(part, 1) for part in parts])
    assert in_parts == pytest.approx(loss(data, 1), rel=1e-6)
    assert in_parts != pytest.approx(average, rel=1e-5)


@pytest.mark.parametrize('bad_steps', [[3], [0, 4, 5]])
def test_a_step_that_is_not_finite_is_skipped_and_counted(bad_steps):
    data = list(tiny.pretraining_batches(6))
    for step in bad_steps:
        data[step]['masked_weights'][2, 1] = np.nan
    state, statuses = train(CONFIG, 8, 2, data)
    clean, _ = train(CONFIG, 8, 2, data[: bad_steps[0]] or data[1:2])
    assert int(state.num_skipped) == len(bad_steps)
    in_a_row = [int(status.num_skipped_in_a_row) for status in statuses]
    assert in_a_row == ([0, 0, 0, 1, 0, 0] if bad_steps == [3] else [1, 0, 0, 0, 1, 2])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state.params, state.opt_state)))
    assert int(state.step) == 6
    if bad_steps == [3]:
        # Right after the bad step the state is that of before it.
        bad, _ = train(CONFIG, 8, 2, data[:4])
        jax.tree.map(np.testing.assert_array_equal, bad.params, clean.params)
        jax.tree.map(np.testing.assert_array_equal, bad.opt_state, clean.opt_state)


def test_the_window_starts_anew_after_each_line():
    data = list(tiny.pretraining_batches(6))
    _, statuses = train(CONFIG, 1, 1, data, log_every=3)
    assert [float(status.metric_sums['loss'].weight) for status in statuses] == [1, 2, 3, 1, 2, 3]


def test_evaluation_gives_the_same_sums_on_any_number_of_devices():
    objective = objectives.pretraining(CONFIG)
    params = tiny.random_params(CONFIG)
    (batch,) = tiny.pretraining_batches(1)
    sums = []
    for num_devices in (1, 8):
        mesh = make_mesh(num_devices)
        placed = jax.device_put(params, replicated(mesh))
        sums.append(jax.device_get(make_eval_step(objective, mesh)(placed, put_batch(mesh, batch))))
    for name, pair in sums[0].items():
        np.testing.assert_allclose(sums[1][name], pair, rtol=1e-5)


def test_losses_equal_their_definition():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5, 7)).astype(np.float32)
    labels, weights = rng.integers(0, 7, 5), np.array([1, 0, 2, 1, 0.5], np.float32)
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = -(np.log(probabilities[np.arange(5), labels]) * weights).sum()
    pair = cross_entropy(jnp.asarray(logits), jnp.asarray(labels), jnp.asarray(weights))
    np.testing.assert_allclose(pair, (expected, 4.5), rtol=1e-6)
    hits = ((logits.argmax(-1) == labels) * weights).sum()
    pair = accuracy(jnp.asarray(logits), jnp.asarray(labels), jnp.asarray(weights))
    np.testing.assert_allclose(pair, (hits, 4.5))
    assert float(Sum(jnp.zeros([]), jnp.zeros([])).mean()) == 0


@pytest.mark.parametrize(
    ('loss', 'names'), [('none', set()), ('nsp', {'nsp_loss', 'nsp_accuracy'})]
)
def test_the_sentence_loss_is_a_setting(loss, names):
    (batch,) = tiny.pretraining_batches(1)
    params = tiny.random_params(CONFIG)
    objective = objectives.pretraining(CONFIG, loss, mlm_weight=2.0, sentence_weight=0.5)
    batch = {name: jnp.asarray(rows) for name, rows in batch.items()}
    sums = jax.jit(objective.sums)(params, batch, None)
    assert set(sums) == {'mlm_loss', 'mlm_accuracy'} | names
    total = objectives.total_loss(objective, sums, objective.totals(batch))
    expected = 2 * float(sums['mlm_loss'].mean())
    if loss == 'nsp':
        expected += 0.5 * float(sums['nsp_loss'].mean())
    assert float(total) == pytest.approx(expected, rel=1e-5)
