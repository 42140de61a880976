"""Whole fine-tuning runs: learning, resuming, seeds, refusals, and every kind of head."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from albert_jax import convert, evaluate, finetune, predict
from albert_jax.cli.command import read_config
from albert_jax.cli.errors import UserError
from albert_jax.interop import native
from albert_jax.runs.runs import FinetuneRun
from albert_jax.tasks.answering import Answerer
from albert_jax.tasks.prediction import Predictor
from tests.conftest import ROOT
from tests.tiny import CLASSES, NEGATIVE, POSITIVE, TWO_LENGTHS, finetune_flags


def test_a_run_learns_keeps_the_best_and_writes_predictions(finetuned, mood_files):
    results = json.loads((finetuned / 'results.json').read_text())
    assert results['accuracy'] > 0.9
    lines = [json.loads(line) for line in (finetuned / 'metrics.jsonl').read_text().splitlines()]
    evaluated = {x['step']: x['accuracy'] for x in lines if x['split'] == 'validation'}
    assert results['accuracy'] == pytest.approx(max(evaluated.values()))
    assert evaluated[results['step']] == max(evaluated.values())
    rows = (finetuned / 'predictions' / 'validation' / 'predictions.jsonl').read_text().splitlines()
    assert len(rows) == 43
    labels = [r.split('\t')[1] for r in (mood_files / 'dev.tsv').read_text().splitlines()[1:]]
    found = [json.loads(row)['prediction'] for row in rows]
    right = np.mean([a == b for a, b in zip(labels, found, strict=True)])
    assert right == pytest.approx(results['accuracy'])
    loaded = native.read(finetuned)
    assert loaded.head == CLASSES and set(loaded.params) == {
        'embeddings', 'encoder', 'pooler', 'head',
    }  # fmt: skip


def test_a_checkpoint_is_fine_tuned_on_all_devices_as_on_one(checkpoint, mood_files, tmp_path):
    """What a checkpoint was read to is no matter for where a run is."""
    params = []
    for num_devices in (1, 0):
        more = (
            f'--config.loop.num_devices={num_devices}', '--config.loop.num_steps=4',
            '--config.loop.eval_every=4', '--config.loop.checkpoint_every=4',
            '--config.optimizer.warmup_steps=1', '--config.model.hidden_dropout_prob=0',
        )  # fmt: skip
        flags = finetune_flags(checkpoint, mood_files, tmp_path / 'cache', *more)
        workdir = tmp_path / f'devices-{num_devices}'
        assert finetune.main([*flags, f'--workdir={workdir}']) == 0
        params.append(native.read(workdir).params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *params)


def test_evaluate_and_predict_work_from_the_checkpoint(finetuned, mood_files, tmp_path, capsys):
    results = json.loads((finetuned / 'results.json').read_text())
    data = str(mood_files / 'dev.tsv')
    scored = tmp_path / 'scored'
    flags = [f'--checkpoint={finetuned}', f'--data={data}', '--batch_size=5']
    assert evaluate.main([*flags, f'--output={scored}']) == 0
    said = capsys.readouterr().out
    assert f'{results["accuracy"]:.4f}' in said and '43 examples' in said
    assert f'Wrote {scored}/results.json.' in said
    assert json.loads((scored / 'results.json').read_text())['accuracy'] == results['accuracy']
    # The training's own file stays.
    with pytest.raises(UserError, match=r'folder of a run.*name one of its own, as in .*/test\.$'):
        evaluate.main([*flags, f'--output={finetuned}'])
    (tmp_path / 'seeds').mkdir()
    (tmp_path / 'seeds/seed-0').symlink_to(finetuned)
    with pytest.raises(UserError, match='folder of a run'):
        evaluate.main([*flags, f'--output={tmp_path}/seeds'])
    assert json.loads((finetuned / 'results.json').read_text()) == results
    out = tmp_path / 'answers.jsonl'
    assert predict.main([f'--checkpoint={finetuned}', f'--input={data}', f'--output={out}']) == 0
    written = (finetuned / 'predictions' / 'validation' / 'predictions.jsonl').read_text()
    first, second = (
        [json.loads(row)['prediction'] for row in text.splitlines()]
        for text in (out.read_text(), written)
    )
    assert first == second
    with pytest.raises(UserError, match='answers.jsonl exists already'):
        predict.main([f'--checkpoint={finetuned}', f'--input={data}', f'--output={out}'])


def test_predict_reads_standard_input(finetuned):
    text = f'{POSITIVE}\n\n{{"text": "{NEGATIVE}"}}\n'
    result = subprocess.run(
        [sys.executable, '-m', 'albert_jax.predict', f'--checkpoint={finetuned}', '--input=-'],
        input=text, capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row['prediction'] for row in rows] == ['yes', 'no']
    assert [row['id'] for row in rows] == ['0', '2']
    assert rows[0]['probabilities']['yes'] > 0.5


def test_a_run_that_was_cut_ends_as_one_that_was_not(finetuned, checkpoint, mood_files, tmp_path):
    """Stopped in the middle by a signal to the loop, then started again."""
    import os
    import signal

    from albert_jax.tasks.batches import TrainBatches as Batches

    original = Batches.batch
    arguments = [
        *finetune_flags(checkpoint, mood_files, tmp_path / 'cache', TWO_LENGTHS),
        f'--workdir={tmp_path}',
    ]

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
        native.read(finetuned).params,
    )
    one, two = ((d / 'results.json').read_text() for d in (finetuned, tmp_path))
    assert one == two


def test_patience_ends_a_run_and_it_stays_ended(checkpoint, mood_files, tmp_path, capsys):
    arguments = [
        *finetune_flags(checkpoint, mood_files, tmp_path / 'cache'), f'--workdir={tmp_path}',
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
        *finetune_flags(checkpoint, mood_files, tmp_path / 'cache', '--config.loop.num_steps=10'),
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
        (['--config.seeds=0'], 'seeds is 0; it must be'),
        (['--config.data.validation_fraction=1.5'], 'data.validation_fraction is 1.5'),
        (['--config.finetuning.layer_decay=0.9'], 'finetuning.layer_decay is 0.9, but'),
        (['--config.task.label=mood'], "train.tsv, line 2 has no column 'mood'"),
        (['--config.model.size=albert_base'], 'the model of init_from has its own'),
        (
            ['--config.model.norm_placement=pre', '--config.model.is_gated=True',
             '--config.model.hidden_dropout_prob=0.1'],
            'are of a model with is_gated=False, norm_placement=post, but the config says '
            'is_gated=True, norm_placement=pre; leave that out',
        ),
        (['--config.model.position_encoding=rope'], 'of a model with position_encoding=learned'),
        (['--config.model.max_position_embeddings=96'], 'says max_position_embeddings=96'),
    ],
)  # fmt: skip
def test_bad_runs_are_refused(changes, message, checkpoint, mood_files, tmp_path):
    arguments = finetune_flags(checkpoint, mood_files, tmp_path / 'cache', *changes)
    with pytest.raises(UserError, match=message) as caught:
        finetune.main([*arguments, f'--workdir={tmp_path / "run"}'])
    assert '\n' not in str(caught.value)
    assert not (tmp_path / 'run' / 'checkpoints').exists()


def test_a_checkpoint_without_or_with_another_head_is_refused(checkpoint, finetuned, tmp_path):
    (tmp_path / 'x.tsv').write_text('text\tlabel\na\tyes\n')
    with pytest.raises(UserError, match='has no head: it is not fine-tuned'):
        predict.main([f'--checkpoint={checkpoint}', f'--input={tmp_path}/x.tsv'])
    with pytest.raises(
        UserError, match='has a sequence classification head, which the task squad1'
    ):
        predict.main([f'--checkpoint={finetuned}', f'--input={tmp_path}/x.tsv', '--task=squad1'])
    (tmp_path / 'y.tsv').write_text('text\tlabel\na\tperhaps\n')
    with pytest.raises(UserError, match=r"y.tsv, line 2: the label 'perhaps' is unknown"):
        evaluate.main([f'--checkpoint={finetuned}', f'--data={tmp_path}/y.tsv'])


TASK_NAMES = (
    'cola stsb sst2 mrpc mnli qnli qqp rte wnli squad1 squad2 race '
    'ner upos roles tags classification multilabel regression '
    'translation summarization splitting generation multi30k'
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
    arguments = finetune_flags(
        checkpoint, tmp_path / 'data', tmp_path / 'cache', TWO_LENGTHS, '--config.loop.num_steps=8',
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
    arguments = finetune_flags(
        checkpoint, mood_files, tmp_path / 'cache', f'--config.data.validation={tmp_path}/dev.tsv'
    )
    with pytest.raises(UserError, match='dev.tsv, line 2 and all that follows has no label'):
        finetune.main([*arguments, f'--workdir={tmp_path / "run"}'])


def test_a_run_that_was_cut_in_its_last_evaluation_still_gets_it(
    finetuned, checkpoint, mood_files, tmp_path
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

    arguments = [
        *finetune_flags(checkpoint, mood_files, tmp_path / 'cache', TWO_LENGTHS),
        f'--workdir={tmp_path}',
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Predictor, '__call__', call)
        assert finetune.main(arguments) == 128 + signal.SIGTERM
    assert finetune.main(arguments) == 0
    # The same lines, and the same checkpoint is the best.
    one, two = ((d / 'results.json').read_text() for d in (finetuned, tmp_path))
    assert one == two
    steps = [
        [json.loads(x)['step'] for x in (d / 'metrics.jsonl').read_text().splitlines()
         if '"validation"' in x]
        for d in (finetuned, tmp_path)
    ]  # fmt: skip
    assert steps[0] == steps[1] == [10, 20, 30, 40]
    # Orbax has no score of the last one: it came after the save.
    late = json.loads((tmp_path / 'late_scores.json').read_text())
    assert late == {'40': json.loads(two)['accuracy']}
    assert native.read(tmp_path).step == native.read(finetuned).step


@pytest.mark.slow
def test_seeds_from_scratch_draw_encoders_of_their_own(checkpoint, mood_files, tmp_path):
    arguments = finetune_flags(
        checkpoint, mood_files, tmp_path / 'cache', '--config.from_scratch=True',
        '--config.optimizer.learning_rate=1e-12', '--config.loop.num_steps=10', '--config.seeds=2',
    )  # fmt: skip
    assert finetune.main([*arguments, f'--workdir={tmp_path}']) == 0
    words = [
        native.read(tmp_path / f'seed-{seed}').params['embeddings']['word']['embedding']
        for seed in (0, 1)
    ]
    assert not np.allclose(words[0], words[1])


def test_names_of_a_models_outputs(finetuned, mood_files, tmp_path, capsys):
    data = mood_files / 'dev.tsv'
    with pytest.raises(
        UserError,
        match=r'the labels no, yes, but those of the task sst2 are 0 \(negative\), 1 \(positive\)',
    ):
        evaluate.main([f'--checkpoint={finetuned}', f'--data={data}', '--task=sst2'])
    with pytest.raises(UserError, match='has 2 output.s., which do not fit the task stsb'):
        evaluate.main([f'--checkpoint={finetuned}', f'--data={data}', '--task=stsb'])
    with pytest.raises(UserError, match='--labels names 3 classes; .* has 2: no, yes'):
        predict.main([f'--checkpoint={finetuned}', f'--input={data}', '--labels=a,b,c'])
    sst = tmp_path / 'sst.tsv'
    sst.write_text(f'sentence\tlabel\n{POSITIVE}\t1\n{NEGATIVE}\t0\n')
    found = [f'--checkpoint={finetuned}', f'--data={sst}', '--task=sst2', '--labels=0,1']
    assert evaluate.main(found) == 0
    assert '1.0000' in capsys.readouterr().out
