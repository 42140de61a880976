"""What a run on Cloud TPU VMs would do, as it is shown without doing it."""

import re
import shlex

import pytest

from albert_jax.cli.errors import UserError
from launch import tpu_vm

NEW = ['albert', '--zone=us-west4-a', '--topology=v5e:2x4']
COMMAND = ['python', '-c', 'print(1)', 'a b', '--x=y z']


def test_a_dry_run_prints_every_command_and_needs_no_gcloud(monkeypatch, capsys):
    monkeypatch.setenv('PATH', '/nowhere')
    flags = ['--dry_run', '--bucket=gs://my-bucket', '--queued', '--project=my-project-1']
    assert tpu_vm.main(['up', *NEW, *flags, '--', *COMMAND]) == 0
    shown = capsys.readouterr().out
    steps = [step.splitlines() for step in shown.strip().split('\n\n')]
    assert len(steps) == 6
    for step in steps:
        # What it is for, then a command as a shell takes it, an option a line.
        assert step[0].startswith('# ')
        command = '\n'.join(line for line in step if not line.startswith('# '))
        words = shlex.split(command.replace('\\\n', ''))
        for one in command.split('gcloud compute tpus ')[1:]:
            assert one.count('--project=my-project-1') == 1
        assert words[:3] == ['gcloud', 'compute', 'tpus']
        assert not re.search(r'--\S+ --', command.partition(' --command=')[0])
    for word in ('queued-resources create', ' scp ', 'setup.sh', 'start.sh', 'state.sh'):
        assert word in shown, word
    # The command is not told in base64 alone.
    assert f'\n# exec {shlex.join(COMMAND)}\n' in shown
    with pytest.raises(UserError, match='gcloud is not installed'):
        tpu_vm.main(['create', *NEW])


@pytest.mark.parametrize('action', ['status', 'logs', 'stop', 'delete', 'create', 'setup'])
def test_each_action_says_what_its_commands_are_for(action, monkeypatch, capsys):
    monkeypatch.setenv('PATH', '/nowhere')
    more = ['--confirm=albert'] if action == 'delete' else []
    assert tpu_vm.main([action, *NEW, '--dry_run', *more]) == 0
    shown = capsys.readouterr().out
    commands = [part for part in shown.split('\n\n') if 'gcloud' in part]
    assert commands and all('# ' in part.split('gcloud')[0] for part in commands)
