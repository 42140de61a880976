"""The training step with a teacher, and what the teacher gives the student."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from albert_jax.cli.errors import UserError
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.distillation.losses import DistillationLoss, principal_components
from albert_jax.distillation.teacher import distillation_on_task, distillation_on_text
from albert_jax.interop.native import Pretrained
from albert_jax.model.albert import init_params
from albert_jax.model.heads import HEADS, Head
from albert_jax.model.losses import soft_target_loss
from albert_jax.runs.distillation import DistillationSettings
from albert_jax.runs.optimizer import OptimizerSettings
from albert_jax.training.objectives import ModelOutputs, pretraining
from albert_jax.training.optimizer import make_optimizer
from albert_jax.training.sharding import make_mesh, put_batch, shardings
from albert_jax.training.step import init_state, make_train_step, state_shardings
from tests import tiny
from tests.distillation_models import ALL_LOSSES, RNG, STUDENT, TEACHER, normal, on_device


def distilled(num_devices, num_microbatches, num_fsdp=1, steps=4, settings=ALL_LOSSES):
    mesh = make_mesh(num_devices, num_fsdp)
    loss = DistillationLoss(settings, STUDENT, TEACHER, None)
    objective = pretraining(STUDENT, auxiliary=loss)
    optimizer = make_optimizer(OptimizerSettings(learning_rate=0.01, warmup_steps=2), 8, STUDENT)
    teacher = {'teacher': tiny.random_params(TEACHER)}
    frozen = jax.device_put(teacher, shardings(teacher, mesh))
    data = list(tiny.pretraining_batches(num_steps=steps))

    def make_state():
        def init(key):
            return {**init_params(STUDENT, key), **loss.init_params(key)}

        return init_state(init, optimizer, objective, data[0], 0, teacher)

    state = jax.jit(make_state, out_shardings=state_shardings(jax.eval_shape(make_state), mesh))()
    step = make_train_step(objective, optimizer, mesh, num_microbatches, 10, 0, frozen=frozen)
    for batch in data:
        state, status = step(state, put_batch(mesh, batch))
    assert all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(step.frozen), jax.tree.leaves(teacher), strict=True)
    )
    return jax.device_get((state.params, status.metric_sums))


@pytest.mark.slow  # test_step has it for the step that distillation runs in
def test_devices_shards_and_microbatches_change_nothing():
    params, metric_sums = distilled(1, 1)
    assert set(params) == {'embeddings', 'encoder', 'pooler', 'mlm', 'sentence', 'distillation'}
    assert {'soft_loss', 'hidden_loss', 'relation_loss', 'mlm_loss', 'sop_loss'} <= set(metric_sums)
    for other in (distilled(8, 2, 4), distilled(8, 1)):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5),
            (params, metric_sums), other,
        )  # fmt: skip


def test_the_loss_is_the_weighted_sum():
    weights = {
        'mlm_loss': 0.4, 'sop_loss': 0.4,
        'soft_loss': 0.7, 'hidden_loss': 0.3, 'relation_loss': 0.9,
    }  # fmt: skip
    _, metric_sums = distilled(1, 1, steps=1)
    total = sum(factor * float(metric_sums[name].mean()) for name, factor in weights.items())
    assert float(metric_sums['loss'].mean()) == pytest.approx(total, rel=1e-5)


def test_the_teachers_own_tokens():
    head = Head('sequence_classification', ('a', 'b', 'c'))
    other = dataclasses.replace(TEACHER, vocab_size=90)
    settings = DistillationSettings(label_weight=0.0, soft_weight=1.0)
    loss = DistillationLoss(settings, STUDENT, other, head, (2, 0, 1))
    params = tiny.random_params(other)
    params['head'] = HEADS[head.kind].init(3, other, jax.random.key(0))
    batch = {
        n: x
        for n, x in next(tiny.pretraining_batches(size=4)).items()
        if n.endswith(('ids', 'mask'))
    }
    batch |= {'weights': np.ones(4, np.float32), 'labels': np.zeros(4, np.int32)}
    own = dict(input_ids=RNG.integers(0, 90, (4, 7)), attention_mask=np.ones((4, 7), int))
    own['token_type_ids'] = np.zeros((4, 7), int)
    pooled = tiny.outputs(other, params, *own.values(), method='encode').pooled_output

    kernel, bias = (np.asarray(params['head'][name]) for name in ('kernel', 'bias'))
    logits = (np.asarray(pooled) @ kernel + bias)[:, [2, 0, 1]]
    outputs = ModelOutputs({'logits': jnp.asarray(normal(4, 3))}, None)
    given = batch | {f'teacher_{name}': jnp.asarray(x) for name, x in own.items()}
    (given,) = on_device(given)
    found = loss.sums({'teacher': params}, given, outputs)['soft_loss']
    expected = soft_target_loss(outputs.logits['logits'], jnp.asarray(logits), 2.0, jnp.ones(4))
    np.testing.assert_allclose(found.sum, expected.sum, rtol=1e-5)


def test_the_option_gives_the_teachers_words(vocabulary):
    tokenizer = Tokenizer(vocabulary)
    config = dataclasses.replace(TEACHER, vocab_size=tokenizer.vocab_size, embedding_size=24)
    student = dataclasses.replace(STUDENT, vocab_size=tokenizer.vocab_size)
    params = tiny.random_params(config)
    wanted = principal_components(
        np.asarray(params['embeddings']['word']['embedding']), student.embedding_size
    )
    params['head'] = HEADS['sequence_classification'].init(2, config, jax.random.key(0))
    head = Head('sequence_classification', ('no', 'yes'))
    model = Pretrained(config, params, tokenizer, head)
    for settings, words in (
        (dataclasses.replace(ALL_LOSSES, init_embeddings_from_teacher=True), wanted),
        (ALL_LOSSES, None),
    ):
        of_task = distillation_on_task('it', model, settings, student, tokenizer, head, 16)
        of_text = distillation_on_text('it', model, settings, student, tokenizer, 16)
        for distillation in (of_task, of_text):
            np.testing.assert_array_equal(distillation.word_embeddings, words)
    other = dataclasses.replace(student, vocab_size=500)
    with pytest.raises(UserError, match='the student 500; set --config.model.vocab_size='):
        chosen = dataclasses.replace(ALL_LOSSES, init_embeddings_from_teacher=True, soft_weight=0.0)
        distillation_on_text('it', model, chosen, other, tokenizer, 16)
