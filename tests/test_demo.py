"""`make demo` with a small model, and the recorded run that it shows beside its own."""

import json
import math

import jax
import numpy as np
import pytest

from albert_jax import demo
from albert_jax.cli import command
from albert_jax.cli.errors import UserError
from albert_jax.pretraining import job
from albert_jax.pretraining.recorded import RecordedRun
from albert_jax.runs.runs import PretrainRun
from albert_jax.training import learning_curve
from albert_jax.training.metrics_file import read_lines
from benchmarks import record_run
from tests.conftest import ROOT

RECORDED = ROOT / 'configs/recorded/tiny.json'
# The demo's config, for the corpus and the patience of a test.
SMALL = """
from configs.pretrain import get_config as get_large

def get_config(name):
    config = get_large(name)
    config.model.update(
        vocab_size=1000, embedding_size=8, hidden_size=16, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=32,
    )
    config.loop.update(log_every=2, num_eval_batches=2)
    return config
"""


@pytest.mark.parametrize('steps', [1, 2, 19, 20, 119, 120, 121, 600, 2400])
def test_the_demo_takes_any_number_of_steps(steps, tmp_path, monkeypatch):
    monkeypatch.setattr(demo.prepare, 'main', lambda arguments: 0)
    given = []
    monkeypatch.setattr(job, 'prepare', given.append)
    monkeypatch.setattr(job, 'pretrain', lambda prepared, workdir, compared_with: 3)
    assert demo.main([f'--steps={steps}', f'--output={tmp_path}']) == 3
    (run,) = given
    assert run.loop.num_steps == steps
    assert run.optimizer.warmup_steps == (120 if steps > 120 else steps // 20)


@pytest.mark.parametrize('steps', [-1, -600])
def test_the_demo_refuses_what_cannot_be_before_it_prepares(steps, monkeypatch):
    monkeypatch.setattr(demo.prepare, 'main', lambda arguments: pytest.fail('prepared'))
    with pytest.raises(UserError, match=f'--steps is {steps}; it must be above 0, or 0 for'):
        demo.main([f'--steps={steps}'])


def test_the_demo_trains_compares_fills_and_draws(corpus_directory, tmp_path, monkeypatch, capfd):
    output = tmp_path / 'demo'
    output.mkdir()
    (output / 'corpus').symlink_to(corpus_directory)
    monkeypatch.setattr(demo.prepare, 'main', lambda arguments: 0)
    small = tmp_path / 'configs' / 'small.py'
    small.parent.mkdir()
    small.write_text(SMALL)
    monkeypatch.setattr(demo, '_CONFIG', f'{small}:tiny+modern')
    monkeypatch.setenv('COLUMNS', '100')
    # For optax's Muon.
    with jax.numpy_dtype_promotion('standard'):
        assert demo.main(['--steps=4', f'--output={output}']) == 0
    said = capfd.readouterr().out
    last = read_lines(output / 'run' / 'metrics.jsonl')[-1]
    recorded = RecordedRun.read(RECORDED)
    unigram = json.loads((output / 'run' / 'unigram.json').read_text())
    for name, metrics in (
        ('this model', last),
        ("the paper's recipe", recorded.evaluations[-1]),
        ('unigram model', unigram),
    ):
        (row,) = [line for line in said.splitlines() if line.startswith(f'│ {name}')]
        assert f'{metrics["mlm_loss"]:.3f}' in row and f'{metrics["mlm_accuracy"]:.1%}' in row
        if name.startswith('the'):
            assert f'{recorded.flops:.1e}' in row
    # The corpus of this test is another than that of the recorded run.
    assert "the paper's recipe was recorded on another corpus" in ' '.join(said.split())
    assert '2 layers of width 16 that share the weights of one' in said
    assert all(f'\n{text}\n' in said for text in demo._TEXTS)  # whole, on a line
    assert '▁' not in said
    assert (output / 'curve.png').read_bytes().startswith(b'\x89PNG')
    from matplotlib import pyplot

    drawn = [line.get_label() for line in pyplot.gcf().axes[0].lines]
    assert drawn == ['this model, held out', "the paper's recipe, held out", 'unigram model']


def test_the_picture_has_both_curves_by_sequence_and_the_unigram_model(tmp_path):
    from matplotlib import pyplot

    lines = [
        {'step': step, 'split': 'validation', 'mlm_loss': 7 - step, 'mlm_accuracy': step / 9}
        for step in (1, 2)
    ]
    unigram = {'mlm_loss': 5.5, 'mlm_accuracy': 0.1}
    learning_curve.draw(
        {'small': lines, 'large': lines},
        tmp_path / 'curve.png',
        batch_sizes={'small': 8, 'large': 32},
        levels={'unigram model': unigram},
    )
    loss, accuracy = pyplot.gcf().axes
    points = [np.array(line.get_xydata()) for line in loss.lines]
    np.testing.assert_allclose(points[0], [[8, 6], [16, 5]])
    np.testing.assert_allclose(points[1], [[32, 6], [64, 5]])
    np.testing.assert_allclose(points[2][:, 1], 5.5)
    np.testing.assert_allclose(np.array(accuracy.lines[2].get_xydata())[:, 1], 0.1)
    names = [line.get_label() for line in loss.lines]
    assert names == ['small, held out', 'large, held out', 'unigram model']
    assert loss.get_xlabel() == 'sequences'
    assert accuracy.yaxis.get_major_formatter()(0.25).startswith('25')
    assert accuracy.yaxis.get_major_formatter()(0.25).endswith('%')


def test_runs_on_the_same_text_share_the_line_of_the_unigram_model(tmp_path, capsys):
    runs = [tmp_path / name for name in ('a', 'b', 'c')]
    for run, loss in zip(runs[:2], (5.5, 5.5), strict=True):
        run.mkdir()
        (run / 'unigram.json').write_text(json.dumps({'mlm_loss': loss, 'mlm_accuracy': 0.1}))
    same = {'mlm_loss': 5.5, 'mlm_accuracy': 0.1}
    assert learning_curve.read_unigram(runs) == {'unigram model': same}
    assert f'note: {runs[2]} has no unigram.json' in capsys.readouterr().err
    (runs[1] / 'unigram.json').write_text('{"mlm_loss": 4.5, "mlm_accuracy": 0.1}')
    assert learning_curve.read_unigram(runs[:2]) == {
        f'unigram model, {runs[0]}': same, f'unigram model, {runs[1]}': same | {'mlm_loss': 4.5},
    }  # fmt: skip
    (runs[1] / 'unigram.json').write_text('{')
    assert learning_curve.read_unigram(runs[1:2]) == {}


def test_the_recorded_run_is_the_papers_recipe():
    """Its settings are what its command gives today; else it is to be recorded again."""
    recorded = RecordedRun.read(RECORDED)
    config, *overrides = recorded.config.split()
    assert config == 'configs/pretrain.py:tiny'
    run = PretrainRun.from_dict(command.read_config(f'{ROOT}/{config}', overrides))
    assert recorded.run == run
    assert f'--config={recorded.config} ' in ' '.join((record_run.__doc__ or '').split())
    assert [line['step'] for line in recorded.evaluations] == [*range(100, 1301, 100), 1321]
    # 1,321 × 32 sequences of 64 tokens; 3 for forward and backward (REFERENCE.md, 1).
    dense = 2 * 128 * (4 * 128 + 2 * 512) + 4 * 64 * 128
    masked = 2 * 64 * (128 + 4096) * run.pretraining.max_predictions_per_sequence
    per_sequence = 64 * (4 * dense + 2 * 64 * 128) + masked + 2 * 128 * (128 + 2)
    assert recorded.flops == 1321 * 32 * 3 * per_sequence
    last = recorded.evaluations[-1]
    assert last['mlm_loss'] < recorded.unigram['mlm_loss'] < math.log(4096)


def test_the_demos_recipe_is_what_it_says():
    """The sentence that it prints (`_RECIPE`)."""
    run = demo._run(0, ROOT)
    assert run.optimizer.name == 'muon' and run.loop.batch_size == 8
    assert run.albert.position_encoding == 'rope' and run.albert.norm_placement == 'pre'
    settings = run.pretraining
    assert settings.masked_fraction == 0.45 and settings.sentence_loss == 'none'
    paper = RecordedRun.read(RECORDED).run
    assert paper.optimizer.name == 'lamb' and paper.loop.batch_size == 32
    assert paper.albert.position_encoding == 'learned' and paper.albert.norm_placement == 'post'
    assert paper.pretraining.masked_fraction == 0.15 and paper.pretraining.sentence_loss == 'sop'
    # As much of the held-out text, with masks of the same kind.
    for loop in (run.loop, paper.loop):
        assert loop.num_eval_batches * loop.batch_size == 512
    assert settings.held_out.masked_fraction == paper.pretraining.held_out.masked_fraction


def test_a_run_is_recorded_and_read(corpus_directory, tmp_path):
    config = tmp_path / 'configs' / 'small.py'
    config.parent.mkdir()
    config.write_text(SMALL)
    values = command.read_config(
        f'{config}:tiny+modern',
        [f'--config.data.path={corpus_directory}', '--config.loop.num_steps=200'],
    )
    prepared = job.prepare(PretrainRun.from_dict(values))
    metrics = {'step': 200, 'split': 'validation', 'mlm_loss': None, 'mlm_accuracy': 0.1}
    (tmp_path / 'metrics.jsonl').write_text(
        '{"step": 100, "split": "train", "mlm_loss": 7.0, "mlm_accuracy": 0.1}\n'
        '{"step": 200, "split": "validation", "mlm_loss": NaN, "mlm_accuracy": 0.1}\n'
    )
    recorded = job.record(prepared, 'small.py:tiny', tmp_path)
    recorded.write(tmp_path / 'new' / 'small.json')
    read = RecordedRun.read(tmp_path / 'new' / 'small.json')
    assert read.evaluations == [metrics]
    assert read.run.to_dict() | {'data': None} == prepared.run.to_dict() | {'data': None}
    assert read.unigram['mlm_loss'] == prepared.unigram['mlm_loss']
    assert read.corpus_fingerprint == prepared.corpus.fingerprint
    assert str(corpus_directory) not in (tmp_path / 'new' / 'small.json').read_text()


def test_the_recorded_run_took_the_demos_flops(corpus_directory):
    run = demo._run(0, corpus_directory)
    flops = job.training_flops(job.prepare(run))
    assert flops == pytest.approx(RecordedRun.read(RECORDED).flops, rel=1e-3)


def test_flops_of_a_training_with_a_short_phase_are_those_of_its_steps(corpus_directory):
    values = command.read_config(
        f'{ROOT}/configs/pretrain.py:tiny+modern+short',
        [f'--config.data.path={corpus_directory}', '--config.loop.num_steps=200',
         '--config.pretraining.short_phase_steps=150'],
    )  # fmt: skip
    prepared = job.prepare(PretrainRun.from_dict(values))
    work = job.make_job(prepared).work
    assert job.training_flops(prepared) == pytest.approx(
        8 * sum(work(step).flops for step in range(200)), rel=1e-12
    )
