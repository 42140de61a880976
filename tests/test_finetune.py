"""Fine-tuning: heads and losses, the adversary, prediction on any devices, whole runs."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from albert_jax import convert, evaluate, finetune, predict
from albert_jax.cli.command import read_config
from albert_jax.cli.errors import UserError
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.interop import native
from albert_jax.interop.native import Pretrained
from albert_jax.model import attention
from albert_jax.model.albert import PretrainingModel, init_params
from albert_jax.model.config import AlbertConfig
from albert_jax.model.heads import HEADS, Head
from albert_jax.runs.runs import FinetuneRun
from albert_jax.runs.task import FinetuningSettings
from albert_jax.tasks.answering import Answerer
from albert_jax.tasks.features import TrainBatches, bucket_lengths
from albert_jax.tasks.objective import fine_tuning, scale_learning_rates
from albert_jax.tasks.prediction import Predictor
from albert_jax.training.sharding import make_mesh
from tests.conftest import ROOT
from tests.test_features import make as make_features

CONFIG = AlbertConfig(
    vocab_size=1000,
    embedding_size=8,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=64,
)
CLASSES = Head('sequence_classification', ('no', 'yes'))
PLAIN = FinetuningSettings()


def identity(x):
    return x


def random_tree(tree, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.3, x.shape), jnp.float32), tree)


@pytest.fixture(scope='module')
def params():
    shapes = jax.eval_shape(lambda: init_params(CONFIG, jax.random.key(0)))
    head = HEADS['sequence_classification'].init(2, CONFIG, jax.random.key(1))
    kept = {name: shapes[name] for name in ('embeddings', 'encoder', 'pooler')}
    return random_tree(kept | {'head': head})


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


# Heads, against NumPy.


def sigmoid_loss(x, y):
    return np.log1p(np.exp(-x)) if y else np.log1p(np.exp(x))


def log_softmax(x):
    return x - np.log(np.exp(x - x.max()).sum()) - x.max()


def test_the_conditional_head_is_xlnets():
    rng = np.random.default_rng(3)
    batch, length, width = 2, 9, 16
    head = random_tree(
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

    arguments = (jnp.asarray(hidden, jnp.float32), jnp.zeros((2, width)), data, identity)
    definition = HEADS['conditional_question_answering']
    trained = definition.apply(head, *arguments, True)
    loss = definition.loss(trained, data)
    np.testing.assert_allclose(loss.sum, expected, rtol=1e-5)
    assert float(loss.weight) == float(definition.loss_weight(data)) == 2
    found = definition.apply(head, *arguments, False)
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
        head = random_tree(HEADS[kind].init(outputs, CONFIG, jax.random.key(0)))
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


# The adversary, replacement and learning rates.


def test_the_adversarys_gradient_is_the_mean_of_its_steps(params):
    """Against automatic differentiation of the formula, with the perturbations written out."""
    batch, key = text_batch(), jax.random.key(3)
    robust = FinetuningSettings(
        adversarial_steps=3, adversarial_learning_rate=0.7, adversarial_start=0.5,
        adversarial_max_norm=0.9,
    )  # fmt: skip
    objective = fine_tuning(CONFIG, CLASSES, 0.0, robust, (0, 1, 2, 3, 4))
    model = PretrainingModel(CONFIG)

    def loss(params, delta):
        encoded = model.apply(
            {'params': params}, batch['input_ids'], batch['attention_mask'],
            batch['token_type_ids'], perturbation=delta, method='encode',
        )  # fmt: skip
        pooled = encoded.pooled_output
        logits = CLASSES.definition.apply(
            params['head'], pooled[:, None], pooled, batch, identity, True
        )
        return CLASSES.definition.loss(logits, batch).sum

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
    original = PretrainingModel.apply

    def apply(self, variables, input_ids, *args, **kwargs):
        seen.append(input_ids)
        return original(self, variables, input_ids, *args, **kwargs)

    monkeypatch.setattr(PretrainingModel, 'apply', apply)
    batch = text_batch(64, 40)
    batch['input_ids'] = batch['input_ids'].at[:, 0].set(2).at[:, -1].set(0)
    robust = FinetuningSettings(replaced_fraction=0.25)
    objective = fine_tuning(CONFIG, CLASSES, 0.0, robust, (0, 1, 2, 3, 4))
    objective.sums(params, batch, jax.random.key(0))
    objective.sums(params, batch, None)
    trained, evaluated = seen
    np.testing.assert_array_equal(evaluated, batch['input_ids'])
    changed = np.asarray(trained != batch['input_ids'])
    assert not changed[:, 0].any() and not changed[:, -1].any()
    assert 0.2 < changed[:, 1:-1].mean() < 0.3
    assert np.asarray(trained)[changed].min() >= 5


def test_heads_and_layers_learn_at_their_own_rates():
    config = AlbertConfig(**(CONFIG.to_dict() | {'sharing': 'none', 'num_hidden_layers': 3}))
    updates = {
        'head': {'kernel': jnp.ones((2, 2))},
        'embeddings': {'word': {'embedding': jnp.ones((4, 2))}},
        'encoder': {'layer': {'ffn': {'output': {'kernel': jnp.ones((3, 2, 2))}}}},
        'pooler': {'bias': jnp.ones(2)},
    }
    robust = FinetuningSettings(head_learning_rate_factor=5.0, layer_decay=0.5)
    scaled, _ = scale_learning_rates(robust, config).update(updates, optax.EmptyState(), updates)
    assert (scaled['head']['kernel'] == 5).all() and (scaled['pooler']['bias'] == 1).all()
    assert (scaled['embeddings']['word']['embedding'] == 0.125).all()
    layers = scaled['encoder']['layer']['ffn']['output']['kernel']
    np.testing.assert_allclose(layers[:, 0, 0], [0.25, 0.5, 1.0])
    with pytest.raises(UserError, match='layers share weights .model.sharing is all.: set it to 1'):
        scale_learning_rates(robust, CONFIG)


# Prediction.


def test_on_eight_tpu_chips_the_attention_kernel_is_lowered_too():
    """The compiler refuses to split a Pallas kernel by itself."""
    config = AlbertConfig(
        **(CONFIG.to_dict() | {'hidden_size': 128, 'max_position_embeddings': 128})
    )
    shapes = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    shapes |= {
        'head': jax.eval_shape(
            lambda: HEADS['sequence_classification'].init(2, config, jax.random.key(1))
        )
    }
    predictor = Predictor(config, CLASSES, make_mesh(8), 8, 128, 0)
    batch = dict.fromkeys(
        ('input_ids', 'attention_mask', 'token_type_ids'), jax.ShapeDtypeStruct((8, 128), jnp.int32)
    )
    with attention.compiling_for('tpu'):
        lowered = predictor._predict_batch.trace(shapes, batch).lower(lowering_platforms=('tpu',))
    assert 'tpu_custom_call' in lowered.as_text()


def test_every_example_once_on_1_3_and_8_devices(params):
    features = make_features(np.random.default_rng(0).integers(3, 30, 29))
    found = {}
    for devices, batch_size in ((1, 29), (3, 4), (8, 8)):
        predictor = Predictor(CONFIG, CLASSES, make_mesh(devices), batch_size, 32, 0)
        outputs = predictor(params, features)
        found[devices] = np.stack(outputs['logits'])
        assert found[devices].shape == (29, 2)
        assert predictor.num_compiled <= len(bucket_lengths(32))
    np.testing.assert_allclose(found[3], found[1], atol=1e-5)
    np.testing.assert_allclose(found[8], found[1], atol=1e-5)
    # Each example's own output, not its neighbour's.
    model = PretrainingModel(CONFIG)
    for example in (0, 28):
        ids = features.sequence(example)[None]
        types = (np.arange(ids.shape[1]) >= features.seconds[example])[None].astype(np.int32)
        encoded = model.apply({'params': params}, ids, np.ones_like(ids), types, method='encode')
        pooled = encoded.pooled_output
        head = params['head']
        alone = np.asarray(pooled) @ np.asarray(head['kernel']) + np.asarray(head['bias'])
        np.testing.assert_allclose(found[1][example], alone[0], atol=1e-5)
    assert predictor(params, features, lambda: True) is None


def test_nothing_is_compiled_after_each_length_was_seen(params):
    features = make_features(np.random.default_rng(1).integers(3, 60, 200))
    batches = TrainBatches(features, 16, 64, 0, seed=0)
    objective = fine_tuning(CONFIG, CLASSES, 0.1, PLAIN, (0,))
    counted = jax.jit(lambda p, b, k: objective.sums(p, b, k)['task_loss'].sum)
    sizes = []
    for step in range(3 * batches.batches_per_epoch):
        counted(params, batches.batch(step, range(16)), jax.random.key(0))
        sizes.append(counted._cache_size())
    assert sizes[-1] == sizes[batches.batches_per_epoch - 1] <= len(bucket_lengths(64))


# Whole runs.

POSITIVE, NEGATIVE = 'statement import class value', 'list number string error'


@pytest.fixture(scope='module')
def checkpoint(vocabulary, tmp_path_factory):
    folder = tmp_path_factory.mktemp('start')
    full = jax.jit(lambda: init_params(CONFIG, jax.random.key(0)))()
    native.write(Pretrained(CONFIG, dict(full), Tokenizer(vocabulary)), folder)
    return folder


@pytest.fixture(scope='module')
def mood_files(tmp_path_factory):
    """Texts whose label is a matter of their words, of many lengths."""
    folder = tmp_path_factory.mktemp('mood')
    rng = np.random.default_rng(0)
    for name, count in (('train', 200), ('dev', 43)):
        rows = ['text\tlabel']
        for _ in range(count):
            label = int(rng.integers(2))
            words = rng.choice((POSITIVE if label else NEGATIVE).split(), rng.integers(1, 9))
            rows.append(f'{" ".join(words)}\t{"yes" if label else "no"}')
        (folder / f'{name}.tsv').write_text('\n'.join(rows) + '\n')
    return folder


def flags(checkpoint, files, cache, *more, task='classification') -> list[str]:
    return [
        f'--config=configs/finetune.py:{task}', f'--config.init_from={checkpoint}',
        f'--config.data.path={files}', f'--config.data.cache={cache}',
        '--config.task.max_length=32', '--config.loop.batch_size=16',
        '--config.optimizer.learning_rate=0.01', '--config.optimizer.warmup_steps=5',
        '--config.loop.num_steps=40', '--config.loop.eval_every=10',
        '--config.loop.checkpoint_every=10', '--config.loop.num_devices=1',
        '--config.optimizer.bias_correction=True', *more,
    ]  # fmt: skip


@pytest.fixture(scope='module')
def tuned(checkpoint, mood_files, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('tuned')
    cache = workdir / 'cache'
    assert finetune.main([*flags(checkpoint, mood_files, cache), f'--workdir={workdir}']) == 0
    return workdir


def test_a_run_learns_keeps_the_best_and_writes_predictions(tuned, mood_files):
    results = json.loads((tuned / 'results.json').read_text())
    assert results['accuracy'] > 0.9
    lines = [json.loads(line) for line in (tuned / 'metrics.jsonl').read_text().splitlines()]
    evaluated = {x['step']: x['accuracy'] for x in lines if x['split'] == 'validation'}
    assert results['accuracy'] == pytest.approx(max(evaluated.values()))
    assert evaluated[results['step']] == max(evaluated.values())
    rows = (tuned / 'predictions' / 'validation' / 'predictions.jsonl').read_text().splitlines()
    assert len(rows) == 43
    labels = [r.split('\t')[1] for r in (mood_files / 'dev.tsv').read_text().splitlines()[1:]]
    found = [json.loads(row)['prediction'] for row in rows]
    right = np.mean([a == b for a, b in zip(labels, found, strict=True)])
    assert right == pytest.approx(results['accuracy'])
    loaded = native.read(tuned)
    assert loaded.head == CLASSES and set(loaded.params) == {
        'embeddings', 'encoder', 'pooler', 'head',
    }  # fmt: skip


def test_evaluate_and_predict_work_from_the_checkpoint(tuned, mood_files, tmp_path, capsys):
    results = json.loads((tuned / 'results.json').read_text())
    data = str(mood_files / 'dev.tsv')
    assert evaluate.main([f'--checkpoint={tuned}', f'--data={data}', '--batch_size=5']) == 0
    said = capsys.readouterr().out
    assert f'{results["accuracy"]:.4f}' in said and '43 examples' in said
    out = tmp_path / 'answers.jsonl'
    assert predict.main([f'--checkpoint={tuned}', f'--input={data}', f'--output={out}']) == 0
    written = (tuned / 'predictions' / 'validation' / 'predictions.jsonl').read_text()
    first, second = (
        [json.loads(row)['prediction'] for row in text.splitlines()]
        for text in (out.read_text(), written)
    )
    assert first == second
    with pytest.raises(UserError, match='answers.jsonl exists already'):
        predict.main([f'--checkpoint={tuned}', f'--input={data}', f'--output={out}'])


def test_predict_reads_standard_input(tuned):
    text = f'{POSITIVE}\n\n{{"text": "{NEGATIVE}"}}\n'
    result = subprocess.run(
        [sys.executable, '-m', 'albert_jax.predict', f'--checkpoint={tuned}', '--input=-'],
        input=text, capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row['prediction'] for row in rows] == ['yes', 'no']
    assert [row['id'] for row in rows] == ['0', '2']
    assert rows[0]['probabilities']['yes'] > 0.5


def test_a_run_that_was_cut_ends_as_one_that_was_not(tuned, checkpoint, mood_files, tmp_path):
    """Stopped in the middle by a signal to the loop, then started again."""
    import os
    import signal

    from albert_jax.tasks.features import TrainBatches as Batches

    original = Batches.batch
    arguments = [*flags(checkpoint, mood_files, tmp_path / 'cache'), f'--workdir={tmp_path}']

    def batch(self, step, rows):
        if step == 23:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, step, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batches, 'batch', batch)
        assert finetune.main(arguments) == 128 + signal.SIGTERM
    assert finetune.main(arguments) == 0
    jax.tree.map(
        np.testing.assert_array_equal,
        native.read(tmp_path).params,
        native.read(tuned).params,
    )
    one, two = ((d / 'results.json').read_text() for d in (tuned, tmp_path))
    assert one == two


def test_patience_ends_a_run_and_it_stays_ended(checkpoint, mood_files, tmp_path, capsys):
    arguments = [
        *flags(checkpoint, mood_files, tmp_path / 'cache'), f'--workdir={tmp_path}',
        '--config.loop.patience=2', '--config.optimizer.learning_rate=1e-9',
    ]  # fmt: skip
    assert finetune.main(arguments) == 0
    assert 'No better accuracy in 2 evaluations.' in capsys.readouterr().out
    lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
    assert json.loads(lines[-1])['step'] == 30
    assert finetune.main(arguments) == 0
    assert (tmp_path / 'metrics.jsonl').read_text().splitlines() == lines


def test_seeds_give_a_median_and_a_spread(checkpoint, mood_files, tmp_path, capsys):
    arguments = [
        *flags(checkpoint, mood_files, tmp_path / 'cache', '--config.loop.num_steps=10'),
        '--config.seeds=2', f'--workdir={tmp_path}', '--config.from_scratch=True',
    ]  # fmt: skip
    assert finetune.main(arguments) == 0
    said = capsys.readouterr().out
    assert 'of 2 runs' in said and 'median' in said and 'lowest' in said
    found = json.loads((tmp_path / 'results.json').read_text())['accuracy']
    assert len(found['values']) == 2
    assert found['median'] == pytest.approx(np.mean(found['values']))
    one, two = (native.read(tmp_path / f'seed-{seed}').params for seed in (0, 1))
    assert not np.array_equal(one['head']['kernel'], two['head']['kernel'])


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (['--config.init_from='], 'init_from is empty, so the weights would be random; set'),
        (['--config.init_from=', '--config.from_scratch=True'], 'A model from scratch needs'),
        (['--config.init_from=/nothing'], 'There is no file or directory /nothing'),
        (['--config.data.path='], 'There is nothing to train on; set --config.data.path'),
        (['--config.data.path=/nothing'], 'data.path is /nothing, which is not a directory'),
        (['--config.task.max_length=65'], 'task.max_length is 65, but the model has 64 positions'),
        (['--config.task.name=mood'], "task.name is 'mood'; it must be one of"),
        (['--config.seeds=0'], 'seeds is 0; it must be a number of runs'),
        (['--config.data.validation_fraction=1.5'], 'data.validation_fraction is 1.5'),
        (['--config.finetuning.layer_decay=0.9'], 'finetuning.layer_decay is 0.9, but layers share'),
        (['--config.task.label=mood'], "train.tsv, line 2 has no column 'mood'"),
        (['--config.model.size=albert_base'], 'the model of init_from has its own'),
    ],
)  # fmt: skip
def test_bad_runs_are_refused(changes, message, checkpoint, mood_files, tmp_path):
    arguments = flags(checkpoint, mood_files, tmp_path / 'cache', *changes)
    with pytest.raises(UserError, match=message) as caught:
        finetune.main([*arguments, f'--workdir={tmp_path / "run"}'])
    assert '\n' not in str(caught.value)
    assert not (tmp_path / 'run' / 'checkpoints').exists()


def test_a_checkpoint_without_or_with_another_head_is_refused(checkpoint, tuned, tmp_path):
    (tmp_path / 'x.tsv').write_text('text\tlabel\na\tyes\n')
    with pytest.raises(UserError, match='has no head: it is not fine-tuned'):
        predict.main([f'--checkpoint={checkpoint}', f'--input={tmp_path}/x.tsv'])
    with pytest.raises(
        UserError, match='has a sequence classification head, which the task squad1'
    ):
        predict.main([f'--checkpoint={tuned}', f'--input={tmp_path}/x.tsv', '--task=squad1'])
    (tmp_path / 'y.tsv').write_text('text\tlabel\na\tperhaps\n')
    with pytest.raises(UserError, match=r"y.tsv, line 2: the label 'perhaps' is unknown"):
        evaluate.main([f'--checkpoint={tuned}', f'--data={tmp_path}/y.tsv'])


TASK_NAMES = (
    'cola stsb sst2 mrpc mnli qnli qqp rte wnli squad1 squad2 race '
    'ner upos tags classification regression'
)


@pytest.mark.parametrize('task', TASK_NAMES.split())
def test_the_configs_are_the_papers(task):
    config = read_config(f'configs/finetune.py:{task}', [])
    FinetuneRun.from_dict(config)
    table = {
        'cola': (1e-5, 16, 0, 5336, 320, 512),
        'sst2': (1e-5, 32, 0, 20935, 1256, 512),
        'rte': (3e-5, 32, 0.1, 800, 200, 512),
        'squad1': (5e-5, 48, 0, 3649, 365, 384),
        'squad2': (3e-5, 48, 0, 8144, 814, 512),
        'race': (2e-5, 32, 0.1, 12000, 1000, 512),
    }
    if task in table:
        assert table[task] == (
            config['optimizer']['learning_rate'], config['loop']['batch_size'],
            config['model']['hidden_dropout_prob'], config['loop']['num_steps'],
            config['optimizer']['warmup_steps'], config['task']['max_length'],
        )  # fmt: skip
    assert config['task']['head_dropout'] == 0.1


# Every kind of head: train, convert to Hugging Face, predict from there.


def kind_files(kind: str, folder) -> str:
    """Files of a task, a few examples each; gives a line for standard input."""
    if kind == 'tags':
        rows = 'the DET\nimport NOUN\nstatement NOUN\n\na DET\nclass NOUN\n'
        for name in ('train', 'dev'):
            (folder / f'{name}.txt').write_text(rows * 8)
        return 'the class'
    if kind == 'regression':
        rows = 'text\tlabel\n' + ''.join(f'{"value " * n}\t{n}\n' for n in range(1, 9))
        for name in ('train', 'dev'):
            (folder / f'{name}.tsv').write_text(rows)
        return 'value value'
    if kind == 'race':
        for split in ('train', 'dev'):
            (folder / split / 'middle').mkdir(parents=True)
            content = {
                'article': 'The value is a string.', 'questions': ['What is it?'] * 4,
                'options': [['a string', 'a list', 'a class', 'none']] * 4,
                'answers': ['A'] * 4, 'id': 'middle1.txt',
            }  # fmt: skip
            (folder / split / 'middle' / '1.txt').write_text(json.dumps(content))
        options = ['a string', 'a list', 'a class', 'none']
        return json.dumps({'question': 'What?', 'passage': 'A string.', 'options': options})
    version = kind[-1]
    passage = 'The import statement finds a module.'
    asked = [
        {'id': str(n), 'question': 'What is found?',
         'answers': [{'text': 'a module', 'answer_start': passage.index('a module')}]}
        for n in range(8)
    ]  # fmt: skip
    if version == '2':
        asked += [{'id': 'x', 'question': 'Who?', 'answers': [], 'is_impossible': True}]
    content = {'data': [{'title': 't', 'paragraphs': [{'context': passage, 'qas': asked}]}]}
    number = {'1': '1.1', '2': '2.0'}[version]
    for name in ('train', 'dev'):
        (folder / f'{name}-v{number}.json').write_text(json.dumps(content))
    return json.dumps({'question': 'What is found?', 'passage': passage})


@pytest.mark.parametrize('kind', ['tags', 'regression', 'race', 'squad1', 'squad2'])
def test_every_kind_of_head_from_training_to_hugging_face(
    kind, checkpoint, tmp_path, capsys, monkeypatch
):
    (tmp_path / 'data').mkdir()
    line = kind_files(kind, tmp_path / 'data')
    arguments = flags(
        checkpoint, tmp_path / 'data', tmp_path / 'cache', '--config.loop.num_steps=8',
        '--config.loop.eval_every=8', '--config.loop.checkpoint_every=8',
        '--config.loop.batch_size=4', task=kind,
    )  # fmt: skip
    workdir = tmp_path / 'run'
    assert finetune.main([*arguments, f'--workdir={workdir}']) == 0
    results = json.loads((workdir / 'results.json').read_text())
    assert len(results) > 1 and 'learning' not in results
    answers = [Answerer(workdir, num_devices=1).answer([line], 'a line')]
    if kind == 'squad2':
        with pytest.raises(UserError, match='Hugging Face has no conditional question answering'):
            convert.main([str(workdir), str(tmp_path / 'hf'), '--to=huggingface'])
        assert not (tmp_path / 'hf').exists()
    else:
        assert convert.main([str(workdir), str(tmp_path / 'hf'), '--to=huggingface']) == 0
        answers.append(Answerer(tmp_path / 'hf', num_devices=1).answer([line], 'a line'))
        assert answers[0][0]['prediction'] == answers[1][0]['prediction']
    if kind == 'squad1':
        assert answers[0][0]['prediction'] in 'The import statement finds a module.'


def test_a_validation_file_without_labels_is_refused(checkpoint, mood_files, tmp_path):
    (tmp_path / 'dev.tsv').write_text('text\tgold\na\tyes\n')
    arguments = flags(
        checkpoint, mood_files, tmp_path / 'cache', f'--config.data.validation={tmp_path}/dev.tsv'
    )
    with pytest.raises(UserError, match='dev.tsv, line 2 and all that follows has no label'):
        finetune.main([*arguments, f'--workdir={tmp_path / "run"}'])


def test_a_run_that_was_cut_in_its_last_evaluation_still_gets_it(
    tuned, checkpoint, mood_files, tmp_path
):
    import os
    import signal

    original = Predictor.__call__
    calls = []

    def call(self, *args):
        calls.append(1)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *args)

    arguments = [*flags(checkpoint, mood_files, tmp_path / 'cache'), f'--workdir={tmp_path}']
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Predictor, '__call__', call)
        assert finetune.main(arguments) == 128 + signal.SIGTERM
    assert finetune.main(arguments) == 0
    # The same lines, and the same checkpoint is the best.
    one, two = ((d / 'results.json').read_text() for d in (tuned, tmp_path))
    assert one == two
    steps = [
        [json.loads(x)['step'] for x in (d / 'metrics.jsonl').read_text().splitlines()
         if '"validation"' in x]
        for d in (tuned, tmp_path)
    ]  # fmt: skip
    assert steps[0] == steps[1] == [10, 20, 30, 40]
    saved = tmp_path / 'checkpoints' / '40' / 'metrics' / 'metrics'
    assert 'accuracy' in saved.read_text()


@pytest.mark.slow
def test_seeds_from_scratch_draw_encoders_of_their_own(checkpoint, mood_files, tmp_path):
    arguments = flags(
        checkpoint, mood_files, tmp_path / 'cache', '--config.from_scratch=True',
        '--config.optimizer.learning_rate=1e-12', '--config.loop.num_steps=10', '--config.seeds=2',
    )  # fmt: skip
    assert finetune.main([*arguments, f'--workdir={tmp_path}']) == 0
    words = [
        native.read(tmp_path / f'seed-{seed}').params['embeddings']['word']['embedding']
        for seed in (0, 1)
    ]
    assert not np.allclose(words[0], words[1])


def test_names_of_a_models_outputs(tuned, mood_files, tmp_path, capsys):
    data = mood_files / 'dev.tsv'
    with pytest.raises(UserError, match='has the labels no, yes, the task sst2 0, 1; name them in'):
        evaluate.main([f'--checkpoint={tuned}', f'--data={data}', '--task=sst2'])
    with pytest.raises(UserError, match='has 2 output.s., which do not fit the task stsb'):
        evaluate.main([f'--checkpoint={tuned}', f'--data={data}', '--task=stsb'])
    with pytest.raises(UserError, match='--labels names 3 classes; .* has 2: no, yes'):
        predict.main([f'--checkpoint={tuned}', f'--input={data}', '--labels=a,b,c'])
    sst = tmp_path / 'sst.tsv'
    sst.write_text(f'sentence\tlabel\n{POSITIVE}\t1\n{NEGATIVE}\t0\n')
    found = [f'--checkpoint={tuned}', f'--data={sst}', '--task=sst2', '--labels=0,1']
    assert evaluate.main(found) == 0
    assert '1.0000' in capsys.readouterr().out
