"""The losses of distillation by NumPy from the papers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr, softmax

from albert_jax.distillation.losses import (
    Distillation,
    DistillationLoss,
    attention_vectors,
    compared_layers,
    hidden_loss,
    principal_components,
    relation_loss,
)
from albert_jax.model.albert import init_params
from albert_jax.model.heads import HEADS
from albert_jax.model.losses import soft_target_loss
from albert_jax.model.rope import rotate
from albert_jax.training.objectives import pretraining
from tests import tiny
from tests.distillation_models import ALL_LOSSES, STUDENT, TEACHER, normal, on_device


def test_soft_loss_is_the_papers():
    student, teacher, weights = normal(5, 7), normal(5, 7), np.array([1, 0, 2, 1, 1], np.float32)
    found = soft_target_loss(*on_device(student, teacher), 3.0, jnp.asarray(weights))
    divergences = rel_entr(softmax(teacher / 3, -1), softmax(student / 3, -1)).sum(-1)
    np.testing.assert_allclose(found.sum, 9 * (divergences * weights).sum(), rtol=1e-5)
    assert found.weight == 5


def test_soft_loss_leaves_out_what_cannot_be_an_answer():
    student, teacher = normal(3, 6), normal(3, 6)
    found = soft_target_loss(*on_device(student, teacher), 2.0, jnp.ones(3))
    closed = np.full((3, 2), -1e30, np.float32)
    wider = (jnp.concatenate([x, closed], -1) for x in (student, teacher))
    again, slope = jax.value_and_grad(lambda s, t: soft_target_loss(s, t, 2.0, jnp.ones(3)).sum)(
        *wider
    )
    np.testing.assert_allclose(again, found.sum, rtol=1e-6)
    assert np.isfinite(slope).all() and not slope[:, 6:].any()


@pytest.mark.parametrize('kind', ['question_answering', 'conditional_question_answering'])
def test_soft_answers_to_questions(kind):
    weights = np.array([1, 1, 0], np.float32)
    names = ['start', 'end'] + ['impossible'] * (kind != 'question_answering')
    student, teacher = (
        {n: normal(3) if n == 'impossible' else normal(3, 9) for n in names} for _ in range(2)
    )

    def divergence(a, b):
        return 4 * rel_entr(softmax(b / 2, -1), softmax(a / 2, -1)).sum(-1)

    expected = sum(divergence(student[n], teacher[n]) for n in ('start', 'end')) / 2
    if 'impossible' in names:
        two = [np.stack([np.zeros(3), x['impossible']], -1) for x in (student, teacher)]
        expected = expected + divergence(*two) / 2
    found = HEADS[kind].soft_target_loss(*on_device(student, teacher, {'weights': weights}), 2.0)
    np.testing.assert_allclose(found.sum, (expected * weights).sum(), rtol=1e-5)
    assert found.weight == 2


def test_soft_answers_of_tags_and_numbers():
    weights = np.array([1, 0], np.float32)
    tags = np.array([[1, -1, 0], [2, 2, 2]])
    student, teacher = {'logits': normal(2, 3, 4)}, {'logits': normal(2, 3, 4)}
    batch = {'weights': weights, 'token_labels': tags}
    found = HEADS['token_classification'].soft_target_loss(*on_device(student, teacher, batch), 1.0)
    each = rel_entr(softmax(teacher['logits'], -1), softmax(student['logits'], -1)).sum(-1)
    np.testing.assert_allclose(found.sum, each[0, 0] + each[0, 2], rtol=1e-5)
    assert found.weight == 2
    student, teacher = {'logits': normal(2, 1)}, {'logits': normal(2, 1)}
    batch = {'weights': weights, 'labels': np.zeros(2, np.float32)}
    found = HEADS['sequence_classification'].soft_target_loss(
        *on_device(student, teacher, batch), 5.0
    )
    difference = student['logits'][0, 0] - teacher['logits'][0, 0]
    np.testing.assert_allclose(found.sum, difference**2, rtol=1e-5)


def test_hidden_loss_is_tinyberts():
    student, teacher, kernel = normal(2, 3, 5, 4), normal(2, 3, 5, 6), normal(4, 6)
    mask = (np.arange(5) < np.array([[5], [2], [4]])).astype(np.float32)
    weights = np.array([1, 1, 0], np.float32)
    found = hidden_loss(*on_device(student, teacher, kernel, mask, weights))
    expected = [
        np.mean((student[:, b, t] @ kernel - teacher[:, b, t]) ** 2)
        for b in range(2)
        for t in range(5)
        if mask[b, t]
    ]
    np.testing.assert_allclose(found.mean(), np.mean(expected), rtol=1e-5)


def test_relation_loss_is_minilms():
    student, teacher = normal(3, 5, 8), normal(3, 5, 12)
    lengths, weights = (5, 2, 4), np.array([1, 1, 0], np.float32)
    mask = (np.arange(5) < np.array(lengths)[:, None]).astype(np.float32)
    expected = []
    for row in range(2):
        total = 0.0
        for head in range(4):
            relations = []
            for vectors in (teacher, student):
                size = vectors.shape[-1] // 4
                cut = vectors[row, : lengths[row], head * size : (head + 1) * size]
                relations.append(log_softmax(cut.astype(np.float64) @ cut.T / np.sqrt(size), -1))
            total += (np.exp(relations[0]) * (relations[0] - relations[1])).sum()
        expected.append(total / (4 * lengths[row]))
    found = relation_loss(*on_device(student, teacher), 4, *on_device(mask, weights))
    np.testing.assert_allclose(found.sum, np.sum(expected), rtol=1e-5)
    assert found.weight == 2
    padded = [np.pad(x, ((0, 0), (0, 3), (0, 0)), constant_values=9.0) for x in (student, teacher)]
    again = relation_loss(
        *on_device(*padded), 4, *on_device(np.pad(mask, ((0, 0), (0, 3))), weights)
    )
    np.testing.assert_allclose(again.sum, found.sum, rtol=1e-5)


@pytest.mark.parametrize(
    'changes',
    [
        *({'sharing': sharing} for sharing in ('all', 'ffn')),
        *(tiny.MODERN | {'sharing': sharing} for sharing in ('all', 'ffn')),
    ],
    ids=str,
)
def test_queries_and_keys_give_the_models_attention(changes):
    config = dataclasses.replace(STUDENT, **changes)
    params, batch = tiny.random_params(config), next(tiny.pretraining_batches(size=3))
    inputs = (batch[name] for name in ('input_ids', 'attention_mask', 'token_type_ids'))
    output = tiny.outputs(config, params, *inputs, return_attentions=True)
    for layer in range(2):
        query, key, _ = attention_vectors(config, params, output.hidden_states[layer], layer)
        if config.position_encoding == 'rope':
            # What is compared with a teacher is what the rotations are given.
            query, key = rotate(query, 2), rotate(key, 2)
        query, key = (x.reshape(3, 12, 2, 8) for x in (query, key))
        scores = np.einsum('bqhd,bkhd->bhqk', query, key) / np.sqrt(8)
        scores = np.where(batch['attention_mask'][:, None, None] > 0, scores, -1e30)
        np.testing.assert_allclose(
            softmax(scores, -1), output.attention_probs[layer], atol=1e-5, rtol=0
        )


def test_layers_are_spread_evenly():
    assert compared_layers(3, 12, 'all') == ([0, 1, 2, 3], [0, 4, 8, 12])
    assert compared_layers(4, 6, 'all') == ([0, 1, 2, 3, 4], [0, 2, 3, 5, 6])
    assert compared_layers(4, 6, 'last') == ([4], [6])


def test_words_in_fewer_numbers_keep_the_most():
    table = normal(50, 12) * np.linspace(1, 3, 12, dtype=np.float32) + 5
    centered = table - table.mean(0)
    values = np.linalg.svd(centered, compute_uv=False)
    for width in (1, 5, 12):
        words = principal_components(table, width)
        assert words.shape == (50, width) and words.dtype == np.float32
        # Eckart and Young: what the best approximation of this rank leaves out, and no more.
        onto = np.linalg.lstsq(words, centered, rcond=None)[0]
        left_out = np.linalg.norm(centered - words @ onto)
        np.testing.assert_allclose(left_out, np.linalg.norm(values[width:]), rtol=1e-5, atol=1e-4)
    # At full width nothing is lost: words are as far from each other as they were.
    np.testing.assert_allclose(words @ words.T, centered @ centered.T, atol=1e-3)


def test_a_student_starts_from_its_teachers_words():
    words = normal(STUDENT.vocab_size, STUDENT.embedding_size)
    loss = DistillationLoss(ALL_LOSSES, STUDENT, TEACHER, None)
    key = jax.random.key(1)

    def init(key):
        return dict(init_params(STUDENT, key))

    own, given = (
        Distillation(loss, {}, {}).extend_init(init)(key),
        Distillation(loss, {}, {}, words).extend_init(init)(key),
    )
    np.testing.assert_array_equal(given['embeddings']['word']['embedding'], words)
    given['embeddings']['word'] = own['embeddings']['word']
    for one, other in zip(jax.tree.leaves(own), jax.tree.leaves(given), strict=True):
        np.testing.assert_array_equal(one, other)
    assert jax.tree.structure(own) == jax.tree.structure(given)


@pytest.mark.parametrize('changes', [{}, tiny.MODERN], ids=str)
def test_a_student_that_is_its_teacher_has_nothing_to_learn(changes):
    config = dataclasses.replace(TEACHER, **changes)
    settings = dataclasses.replace(ALL_LOSSES, label_weight=0.0)
    loss = DistillationLoss(settings, config, config, None)
    params = tiny.random_params(config, scale=1.0)
    scaffold = {'distillation': {'hidden': {'kernel': jnp.eye(32)}}}
    objective = pretraining(config, auxiliary=loss)
    batch = jax.tree.map(jnp.asarray, next(tiny.pretraining_batches(size=4)))
    given = {**params, **scaffold, 'teacher': params}
    compiled = jax.jit(objective.sums)
    sums = compiled(given, batch, None)
    for name in ('soft_loss', 'hidden_loss', 'relation_loss'):
        assert abs(float(sums[name].sum)) < 1e-4
    other = {**given, 'teacher': tiny.random_params(config, 1, scale=1.0)}
    sums = compiled(other, batch, None)
    assert min(float(sums[name].sum) for name in loss.loss_weights) > 0.01
