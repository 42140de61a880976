"""The heads' logits and losses, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from albert_jax.model.heads import HEADS
from tests import tiny

CONFIG = tiny.config()


def identity(x):
    return x


def sigmoid_loss(x, y):
    return np.log1p(np.exp(-x)) if y else np.log1p(np.exp(x))


def log_softmax(x):
    return x - np.log(np.exp(x - x.max()).sum()) - x.max()


def test_the_conditional_head_is_xlnets():
    rng = np.random.default_rng(3)
    batch, length, width = 2, 9, 16
    head = tiny.random_tree(
        HEADS['conditional_question_answering'].init(1, CONFIG, jax.random.key(0)), seed=4
    )
    hidden = rng.normal(size=(batch, length, width))
    data = {
        'can_answer': jnp.asarray([[1, 0, 0, 1, 1, 1, 1, 1, 0], [1, 0, 1, 1, 1, 1, 0, 0, 0]]),
        'start': jnp.array([4, 0]),
        'end': jnp.array([6, 0]),
        'is_impossible': jnp.array([0, 1]),
        'weights': jnp.ones(2),
    }
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), head)

    def dense(name, x):
        return x @ name['kernel'] + name['bias']

    def ends(row, start):
        joined = np.concatenate([hidden[row], np.tile(hidden[row, start], (length, 1))], -1)
        h = np.tanh(dense(p['end']['transform'], joined))
        h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-12)
        h = h * p['end']['layer_norm']['scale'] + p['end']['layer_norm']['bias']
        logits = dense(p['end']['output'], h)[:, 0]
        return np.where(np.asarray(data['can_answer'][row]) > 0, logits, -1e30)

    expected, starts_of, impossible_of = 0.0, [], []
    for row in range(batch):
        can = np.asarray(data['can_answer'][row]) > 0
        starts = np.where(can, dense(p['start'], hidden[row])[:, 0], -1e30)
        probs = np.exp(log_softmax(starts))
        summary = np.concatenate([probs @ hidden[row], hidden[row, 0]])
        h = np.tanh(dense(p['answerable']['transform'], summary))
        impossible = dense(p['answerable']['output'], h)[0]
        start, end = int(data['start'][row]), int(data['end'][row])
        expected -= log_softmax(starts)[start] / 2 + log_softmax(ends(row, start))[end] / 2
        expected += 0.5 * sigmoid_loss(impossible, int(data['is_impossible'][row]))
        starts_of.append(starts)
        impossible_of.append(impossible)

    arguments = (jnp.asarray(hidden, jnp.float32), jnp.zeros((2, width)), data)
    definition = HEADS['conditional_question_answering']

    @jax.jit
    def both(head, hidden, pooled, data):
        trained = definition.apply(head, hidden, pooled, data, identity, True)
        found = definition.apply(head, hidden, pooled, data, identity, False)
        return definition.loss(trained, data), found

    loss, found = both(head, *arguments)
    np.testing.assert_allclose(loss.sum, expected, rtol=1e-5)
    assert float(loss.weight) == float(definition.loss_weight(data)) == 2
    for row in range(batch):
        best = np.argsort(-starts_of[row])[:5]
        np.testing.assert_array_equal(found['start_positions'][row], best)
        np.testing.assert_allclose(
            found['start_scores'][row], log_softmax(starts_of[row])[best], rtol=1e-4, atol=1e-5
        )
        for beam in range(3):
            wanted = log_softmax(ends(row, best[beam]))
            top = np.argsort(-wanted)[:3]
            np.testing.assert_array_equal(found['end_positions'][row, beam, :3], top)
            np.testing.assert_allclose(
                found['end_scores'][row, beam, :3], wanted[top], rtol=1e-4, atol=1e-5
            )
    np.testing.assert_allclose(found['impossible'], impossible_of, rtol=1e-4)


def test_the_plain_heads_and_their_losses():
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(rng.normal(size=(4, 5, 16)), jnp.float32)
    pooled = jnp.asarray(rng.normal(size=(4, 16)), jnp.float32)
    weights = jnp.array([1.0, 0.0, 1.0, 1.0])

    def run(kind, batch, outputs=3, rows=slice(None)):
        head = tiny.random_tree(HEADS[kind].init(outputs, CONFIG, jax.random.key(0)))
        logits = HEADS[kind].apply(head, hidden, pooled, batch, identity, True)
        kernel, bias = (np.asarray(head[name]) for name in ('kernel', 'bias'))
        return logits, HEADS[kind].loss(logits, batch), kernel, bias

    labels = np.array([2, 0, 1, 1])
    batch = {'labels': jnp.asarray(labels), 'weights': weights}
    logits, loss, kernel, bias = run('sequence_classification', batch)
    expected = np.asarray(pooled) @ kernel + bias
    np.testing.assert_allclose(logits['logits'], expected, rtol=1e-5, atol=1e-5)
    losses = [-log_softmax(row)[label] for row, label in zip(expected, labels, strict=True)]
    np.testing.assert_allclose(loss.sum, np.dot(losses, weights), rtol=1e-5)
    assert float(loss.weight) == 3

    numbers = {'labels': jnp.array([0.5, 9.0, -1.0, 2.0]), 'weights': weights}
    logits, loss, kernel, bias = run('sequence_classification', numbers, 1)
    error = np.square((np.asarray(pooled) @ kernel + bias)[:, 0] - np.asarray(numbers['labels']))
    np.testing.assert_allclose(loss.sum, np.dot(error, weights), rtol=1e-5)

    tags = np.array([[-1, 0, 2, -1, -1], [0, 0, 0, 0, 0], [-1, 1, 1, 1, -1], [-1] * 5])
    tagged = {'token_labels': jnp.asarray(tags), 'weights': weights}
    logits, loss, kernel, bias = run('token_classification', tagged)
    expected = np.asarray(hidden) @ kernel + bias
    total = sum(
        -log_softmax(expected[row, place])[tags[row, place]]
        for row in (0, 2, 3)
        for place in range(5)
        if tags[row, place] >= 0
    )
    np.testing.assert_allclose(loss.sum, total, rtol=1e-5)
    assert float(loss.weight) == float(HEADS['token_classification'].loss_weight(tagged)) == 5

    choices = {'labels': jnp.array([1, 0]), 'weights': jnp.ones(2)}
    logits, loss, kernel, bias = run('multiple_choice', choices)
    expected = (np.asarray(pooled) @ kernel + bias).reshape(2, 2)
    np.testing.assert_allclose(logits['logits'], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        loss.sum, -log_softmax(expected[0])[1] - log_softmax(expected[1])[0], rtol=1e-5
    )


def test_several_labels_are_independent_yes_or_no():
    rng = np.random.default_rng(5)
    student, teacher = rng.normal(0, 3, (2, 4, 3))
    labels = rng.integers(0, 2, (4, 3))
    weights = np.array([1.0, 0.0, 1.0, 1.0])
    definition = HEADS['multi_label_classification']
    batch = {
        'labels': jnp.asarray(labels, jnp.float32),
        'weights': jnp.asarray(weights, jnp.float32),
    }
    logits, soft = ({'logits': jnp.asarray(x, jnp.float32)} for x in (student, teacher))
    losses = [
        np.mean([sigmoid_loss(x, y) for x, y in zip(*row, strict=True)])
        for row in zip(student, labels, strict=True)
    ]
    loss = definition.loss(logits, batch)
    np.testing.assert_allclose(loss.sum, np.dot(losses, weights), rtol=1e-5)
    assert float(loss.weight) == float(definition.loss_weight(batch)) == 3

    # KL of each label's (yes, no), softened by the temperature.
    yes, guess = (1 / (1 + np.exp(-x / 2)) for x in (teacher, student))
    terms = yes * np.log(yes / guess) + (1 - yes) * np.log((1 - yes) / (1 - guess))
    loss = definition.soft_target_loss(logits, soft, batch, 2.0)
    np.testing.assert_allclose(loss.sum, 4 * np.dot(terms.mean(1), weights), rtol=1e-5)
    # As a student of its own labels, with logits far out, nothing overflows.
    far = {'logits': jnp.where(batch['labels'] > 0, 200.0, -200.0)}
    assert float(definition.loss(far, batch).sum) == 0
    assert np.isfinite(definition.soft_target_loss(logits, far, batch, 1.0).sum)
