"""The loop in one process: what it logs, when it stops, what it refuses."""

import contextlib
import functools
import io
import json
import shutil
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorboardX

from albert_jax.cli.errors import UserError
from albert_jax.pretraining import job
from albert_jax.runs.optimizer import OptimizerSettings
from albert_jax.runs.runs import PretrainRun
from albert_jax.training import loop as training_loop
from albert_jax.training import telemetry, trackers
from albert_jax.training.metrics_file import read_lines
from albert_jax.training.optimizer import schedule
from albert_jax.training.patience import History
from albert_jax.training.step import TrainStep
from configs.pretrain import get_config
from tests import tiny


def tiny_config(corpus, **loop):
    config = get_config('tiny')
    config.data.path = str(corpus)
    config.model.update(
        vocab_size=1000,
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    config.pretraining.sequence_length = 32
    config.optimizer.update(learning_rate=0.02, warmup_steps=2)
    settings = {'num_steps': 12, 'batch_size': 16, 'log_every': 3, 'eval_every': 5}
    settings |= {'checkpoint_every': 5, 'num_eval_batches': 2}
    config.loop.update(settings | loop)
    return config.to_dict()


@pytest.fixture(scope='module')
def whole(corpus_directory, tmp_path_factory):
    """A run of 12 steps, two of them profiled, and what it said; tests only read or copy it."""
    workdir, said = tmp_path_factory.mktemp('whole'), io.StringIO()
    with contextlib.redirect_stdout(said):
        config = tiny_config(corpus_directory, keep_last=9)
        assert tiny.pretrain(config, workdir, num_profiled=2) == 0
    return workdir, said.getvalue()


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole[0], tmp_path / 'copy')


def without_speed(path):
    return [{k: v for k, v in line.items() if k != 'speed'} for line in read_lines(path)]


def test_a_run_logs_evaluates_and_learns(corpus_directory, tmp_path, capsys):
    config = tiny_config(corpus_directory, num_steps=60, log_every=10, eval_every=20)
    assert tiny.pretrain(config, tmp_path) == 0
    lines = read_lines(tmp_path / 'metrics.jsonl')
    train = [line for line in lines if line['split'] == 'train']
    held_out = [line for line in lines if line['split'] == 'validation']
    assert [line['step'] for line in train] == [10, 20, 30, 40, 50, 60]
    assert [line['step'] for line in held_out] == [20, 40, 60]
    assert held_out[-1]['mlm_loss'] < held_out[0]['mlm_loss'] < np.log(1000)
    for name in ('mlm_loss', 'mlm_accuracy', 'sop_loss', 'sop_accuracy', 'loss', 'grad_norm'):
        assert np.isfinite(train[0][name])
    assert train[0]['loss'] == pytest.approx(train[0]['mlm_loss'] + train[0]['sop_loss'], abs=0.05)
    assert train[-1]['learning_rate'] < train[1]['learning_rate']
    assert 0 <= train[-1]['speed']['data_wait'] <= 1
    assert train[-1]['speed']['sequences_per_second'] > 0
    output = capsys.readouterr().out
    assert 'ETA' in output and 'unigram model' in output and 'fill_mask --checkpoint=' in output


def test_tensorboard_reads_the_events(whole):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    workdir, _ = whole
    events = EventAccumulator(str(workdir / 'tensorboard'))
    events.Reload()
    lines = read_lines(workdir / 'metrics.jsonl')
    for split in ('train', 'validation'):
        logged = {e.step: e.value for e in events.Scalars(f'{split}/mlm_loss')}
        wanted = {line['step']: line['mlm_loss'] for line in lines if line['split'] == split}
        assert logged == pytest.approx(wanted, rel=1e-6)
    assert 'train/sequences_per_second' in events.Tags()['scalars']


@pytest.mark.slow  # test_step has it for the step, test_distributed for a run
def test_devices_and_microbatches_give_the_same_run(corpus_directory, tmp_path):
    import albert_jax

    runs = {}
    for num_devices, num_microbatches in ((1, 1), (8, 1), (2, 4)):
        workdir = tmp_path / f'{num_devices}-{num_microbatches}'
        config = tiny_config(
            corpus_directory, num_devices=num_devices, num_microbatches=num_microbatches,
            num_steps=10,
        )  # fmt: skip
        tiny.pretrain(config, workdir)
        runs[num_devices] = (
            albert_jax.load(workdir).params,
            without_speed(workdir / 'metrics.jsonl'),
        )
    params, lines = runs.pop(1)
    for other_params, other_lines in runs.values():
        for path, wanted in jax.tree_util.tree_leaves_with_path(params):
            name = jax.tree_util.keystr(path, simple=True, separator='/')
            found = other_params
            for key in path:
                found = found[key.key]
            if not name.endswith('key/bias'):  # its gradient is rounding noise
                np.testing.assert_allclose(found, wanted, atol=1e-5, err_msg=name)
        for line, other in zip(lines, other_lines, strict=True):
            assert other.pop('split') == line['split']
            numbers = {name: line[name] for name in other}
            assert other == pytest.approx(numbers, rel=1e-4, abs=1e-5)


def test_a_finished_run_is_not_done_again(corpus_directory, copy, capsys):
    before = (copy / 'metrics.jsonl').read_text()
    assert tiny.pretrain(tiny_config(corpus_directory, keep_last=9), copy) == 0
    assert 'there was nothing left to do' in capsys.readouterr().out
    assert (copy / 'metrics.jsonl').read_text() == before


def test_going_on_from_a_step_gives_the_same_lines_and_weights(corpus_directory, whole, tmp_path):
    """From before an evaluation, and between two lines of training."""
    import albert_jax

    workdir, _ = whole
    again = tmp_path / 'again'
    shutil.copytree(workdir / 'checkpoints/5', again / 'checkpoints/5')
    # What a killed run leaves: lines beyond the checkpoint, the last of them cut.
    text = (workdir / 'metrics.jsonl').read_text()
    (again / 'metrics.jsonl').write_text(text[:-20])
    tiny.pretrain(tiny_config(corpus_directory, keep_last=9), again)
    assert without_speed(again / 'metrics.jsonl') == without_speed(workdir / 'metrics.jsonl')
    params = [albert_jax.load(run / 'checkpoints/12').params for run in (workdir, again)]
    jax.tree.map(np.testing.assert_array_equal, *params)


def test_a_run_that_diverges_stops_and_keeps_its_last_good_checkpoint(corpus_directory, tmp_path):
    import albert_jax

    # The warmup passes through rates that are too high for float32.
    config = tiny_config(
        corpus_directory, max_skipped_in_a_row=3, num_steps=30, eval_every=1, checkpoint_every=1
    )
    config['optimizer'] |= {'learning_rate': 1e38, 'name': 'adamw', 'clip_norm': 0.0}
    config['optimizer'] |= {'warmup_steps': 8, 'weight_decay': 1e30}
    with pytest.raises(UserError, match='of 3 steps in a row was not finite; none of them reached'):
        tiny.pretrain(config, tmp_path)
    params = albert_jax.load(tmp_path).params
    assert np.isfinite(params['pooler']['kernel']).all()


@pytest.mark.parametrize(
    ('section', 'change', 'message'),
    [
        ('loop', {'batch_size': 12}, r'batch_size is 12; it must be a multiple of 8 \(8 devices'),
        ('loop', {'num_microbatches': 4}, r'must be a multiple of 32 \(8 devices × 4 microb'),
        ('loop', {'num_devices': 9}, 'num_devices is 9, but this machine has 8'),
        ('loop', {'num_steps': 0}, 'loop.num_steps is 0; it must be above 0'),
        ('loop', {'best_metric': 'f1'}, 'loop.best_metric is .f1.; this run has'),
        ('model', {'vocab_size': 500}, 'has piece ids up to 999, beyond model.vocab_size'),
        ('model', {'max_position_embeddings': 16}, 'is 32, but the model has 16 positions'),
        ('model', {'size': 'albert_tiny'}, 'model.size is .albert_tiny.; it must be one of'),
        ('model', {'hidden_act': 'swish'}, 'it must be one of gelu_tanh'),
        ('data', {'path': ''}, 'data.path is empty; set --config.data.path'),
        ('data', {'path': '/nothing'}, 'holds no prepared corpus'),
        ('optimizer', {'warmup_steps': 12}, 'must be below loop.num_steps, which is 12'),
        ('pretraining', {'sequence_length': 256}, 'prepared for 128|has 64 positions'),
    ],
)
def test_a_bad_config_is_refused_before_anything_is_written(
    corpus_directory, tmp_path, section, change, message
):
    config = tiny_config(corpus_directory)
    config[section] |= change
    with pytest.raises(UserError, match=message):
        tiny.pretrain(config, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_a_workdir_of_another_run_is_refused_and_untouched(corpus_directory, copy):
    before = (copy / 'metrics.jsonl').read_text()
    config = tiny_config(corpus_directory)
    config['model']['num_hidden_layers'] = 3
    with pytest.raises(UserError, match=r'model.num_hidden_layers \(there 2, here 3\)'):
        tiny.pretrain(config, copy)
    assert (copy / 'metrics.jsonl').read_text() == before


def test_utilisation_is_shown_where_the_peak_is_known(tmp_path, monkeypatch):
    from albert_jax.model.config import SIZES
    from albert_jax.model.flops import peak_flops, train_flops

    assert peak_flops('TPU v4') == 275e12 and peak_flops('cpu') is None
    # Six FLOPs a weight and token, plus attention: base at 512 tokens.
    weights = 12 * 7_087_872 + 99_072
    flops = train_flops(SIZES['albert_base'], 512, 80)
    attention = 12 * 512 * 4 * 512 * 768 * 3
    head = 80 * 6 * 128 * (768 + 30000)
    assert flops == pytest.approx(512 * 6 * weights + attention + head, rel=0.003)
    monkeypatch.setattr(telemetry, 'peak_flops', lambda kind: 1e9)
    work = telemetry.Work(512, 1e9)
    with telemetry.Telemetry(tmp_path, 0, 10, 4, lambda step: work, 2) as log:
        log.start_clock(1)
        log.train_line(5, {'loss': 1.0})
    (line,) = [json.loads(text) for text in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    assert line['speed']['model_flops_utilization'] > 0


def test_the_first_phase_trains_on_short_sequences_and_the_run_goes_on(corpus_directory, tmp_path):
    def config(num_steps=8, **changes):
        found = tiny_config(corpus_directory, num_steps=8, log_every=1)
        found['pretraining'] |= {'short_phase_steps': 5, 'short_phase_length': 16} | changes
        return found

    assert tiny.pretrain(config(), tmp_path / 'whole') == 0
    lines = read_lines(tmp_path / 'whole' / 'metrics.jsonl')
    train = [line for line in lines if line['split'] == 'train']
    lengths = [
        round(line['speed']['tokens_per_second'] / line['speed']['sequences_per_second'])
        for line in train[1:]
    ]
    assert lengths == [16] * 4 + [32] * 3
    # One schedule over both phases, and the same optimizer state: the moments are carried on.
    rates = [line['learning_rate'] for line in train]
    np.testing.assert_allclose(np.diff(rates[2:]), np.diff(rates[2:])[0], rtol=1e-3)
    task = job.make_job(job.prepare(PretrainRun.from_dict(config())))
    assert task.train_batch(4, range(2))['input_ids'].shape == (2, 16)
    assert task.train_batch(5, range(2))['input_ids'].shape == (2, 32)
    assert task.evaluation.batch(0, range(2))['input_ids'].shape == (2, 32)
    with pytest.raises(
        UserError, match='short_phase_length is 32; it must be at least 8 and below'
    ):
        PretrainRun.from_dict(config(short_phase_length=32))


def test_a_first_phase_of_another_vocabulary_is_refused(text_file, corpus_directory, tmp_path):
    from albert_jax.data.corpus import Source
    from albert_jax.data.preparation import PreparationSettings, prepare, vocabulary_for

    sources = [Source('jsonl', str(text_file))]
    settings = PreparationSettings(sequence_length=128, validation_fraction=0.2)
    prepare(sources, tmp_path / 'other', vocabulary_for(sources, settings, 500), settings, 1)
    config = tiny_config(corpus_directory)
    config['pretraining'] |= {'short_phase_steps': 5, 'short_phase_length': 16}
    config['data']['short_phase_path'] = str(tmp_path / 'other')
    with pytest.raises(UserError, match='have different vocabularies'):
        job.prepare(PretrainRun.from_dict(config))


def test_batch_sizes_by_the_square_root_rule():
    paper = get_config('base')
    for batch_size, rate, num_steps in ((256, 0.00044, 2_000_000), (32768, 0.004978, 15625)):
        config = get_config(f'base@{batch_size}')
        assert config.loop.batch_size == batch_size
        assert config.loop.num_steps == num_steps
        assert config.optimizer.learning_rate == pytest.approx(rate, rel=1e-3)
        assert config.optimizer.warmup_steps == paper.optimizer.warmup_steps == 3125
        # Table 4 of arXiv 1904.00962: its share of the run goes with the batch, a fifth at 32k.
        share = config.optimizer.warmup_steps / config.loop.num_steps
        assert share == pytest.approx(batch_size / 32768 / 5)
        rates = schedule(OptimizerSettings(**config.optimizer), config.loop.num_steps)
        peak = max(range(0, num_steps, 3125), key=lambda step: float(rates(step)))
        assert peak == num_steps * share
    short = get_config('base@8192+short')
    assert short.pretraining.short_phase_steps == 56_250
    assert short.pretraining.short_phase_length == 128
    for name, message in (('base@many', 'no batch size'), ('base+long', r'there are \+modern and')):
        with pytest.raises(ValueError, match=message):
            get_config(name)
    with pytest.raises(ValueError, match='fewer steps than the warmup'):
        get_config('base@1000000')


def test_a_profile_of_some_steps_is_written(whole):
    workdir, said = whole
    assert list((workdir / 'tensorboard').rglob('*.xplane.pb'))
    assert 'tensorboard --logdir=' in said


def test_remat_and_attention_may_change_on_the_way(corpus_directory, copy):
    config = tiny_config(corpus_directory, keep_last=9, num_microbatches=0)
    config['model'] |= {'remat': 'full', 'attention': 'einsum'}
    assert tiny.pretrain(config, copy) == 0


@pytest.mark.parametrize('left_on_the_host', ['batch', 'key'])
def test_an_implicit_transfer_in_the_step_ends_the_run(
    left_on_the_host, corpus_directory, tmp_path, monkeypatch
):
    config = tiny_config(corpus_directory)
    # A key that nothing asks for would not be sent.
    config['model']['hidden_dropout_prob'] = 0.1
    if left_on_the_host == 'batch':
        implicit = functools.partial(jax.tree.map, jnp.asarray)
        monkeypatch.setattr(training_loop, 'put_batch', lambda mesh, batch: implicit(batch))
    else:
        monkeypatch.setattr(TrainStep, 'on', lambda step, mesh: step)
    with pytest.raises(Exception, match='Disallowed host-to-device transfer'):
        tiny.pretrain(config, tmp_path)


class Board(tensorboardX.SummaryWriter):
    """A writer of TensorBoard's events that is known by whether it was closed."""

    made: ClassVar[list['Board']] = []

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.is_closed = False
        self.made.append(self)

    def close(self):
        self.is_closed = True
        super().close()


def test_the_end_of_the_patience_closes_the_writer(corpus_directory, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, 'SummaryWriter', Board)
    monkeypatch.setattr(Board, 'made', [])
    # No evaluation is better than the first.
    monkeypatch.setattr(History, 'score', lambda history, metrics: 1.0)
    config = tiny_config(corpus_directory, eval_every=2, checkpoint_every=2, patience=2)
    assert tiny.pretrain(config, tmp_path) == 0
    steps = [line['step'] for line in read_lines(tmp_path / 'metrics.jsonl')]
    assert max(steps) == 6
    assert [board.is_closed for board in Board.made] == [True]
    # Started again it is over at once, and leaves no writer open either.
    assert tiny.pretrain(config, tmp_path) == 0
    assert [line['step'] for line in read_lines(tmp_path / 'metrics.jsonl')] == steps
    assert all(board.is_closed for board in Board.made)
