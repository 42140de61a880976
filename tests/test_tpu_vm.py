"""Cloud TPU VMs against a gcloud that is slow, refuses, loses machines, and runs real shells."""

import json
import os
import signal
import stat
import sys
import tarfile
import time
from pathlib import Path

import pytest

from albert_jax.cli.errors import UserError
from launch import machine, tpu_vm
from tests.conftest import ROOT

WHERE = ['--zone=us-west4-a', '--poll=0.05']
NEW = ['albert-base', *WHERE, '--topology=v5e:2x4', '--spot']


def script(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


class Cloud:
    """The fake, and what it has seen."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.plan()

    def plan(self, **what) -> None:
        (self.root / 'plan.json').write_text(json.dumps(what))

    def calls(self, *words: str) -> list[list[str]]:
        path = self.root / 'calls.jsonl'
        lines = path.read_text().splitlines() if path.exists() else []
        calls = [json.loads(line) for line in lines]
        return [call for call in calls if all(word in call for word in words)]

    def home(self, host: int = 0) -> Path:
        return self.root / 'hosts' / 'albert-base' / str(host)

    def wait_for(self, state: str) -> None:
        for _ in range(12_000):
            path = self.home() / '.albert_jax/state'
            if path.exists() and path.read_text().strip() == state:
                return
            time.sleep(0.05)
        raise AssertionError(f'never {state}: {path.read_text()}')


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    root = tmp_path / 'cloud'
    root.mkdir()
    fake = ROOT / 'tests/fake_gcloud.py'
    script(root / 'path/gcloud', f'#!/bin/sh\nexec {sys.executable} {fake} "$@"\n')
    # What a host has.
    python = f'mkdir -p .venv/bin; ln -sf {sys.executable} .venv/bin/python'
    script(root / 'bin/make', f'#!/bin/sh\necho "$@" >> ~/make.txt\n{python}\n')
    script(root / 'bin/sudo', '#!/bin/sh\necho "$@" >> ~/sudo.txt\n')
    # Mounted is what was mounted since the host came up.
    script(root / 'bin/mountpoint', '#!/bin/sh\ntest -e ~/mounted\n')
    script(root / 'bin/gcsfuse', '#!/bin/sh\necho "$@" >> ~/gcsfuse.txt; touch ~/mounted\n')
    monkeypatch.setenv('FAKE_GCLOUD', str(root))
    monkeypatch.setenv('PATH', f'{root}/path:{os.environ["PATH"]}')

    def git(*arguments: str) -> str:
        if arguments[0] == 'archive':
            target = next(a.partition('=')[2] for a in arguments if a.startswith('--output'))
            with tarfile.open(target, 'w:gz') as archive:
                archive.add(ROOT / 'launch', 'launch')
        return 'c0ffee' * 6 if arguments[0] == 'rev-parse' else ''

    monkeypatch.setattr(machine, '_git', git)
    return Cloud(root)


def job(code: str, *arguments: str) -> list[str]:
    return ['--', 'python', '-c', code, *arguments]


# Names.


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['Albert', *WHERE], "NAME is 'Albert'"),
        (['a;rm -rf ~', *WHERE], 'NAME is'),
        (['a', '--zone=us-west4'], '--zone is'),
        (['a', '--zone=us-west4-a;reboot'], '--zone is'),
        (['a', *WHERE, '--topology=v5e:3x3'], 'nobody makes'),
        (['a', *WHERE, '--topology=v9:2x2'], "there is no TPU 'v9'"),
        (['a', *WHERE, '--topology=tpu7x:2x2x1'], 'had through GKE'),
        (['a', *WHERE, '--project=My Project'], '--project is'),
        (['a', *WHERE, '--bucket=my-bucket'], '--bucket is'),
        (['a', *WHERE, '--bucket=gs://b$(id)'], '--bucket is'),
        (['a', *WHERE, '--corpus=gs://bucket/../x y'], '--corpus is'),
        (['a', *WHERE, '--runtime=v2 --foo'], '--runtime is'),
        (['a', *WHERE, '--service_account=me'], '--service_account is'),
        (['a', *WHERE, '--network=-x'], '--network is'),
        (['a', *WHERE, '--poll=0'], '--poll=0'),
        (['a', *WHERE, '--', 'python'], 'create takes no command'),
    ],
)
def test_names_are_checked_before_gcloud_is_asked(flags, message, cloud):
    with pytest.raises(UserError) as caught:
        tpu_vm.main(['create', *flags])
    assert message in str(caught.value)
    assert not cloud.calls()


@pytest.mark.parametrize(
    ('topology', 'wanted'),
    [
        ('v2:2x2', ['--accelerator-type=v2-8', '--version=tpu-ubuntu2204-base']),
        ('v3:4x4', ['--accelerator-type=v3-32', '--version=tpu-ubuntu2204-base']),
        ('v4:2x2x2', ['--type=v4', '--topology=2x2x2', '--version=tpu-ubuntu2204-base']),
        ('v5e:4x4', ['--accelerator-type=v5litepod-16', '--version=v2-alpha-tpuv5-lite']),
        ('v5p:4x4x4', ['--type=v5p', '--topology=4x4x4', '--version=v2-alpha-tpuv5']),
        ('v6e:16x16', ['--accelerator-type=v6e-256', '--version=v2-alpha-tpuv6e']),
    ],
)
def test_each_generation_has_its_own_names(topology, wanted, cloud):
    assert tpu_vm.main(['create', 'a', *WHERE, f'--topology={topology}']) == 0
    (call,) = cloud.calls('create')
    assert set(wanted) <= set(call)
    assert '--spot' not in call


# Creating.


@pytest.mark.parametrize(
    ('outcome', 'message'),
    [
        ('quota', 'quota of the project is too small'),
        ('no_capacity', 'no such TPU free now'),
        ('denied', 'needs the role TPU Admin'),
    ],
)
def test_what_google_refuses_is_one_sentence(outcome, message, cloud):
    cloud.plan(create=[outcome])
    with pytest.raises(UserError, match=message):
        tpu_vm.main(['create', *NEW])


def test_create_waits_until_it_is_ready_and_never_makes_a_second_one(cloud, capsys):
    cloud.plan(create=['slow'])
    assert tpu_vm.main(['create', *NEW]) == 0
    shown = capsys.readouterr().out
    assert shown.index('CREATING') < shown.index('READY') < shown.index('is ready')
    with pytest.raises(UserError, match='already; it is READY'):
        tpu_vm.main(['create', *NEW])
    assert len(cloud.calls('create')) == 1


def test_a_queued_resource_waits_in_the_queue(cloud, capsys):
    assert tpu_vm.main(['create', *NEW, '--queued']) == 0
    shown = capsys.readouterr().out
    assert shown.index('WAITING_FOR_RESOURCES') < shown.index('is ready')
    tpu_vm.main(['delete', 'albert-base', *WHERE, '--queued', '--confirm=albert-base'])
    assert cloud.calls('queued-resources', 'delete', 'albert-base')


def test_a_gcloud_that_does_not_answer_is_left(cloud, monkeypatch):
    cloud.plan(hang='describe')
    read = machine.Gcloud.read
    monkeypatch.setattr(
        machine.Gcloud, 'read', lambda self, *words: read(self, *words, timeout=0.3)
    )
    with pytest.raises(UserError, match='did not answer'):
        tpu_vm.main(['status', 'albert-base', *WHERE])


# Running.


def test_no_argument_becomes_a_shell_command(cloud):
    code = 'import json, sys; json.dump(sys.argv[1:], open("argv.json", "w"))'
    nasty = [
        '; touch ~/pwned', '$(touch ~/pwned)', '`touch ~/pwned`', "'; touch ~/pwned; '", '"',
        '&& touch ~/pwned', '| tee ~/pwned', '> ~/pwned', 'a\nb', '*', '~', '\\', '--flag=$HOME',
        '--command=x', 'é 你好', '',
    ]  # fmt: skip
    tpu_vm.main(['up', *NEW, *job(code, *nasty)])
    assert json.loads((cloud.home() / 'albert_jax/argv.json').read_text()) == nasty
    assert not (cloud.home() / 'pwned').exists()


def test_setup_brings_the_code_to_every_host_and_mounts_the_bucket(cloud):
    cloud.plan(hosts=3)
    tpu_vm.main(['create', *NEW])
    (cloud.home() / 'albert_jax').mkdir()
    (cloud.home() / 'albert_jax/stale.py').write_text('')
    flags = ['--bucket=gs://my-bucket', '--corpus=gs://my-bucket/a/corpus']
    assert tpu_vm.main(['setup', 'albert-base', *WHERE, *flags]) == 0
    for host in range(3):
        home = cloud.home(host)
        assert (home / 'albert_jax/launch/setup.sh').exists()
        assert not (home / 'albert_jax/stale.py').exists()
        assert 'install' in (home / 'make.txt').read_text()
        assert (home / 'gcsfuse.txt').read_text().split()[-2:] == ['my-bucket', '/mnt/bucket']
        assert (home / '.albert_jax/commit').read_text().strip() == 'c0ffee' * 6
    assert len(cloud.calls('rsync', 'gs://my-bucket/a/corpus')) == 3


def test_what_is_not_committed_is_not_sent(cloud, monkeypatch):
    tpu_vm.main(['create', *NEW])
    monkeypatch.setattr(machine, '_git', lambda *a: ' M model.py' if 'status' in a else 'c0ffee')
    with pytest.raises(UserError, match='not committed'):
        tpu_vm.main(['setup', 'albert-base', *WHERE])


# A run that adds a line for each step to a file in the bucket, from where it was.
RESUMING = """
import signal, sys, time
path = sys.argv[1]
steps = len(open(path, 'a+').seek(0) or open(path).readlines())
open(path + '.starts', 'a').write(f'{steps} ')
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
while steps < int(sys.argv[2]):
    time.sleep(0.15)
    open(path, 'a').write('step\\n')
    steps += 1
print('done', flush=True)
"""
RESUMING = RESUMING.replace("len(open(path, 'a+').seek(0) or open(path).readlines())",
                            "open(path, 'a').close() or len(open(path).readlines())")  # fmt: skip


def test_up_survives_a_full_zone_a_half_made_machine_and_a_preemption(cloud, tmp_path, capsys):
    # The ssh calls of a life: state, commit, setup, run, then looks, of which one is its last.
    cloud.plan(create=['no_capacity', 'slow', 'ok'], preempt_at=[5], ssh_fails=[7])
    saved = tmp_path / 'bucket'
    assert tpu_vm.main(['up', *NEW, *job(RESUMING, str(saved), '40')]) == 0
    shown = capsys.readouterr().out
    assert 'no such TPU free now' in shown
    assert 'PREEMPTED; making it anew' in shown
    assert 'the run is finished' in shown and '--confirm=albert-base' in shown
    starts = [int(n) for n in (tmp_path / 'bucket.starts').read_text().split()]
    assert starts[0] == 0 and len(starts) == 2 and 0 < starts[1] < 40
    assert len(saved.read_text().splitlines()) == 40
    assert len(cloud.calls('tpu-vm', 'delete')) == 1
    # Watching again finds it finished, and makes nothing.
    assert tpu_vm.main(['up', *NEW, *job(RESUMING, str(saved), '40')]) == 0
    assert len(cloud.calls('tpu-vm', 'create')) == 3


def test_a_half_made_machine_of_ours_is_made_anew_and_deleted_when_done(cloud):
    cloud.plan(create=['half'])
    assert tpu_vm.main(['up', *NEW, '--delete_when_done', *job('pass')]) == 0
    assert len(cloud.calls('tpu-vm', 'delete')) == 2
    assert not (cloud.root / 'nodes/albert-base.json').exists()


def test_a_machine_that_its_owner_has_stopped_is_not_made_anew(cloud):
    tpu_vm.main(['create', *NEW])
    path = cloud.root / 'nodes/albert-base.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), 'state': 'STOPPED'}))
    with pytest.raises(UserError, match='is STOPPED; look after it yourself'):
        tpu_vm.main(['up', *NEW, *job('pass')])
    assert not cloud.calls('delete')


def test_a_machine_of_somebody_else_is_never_deleted(cloud):
    tpu_vm.main(['create', *NEW])
    path = cloud.root / 'nodes/albert-base.json'
    path.write_text(json.dumps({'state': 'PREEMPTED', 'labels': {}, 'becomes': None, 'looks': 0}))
    with pytest.raises(UserError, match='was not created by this program'):
        tpu_vm.main(['up', *NEW, *job('pass')])
    assert not cloud.calls('delete')


def test_a_crash_is_started_again_and_a_mistake_is_not(cloud, tmp_path, capsys):
    code = (
        'import sys, pathlib; p = pathlib.Path(sys.argv[1]); n = len(p.read_text()) if p.exists()'
        ' else 0; p.write_text("x" * (n + 1)); sys.exit([1, 139, 0][n])'
    )
    assert tpu_vm.main(['up', *NEW, *job(code, str(tmp_path / 'n'))]) == 0
    assert (tmp_path / 'n').read_text() == 'xxx'
    mistake = 'import sys; print("error: no such corpus"); sys.exit(2)'
    tpu_vm.main(['run', 'albert-base', *WHERE, *job(mistake)])
    cloud.wait_for('failed')
    assert tpu_vm.main(['up', *NEW, *job(mistake)]) == 1
    log = (cloud.home() / '.albert_jax/log.txt').read_text()
    # Three times, for hosts that did not meet in time end so too.
    assert log.count('error: no such corpus') == 3
    assert 'the run has failed' in capsys.readouterr().out


def test_stop_lets_every_host_save_and_a_second_run_is_refused(cloud, tmp_path, capsys):
    cloud.plan(hosts=2)
    tpu_vm.main(['create', *NEW])
    tpu_vm.main(['setup', 'albert-base', *WHERE])
    flags = ['albert-base', *WHERE]
    tpu_vm.main(['run', *flags, *job(RESUMING, str(tmp_path / 'b'), '10000')])
    with pytest.raises(UserError, match='runs here already'):
        tpu_vm.main(['run', *flags, *job('pass')])
    capsys.readouterr()
    tpu_vm.main(['status', *flags])
    assert '2 hosts: running' in capsys.readouterr().out
    assert tpu_vm.main(['stop', *flags]) == 0
    tpu_vm.main(['status', *flags])
    assert '2 hosts: stopped' in capsys.readouterr().out


def test_a_run_whose_host_was_restarted_is_started_again(cloud, tmp_path):
    tpu_vm.main(['create', *NEW])
    tpu_vm.main(['setup', 'albert-base', *WHERE, '--bucket=gs://my-bucket'])
    (cloud.home() / '.albert_jax/state').write_text('running\n')
    # A restart undoes the mount; a run without it would begin anew on the host's own disk.
    (cloud.home() / 'mounted').unlink()
    # Somebody else has that number since the host came up again.
    (cloud.home() / '.albert_jax/pid').write_text(f'{os.getpid()} another-boot\n')
    assert tpu_vm.main(['up', *NEW, *job(RESUMING, str(tmp_path / 'b'), '2')]) == 0
    assert (tmp_path / 'b').read_text() == 'step\nstep\n'
    assert (cloud.home() / 'mounted').exists()


def test_a_bucket_that_cannot_be_mounted_starts_nothing(cloud, tmp_path):
    tpu_vm.main(['create', *NEW])
    tpu_vm.main(['setup', 'albert-base', *WHERE, '--bucket=gs://my-bucket'])
    (cloud.home() / 'mounted').unlink()
    script(cloud.root / 'bin/gcsfuse', '#!/bin/sh\nexit 1\n')
    assert tpu_vm.main(['up', *NEW, *job(RESUMING, str(tmp_path / 'b'), '2')]) == 1
    assert not (tmp_path / 'b').exists()


def test_a_host_that_shuts_down_is_no_stop(cloud, tmp_path):
    tpu_vm.main(['create', *NEW])
    tpu_vm.main(['setup', 'albert-base', *WHERE])
    flags = ['albert-base', *WHERE]
    tpu_vm.main(['run', *flags, *job(RESUMING, str(tmp_path / 'b'), '30')])
    pid = int((cloud.home() / '.albert_jax/pid').read_text().split()[0])
    os.kill(pid, signal.SIGTERM)
    for _ in range(12_000):
        if not Path(f'/proc/{pid}').exists():
            break
        time.sleep(0.05)
    assert tpu_vm.main(['up', *NEW, *job(RESUMING, str(tmp_path / 'b'), '30')]) == 0
    assert len((tmp_path / 'b').read_text().splitlines()) == 30


def test_up_outlives_an_ssh_that_hangs_and_a_describe_that_fails(cloud, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, 'SSH_SECONDS', 0.5)
    cloud.plan(ssh_hangs=[5], describe_fails=[4, 5])
    assert tpu_vm.main(['up', *NEW, *job(RESUMING, str(tmp_path / 'b'), '20')]) == 0
    assert len((tmp_path / 'b').read_text().splitlines()) == 20


def test_what_is_edited_while_it_runs_stays_here(cloud, tmp_path, monkeypatch):
    cloud.plan(preempt_at=[5])
    packed = machine._git
    status = iter(['', *[' M model.py'] * 9])
    monkeypatch.setattr(machine, '_git', lambda *a: next(status) if 'status' in a else packed(*a))
    assert tpu_vm.main(['up', *NEW, *job(RESUMING, str(tmp_path / 'b'), '30')]) == 0
    assert len(cloud.calls('scp')) == 2


# Deleting.


def test_nothing_is_deleted_without_its_exact_name(cloud, monkeypatch):
    tpu_vm.main(['create', *NEW])
    for confirm in ('', 'albert', 'albert-base2', '*'):
        with pytest.raises(UserError, match='Nothing is deleted'):
            tpu_vm.main(['delete', 'albert-base', *WHERE, f'--confirm={confirm}'])
    assert not cloud.calls('delete')
    assert tpu_vm.main(['delete', 'albert-base', *WHERE, '--confirm=albert-base']) == 0
    with pytest.raises(UserError, match='There is no albert-base in us-west4-a'):
        tpu_vm.main(['delete', 'albert-base', *WHERE, '--confirm=albert-base'])


def test_actions_on_a_machine_that_is_not_there_say_so(cloud):
    for action in ('setup', 'stop', 'logs'):
        with pytest.raises(UserError, match='is ABSENT; it must be READY'):
            tpu_vm.main([action, 'albert-base', *WHERE])
    with pytest.raises(UserError, match='run needs the command'):
        tpu_vm.main(['run', 'albert-base', *WHERE])
