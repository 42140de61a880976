"""Real processes on this machine: 2 × 4 devices are 1 × 8; a lost peer, a signal, another mesh.

What waits longest, for peers that are gone, is under `make test-slow`.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from albert_jax import pretrain
from albert_jax.cli.errors import UserError
from albert_jax.training import cluster
from tests.conftest import ROOT, xla_flags


def free_port():
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return server.getsockname()[1]


def command(corpus, workdir, *overrides):
    return [
        sys.executable, '-m', 'albert_jax.pretrain', '--config=configs/pretrain.py:tiny',
        f'--workdir={workdir}', f'--config.data.path={corpus}', '--config.model.vocab_size=1000',
        '--config.pretraining.sequence_length=32',
        '--config.model.num_hidden_layers=2', '--config.model.hidden_size=32',
        '--config.model.num_attention_heads=2', '--config.model.intermediate_size=64',
        '--config.model.embedding_size=16', '--config.model.hidden_dropout_prob=0.1',
        '--config.optimizer.warmup_steps=3', '--config.loop.num_steps=12',
        '--config.loop.batch_size=16', '--config.loop.log_every=1', '--config.loop.eval_every=6',
        '--config.loop.checkpoint_every=6', '--config.loop.num_eval_batches=2', *overrides,
    ]  # fmt: skip


def start(arguments, num_devices, *flags):
    return subprocess.Popen(
        [*arguments, *flags],
        cwd=ROOT,
        env={**os.environ, 'XLA_FLAGS': xla_flags(num_devices)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def start_two(arguments, *, overrides=((), ())):
    port = free_port()
    return [
        start(
            [*arguments, *overrides[number]],
            4,
            f'--coordinator=127.0.0.1:{port}',
            '--num_processes=2',
            f'--process_id={number}',
        )
        for number in range(2)
    ]


def finish(process, timeout=600):
    text, _ = process.communicate(timeout=timeout)
    return process.returncode, text


def lines(workdir):
    return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def losses(workdir, name='loss', split='train'):
    return {line['step']: line[name] for line in lines(workdir) if line['split'] == split}


@pytest.fixture(scope='module')
def one_process(corpus_directory, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('one')
    assert pretrain.main(command(corpus_directory, workdir)[3:]) == 0
    return workdir


def wait_for_step(workdir, step, processes):
    path = workdir / 'metrics.jsonl'
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        if path.exists() and any(f'"step": {step},' in line for line in path.open()):
            return
        assert all(process.poll() is None for process in processes), 'a process ended by itself'
        time.sleep(0.1)
    raise AssertionError('the run did not get that far')


@pytest.mark.slow  # the next one compares the same, and what comes after a signal
def test_two_processes_train_as_one(corpus_directory, one_process, tmp_path):
    processes = start_two(command(corpus_directory, tmp_path, '--config.loop.num_fsdp=2'))
    for process in processes:
        code, text = finish(process)
        assert code == 0, text
    assert losses(tmp_path) == pytest.approx(losses(one_process), rel=1e-5)
    held_out = losses(tmp_path, 'mlm_loss', 'validation')
    assert held_out == pytest.approx(losses(one_process, 'mlm_loss', 'validation'), rel=1e-5)


def test_a_signal_to_one_process_saves_on_all_and_another_mesh_goes_on(
    corpus_directory, one_process, tmp_path, capsys
):
    arguments = command(corpus_directory, tmp_path, '--config.loop.num_fsdp=4')
    processes = start_two(arguments)
    wait_for_step(tmp_path, 2, processes)
    processes[1].send_signal(signal.SIGTERM)
    codes, texts = zip(*(finish(process) for process in processes), strict=True)
    assert codes == (143, 143), texts
    assert 'Stopped by a signal' in texts[0]
    stopped_at = max(losses(tmp_path))
    assert stopped_at < 12
    # One process with one device instead of two with four each, and the same global batches.
    arguments = command(corpus_directory, tmp_path, '--config.loop.num_devices=1')
    assert pretrain.main(arguments[3:]) == 0
    assert f'from step {stopped_at} of 12' in capsys.readouterr().out
    assert losses(tmp_path) == pytest.approx(losses(one_process), rel=2e-5)


@pytest.mark.slow
def test_a_lost_process_ends_the_others_with_a_sentence_and_the_run_goes_on(
    corpus_directory, tmp_path
):
    arguments = command(corpus_directory, tmp_path, '--config.loop.num_steps=100000')
    processes = start_two(arguments)
    wait_for_step(tmp_path, 8, processes)
    processes[1].kill()
    started = time.monotonic()
    code, text = finish(processes[0], timeout=60)
    assert time.monotonic() - started < 60
    assert code not in (0, None)
    assert 'Another process was lost' in text
    assert 'start the same command again on all hosts' in text
    assert 'Traceback' not in text
    assert (tmp_path / 'checkpoints' / '6').exists()
    # The same command goes on.
    lost_at = max(losses(tmp_path))
    processes = start_two(arguments)
    wait_for_step(tmp_path, lost_at + 3, processes)
    processes[0].send_signal(signal.SIGTERM)
    codes, texts = zip(*(finish(process) for process in processes), strict=True)
    assert codes == (143, 143), texts
    assert 'from step' in texts[0]


def test_processes_with_different_configs_stop_with_the_field(corpus_directory, tmp_path):
    processes = start_two(
        command(corpus_directory, tmp_path),
        overrides=((), ('--config.optimizer.learning_rate=0.5',)),
    )
    for process in processes:
        code, text = finish(process)
        assert code == 2, text
        assert (
            'Process 1 was started with optimizer.learning_rate = 0.5, process 0 with 0.01' in text
        )


@pytest.mark.slow
def test_a_mistake_that_one_process_alone_sees_ends_all(corpus_directory, tmp_path):
    port = free_port()
    flags = [f'--coordinator=127.0.0.1:{port}', '--num_processes=2']
    processes = [
        start(command(folder, tmp_path), 1, *flags, f'--process_id={number}')
        for number, folder in enumerate((corpus_directory, tmp_path / 'nowhere'))
    ]
    code, text = finish(processes[1])
    assert code == 2, text
    assert 'nowhere holds no prepared corpus' in text
    code, text = finish(processes[0])
    assert code == 1, text
    assert 'Another process was lost' in text


@pytest.mark.slow
def test_storage_that_is_not_shared_is_noticed(corpus_directory, tmp_path):
    port = free_port()
    flags = [f'--coordinator=127.0.0.1:{port}', '--num_processes=2']
    processes = [
        start(command(corpus_directory, tmp_path / name), 1, *flags, f'--process_id={number}')
        for number, name in enumerate(('here', 'there'))
    ]
    for process in processes:
        code, text = finish(process)
        assert code == 2, text
        assert 'there of process 1 is not that of process 0' in text or 'must be on storage' in text


def test_a_coordinator_that_does_not_answer(corpus_directory, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cluster, 'INIT_TIMEOUT', 1)
    arguments = command(corpus_directory, tmp_path)[3:]
    flags = [f'--coordinator=127.0.0.1:{free_port()}', '--num_processes=2', '--process_id=1']
    with pytest.raises(UserError, match='did not answer within 1 s'):
        pretrain.main([*arguments, *flags])
    assert not list(Path(tmp_path).iterdir())


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--num_processes=2'], 'need --coordinator'),
        (['--coordinator=here'], 'it must be HOST:PORT'),
        (['--coordinator=here:99999'], 'it must be HOST:PORT'),
        (['--coordinator=a:1'], 'needs --num_processes and --process_id too'),
        (['--coordinator=a:1', '--num_processes=2', '--process_id=2'], 'it must be from 0 to 1'),
    ],
)
def test_flags_that_do_not_fit_together(flags, message, corpus_directory, tmp_path):
    with pytest.raises(UserError, match=message):
        pretrain.main([*command(corpus_directory, tmp_path)[3:], *flags])
