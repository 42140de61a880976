"""A run that goes on with another run's state ends as if both had been one run."""

import shutil

import jax
import numpy as np
import pytest

import albert_jax
from albert_jax.cli.errors import UserError
from albert_jax.interop import native
from albert_jax.pretraining import job
from albert_jax.runs.runs import PretrainRun
from albert_jax.training.checkpoint import read_state
from albert_jax.training.placement import place
from tests import tiny
from tests.test_step import assert_same_params
from tests.test_train import tiny_config, without_speed


def make_config(corpus, num_steps, num_decay_steps, **changes):
    """The modern recipe with a schedule that a trunk may have, evaluated every fourth step."""
    loop = {'eval_every': 4, 'checkpoint_every': 4, 'keep_last': 9, 'num_devices': 1}
    config = tiny_config(corpus, num_steps=num_steps, **loop)
    config['model'] |= tiny.MODERN
    config['optimizer'] |= {
        'name': 'muon', 'schedule': 'wsd', 'num_decay_steps': num_decay_steps,
        'bias_correction': True,
    }  # fmt: skip
    for address, value in changes.items():
        section, _, name = address.partition('__')
        if name:
            config[section][name] = value
        else:
            config[section] = value
    return config


def pretrain(config, workdir):
    # Muon's bias correction, which is optax's, mixes types.
    with jax.numpy_dtype_promotion('standard'):
        assert tiny.pretrain(config, workdir) == 0


@pytest.fixture(scope='module')
def trunk(corpus_directory, tmp_path_factory):
    """Eight steps without a decay."""
    workdir = tmp_path_factory.mktemp('trunk')
    pretrain(make_config(corpus_directory, 8, 0), workdir)
    return workdir


@pytest.fixture(scope='module')
def whole(corpus_directory, tmp_path_factory):
    """Twelve steps, of which the last four decay, saved every second step."""
    workdir = tmp_path_factory.mktemp('whole')
    pretrain(make_config(corpus_directory, 12, 4, loop__checkpoint_every=2), workdir)
    return workdir


def prepare(config):
    return job.make_job(job.prepare(PretrainRun.from_dict(config)))


def goes_on(corpus, source, num_steps=12, num_decay_steps=4, **changes):
    start = {'init_from': str(source), 'continue_training': True}
    return make_config(corpus, num_steps, num_decay_steps, **(start | changes))


def last_params(workdir):
    return albert_jax.load(workdir / 'checkpoints/12').params


def lines_from(workdir, step):
    """From the evaluation of a step on."""
    lines = without_speed(workdir / 'metrics.jsonl')
    return [line for line in lines if (line['step'], line['split']) >= (step, 'validation')]


def test_a_run_with_muon_resumes_to_the_bit_within_its_decay(corpus_directory, whole, tmp_path):
    shutil.copytree(whole / 'checkpoints/10', tmp_path / 'checkpoints/10')
    shutil.copy(whole / 'metrics.jsonl', tmp_path)
    pretrain(make_config(corpus_directory, 12, 4), tmp_path)
    jax.tree.map(np.testing.assert_array_equal, last_params(whole), last_params(tmp_path))
    assert lines_from(tmp_path, 0) == lines_from(whole, 0)


def test_from_a_step_of_the_same_run_it_is_the_same_to_the_bit(corpus_directory, whole, tmp_path):
    pretrain(goes_on(corpus_directory, whole / 'checkpoints/8'), tmp_path)
    jax.tree.map(np.testing.assert_array_equal, last_params(whole), last_params(tmp_path))
    assert lines_from(tmp_path, 0) == lines_from(whole, 8)


def test_a_decay_from_a_trunk_is_that_of_one_run(corpus_directory, trunk, whole, tmp_path, capsys):
    config = goes_on(corpus_directory, trunk)
    pretrain(config, tmp_path)
    assert 'Resuming from step 8 of 12' in capsys.readouterr().out
    # The trunk was another program, which XLA may round otherwise.
    assert_same_params(last_params(tmp_path), last_params(whole))
    # It begins with the evaluation of the trunk's state.
    found, wanted = lines_from(tmp_path, 0), lines_from(whole, 8)
    assert [line['split'] for line in found] == ['validation', 'train', 'train', 'validation']
    for line, other in zip(found, wanted, strict=True):
        assert line.pop('split') == other.pop('split')
        assert line == pytest.approx(other, rel=1e-4)

    # It resumes from its own checkpoints, and only as what it is.
    pretrain(config, tmp_path)
    assert 'there was nothing left to do' in capsys.readouterr().out
    other = goes_on(corpus_directory, whole / 'checkpoints/4')
    with pytest.raises(UserError, match='start.state .*start.step .there 8, here 4'):
        pretrain(other, tmp_path)


def test_the_latest_or_the_named_checkpoint_goes_on(corpus_directory, trunk, whole):
    for source, step in ((trunk, 8), (trunk / 'checkpoints', 8), (whole / 'checkpoints/4', 4)):
        found = prepare(goes_on(corpus_directory, source))
        assert found.metadata.resume_fingerprint['start']['step'] == step
    # Decays of several lengths, and a longer trunk.
    for num_steps, num_decay_steps in ((9, 1), (16, 8), (100, 0)):
        prepare(goes_on(corpus_directory, trunk, num_steps, num_decay_steps))
    # Where the rate was the same, it does not matter what its schedule was called.
    constant = goes_on(corpus_directory, trunk, 30, 0, optimizer__schedule='constant')
    prepare(constant)
    # What is logged and evaluated may change.
    logged = {'loop__log_every': 2, 'loop__eval_every': 2, 'loop__patience': 3}
    prepare(goes_on(corpus_directory, trunk, pretraining__eval_masked_fraction=0.3, **logged))


RECIPE = 'was trained by another recipe, which differs in '


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'optimizer__name': 'lamb'}, RECIPE + "optimizer.name .there 'muon', here 'lamb'"),
        ({'optimizer__muon_learning_rate': 0.04}, RECIPE + 'optimizer.muon_learning_rate'),
        ({'optimizer__beta2': 0.98}, RECIPE + r'optimizer.beta2 \(there 0.999, here 0.98\)'),
        ({'loop__batch_size': 8}, RECIPE + r'loop.batch_size \(there 16, here 8\)'),
        ({'loop__seed': 1}, RECIPE + 'loop.seed'),
        ({'pretraining__max_ngram': 1}, RECIPE + 'pretraining.max_ngram'),
        ({'model__num_hidden_layers': 3}, RECIPE + r'model.num_hidden_layers \(there 2, here 3\)'),
        ({'num_steps': 8, 'num_decay_steps': 2}, 'is at step 8; to continue it, loop.num_steps mu'),
        ({'num_decay_steps': 6}, r'had another learning rate in step 7 of its 8 \(there 0.02, he'),
        ({'optimizer__warmup_steps': 3}, 'had another learning rate in step 1 of its 8'),
        (
            {'optimizer__schedule': 'linear', 'num_decay_steps': 0},
            'had another learning rate in step 3 of its 8',
        ),
        (
            {'pretraining__final_masked_fraction': 0.3},
            r'had another masked fraction in step 7 of its 8 \(there 0.15, here 0.245455\)',
        ),
        ({'pretraining__masked_fraction': 0.3}, 'had another masked fraction in step 0 of its 8'),
        ({'init_from': ''}, 'continue_training is True, but init_from is empty'),
        ({'init_from': 'albert-base-v2'}, 'init_from=albert-base-v2 is no run of albert_jax.pret'),
    ],
)
def test_another_recipe_is_refused_before_anything_compiles(
    corpus_directory, trunk, changes, message
):
    with pytest.raises(UserError, match=message):
        prepare(goes_on(corpus_directory, trunk, **changes))


def test_a_checkpoint_within_its_decay_is_refused(corpus_directory, whole):
    config = goes_on(corpus_directory, whole, 30, 10)
    with pytest.raises(UserError, match='another learning rate in step 9 of its 12'):
        prepare(config)
    prepare(goes_on(corpus_directory, whole / 'checkpoints/8', 30, 10))


def test_weights_alone_have_no_training_to_continue(corpus_directory, trunk, tmp_path):
    tiny.write(native.read(trunk), tmp_path / 'weights')
    config = goes_on(corpus_directory, tmp_path / 'weights')
    with pytest.raises(UserError, match='has weights but no state of a pretraining, which could'):
        prepare(config)
    # Without its moments and its step, it starts another run.
    assert prepare(config | {'continue_training': False}).start_params is not None


def test_a_damaged_state_is_refused(corpus_directory, trunk, tmp_path):
    folder = tmp_path / '8'
    shutil.copytree(trunk / 'checkpoints/8', folder)
    content = next(path for path in (folder / 'training').rglob('d/*') if path.is_file())
    content.write_bytes(content.read_bytes()[:-7])
    run = PretrainRun.from_dict(goes_on(corpus_directory, folder))
    found = job.make_job(job.prepare(run))
    with jax.numpy_dtype_promotion('standard'):
        abstract_state = place(found, run.loop).abstract_state
    with pytest.raises(UserError, match='cannot be read as the state of a training'):
        read_state(folder, abstract_state)
