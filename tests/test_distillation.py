"""Distillation: its losses by NumPy from the papers, the step with a teacher, whole runs."""

import dataclasses
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr, softmax

from albert_jax import distill, finetune
from albert_jax.cli.errors import UserError
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.distillation.losses import (
    Distillation,
    DistillationLoss,
    attention_vectors,
    compared_layers,
    hidden_loss,
    principal_components,
    relation_loss,
)
from albert_jax.distillation.teacher import distillation_on_task, distillation_on_text
from albert_jax.interop import native
from albert_jax.interop.native import Pretrained
from albert_jax.model.albert import PretrainingModel, init_params
from albert_jax.model.heads import HEADS, Head
from albert_jax.model.losses import soft_target_loss
from albert_jax.runs.distillation import DistillationSettings
from albert_jax.runs.optimizer import OptimizerSettings
from albert_jax.training.objectives import ModelOutputs, pretraining
from albert_jax.training.optimizer import make_optimizer
from albert_jax.training.sharding import make_mesh, put_batch, shardings
from albert_jax.training.step import init_state, make_train_step, state_shardings
from benchmarks import transfer_set
from tests.test_finetune import checkpoint, flags, mood_files  # noqa: F401
from tests.test_step import CONFIG as STUDENT
from tests.test_step import batches

TEACHER = dataclasses.replace(
    STUDENT, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, sharing='none'
)
ALL = DistillationSettings(
    soft_weight=0.7, label_weight=0.4, hidden_weight=0.3, relation_weight=0.9, relation_heads=4
)
RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def on_device(*trees):
    return jax.tree.map(jnp.asarray, trees)


def params_of(config, seed=0, scale=0.3):
    shapes = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, scale, x.shape), jnp.float32), shapes)


# The losses.


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


@pytest.mark.parametrize('sharing', ['all', 'ffn'])
def test_queries_and_keys_give_the_models_attention(sharing):
    config = dataclasses.replace(STUDENT, sharing=sharing)
    params, batch = params_of(config), next(batches(size=3))
    output = PretrainingModel(config).apply(
        {'params': params}, batch['input_ids'], batch['attention_mask'], batch['token_type_ids'],
        return_attentions=True,
    )  # fmt: skip
    for layer in range(2):
        query, key, _ = (
            x.reshape(3, 12, 2, 8)
            for x in attention_vectors(config, params, output.hidden_states[layer], layer)
        )
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
    loss = DistillationLoss(ALL, STUDENT, TEACHER, None)
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


def test_a_student_that_is_its_teacher_has_nothing_to_learn():
    settings = dataclasses.replace(ALL, label_weight=0.0)
    loss = DistillationLoss(settings, TEACHER, TEACHER, None)
    params = params_of(TEACHER, scale=1.0)
    scaffold = {'distillation': {'hidden': {'kernel': jnp.eye(32)}}}
    objective = pretraining(TEACHER, auxiliary=loss)
    batch = jax.tree.map(jnp.asarray, next(batches(size=4)))
    given = {**params, **scaffold, 'teacher': params}
    sums = objective.sums(given, batch, None)
    for name in ('soft_loss', 'hidden_loss', 'relation_loss'):
        assert abs(float(sums[name].sum)) < 1e-4
    other = {**given, 'teacher': params_of(TEACHER, 1, scale=1.0)}
    sums = objective.sums(other, batch, None)
    assert min(float(sums[name].sum) for name in loss.loss_weights) > 0.01


# The step.


def distilled(num_devices, num_microbatches, num_fsdp=1, steps=4, settings=ALL):
    mesh = make_mesh(num_devices, num_fsdp)
    loss = DistillationLoss(settings, STUDENT, TEACHER, None)
    objective = pretraining(STUDENT, auxiliary=loss)
    optimizer = make_optimizer(OptimizerSettings(learning_rate=0.01, warmup_steps=2), 8, STUDENT)
    teacher = {'teacher': params_of(TEACHER)}
    frozen = jax.device_put(teacher, shardings(teacher, mesh))
    data = list(batches(num_steps=steps))

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
    params = params_of(other)
    params['head'] = HEADS[head.kind].init(3, other, jax.random.key(0))
    batch = {n: x for n, x in next(batches(size=4)).items() if n.endswith(('ids', 'mask'))}
    batch |= {'weights': np.ones(4, np.float32), 'labels': np.zeros(4, np.int32)}
    own = dict(input_ids=RNG.integers(0, 90, (4, 7)), attention_mask=np.ones((4, 7), int))
    own['token_type_ids'] = np.zeros((4, 7), int)
    model = PretrainingModel(other)
    pooled = model.apply({'params': params}, *own.values(), method='encode').pooled_output

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
    params = params_of(config)
    wanted = principal_components(
        np.asarray(params['embeddings']['word']['embedding']), student.embedding_size
    )
    params['head'] = HEADS['sequence_classification'].init(2, config, jax.random.key(0))
    head = Head('sequence_classification', ('no', 'yes'))
    model = Pretrained(config, params, tokenizer, head)
    for settings, words in (
        (dataclasses.replace(ALL, init_embeddings_from_teacher=True), wanted),
        (ALL, None),
    ):
        of_task = distillation_on_task('it', model, settings, student, tokenizer, head, 16)
        of_text = distillation_on_text('it', model, settings, student, tokenizer, 16)
        for distillation in (of_task, of_text):
            np.testing.assert_array_equal(distillation.word_embeddings, words)
    other = dataclasses.replace(student, vocab_size=500)
    with pytest.raises(UserError, match='the student 500; set --config.model.vocab_size='):
        chosen = dataclasses.replace(ALL, init_embeddings_from_teacher=True, soft_weight=0.0)
        distillation_on_text('it', model, chosen, other, tokenizer, 16)


def test_texts_for_a_teacher_to_label(tmp_path, monkeypatch, capsys):
    phrases = [f'{word} ' * 4 + 'film' for word in ('dull', 'fine', 'long', 'odd')]
    (tmp_path / 'train.tsv').write_text(
        'sentence\tlabel\n' + ''.join(f'{phrase}\t1\n' for phrase in [*phrases, 'short'])
    )
    arguments = ['', str(tmp_path / 'train.tsv'), str(tmp_path / 'out.tsv')]
    monkeypatch.setattr(sys, 'argv', arguments)
    transfer_set.main()
    header, *rows = (tmp_path / 'out.tsv').read_text().splitlines()
    assert header == 'sentence\tlabel' and all(row.endswith('\t0') for row in rows)
    texts = [row[:-2] for row in rows]
    assert texts[:5] == [*phrases, 'short'] and len(texts) == 10
    for text in texts[5:]:
        assert 12 <= len(text.split()) <= 40
        assert any(text.startswith(phrase) for phrase in phrases)
        assert any(text.endswith(phrase) for phrase in phrases)
    # Where nothing can be joined, it ends all the same.
    (tmp_path / 'train.tsv').write_text('sentence\tlabel\nshort\t1\n')
    transfer_set.main()
    assert 'Wrote 1 texts' in capsys.readouterr().out
    for content, message in (
        ('text\nshort\n', 'has no column sentence'),
        ('label\tsentence\n1\n', 'line 2 of .* has no sentence'),
        ('sentence\tlabel\n', 'has no sentences'),
        ('', 'has no column sentence'),
    ):
        (tmp_path / 'train.tsv').write_text(content)
        with pytest.raises(SystemExit, match=message):
            transfer_set.main()
    monkeypatch.setattr(sys, 'argv', ['', str(tmp_path / 'no.tsv'), arguments[2]])
    with pytest.raises(SystemExit, match='cannot be read'):
        transfer_set.main()
    (tmp_path / 'train.tsv').write_text('sentence\tlabel\nshort\t1\n')
    monkeypatch.setattr(sys, 'argv', [*arguments[:2], str(tmp_path / 'no' / 'out.tsv')])
    with pytest.raises(SystemExit, match='cannot be written'):
        transfer_set.main()
    monkeypatch.setattr(sys, 'argv', ['', arguments[1], arguments[1]])
    with pytest.raises(SystemExit, match='is the training file'):
        transfer_set.main()


def test_words_and_sentences_for_a_teacher_to_label(tmp_path, monkeypatch, capsys):
    (tmp_path / 'train.tsv').write_text('sentence\tlabel\nshort\t1\n')
    (tmp_path / 'vocab.txt').write_text('[PAD]\n##ing\nof\ngood\nfilm\n2nd\nshort\n')
    said = '“Was It good, then?” He’s asked us twice. Yes. ' + 'word ' * 37 + 'ends.'
    lines = [said, 'It rained in the town.\nIt rained in the town.']
    path = tmp_path / 'text.jsonl'
    path.write_text(''.join(json.dumps({'text': line}) + '\n' for line in lines))
    out = tmp_path / 'out.tsv'
    arguments = ['', str(tmp_path / 'train.tsv'), str(out), f'--input=jsonl:{path}']
    monkeypatch.setattr(sys, 'argv', [*arguments, f'--vocabulary={tmp_path / "vocab.txt"}'])
    transfer_set.main()
    texts = [row[:-2] for row in out.read_text().splitlines()[1:]]
    # Each text once, words whole, sentences neither short nor long and written as the task's are.
    assert texts[:3] == ['short', 'good', 'film']
    assert sorted(texts[3:]) == [
        '" was it good , then ?',
        "he's asked us twice .",
        'it rained in the town .',
    ]
    assert '1 phrases, 0 joined, 3 words, 3 sentences' in capsys.readouterr().out
    monkeypatch.setattr(sys, 'argv', [*arguments, '--sentences=1'])
    transfer_set.main()
    assert len(out.read_text().splitlines()) == 3
    before = out.read_text()
    (tmp_path / 'empty').write_text('')
    monkeypatch.setattr(sys, 'argv', [*arguments, arguments[-1], '--sentences=1'])
    with pytest.raises(SystemExit, match='at least 1 for each'):
        transfer_set.main()
    for flag, message in (
        ('--vocabulary=no.txt', 'no.txt cannot be read'),
        ('--input=no.txt', 'is not a source'),
        ('--input=text:no.txt', 'No file matches'),
        ('--sentences=0', 'at least 1'),
        (f'--vocabulary={tmp_path / "empty"}', 'empty has no words'),
        (f'--input=text:{tmp_path / "empty"}', 'empty has no sentences'),
    ):
        monkeypatch.setattr(sys, 'argv', [*arguments, flag])
        with pytest.raises(SystemExit, match=message):
            transfer_set.main()
    assert out.read_text() == before


# Whole runs.


@pytest.fixture(scope='module')
def teacher(checkpoint, mood_files, tmp_path_factory):  # noqa: F811
    workdir = tmp_path_factory.mktemp('teacher')
    cache = workdir / 'cache'
    assert finetune.main([*flags(checkpoint, mood_files, cache), f'--workdir={workdir}']) == 0
    return workdir


def student_flags(teacher, files, *more, name='classification') -> list[str]:
    start = f'--config.init_from={teacher}'
    given = [x for x in flags('', files, teacher / 'cache', *more) if 'init_from' not in x]
    assert start not in given
    return [
        f'--config=configs/distill.py:{name}', f'--config.teacher={teacher}', *given[1:],
        '--config.model.size=albert_base', '--config.model.embedding_size=8',
        '--config.model.hidden_size=8', '--config.model.num_hidden_layers=1',
        '--config.model.num_attention_heads=2', '--config.model.intermediate_size=32',
        '--config.model.max_position_embeddings=64',
    ]  # fmt: skip


def evaluated(workdir):
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    return [line for line in lines if line['split'] == 'train']


def test_a_student_learns_from_its_teacher_alone(teacher, mood_files, tmp_path, capsys):  # noqa: F811
    more = ['--config.distillation.label_weight=0', '--config.distillation.soft_weight=1',
            '--config.distillation.relation_weight=1', '--config.distillation.hidden_weight=1',
            '--config.distillation.relation_heads=4', '--config.loop.log_every=10',
            '--config.distillation.init_embeddings_from_teacher=True']  # fmt: skip
    arguments = [*student_flags(teacher, mood_files, *more), f'--workdir={tmp_path / "student"}']
    assert distill.main(arguments) == 0
    assert 'teacher' in capsys.readouterr().out
    found = json.loads((tmp_path / 'student' / 'distilled.json').read_text())
    assert found['teacher']['metrics']['accuracy'] > 0.9
    assert found['student']['metrics']['accuracy'] > 0.9
    assert found['student']['parameters'] < found['teacher']['parameters']
    assert found['student']['examples_per_second'] > 0
    lines = evaluated(tmp_path / 'student')
    for name in ('soft_loss', 'hidden_loss', 'relation_loss'):
        assert lines[-1][name] < lines[0][name]
    read = native.read(tmp_path / 'student')
    assert set(read.params) == {'embeddings', 'encoder', 'pooler', 'head'}
    # The same command again finds nothing to do; another temperature is another run.
    assert distill.main(arguments) == 0
    with pytest.raises(UserError, match=r'distillation.temperature'):
        distill.main([*arguments, '--config.distillation.temperature=3'])


@pytest.fixture
def other_words(text_file):
    from albert_jax.data.corpus import Source
    from albert_jax.data.preparation import PreparationSettings, vocabulary_for

    return vocabulary_for([Source('jsonl', str(text_file))], PreparationSettings(), 700)


@pytest.mark.slow
def test_another_vocabulary_where_only_answers_are_compared(
    teacher, mood_files, tmp_path, other_words  # noqa: F811
):  # fmt: skip
    words = tmp_path / 'words.model'
    words.write_bytes(other_words)
    # The labels are in another order than the teacher's, who alone is listened to.
    more = [
        f'--config.data.vocabulary={words}', '--config.task.labels=yes,no',
        '--config.distillation.label_weight=0', '--config.distillation.soft_weight=1',
        '--config.loop.eval_every=40', '--config.loop.checkpoint_every=40',
    ]  # fmt: skip
    arguments = student_flags(teacher, mood_files, *more)
    assert distill.main([*arguments, f'--workdir={tmp_path / "student"}']) == 0
    assert native.read(tmp_path / 'student').config.vocab_size == 700
    found = json.loads((tmp_path / 'student' / 'distilled.json').read_text())
    assert found['teacher']['metrics']['accuracy'] > 0.9
    assert found['student']['metrics']['accuracy'] > 0.7
    for more, message in (
        ('hidden_weight=1', 'compared token by token'),
        (
            'init_embeddings_from_teacher=True',
            'has another vocabulary than the student, whose words',
        ),
    ):
        with pytest.raises(UserError, match=message):
            distill.main(
                [*arguments, f'--config.distillation.{more}', f'--workdir={tmp_path / "x"}']
            )


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        (['--config.teacher='], 'teacher is empty'),
        (['--config.seeds=0'], 'seeds is 0'),
        (['--config.teacher=nowhere'], 'nowhere'),
        (['--config.distillation.soft_weight=0'], 'nothing would come from the teacher'),
        (['--config.distillation.temperature=0'], 'temperature is 0.0; it must be above 0'),
        (['--config.distillation.hidden_layers=two'], 'it must be one of all, last'),
        (
            ['--config.distillation.relation_weight=1', '--config.distillation.relation_heads=5'],
            'does not divide the width of the student, 8',
        ),
        (
            [
                '--config.distillation.relation_weight=1',
                '--config.distillation.relation_layer=9',
                '--config.distillation.relation_heads=4',
            ],
            'the teacher has 2 layers',
        ),
        (['--config.finetuning.adversarial_steps=2'], 'adversarial_steps is 2'),
        (['--config.task.labels=yes,no,perhaps'], 'answers with no, yes, the task with'),
        (['--config.task.max_length=100'], '64 positions'),
        (
            [
                '--config.distillation.init_embeddings_from_teacher=True',
                '--config.model.embedding_size=999',
            ],
            "the teacher's word embeddings are of 8 numbers, the student's of 999; set",
        ),
        (
            [
                '--config.distillation.init_embeddings_from_teacher=True',
                '--config.init_from=runs/small',
            ],
            'init_from=runs/small has word embeddings already',
        ),
    ],
)
def test_refused(teacher, mood_files, tmp_path, more, message):  # noqa: F811
    with pytest.raises(UserError, match=message):
        distill.main([*student_flags(teacher, mood_files), *more, f'--workdir={tmp_path / "w"}'])
    assert not (tmp_path / 'w').exists()


def test_a_teacher_that_is_not_fine_tuned_or_answers_otherwise(
    checkpoint, teacher, mood_files, tmp_path  # noqa: F811
):  # fmt: skip
    workdir = f'--workdir={tmp_path / "w"}'
    arguments = student_flags(teacher, mood_files, f'--config.teacher={checkpoint}')
    with pytest.raises(UserError, match='is not fine-tuned'):
        distill.main([*arguments, workdir])
    numbers = tmp_path / 'numbers'
    numbers.mkdir()
    for name in ('train', 'dev'):
        (numbers / f'{name}.tsv').write_text('text\tlabel\ngood\t1.5\nbad\t0.5\n')
    with pytest.raises(UserError, match='answers with no, yes, the task with score'):
        distill.main([*student_flags(teacher, numbers, name='regression'), workdir])
    with pytest.raises(UserError, match='give configs/distill.py:NAME'):
        distill.main(['--config=configs/finetune.py:sst2', workdir])


@pytest.mark.slow
def test_raw_text(corpus_directory, vocabulary, tmp_path):
    config = dataclasses.replace(TEACHER, vocab_size=1000, max_position_embeddings=128)
    folder = tmp_path / 'teacher'
    folder.mkdir()
    tokenizer = Tokenizer(vocabulary)
    native.write(Pretrained(config, params_of(config, scale=0.1), tokenizer), folder)
    arguments = [
        '--config=configs/distill.py:tiny', f'--config.teacher={folder}',
        f'--config.data.path={corpus_directory}', '--config.model.vocab_size=1000',
        '--config.model.hidden_size=16', '--config.model.num_hidden_layers=2',
        '--config.model.num_attention_heads=2', '--config.model.embedding_size=8',
        '--config.pretraining.sequence_length=128', '--config.model.max_position_embeddings=128',
        '--config.loop.num_steps=6', '--config.loop.batch_size=8', '--config.loop.log_every=2',
        '--config.loop.eval_every=6', '--config.loop.checkpoint_every=6',
        '--config.loop.num_eval_batches=2', '--config.optimizer.warmup_steps=2',
        '--config.distillation.hidden_weight=1', '--config.distillation.relation_weight=1',
        '--config.distillation.relation_heads=4',
        '--config.distillation.init_embeddings_from_teacher=True',
        f'--workdir={tmp_path / "student"}',
    ]  # fmt: skip
    assert distill.main(arguments) == 0
    lines = [
        json.loads(line)
        for line in (tmp_path / 'student' / 'metrics.jsonl').read_text().splitlines()
    ]
    names = {'soft_loss', 'hidden_loss', 'relation_loss', 'mlm_loss', 'sop_loss'}
    assert all(names <= set(line) for line in lines)
    assert lines[-1]['split'] == 'validation'
    read = native.read(tmp_path / 'student')
    assert set(read.params) == {'embeddings', 'encoder', 'pooler', 'mlm', 'sentence'}
    # Without a masked-LM head there are no softened pieces to learn from.
    bare = tmp_path / 'bare'
    bare.mkdir()
    params = {n: tree for n, tree in params_of(config).items() if n != 'mlm'}
    native.write(Pretrained(config, params, tokenizer), bare)
    with pytest.raises(UserError, match='no masked-LM head to ask'):
        distill.main([*arguments[:-1], f'--config.teacher={bare}', f'--workdir={tmp_path / "b"}'])
