"""Real processes: killed at any moment and started again, a run ends as if it had never stopped."""

import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import albert_jax
from albert_jax.training.metrics_file import read_lines
from tests.conftest import ROOT, xla_flags

NUM_STEPS = 40


def command(corpus, workdir) -> list[str]:
    return [
        sys.executable, '-m', 'albert_jax.pretrain', '--config=configs/pretrain.py:tiny',
        f'--workdir={workdir}', f'--config.data.path={corpus}',
        '--config.model.vocab_size=1000', '--config.model.hidden_size=16',
        '--config.model.num_hidden_layers=2', '--config.model.intermediate_size=32',
        '--config.model.hidden_dropout_prob=0.1', '--config.pretraining.sequence_length=32',
        '--config.optimizer.warmup_steps=5', '--config.loop.batch_size=16',
        f'--config.loop.num_steps={NUM_STEPS}', '--config.loop.log_every=3',
        '--config.loop.eval_every=10', '--config.loop.num_eval_batches=1',
        '--config.loop.checkpoint_every=5', '--config.loop.keep_last=20',
    ]  # fmt: skip


def environment() -> dict[str, str]:
    return os.environ | {'XLA_FLAGS': xla_flags(2)}


def start(corpus, workdir, **options) -> subprocess.Popen:
    return subprocess.Popen(
        command(corpus, workdir), cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, **options
    )


def lines(workdir):
    path = workdir / 'metrics.jsonl'
    return read_lines(path) if path.exists() else []


def last_step(workdir) -> int:
    return max((line['step'] for line in lines(workdir)), default=0)


def assert_same_end(left, right) -> None:
    params = [
        albert_jax.load(workdir / 'checkpoints' / str(NUM_STEPS)).params
        for workdir in (left, right)
    ]
    jax.tree.map(np.testing.assert_array_equal, *params)
    metrics = [
        [{name: line[name] for name in line if name != 'speed'} for line in lines(workdir)]
        for workdir in (left, right)
    ]
    assert metrics[0] == metrics[1]


@pytest.fixture(scope='module')
def uninterrupted(corpus_directory, tmp_path_factory):
    """A run that was never stopped."""
    workdir = tmp_path_factory.mktemp('uninterrupted')
    assert start(corpus_directory, workdir).wait() == 0
    assert last_step(workdir) == NUM_STEPS
    return workdir


def wait_for(condition, process) -> None:
    deadline = time.monotonic() + 600
    while not condition():
        assert process.poll() is None, 'the run ended too early'
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_killed_between_and_during_saves_it_ends_the_same(
    uninterrupted, corpus_directory, tmp_path
):
    folder = tmp_path / 'checkpoints'

    # Once between two log lines and two checkpoints.
    process = start(corpus_directory, tmp_path)
    wait_for(lambda: last_step(tmp_path) >= 12, process)
    process.send_signal(signal.SIGKILL)
    process.wait()

    # Once while a checkpoint is being written: its temporary directory is there.
    process = start(corpus_directory, tmp_path)
    wait_for(
        lambda: last_step(tmp_path) >= 18 and any('tmp' in path.name for path in folder.iterdir()),
        process,
    )
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert last_step(tmp_path) < NUM_STEPS

    assert start(corpus_directory, tmp_path).wait() == 0
    assert_same_end(uninterrupted, tmp_path)
    assert not any('tmp' in path.name for path in folder.iterdir())


@pytest.mark.slow  # as test_distributed has it, with one process in place of two
def test_sigterm_saves_and_leaves(uninterrupted, corpus_directory, tmp_path):
    process = start(corpus_directory, tmp_path)
    wait_for(lambda: last_step(tmp_path) >= 6, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    steps = [int(path.name) for path in (tmp_path / 'checkpoints').iterdir()]
    # It saved where it was, not where the next checkpoint was due.
    assert max(steps) >= 6 and last_step(tmp_path) <= max(steps) < NUM_STEPS
    assert start(corpus_directory, tmp_path).wait() == 0
    assert_same_end(uninterrupted, tmp_path)
