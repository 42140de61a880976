"""The objective of fine-tuning: the adversary, replaced tokens, learning rates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from albert_jax.cli.errors import UserError
from albert_jax.model.albert import PretrainingModel
from albert_jax.runs.task import FinetuningSettings
from albert_jax.tasks.objective import fine_tuning, scale_learning_rates
from tests import tiny

CONFIG = tiny.config()


def identity(x):
    return x


@pytest.fixture(scope='module')
def params():
    return tiny.classifier_params(CONFIG)


def text_batch(size=6, length=12, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, length + 1, size)
    return {
        'input_ids': jnp.asarray(rng.integers(5, 1000, (size, length)), jnp.int32),
        'attention_mask': jnp.asarray(np.arange(length) < lengths[:, None], jnp.int32),
        'token_type_ids': jnp.zeros((size, length), jnp.int32),
        'weights': jnp.asarray([1.0] * (size - 1) + [0.0], jnp.float32),
        'labels': jnp.asarray(rng.integers(0, 2, size), jnp.int32),
    }


def test_the_adversarys_gradient_is_the_mean_of_its_steps(params):
    """Against automatic differentiation of the formula, with the perturbations written out."""
    batch, key = text_batch(), jax.random.key(3)
    robust = FinetuningSettings(
        adversarial_steps=3, adversarial_learning_rate=0.7, adversarial_start=0.5,
        adversarial_max_norm=0.9,
    )  # fmt: skip
    objective = fine_tuning(CONFIG, tiny.CLASSES, 0.0, robust, (0, 1, 2, 3, 4))
    model = PretrainingModel(CONFIG)

    def loss(params, delta):
        encoded = model.apply(
            {'params': params}, batch['input_ids'], batch['attention_mask'],
            batch['token_type_ids'], perturbation=delta, method='encode',
        )  # fmt: skip
        pooled = encoded.pooled_output
        logits = tiny.CLASSES.definition.apply(
            params['head'], pooled[:, None], pooled, batch, identity, True
        )
        return tiny.CLASSES.definition.loss(logits, batch).sum

    @jax.jit
    def both(params):
        ours = jax.value_and_grad(lambda p: objective.sums(p, batch, key)['task_loss'].sum)(params)
        mask = batch['attention_mask'][:, :, None].astype(jnp.float32)
        keys = [jax.random.fold_in(jax.random.fold_in(key, 3), row) for row in range(6)]
        noise = jnp.stack([jax.random.uniform(k, (12, 8), minval=-1, maxval=1) for k in keys])
        delta = noise * mask * 0.5 / jnp.sqrt(mask.sum((1, 2), keepdims=True) * 8)
        losses, gradients, sizes = [], [], []
        for _ in range(3):
            value, (grads, ascent) = jax.value_and_grad(loss, (0, 1))(params, delta)
            losses.append(value)
            gradients.append(grads)
            norm = jnp.sqrt((ascent**2).sum((1, 2), keepdims=True))
            delta = delta + 0.7 * ascent / jnp.maximum(norm, 1e-12)
            size = jnp.sqrt((delta**2).sum((1, 2), keepdims=True))
            delta = delta * jnp.minimum(0.9 / jnp.maximum(size, 1e-12), 1)
            sizes.append(jnp.sqrt((delta**2).sum((1, 2))).max())
        mean = jax.tree.map(lambda *g: jnp.stack(g).mean(0), *gradients)
        return ours, (jnp.stack(losses).mean(), mean), jnp.stack(losses), jnp.stack(sizes)

    ours, expected, losses, sizes = both(params)
    np.testing.assert_allclose(ours[0], expected[0], rtol=1e-5)
    largest = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(expected[1]))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * largest), ours[1], expected[1]
    )
    # It does what an adversary does, within its bounds.
    assert losses[1] > losses[0]
    assert float(sizes.max()) <= 0.9 + 1e-5


def test_tokens_are_replaced_but_for_special_ones(params, monkeypatch):
    seen = []

    def apply(self, variables, input_ids, *args, **kwargs):
        seen.append(input_ids)
        raise InterruptedError  # the model itself is not needed

    monkeypatch.setattr(PretrainingModel, 'apply', apply)
    batch = text_batch(64, 40)
    batch['input_ids'] = batch['input_ids'].at[:, 0].set(2).at[:, -1].set(0)
    robust = FinetuningSettings(replaced_fraction=0.25)
    objective = fine_tuning(CONFIG, tiny.CLASSES, 0.0, robust, (0, 1, 2, 3, 4))
    for key in (jax.random.key(0), None):
        with pytest.raises(InterruptedError):
            objective.sums(params, batch, key)
    trained, evaluated = seen
    np.testing.assert_array_equal(evaluated, batch['input_ids'])
    changed = np.asarray(trained != batch['input_ids'])
    assert not changed[:, 0].any() and not changed[:, -1].any()
    assert 0.2 < changed[:, 1:-1].mean() < 0.3
    assert np.asarray(trained)[changed].min() >= 5


def test_heads_and_layers_learn_at_their_own_rates():
    config = tiny.config(sharing='none', num_hidden_layers=3)
    updates = {
        'head': {'kernel': jnp.ones((2, 2))},
        'embeddings': {'word': {'embedding': jnp.ones((4, 2))}},
        'encoder': {
            'layer': {'ffn': {'output': {'kernel': jnp.ones((3, 2, 2))}}},
            'layer_norm': {'scale': jnp.ones(2)},
        },
        'pooler': {'bias': jnp.ones(2)},
    }
    robust = FinetuningSettings(head_learning_rate_factor=5.0, layer_decay=0.5)
    scaled, _ = scale_learning_rates(robust, config).update(updates, optax.EmptyState(), updates)
    assert (scaled['head']['kernel'] == 5).all() and (scaled['pooler']['bias'] == 1).all()
    assert (scaled['embeddings']['word']['embedding'] == 0.125).all()
    layers = scaled['encoder']['layer']['ffn']['output']['kernel']
    np.testing.assert_allclose(layers[:, 0, 0], [0.25, 0.5, 1.0])
    assert (scaled['encoder']['layer_norm']['scale'] == 1).all()
    with pytest.raises(UserError, match='layers share weights .model.sharing is all.: set it to 1'):
        scale_learning_rates(robust, CONFIG)
