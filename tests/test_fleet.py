"""Members of a sweep on machines of their own: what tpu_vm and SkyPilot are told."""

import json
import shlex
import subprocess

import pytest

from albert_jax.cli.errors import UserError
from launch import sweep
from tests.conftest import ROOT

FLAGS = [
    '--sweep=configs/sweeps/sentence_loss.py:mini', '--workdir=/mnt/bucket/sentence_loss',
    '--topology=v5e:2x4', '--bucket=gs://my-bucket', '--override=pretrain.loop.batch_size=32',
    '--override=pretrain.data.path=../corpus $(id)',
]  # fmt: skip
SKYPILOT = ROOT / '.venv-skypilot/bin/python'


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def lines(capfd, *more: str) -> list[str]:
    assert sweep.main([*FLAGS, *more, '--dry_run']) == 0
    # A command is shown an option a line.
    return capfd.readouterr().out.replace(' \\\n', ' ').splitlines()


def test_each_member_gets_a_machine_that_runs_it_alone_and_is_deleted(capfd):
    shown = lines(capfd, '--runner=tpu_vm', '--zone=us-west4-a', '--spot', '--seeds=2')
    created = [shlex.split(line) for line in shown if ' create ' in line]
    names = [words[words.index('create') + 1] for words in created]
    assert names == [f'sentence-loss-{x}-seed{n}' for x in ('none', 'nsp', 'sop') for n in (0, 1)]
    assert all('--spot' in words and '--accelerator-type=v5litepod-8' in words for words in created)


def test_the_words_of_an_override_stay_words(capfd):
    import base64

    shown = lines(capfd, '--runner=tpu_vm', '--zone=us-west4-a')
    packed = next(line for line in shown if 'start.sh' in line).split('start.sh ')[1].split("'")[0]
    script = base64.b64decode(packed).decode().splitlines()[-1]
    words = shlex.split(script.removeprefix('exec '))
    assert words[:3] == ['python', '-m', 'launch.sweep']
    assert '--override=pretrain.data.path=../corpus $(id)' in words
    assert '--only=none' in words and '--workdir=/mnt/bucket/sentence_loss' in words


def test_skypilot_gets_a_job_for_each_member(capfd):
    shown = [line for line in lines(capfd, '--runner=skypilot') if line.startswith('sky ')]
    assert len(shown) == 3
    words = shlex.split(shown[0])
    assert words[:3] == ['sky', 'jobs', 'launch'] and '--env=BUCKET=my-bucket' in words
    command = next(word for word in words if word.startswith('--env=COMMAND='))
    # bash reads it once more, in skypilot.yaml.
    assert '--only=none' in shlex.split(command.removeprefix('--env=COMMAND='))


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--runner=tpu_vm'], 'needs --zone'),
        (['--runner=tpu_vm', '--zone=us-west4-a', '--topology=v5e:4x4'], 'several hosts'),
        (['--runner=tpu_vm', '--zone=us-west4-a', '--workdir=runs/x'], 'below it'),
        (['--runner=skypilot', '--bucket='], 'needs --bucket'),
        (['--runner=skypilot', '--workdir=runs/x'], 'below it'),
        (['--runner=skypilot', '--zone=us-west4-a'], 'SkyPilot has settings of its own'),
        (['--runner=skypilot', '--corpus=gs://other/corpus'], 'must be a folder in'),
        (['--runner=skypilot', '--bucket=my-bucket'], '--bucket is'),
        (['--only=nobody'], 'no such member'),
        (['--jobs=0'], '--jobs=0'),
        (['--seeds=-1'], '--seeds=-1'),
        (['--price=-3'], '--price'),
        (['--runner=tpu_vm', '--sweep=configs/sweeps/depth.py'], 'start from one another'),
    ],
)
def test_what_cannot_be_is_refused(flags, message):
    with pytest.raises(UserError, match=message):
        sweep.main([*FLAGS, '--dry_run', *flags])


def test_names_of_machines_are_valid_and_all_different():
    from launch.fleet import machine_name
    from launch.machine import Description

    members = [f'{"very-" * 12}long-seed{seed}' for seed in range(3)]
    names = {machine_name('/mnt/bucket/2026.sweep_a', member) for member in members}
    assert len(names) == 3
    for name in names:
        Description(name, 'us-west4-a')


@pytest.mark.slow
@pytest.mark.parametrize(
    ('topology', 'accelerator', 'runtime'),
    [
        ('v5e:4x4', 'tpu-v5litepod-16', 'v2-alpha-tpuv5-lite'),
        ('v6e:2x4', 'tpu-v6e-8', 'v2-alpha-tpuv6e'),
        ('v4:2x2x1', 'tpu-v4-8', 'tpu-ubuntu2204-base'),
    ],
)
def test_skypilot_itself_reads_the_file(topology, accelerator, runtime, tmp_path):
    from albert_jax.planning.topologies import parse
    from launch.skypilot import write_yaml

    path = write_yaml(parse(topology), True, tmp_path)
    assert SKYPILOT.exists(), 'run make test-slow, which installs SkyPilot beside .venv'
    code = (
        'import json, sys, sky; t = sky.Task.from_yaml(sys.argv[1]); '
        'r, = t.resources; print(json.dumps([dict(r.accelerators), r.use_spot, t.envs, '
        'list(t.storage_mounts), r.accelerator_args["runtime_version"]]))'
    )
    done = subprocess.run(
        [SKYPILOT, '-c', code, path], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    accelerators, is_spot, envs, mounts, found = json.loads(done.stdout.splitlines()[-1])
    assert accelerators == {accelerator: 1} and is_spot and found == runtime
    assert set(envs) == {'BUCKET', 'CORPUS', 'COMMAND'} and mounts == ['/mnt/bucket']
