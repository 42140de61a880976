"""The kinds of heads and the tasks: what each must hold, and what one more of them takes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from albert_jax.cli.errors import UserError
from albert_jax.distillation.losses import DistillationLoss
from albert_jax.interop.native import Pretrained
from albert_jax.interop.portable import portable
from albert_jax.model.albert import init_params
from albert_jax.model.finetuned import FinetunedModel
from albert_jax.model.heads import HEADS, Head
from albert_jax.model.heads.classification import SequenceClassification
from albert_jax.model.heads.definition import dense
from albert_jax.runs.distillation import DistillationSettings
from albert_jax.runs.task import FinetuningSettings, TaskSettings
from albert_jax.tasks.objective import fine_tuning
from albert_jax.tasks.prediction import Predictor
from albert_jax.tasks.registry import TASKS, Entry, Files, default_task, find_files, make_task
from albert_jax.tasks.tagging import TaggingTask
from albert_jax.training.sharding import make_mesh
from tests import tiny

CONFIG = tiny.config(vocab_size=50, max_position_embeddings=16)
ROWS, LENGTH = 4, 12
KEY = jax.random.key(0)
ENCODER = ('embeddings', 'encoder', 'pooler')


def head_of(kind):
    return Head(kind, ('a', 'b', 'c') if HEADS[kind].has_labels else ())


def params_of(head, config=CONFIG):
    shapes = jax.eval_shape(lambda: init_params(config, KEY) | {'head': head.init(config, KEY)})
    return tiny.random_tree({part: shapes[part] for part in (*ENCODER, 'head')})


def batch_of(head):
    """Every target that any head reads; the last example is padding."""
    rng = np.random.default_rng(3)
    shape = (ROWS * head.definition.num_choices, LENGTH)
    mask = (np.arange(LENGTH) < rng.integers(9, LENGTH + 1, shape[0])[:, None]).astype(np.int32)
    types = mask * (np.arange(LENGTH) > 3)
    batch = {
        'input_ids': rng.integers(5, 50, shape) * mask,
        'attention_mask': mask,
        'token_type_ids': types,
        'labels': rng.integers(0, 2, ROWS),
        'token_labels': np.where(types > 0, rng.integers(0, 3, shape), -1),
        'can_answer': types,
        'start': np.full(ROWS, 5),
        'end': np.full(ROWS, 7),
        'is_impossible': np.array([0, 1, 0, 0]),
    }
    batch = {name: values.astype(np.int32) for name, values in batch.items()}
    if head.kind == 'multi_label_classification':
        batch['labels'] = rng.integers(0, 2, (ROWS, len(head.labels))).astype(np.float32)
    batch['weights'] = np.array([1, 1, 1, 0], np.float32)
    return {name: jnp.asarray(values) for name, values in batch.items()}


@pytest.mark.parametrize('kind', HEADS)
def test_losses_have_the_weight_that_was_announced(kind):
    head = head_of(kind)
    params, batch = params_of(head), batch_of(head)

    @jax.jit
    def losses(params, others, batch):
        model, definition = FinetunedModel(CONFIG, head), head.definition
        logits, other = (model(x, batch, is_training=True).logits for x in (params, others))
        soft = (definition.soft_target_loss(logits, x, batch, 2.0) for x in (logits, other))
        return definition.loss_weight(batch), definition.loss(logits, batch), *soft

    weight, loss, same, soft = losses(params, jax.tree.map(lambda x: 1.5 * x, params), batch)
    weight = float(weight)
    assert float(loss.weight) == weight > 0 and float(loss.sum) > 0
    assert float(same.weight) == float(soft.weight) == weight
    np.testing.assert_allclose(same.sum, 0, atol=1e-6)
    assert float(soft.sum) > 1e-4


@pytest.mark.parametrize('kind', HEADS)
def test_what_the_encoder_is_asked_to_show(kind):
    """The forward pass shows what the pretraining model does, and the logits stay the same."""
    head = head_of(kind)
    params, batch = params_of(head), batch_of(head)
    model = FinetunedModel(CONFIG, head)
    plain = jax.jit(model)(params, batch)
    shown = jax.jit(
        lambda *given: model(*given, return_hidden_states=True, return_attentions=True)
    )(params, batch)
    assert plain.hidden_states is None and plain.attention_probs is None
    inputs = (batch[name] for name in ('input_ids', 'attention_mask', 'token_type_ids'))
    all_params = tiny.random_params(CONFIG) | {part: params[part] for part in ENCODER}
    output = tiny.outputs(CONFIG, all_params, *inputs, return_attentions=True)
    np.testing.assert_allclose(
        shown.hidden_states.astype(jnp.float32), output.hidden_states, atol=1e-6
    )
    np.testing.assert_allclose(shown.attention_probs, output.attention_probs, atol=1e-6)
    for name, values in plain.logits.items():
        np.testing.assert_array_equal(shown.logits[name], values)


def test_dropout_needs_a_key():
    head = head_of('sequence_classification')
    params, batch = params_of(head), batch_of(head)
    model = FinetunedModel(CONFIG, head, head_dropout=0.5)

    def logits(**options):
        return np.asarray(model(params, batch, **options).logits['logits'])

    np.testing.assert_array_equal(logits(), logits(is_training=True))
    dropped = logits(dropout_key=KEY)
    assert np.abs(dropped - logits()).max() > 1e-3
    np.testing.assert_array_equal(dropped, logits(dropout_key=KEY))
    # Masks belong to examples.
    batch = {**batch, 'example_ids': jnp.arange(ROWS) + 1}
    assert np.abs(dropped - logits(dropout_key=KEY)).max() > 1e-3


class MeanClassification(SequenceClassification):
    """A class from the mean of the last layer: a head that only this test has."""

    uses_pooler = False

    def apply(self, params, hidden, pooled, batch, dropout, is_training):
        return {'logits': dense(params, dropout(hidden.mean(1)))}


def test_several_labels_against_an_adversary():
    head = head_of('multi_label_classification')
    params, batch = params_of(head), batch_of(head)
    special_ids = (0, 1, 2, 3, 4)
    plain, freelb = (
        fine_tuning(CONFIG, head, 0.0, FinetuningSettings(**settings), special_ids)
        for settings in ({}, {'adversarial_steps': 2, 'adversarial_learning_rate': 1.0})
    )
    losses = [
        jax.jit(objective.sums)(params, batch, KEY)['task_loss'] for objective in (plain, freelb)
    ]
    assert float(losses[0].weight) == float(losses[1].weight) == 3
    # The adversary makes it worse.
    assert float(losses[1].sum) > float(losses[0].sum) > 0


def test_one_more_head_is_one_entry(monkeypatch):
    """Trained, predicted with, distilled and exported without another line."""
    monkeypatch.setitem(HEADS, 'mean_classification', MeanClassification())
    head = Head('mean_classification', ('a', 'b', 'c'))
    params, batch = params_of(head), batch_of(head)
    batch = {n: x for n, x in batch.items() if not n.startswith(('token_l', 'start', 'end'))}
    del params['pooler']
    settings = FinetuningSettings(adversarial_steps=2)
    objective = fine_tuning(CONFIG, head, 0.1, settings, (0, 1, 2, 3, 4))
    assert float(jax.jit(objective.sums)(params, batch, KEY)['task_loss'].sum) > 0

    teacher = DistillationLoss(DistillationSettings(), CONFIG, CONFIG, head)
    objective = fine_tuning(CONFIG, head, 0.0, FinetuningSettings(), (0, 1, 2, 3, 4), teacher)
    losses = jax.jit(objective.sums)({**params, 'teacher': params}, batch, None)
    np.testing.assert_allclose(losses['soft_loss'].sum, 0, atol=1e-6)

    predictor = Predictor(CONFIG, head, make_mesh(1), ROWS, LENGTH, 0)
    predicted = predictor.start(params, {n: np.asarray(x) for n, x in batch.items()})['logits']
    function = portable(Pretrained(CONFIG, params, None, head=head))
    assert function.inputs == ('input_ids', 'attention_mask', 'token_type_ids')
    exported = jax.jit(function.call)(*(batch[name] for name in function.inputs))['logits']
    np.testing.assert_allclose(predicted, exported, atol=1e-5)


# The tasks.


@pytest.mark.parametrize('kind', HEADS)
def test_every_head_has_a_task(kind):
    head = head_of(kind)
    task = make_task(TaskSettings(name=default_task(head)))
    task.use_head(head, 'the model')
    assert task.suits(head) and task.head_kind == kind
    example = task.parse(task.sample, 'a line', '0')
    assert not example.is_labelled and example.group and example.key == '0'


def test_one_output_is_a_regressions():
    assert default_task(Head('sequence_classification', ('score',))) == 'regression'


def test_what_makes_probabilities_of_the_logits():
    found = {kind: head_of(kind).activation for kind in HEADS}
    assert found.pop('multi_label_classification') == 'sigmoid'
    assert set(found.values()) == {'softmax'}
    assert Head('sequence_classification', ('score',)).activation == ''
    assert Head('multi_label_classification', ('spam',)).activation == 'sigmoid'


def test_a_head_without_a_task(monkeypatch):
    monkeypatch.setitem(HEADS, 'mean_classification', MeanClassification())
    with pytest.raises(UserError, match='no task for a mean classification head'):
        default_task(Head('mean_classification', ('a', 'b')))


def test_one_more_task_of_a_known_shape_is_one_row(monkeypatch, tmp_path):
    files = Files(('learn.txt',), {'': ('check.txt',), '_hard': ('hard.txt',)}, {})
    monkeypatch.setitem(TASKS, 'chunking', Entry(TaggingTask, files))
    for name in ('learn.txt', 'check.txt', 'hard.txt'):
        (tmp_path / name).write_text('a X\nb Y\n')
    task = make_task(TaskSettings(name='chunking'))
    train, validation, test = find_files('chunking', tmp_path)
    assert train == tmp_path / 'learn.txt' and set(validation) == {'', '_hard'} and not test
    (sentence,) = task.read(train, True)
    assert sentence.words == ('a', 'b') and sentence.is_labelled
    unlabelled = dataclasses.replace(sentence, tags=None)
    assert not unlabelled.is_labelled and unlabelled.group == sentence.group
