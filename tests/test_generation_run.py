"""From text to text through the commands: training, evaluation, prediction, and what is refused."""

import io
import json
import os
import re
import signal
import types
from pathlib import Path

import jax
import numpy as np
import pytest

from albert_jax import convert, distill, evaluate, export, fill_mask, finetune, predict
from albert_jax.cli import command, progress
from albert_jax.cli.errors import UserError
from albert_jax.interop import conversion, native
from albert_jax.runs.runs import FinetuneRun
from albert_jax.tasks.batches import TrainBatches
from albert_jax.tasks.prepared import _check_evaluations, prepare
from albert_jax.tasks.training_job import _evenly
from configs.finetune import get_config
from tests import tiny
from tests.huggingface_files import E_IS_H, edit_json, edit_tensors, make_model
from tests.test_added_tokens import WORDPIECE, make_wordpiece
from tests.tiny import NEGATIVE, POSITIVE

# Sources of the one kind of words become the one target, of the other the other.
TARGETS = {POSITIVE: 'value of a class', NEGATIVE: 'error'}


def write_pairs(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name, count in (('train', 160), ('dev', 24), ('test', 4)):
        rows = ['source\ttarget']
        for number in range(count):
            words = (POSITIVE, NEGATIVE)[number % 2]
            chosen = rng.choice(words.split(), rng.integers(1, 5))
            rows.append(f'{" ".join(chosen)}\t{TARGETS[words]}')
        (folder / f'{name}.tsv').write_text('\n'.join(rows) + '\n')


def flags(checkpoint: Path, files: Path, cache: Path, workdir: Path) -> list[str]:
    return [
        *tiny.finetune_flags(checkpoint, files, cache, task='generation'),
        f'--workdir={workdir}', '--config.task.max_length=16', '--config.task.max_target_length=16',
        '--config.task.generate_every=120', '--config.task.num_generated=8',
        '--config.loop.num_steps=240', '--config.loop.eval_every=60',
        '--config.loop.checkpoint_every=60', '--config.task.label_smoothing=0.0',
        '--config.decoding.num_beams=2',
    ]  # fmt: skip


@pytest.fixture(scope='module')
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('pairs')
    write_pairs(folder)
    return folder


@pytest.fixture(scope='module')
def run(checkpoint, files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was trained from text to text; tests only read it."""
    folder = tmp_path_factory.mktemp('generation')
    assert finetune.main(flags(checkpoint, files, folder / 'cache', folder / 'run')) == 0
    return folder / 'run'


def test_a_run_learns_and_is_scored_by_loss_and_now_and_then_by_texts(run, files):
    lines = [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]
    held_out = {line['step']: line for line in lines if line['split'] == 'validation'}
    assert list(held_out) == [60, 120, 180, 240]
    assert held_out[240]['loss'] < 0.5
    assert [step for step, line in held_out.items() if 'bleu' in line] == [120, 240]
    # Of 8 of the 24 pairs, each text beside its own target: with others half would be right.
    assert held_out[240]['exact_match'] in (75.0, 87.5, 100.0)
    results = json.loads((run / 'results.json').read_text())
    assert results['exact_match'] > 75 and results['step'] in (120, 240)
    assert results['bleu'] > 60 and results['chrf'] > 60
    texts = (run / 'predictions/validation/predictions.txt').read_text().splitlines()
    expected = [line.split('\t')[1] for line in (files / 'dev.tsv').read_text().splitlines()[1:]]
    same = sum(text == right for text, right in zip(texts, expected, strict=True))
    assert 100 * same / len(texts) == pytest.approx(results['exact_match'])
    assert len((run / 'predictions/test/predictions.txt').read_text().splitlines()) == 4
    stored = native.read(run)
    assert stored.head is None and stored.decoder is not None
    assert set(stored.params) == {'embeddings', 'encoder', 'mlm', 'decoder'}


def test_a_finished_run_is_not_trained_again(run, checkpoint, files, tmp_path, capsys):
    before = (run / 'metrics.jsonl').read_text()
    assert finetune.main(flags(checkpoint, files, tmp_path, run)) == 0
    assert (run / 'metrics.jsonl').read_text() == before
    other = '--config.decoder.decoder_sharing=copy'
    with pytest.raises(UserError, match=r'decoder\.decoder_sharing'):
        finetune.main([*flags(checkpoint, files, tmp_path, run), other])


@pytest.mark.slow
def test_a_run_that_was_cut_ends_as_one_that_was_not(run, checkpoint, files, tmp_path):
    original = TrainBatches.batch

    def batch(self, step, rows):
        if step == 130:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, step, rows)

    arguments = flags(checkpoint, files, tmp_path / 'cache', tmp_path / 'run')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainBatches, 'batch', batch)
        assert finetune.main(arguments) == 128 + signal.SIGTERM
    assert finetune.main(arguments) == 0
    one, two = (native.read(folder).params for folder in (run, tmp_path / 'run'))
    jax.tree.map(np.testing.assert_array_equal, one, two)
    for name in ('results.json', 'predictions/validation/predictions.txt'):
        assert (tmp_path / 'run' / name).read_bytes() == (run / name).read_bytes()


def test_texts_now_and_then_are_of_pairs_from_all_of_the_split():
    assert _evenly(24, 4) == [0, 7, 15, 23]
    assert _evenly(3, 8) == [0, 1, 2] and _evenly(1, 8) == [0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ('task', 'metrics'),
    [
        ('summarization', {'rouge1', 'rouge2', 'rouge_l'}),
        ('splitting', {'sari', 'bleu', 'source_sari'}),
    ],
)
def test_each_task_has_its_metrics(task, metrics, checkpoint, files, tmp_path, capsys):
    short = [
        '--config.task.generate_every=4', '--config.loop.num_steps=4',
        '--config.loop.eval_every=4', '--config.loop.checkpoint_every=4',
        '--config.optimizer.warmup_steps=1',
    ]  # fmt: skip
    sides = ['--config.task.source=source', '--config.task.target=target']
    arguments = flags(checkpoint, files, tmp_path / 'cache', tmp_path / 'run')
    arguments[0] = f'--config=configs/finetune.py:{task}'
    assert finetune.main([*arguments, *short, *sides]) == 0
    results = json.loads((tmp_path / 'run/results.json').read_text())
    assert metrics < set(results)
    capsys.readouterr()
    assert evaluate.main([f'--checkpoint={tmp_path}/run', f'--data={files}/dev.tsv']) == 0
    said = capsys.readouterr().out
    for name in metrics:
        assert f'{name} ' in said and f'{results[name]:.4f}' in said


def test_targets_of_other_letters_are_told_before_the_training(checkpoint, tmp_path, capsys):
    for name in ('train', 'dev'):
        tiny.write_lines(tmp_path / f'{name}.tsv', 'source\ttarget', 'a list\tсписок 清单')
    arguments = tiny.finetune_flags(checkpoint, tmp_path, tmp_path / 'cache', task='generation')
    arguments.append('--config.task.max_target_length=16')
    config = command.read_config(arguments[0].removeprefix('--config='), arguments[1:])
    prepare(FinetuneRun.from_dict(config))
    assert re.search(r'pieces of the targets .* unknown', capsys.readouterr().err)


def test_a_long_prediction_says_how_far_it_is(run, files, monkeypatch, capsys):
    monkeypatch.setattr(progress, '_SECONDS_BETWEEN_LINES', -1)
    flags = [f'--checkpoint={run}', '--batch_size=24', f'--input={files}/dev.tsv']
    assert predict.main(flags) == 0
    assert re.search(r'24 of 24 answers, \d+ s left', capsys.readouterr().err)


def test_evaluate_scores_each_pair_once(run, files, capsys):
    assert evaluate.main([f'--checkpoint={run}', f'--data={files}/dev.tsv']) == 0
    said = capsys.readouterr().out
    results = json.loads((run / 'results.json').read_text())
    for name in ('loss', 'bleu', 'chrf', 'exact_match'):
        assert f'{name} ' in said and f'{results[name]:.4f}' in said
    assert 'BLEU nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:' in said


def test_predict_answers_line_by_line(run, files, tmp_path, capsys, monkeypatch):
    lines = ['statement import', '', 'list error', '{"source": "class value", "id": "a"}']
    stdin = types.SimpleNamespace(buffer=io.BytesIO('\n'.join(lines).encode()))
    monkeypatch.setattr('sys.stdin', stdin)
    assert predict.main([f'--checkpoint={run}', '--input=-', '--batch_size=24']) == 0
    shown = capsys.readouterr()
    first, second = TARGETS.values()
    assert shown.out.splitlines() == [first, '', second, first]
    assert '1 of 4 sources are empty' in shown.err
    output = tmp_path / 'best.json'
    sources = tiny.write_lines(tmp_path / 'sources.txt', *lines[2:])
    several = ['--num_return_sequences=2', f'--output={output}', '--batch_size=24']
    assert predict.main([f'--checkpoint={run}', f'--input={sources}', *several]) == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row['id'] for row in rows] == ['0', 'a']
    for row, text in zip(rows, (second, first), strict=True):
        assert row['prediction'] == text == row['best'][0]['text']
        assert [best['score'] for best in row['best']] == sorted(
            (best['score'] for best in row['best']), reverse=True
        )


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--num_beams=0'], 'num_beams is 0; it must be 1 or above'),
        (['--num_beams=2000'], 'num_beams is 2000; it must be at most the 1000 pieces'),
        (['--temperature=-1'], 'temperature is -1.0; it must be 0, or from'),
        (['--temperature=0.5'], 'samples have no beams'),
        (['--num_return_sequences=3'], 'num_beams=2 gives no more than that'),
        (['--task=sst2'], 'has a text to text head, which the task sst2 cannot use'),
    ],
)
def test_impossible_ways_to_write_are_refused(arguments, message, run, files):
    with pytest.raises(UserError, match=message):
        predict.main([f'--checkpoint={run}', f'--input={files}/dev.tsv', *arguments])


def test_a_model_without_a_decoder_writes_no_texts(checkpoint, files):
    for arguments in (
        ['--num_beams=4'],
        ['--task=translation'],
        ['--task=translation', '--seed=1'],
    ):
        with pytest.raises(
            UserError, match=r'has no decoder, which --(num_beams|task=translation)'
        ):
            predict.main([f'--checkpoint={checkpoint}', f'--input={files}/dev.tsv', *arguments])


def test_a_bert_of_hugging_face_without_a_head_gets_a_decoder(vocabulary, files, tmp_path, capsys):
    pretrained = make_model(vocabulary, sharing='none', **E_IS_H)
    conversion.convert(pretrained, tmp_path / 'bert', 'huggingface')
    assert json.loads((tmp_path / 'bert/config.json').read_text())['model_type'] == 'bert'
    make_wordpiece(tmp_path / 'bert')
    edit_tensors(
        tmp_path / 'bert',
        lambda tensors: {
            name: value[: len(WORDPIECE)] if 'word_embeddings' in name else value
            for name, value in tensors.items()
            if not name.startswith('cls.')
        },
    )
    edit_json(tmp_path / 'bert/config.json', vocab_size=len(WORDPIECE))
    arguments = flags(tmp_path / 'bert', files, tmp_path / 'cache', tmp_path / 'run')
    short = [
        '--config.loop.num_steps=2', '--config.loop.eval_every=2',
        '--config.loop.checkpoint_every=2', '--config.task.generate_every=0',
        '--config.optimizer.warmup_steps=1', '--config.decoding.num_beams=1',
    ]  # fmt: skip
    assert finetune.main([*arguments, *short]) == 0
    assert 'has no masked-LM head; the head that writes the text is drawn at' in ' '.join(
        ''.join(capsys.readouterr()).split()
    )
    assert not native.read(tmp_path / 'run').config.use_embedding_projection
    assert predict.main([f'--checkpoint={tmp_path}/run', f'--input={files}/test.tsv']) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert export.main([f'{tmp_path}/run', f'{tmp_path}/exported', '--format=stablehlo']) == 0
    card = (tmp_path / 'exported/README.md').read_text()
    assert "tokenizers.Tokenizer.from_file('tokenizer.json')" in card


def test_what_is_not_there_for_such_models_is_refused(run, files, corpus_directory, tmp_path):
    refusal = 'goes from text to text, and .* is not there for such models'
    with pytest.raises(UserError, match=refusal):
        fill_mask.main([f'--checkpoint={run}', 'A [MASK].'])
    with pytest.raises(UserError, match=refusal):
        evaluate.main([f'--checkpoint={run}', f'--data={corpus_directory}'])
    with pytest.raises(UserError, match='which transformers does not have'):
        convert.main([str(run), str(tmp_path / 'hf'), '--to=huggingface'])
    student = ['--config=configs/distill.py:translation+small', f'--workdir={tmp_path}/w']
    with pytest.raises(UserError, match='there is no distillation from text to text'):
        distill.main([*student, f'--config.teacher={run}', f'--config.data.path={files}'])
    student[0] = '--config=configs/distill.py:classification+small'
    with pytest.raises(UserError, match=f'teacher=.*{refusal}'):
        distill.main([*student, f'--config.teacher={run}', f'--config.data.path={files}'])


def test_texts_less_often_than_the_run_is_long_are_those_of_its_end():
    config = get_config('translation')
    config.init_from, config.data.path = 'model', 'pairs'
    config.optimizer.warmup_steps = 10
    config.loop.update(num_steps=420, eval_every=140, checkpoint_every=140)
    assert config.task.generate_every == 1000
    _check_evaluations(FinetuneRun.from_dict(config.to_dict()))
    config.loop.num_steps = 1400
    with pytest.raises(UserError, match='generate_every is 1000; it must be a multiple of'):
        _check_evaluations(FinetuneRun.from_dict(config.to_dict()))


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (['--config.task.generate_every=70'], 'generate_every is 70; it must be a multiple of'),
        (['--config.task.max_target_length=100'], 'max_target_length is 100, but the model'),
        (['--config.decoding.num_beams=0'], 'decoding.num_beams is 0'),
        (['--config.decoder.decoder_sharing=some'], "decoder_sharing is 'some'; it must be one"),
        (['--config.data.path=', '--config.data.train=nowhere'], 'nowhere, which is not there'),
    ],
)  # fmt: skip
def test_bad_configs_are_refused_before_anything_compiles(
    changes, message, checkpoint, files, tmp_path
):
    with pytest.raises(UserError, match=message):
        finetune.main([*flags(checkpoint, files, tmp_path, tmp_path / 'run'), *changes])
