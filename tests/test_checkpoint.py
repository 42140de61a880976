"""Which checkpoint wins, what is refused, and what a damaged one does."""

import contextlib
import dataclasses
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import albert_jax
from albert_jax.cli.errors import UserError
from albert_jax.data.normalization import Normalization
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.interop.metadata import CheckpointMetadata
from albert_jax.model.losses import Sum
from albert_jax.training.checkpoint import Checkpoints
from albert_jax.training.step import TrainState
from tests import tiny

CONFIG = tiny.config(max_position_embeddings=16)


@pytest.fixture
def about(vocabulary) -> CheckpointMetadata:
    return CheckpointMetadata(
        run={},
        model=CONFIG,
        tokenizer=Tokenizer(vocabulary, Normalization(keep_case=True)),
        resume_fingerprint={'model': CONFIG.to_dict(), 'data': {'fingerprint': 'abc'}},
    )


def make_state(seed: int) -> TrainState:
    params = tiny.random_params(CONFIG, seed)
    zero = jnp.zeros([], jnp.int32)
    moments = (jax.tree.map(lambda x: x * 0.5, params), {'count': zero + seed})
    metric_sums = {'loss': Sum(jnp.float32(seed), jnp.float32(2))}
    return TrainState(zero + seed, params, moments, metric_sums, zero, zero)


def abstract(state):
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state)


def open_checkpoints(path, keep_last=2) -> Checkpoints:
    return Checkpoints(path, keep_last, 'mlm_loss', is_lower_better=True)


def save(path, about, losses) -> None:
    checkpoints = open_checkpoints(path)
    for step, value in losses.items():
        checkpoints.save(step, make_state(step), about, value)
    checkpoints.close()


def steps(path) -> list[int]:
    return sorted(int(p.name) for p in (path / 'checkpoints').iterdir() if p.name.isdigit())


def test_the_last_ones_and_the_best_are_kept(tmp_path, about):
    save(tmp_path, about, {1: 3.0, 2: 1.0, 3: 2.0, 4: 5.0, 5: None})
    assert steps(tmp_path) == [2, 4, 5]
    assert albert_jax.load(tmp_path).step == 2
    assert albert_jax.load(tmp_path / 'checkpoints').step == 2
    assert albert_jax.load(tmp_path / 'checkpoints' / '4').step == 4


def test_without_evaluation_the_latest_is_loaded(tmp_path, about):
    save(tmp_path, about, {1: None, 2: None})
    assert albert_jax.load(tmp_path).step == 2


def test_state_there_and_back_is_the_same_to_the_bit(tmp_path, about):
    save(tmp_path, about, {3: 1.0, 7: 2.0})
    state = make_state(7)
    restored = open_checkpoints(tmp_path).restore(abstract(state), about)
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    assert jax.tree.structure(restored) == jax.tree.structure(state)


def test_config_and_vocabulary_travel_with_a_checkpoint(tmp_path, about):
    save(tmp_path / 'run', about, {3: 1.0})
    moved = shutil.move(tmp_path / 'run' / 'checkpoints' / '3', tmp_path / '3')
    loaded = albert_jax.load(moved)
    assert loaded.config == CONFIG
    assert loaded.tokenizer.model == about.tokenizer.model
    assert loaded.tokenizer.normalization == Normalization(keep_case=True)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, make_state(3).params)


def largest_file(path):
    return max((p for p in path.rglob('*') if p.is_file()), key=lambda p: p.stat().st_size)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


DAMAGES = {
    'a flipped bit of the parameters': lambda step: flip(largest_file(step / 'params')),
    'a flipped bit of the moments': lambda step: flip(largest_file(step / 'training')),
    'a cut file': lambda step: largest_file(step / 'params').write_bytes(b'half'),
    'a missing item': lambda step: shutil.rmtree(step / 'training'),
    'no description': lambda step: (step / 'about' / 'metadata').unlink(),
    'a broken description': lambda step: (step / 'about' / 'metadata').write_text('{"run": '),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_used(
    tmp_path, about, damage, capsys
):
    save(tmp_path, about, {3: 1.0, 7: 2.0})
    DAMAGES[damage](tmp_path / 'checkpoints' / '7')
    checkpoints = open_checkpoints(tmp_path)
    restored = checkpoints.restore(abstract(make_state(3)), about)
    jax.tree.map(np.testing.assert_array_equal, restored, make_state(3))
    assert 'the checkpoint of step 7 is damaged' in capsys.readouterr().err
    # It is out of the way of the new step 7, and still on disk.
    assert (tmp_path / 'damaged' / '7-0').is_dir()
    checkpoints.save(7, make_state(7), about, None)
    checkpoints.close()
    assert steps(tmp_path) == [3, 7]


def test_when_all_are_damaged_the_run_says_so(tmp_path, about):
    save(tmp_path, about, {3: 1.0})
    flip(largest_file(tmp_path / 'checkpoints' / '3' / 'params'))
    with pytest.raises(UserError, match='no checkpoint can be read'):
        open_checkpoints(tmp_path).restore(abstract(make_state(3)), about)
    assert steps(tmp_path) == [3]


def test_a_second_process_is_kept_out(tmp_path, about):
    first = open_checkpoints(tmp_path)
    with pytest.raises(UserError, match='Another process trains in'):
        open_checkpoints(tmp_path)
    first.close()
    open_checkpoints(tmp_path).close()


def test_loading_a_damaged_checkpoint_is_refused(tmp_path, about):
    save(tmp_path, about, {3: 1.0})
    flip(largest_file(tmp_path / 'checkpoints' / '3' / 'params'))
    with pytest.raises(UserError, match='cannot be read as a checkpoint'):
        albert_jax.load(tmp_path)


def damaged_part(pattern, share, what):
    return pytest.param(pattern, share, what, id=f'{pattern} {share}')


@pytest.mark.parametrize(
    ('pattern', 'share', 'what'),
    [
        damaged_part('about/metadata', None, 'about/metadata is not there'),
        damaged_part('about/metadata', 0.5, 'about/metadata is cut off or changed'),
        damaged_part('params/_METADATA', None, 'params/_METADATA is not there'),
        damaged_part('params/_METADATA', 0.5, 'params/_METADATA is cut off or changed'),
        damaged_part('params/_sharding', 0.5, 'params/_sharding is cut off or changed'),
        damaged_part(
            'params/array_metadatas/*', 0.5, 'params/array_metadatas/.* is cut off or changed'
        ),
        damaged_part('params/manifest.ocdbt', None, 'params/manifest.ocdbt is not there'),
        damaged_part('params/manifest.ocdbt', 0.5, 'params/manifest.ocdbt is missing, cut off'),
        damaged_part('params/d/*', None, 'params/d/.* is missing, cut off or changed'),
        damaged_part('params/d/*', 0.5, 'params/d/.* is missing, cut off or changed'),
        damaged_part('params/ocdbt.process_0/d/*', None, 'the array .* of params is missing'),
        damaged_part('params/ocdbt.process_0/d/*', 0.5, 'the array .* of params is missing'),
    ],
)
def test_half_a_copy_is_refused_by_the_part_that_it_lacks(
    tmp_path, about, pattern, share, what, capfd
):
    save(tmp_path, about, {3: 1.0})
    folder = tmp_path / 'checkpoints' / '3'
    file = max(folder.glob(pattern), key=lambda path: path.stat().st_size)
    if share is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    capfd.readouterr()
    with pytest.raises(UserError, match=rf'3 is incomplete or damaged \({what}.*\): copy it again'):
        albert_jax.load(folder)
    # The threads of a reader that fails write what they find later.
    time.sleep(0.2)
    assert 'Traceback' not in capfd.readouterr().err


def test_another_model_or_corpus_is_refused_with_the_fields_that_differ(tmp_path, about):
    save(tmp_path, about, {3: 1.0})
    other = dataclasses.replace(
        about,
        resume_fingerprint={
            'model': CONFIG.to_dict() | {'num_hidden_layers': 5},
            'data': {'fingerprint': 'xyz'},
        },
    )
    with pytest.raises(UserError) as error:
        open_checkpoints(tmp_path).restore(abstract(make_state(3)), other)
    assert "data.fingerprint (there 'abc', here 'xyz')" in str(error.value)
    assert 'model.num_hidden_layers (there 2, here 5)' in str(error.value)
    assert steps(tmp_path) == [3]


def test_no_checkpoint_is_no_error_for_a_new_run_but_one_for_loading(tmp_path, about):
    assert open_checkpoints(tmp_path).restore(abstract(make_state(3)), about) is None
    for path in (tmp_path, tmp_path / 'nothing'):
        with pytest.raises(UserError, match='give a run'):
            albert_jax.load(path)


def test_a_full_disk_is_told_and_the_last_checkpoint_survives(tmp_path, about):
    import resource

    save(tmp_path, about, {3: 1.0})
    checkpoints = open_checkpoints(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        # Nothing larger can be written, as on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(UserError, match='cannot be written .*; step 3 is on disk. Make room'):
            checkpoints.save(5, make_state(5), about, None)
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        with contextlib.suppress(UserError):
            checkpoints.close()
    restored = open_checkpoints(tmp_path).restore(abstract(make_state(3)), about)
    jax.tree.map(np.testing.assert_array_equal, restored, make_state(3))
