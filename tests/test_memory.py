"""Whether a run can fit into memory: counted, compared with the compiler, and refused in time."""

import functools

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from albert_jax import pretrain
from albert_jax.cli.errors import UserError
from albert_jax.data.batch import batch_shapes
from albert_jax.model.albert import init_params
from albert_jax.planning import estimate
from albert_jax.runs.loop import PretrainLoopSettings
from albert_jax.runs.model import ModelSettings
from albert_jax.runs.pretraining import PretrainingSettings
from albert_jax.runs.runs import PretrainRun
from albert_jax.training import memory, objectives
from albert_jax.training.memory import Need, free_host_bytes, microbatches_that_fit
from albert_jax.training.optimizer import make_optimizer
from albert_jax.training.step import init_state

GIB = 2**30


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


MEMINFO = 'MemTotal: 9000 kB\nMemAvailable:  4000 kB\nSwapFree:  100 kB\nHugePages: 0\n'
V2 = {'proc/self/cgroup': '0::/a/b\n'}
V1 = {'proc/self/cgroup': '5:cpu,cpuacct:/\n4:memory:/job\n'}


@pytest.mark.parametrize(
    ('files', 'free'),
    [
        ({}, 4100 * 1024),
        # No limit, and one above what the machine has.
        (V2 | {'sys/fs/cgroup/a/b/memory.max': 'max\n'}, 4100 * 1024),
        (V2 | {'sys/fs/cgroup/a/memory.max': '90000000', 'sys/fs/cgroup/a/memory.current': '1'},
         4100 * 1024),
        # The lowest of a group and those that it is in; copies of files can be dropped.
        (V2 | {'sys/fs/cgroup/a/b/memory.max': '3000000',
               'sys/fs/cgroup/a/b/memory.current': '1000000',
               'sys/fs/cgroup/a/b/memory.stat': 'anon 7\nactive_file 200\ninactive_file 300\n',
               'sys/fs/cgroup/a/memory.max': '2500000', 'sys/fs/cgroup/a/memory.current': '0'},
         2000000 + 500 + 100 * 1024),
        (V1 | {'sys/fs/cgroup/memory/job/memory.limit_in_bytes': '3000000',
               'sys/fs/cgroup/memory/job/memory.usage_in_bytes': '1000000',
               'sys/fs/cgroup/memory/job/memory.stat': 'total_inactive_file 50\n'},
         2000050 + 100 * 1024),
        # A container sees its own group as the root.
        ({'proc/self/cgroup': '0::/\n', 'sys/fs/cgroup/memory.max': '2000000',
          'sys/fs/cgroup/memory.current': '3000000'}, 100 * 1024),
    ],
)  # fmt: skip
def test_free_memory(files, free, tmp_path):
    write(tmp_path, {'proc/meminfo': MEMINFO} | files)
    assert free_host_bytes(tmp_path) == free


def test_where_the_system_does_not_say_nothing_is_refused(tmp_path, monkeypatch):
    assert free_host_bytes(tmp_path) is None
    monkeypatch.setattr(memory, 'free_host_bytes', lambda: None)
    mesh = jax.sharding.Mesh(jax.devices()[:1], ('data',))
    memory.check(Need(10**15, 10**15), mesh, 8, 1, 512)


@given(
    st.integers(0, 10**6), st.integers(1, 10**5), st.integers(1, 10**7), st.integers(1, 300)
)  # fmt: skip
def test_the_microbatches_that_are_proposed_fit(state, row, available, rows):
    number = microbatches_that_fit(Need(state, row), available, rows)
    if number is None:
        assert state + row > available
    else:
        assert rows % number == 0 and state + row * (rows // number) <= available
        if number > 1:
            # Fewer leave no room.
            fewer = max(n for n in range(1, number) if rows % n == 0)
            assert state + 2 * row * (rows // fewer) > available


def small_run(remat: str) -> PretrainRun:
    model = ModelSettings(
        size='albert_base', vocab_size=1000, embedding_size=8, hidden_size=16, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=64, max_position_embeddings=64, remat=remat,
        compute_dtype='float32',
    )  # fmt: skip
    return PretrainRun(
        model=model,
        pretraining=PretrainingSettings(sequence_length=64),
        loop=PretrainLoopSettings(batch_size=64, num_devices=1),
    )


@pytest.mark.parametrize('remat', ['none', pytest.param('full', marks=pytest.mark.slow)])
def test_the_count_is_below_the_compilers(remat):
    run = small_run(remat)
    model, rows = run.albert, run.loop.batch_size
    compiled = estimate.lower_step(run, jax.devices()[:1], 1).compile().memory_analysis()
    peak = compiled.temp_size_in_bytes + compiled.argument_size_in_bytes
    example = {
        name: jax.ShapeDtypeStruct((1, *shape[1:]), dtype)
        for name, (shape, dtype) in batch_shapes(run.pretraining, rows).items()
    }
    optimizer = make_optimizer(run.optimizer, run.loop.num_steps, model)
    init = functools.partial(init_params, model)
    state = jax.eval_shape(
        lambda: init_state(init, optimizer, objectives.pretraining(model), example, 0)
    )
    least = memory.least(model, state, {}, example).total(rows)
    # Never more than it takes, and no less than a quarter.
    assert peak / 4 < least < peak


def test_a_run_that_cannot_fit_is_refused_before_it_compiles(
    corpus_directory, tmp_path, monkeypatch
):
    """What the first hour led to: base at 4096 × 512, here × 128, of 16 GiB."""
    monkeypatch.setattr(memory, 'free_host_bytes', lambda: 16 * GIB)

    def fail(*_, **__):
        raise AssertionError('it starts')

    monkeypatch.setattr('albert_jax.training.loop.Checkpoints', fail)
    flags = [
        '--config=configs/pretrain.py:base', f'--config.data.path={corpus_directory}',
        '--config.pretraining.sequence_length=128', '--config.loop.num_devices=1',
    ]  # fmt: skip
    with pytest.raises(UserError) as caught:
        pretrain.main([*flags, f'--workdir={tmp_path}/run'])
    told = str(caught.value)
    assert told.startswith('This run needs at least 2') and '\n' not in told
    assert 'for 4096 rows of 128 tokens at once), and this machine has 16.0 GiB free' in told
    assert not (tmp_path / 'run').exists()
    number = int(told.partition('num_microbatches=')[2].partition(',')[0])
    assert f'which takes {4096 // number} at once' in told
    # What is proposed is not refused.
    for tried in (number, 0):
        with pytest.raises(AssertionError, match='it starts'):
            pretrain.main(
                [*flags, f'--workdir={tmp_path}/run', f'--config.loop.num_microbatches={tried}']
            )
    monkeypatch.setattr(memory, 'free_host_bytes', lambda: GIB // 8)
    with pytest.raises(UserError, match='choose a smaller model or shorter sequences'):
        pretrain.main([*flags, f'--workdir={tmp_path}/run'])
