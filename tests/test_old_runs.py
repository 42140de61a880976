"""Runs of version 0.1.0 (fixtures/README.md) load and resume, under today's names.

Numbers are compared with those of the old code to 1e-4: another processor, or other flags of the
compiler, round otherwise. Where the old code made them, they agree to 1e-6.
"""

import json
import shutil
from typing import NamedTuple

import pytest

import albert_jax
from albert_jax.cli.errors import UserError
from albert_jax.interop import old_names
from albert_jax.interop.checksums import digest_of_all
from albert_jax.runs.runs import FinetuneRun
from albert_jax.tasks.prepared import prepare
from albert_jax.training.metrics_file import read_lines
from configs.finetune import get_config as finetuning_config
from configs.pretrain import get_config as pretraining_config
from tests import tiny
from tests.conftest import extract_old_runs

RTOL = 1e-4
# What the old code gave as digest of the weights of pretraining/checkpoints/5.
WEIGHTS = '52a8042066127ca680f94989fa61c8df3da354c1967c5c4c706cda2c964296a3'


def pretraining_run():
    config = pretraining_config('tiny')
    config.data.path = 'corpus'
    config.model.update(
        vocab_size=150, embedding_size=8, hidden_size=16, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=32, max_position_embeddings=32,
    )  # fmt: skip
    config.pretraining.sequence_length = 32
    config.optimizer.update(learning_rate=0.02, warmup_steps=2)
    config.loop.update(
        num_steps=12, batch_size=16, log_every=3, eval_every=5, checkpoint_every=5,
        num_eval_batches=2, keep_last=3,
    )  # fmt: skip
    return config.to_dict()


def finetuning_run():
    config = finetuning_config('classification')
    config.init_from = 'pretraining'
    config.data.update(train='train.tsv', validation='dev.tsv', cache='cache')
    config.task.max_length = 24
    config.optimizer.update(learning_rate=0.01, warmup_steps=2)
    config.loop.update(
        num_devices=1, num_steps=12, batch_size=16, log_every=3, eval_every=6, checkpoint_every=6,
        keep_last=2,
    )  # fmt: skip
    return config.to_dict()


@pytest.fixture(scope='module')
def old(tmp_path_factory):
    """The folder of the runs as they were interrupted; nothing is written there."""
    return extract_old_runs(tmp_path_factory.mktemp('old'))


@pytest.fixture
def copy(old, tmp_path, monkeypatch):
    """A copy of it as the working directory, from which the paths in the configs start."""
    shutil.copytree(old, tmp_path / 'copy')
    monkeypatch.chdir(tmp_path / 'copy')
    return tmp_path / 'copy'


def assert_same_metrics(path, expected_path) -> None:
    lines, expected_lines = read_lines(path), read_lines(expected_path)
    names = ('split', 'step')
    assert [[line[n] for n in names] for line in lines] == [
        [line[n] for n in names] for line in expected_lines
    ]
    for line, expected in zip(lines, expected_lines, strict=True):
        del line['split'], expected['split']
        line.pop('speed', None), expected.pop('speed', None)
        assert line == pytest.approx(expected, rel=RTOL)


def test_a_checkpoint_loads(old):
    loaded = albert_jax.load(old / 'pretraining/checkpoints/5')
    assert digest_of_all(loaded.params) == WEIGHTS
    assert (loaded.step, loaded.config.hidden_size, loaded.head) == (5, 16, None)
    assert loaded.tokenizer is not None and loaded.tokenizer.vocab_size == 150
    assert loaded.run['loop']['num_steps'] == 12

    tuned = albert_jax.load(old / 'finetuning')
    assert tuned.step == 6
    assert tuned.head is not None and set(tuned.head.labels) == {'good', 'bad'}


def test_the_best_of_an_old_run_is_used_and_kept(copy):
    folder = copy / 'pretraining/checkpoints'
    shutil.copytree(folder / '5', folder / '10')
    about, metrics = folder / '10/about/metadata', folder / '10/metrics/metrics'
    about.write_text(json.dumps(json.loads(about.read_text()) | {'step': 10}))
    [(name, score)] = json.loads(metrics.read_text()).items()
    assert name == 'mlm_loss'
    for other, best in ((score - 1, 10), (score + 1, 5)):
        metrics.write_text(json.dumps({name: other}))
        assert albert_jax.load(copy / 'pretraining').step == best
    # Where the old one is the best, today's loop keeps it beside its own last one.
    shutil.rmtree(folder / '10')
    (folder / '5/metrics/metrics').write_text(json.dumps({name: 0.0}))
    config = pretraining_run()
    config['loop']['keep_last'] = 1
    assert tiny.pretrain(config, copy / 'pretraining') == 0
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ['12', '5']
    assert albert_jax.load(copy / 'pretraining').step == 5


def test_a_pretraining_resumes(copy, capfd):
    assert tiny.pretrain(pretraining_run(), copy / 'pretraining') == 0
    assert 'step 5 of 12' in capfd.readouterr().out
    assert_same_metrics(copy / 'pretraining/metrics.jsonl', copy / 'pretraining_expected.jsonl')
    assert albert_jax.load(copy / 'pretraining').step == 12


def test_another_run_continues_the_training_of_an_old_one(copy, capfd):
    config = pretraining_run() | {'init_from': 'pretraining', 'continue_training': True}
    assert tiny.pretrain(config, copy / 'more') == 0
    assert 'step 5 of 12' in capfd.readouterr().out
    found, wanted = (
        read_lines(copy / name)[-1] for name in ('more/metrics.jsonl', 'pretraining_expected.jsonl')
    )
    assert (found.pop('split'), found['step']) == (wanted.pop('split'), 12)
    assert found == pytest.approx(wanted, rel=RTOL)


def test_a_finetuning_resumes(copy, capfd):
    # It is refused where it started from other weights than these.
    with pytest.raises(UserError, match=r'start\.weights'):
        tiny.finetune(finetuning_run(), copy / 'finetuning')
    # The weights that it started from were those of the finished pretraining, and the archive has
    # a checkpoint of step 5 alone: no computer has to make the same bits of step 12 again. So the
    # fine-tuning is told that it started from this one; all that it resumes with is in its own.
    about = copy / 'finetuning/checkpoints/6/about/metadata'
    content = json.loads(about.read_text())
    prepared = prepare(FinetuneRun.from_dict(finetuning_run()))
    content['identity']['start']['weights'] = prepared.start_digest
    about.write_text(json.dumps(content))
    assert tiny.finetune(finetuning_run(), copy / 'finetuning') == 0
    assert 'step 6 of 12' in capfd.readouterr().out
    assert_same_metrics(copy / 'finetuning/metrics.jsonl', copy / 'finetuning_expected.jsonl')
    results = [
        json.loads((copy / name).read_text())
        for name in ('finetuning/results.json', 'finetuning_expected.json')
    ]
    assert results[0] == pytest.approx(results[1], rel=RTOL)


def test_each_old_name_has_its_new_one():
    old = {
        'model': {'hidden_size': 16, 'remat': 'full', 'attention': 'splash'},
        'data': {'fingerprint': 'f'},
        'robust': {'layer_decay': 0.9},
        'loop': {'num_steps': 12},
        'distillation': {'words_from_teacher': True},
    }
    content = {'identity': old}
    assert old_names.is_old(content)
    assert old_names.flatten_fingerprint(old_names.fingerprint_of(content)) == {
        'model.hidden_size': 16,
        'model.depth_adapter_rank': 0,
        'model.depth_embedding': False,
        'model.depth_norms': False,
        'model.embedding_initializer_range': None,
        'model.is_gated': False,
        'model.kernel_initializer': 'normal',
        'model.norm_placement': 'post',
        'model.num_coda_layers': 0,
        'model.num_loops': None,
        'model.num_prelude_layers': 0,
        'model.position_encoding': 'learned',
        'data.fingerprint': 'f',
        'data.version': 1,
        'finetuning.layer_decay': 0.9,
        'loop.num_steps': 12,
        'loop.patience': 0,
        'distillation.init_embeddings_from_teacher': True,
    }
    # What a fingerprint of then says for itself stays.
    assert old_names.flatten_fingerprint({'loop': {'patience': 3}}) == {'loop.patience': 3}
    without = old_names.flatten_fingerprint({'distillation': {'soft_weight': 1.0}})
    assert without['distillation.init_embeddings_from_teacher'] is False

    today = {'resume_fingerprint': {'loop': {'num_steps': 12}}}
    assert not old_names.is_old(today)
    assert old_names.fingerprint_of(today) == today['resume_fingerprint']


def test_each_old_part_of_a_checkpoint_has_its_new_name():
    state, params = {'metric_sums': 1, 'step': 2}, {'distillation': 3, 'encoder': 4}
    assert old_names.stored_state(state, True) == {'window': 1, 'step': 2}
    assert old_names.stored_params(params, True) == {'scaffold': 3, 'encoder': 4}
    assert old_names.todays_state({'window': 1, 'step': 2}) == state
    assert old_names.todays_params({'scaffold': 3, 'encoder': 4}) == params
    assert old_names.stored_state(state, False) == old_names.todays_state(state) == state
    assert old_names.stored_params(params, False) == old_names.todays_params(params) == params


def test_parts_of_the_parameters_have_their_old_names_in_the_optimizers_state_too():
    class Moments(NamedTuple):
        count: int
        first: dict

    params = {'encoder': 1, 'distillation': {'hidden': 2}}
    state = {'metric_sums': 3, 'opt_state': (Moments(4, params), {'count': 5})}
    stored = old_names.stored_state(state, is_stored_old=True)
    old_params = {'encoder': 1, 'scaffold': {'hidden': 2}}
    assert stored == {'window': 3, 'opt_state': (Moments(4, old_params), {'count': 5})}
    assert old_names.todays_state(stored) == state
    assert old_names.stored_state(state, is_stored_old=False) == state
