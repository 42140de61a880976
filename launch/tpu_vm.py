"""Runs on Cloud TPU VMs, through gcloud: `python -m launch.tpu_vm --help`."""

import argparse
import sys
import time
from collections.abc import Sequence

from albert_jax.cli import command
from albert_jax.cli.errors import UserError
from launch.gcloud import Gcloud, NoCapacity, Unreachable
from launch.machine import (
    ABSENT,
    COMING,
    GOING,
    READY,
    TAKEN,
    Description,
    Machine,
    check,
)  # fmt: skip

ACTIONS = {
    'create': 'ask for the TPU VM or slice, and wait until it is ready',
    'setup': 'bring the committed code and the lock to every host, mount the bucket',
    'run': 'start a command on every host, detached; it is started again when it crashes',
    'logs': 'show what host 0 has printed',
    'status': 'show the machine and its run',
    'stop': 'have the run save and end on every host; the machine stays, and costs',
    'delete': 'delete the machine of exactly this name',
    'up': 'all of it: create, setup, run, and watch; made anew after a preemption',
}
_DESCRIPTION = """\
Run training on Cloud TPU VMs: one host or a pod slice, on demand, spot, or from the queue.
"""
_EPILOG = """\
actions:
{actions}

examples:
  python -m launch.tpu_vm up albert-base --zone=us-west4-a --topology=v5e:4x4 --spot \\
      --bucket=gs://my-bucket --corpus=gs://my-bucket/corpus -- \\
      python -m albert_jax.pretrain --config=configs/pretrain.py:base --coordinator=auto \\
      --config.data.path=../corpus --workdir=/mnt/bucket/base
  python -m launch.tpu_vm logs albert-base --zone=us-west4-a --follow
  python -m launch.tpu_vm delete albert-base --zone=us-west4-a --confirm=albert-base

What follows -- runs in ~/albert_jax of every host. The bucket is at /mnt/bucket, the corpus at
~/corpus. With --dry_run each gcloud command is printed, and none is run.
"""
# Looks in vain at a machine that says it is ready.
_MAX_SILENT_POLLS = 10


def main(arguments: Sequence[str]) -> int:
    """Does one action."""
    words = list(arguments)
    place = words.index('--') if '--' in words else len(words)
    flags = _parser().parse_args(words[:place])
    command_words = words[place + 1 :]
    if flags.action in ('run', 'up') and not command_words:
        raise UserError(f'{flags.action} needs the command to run, after --.')
    if flags.action not in ('run', 'up') and command_words:
        raise UserError(f'{flags.action} takes no command; {command_words[0]!r} follows --.')
    if flags.poll <= 0:
        raise UserError(f'--poll={flags.poll}: it must be above 0.')
    if flags.lines < 1:
        raise UserError(f'--lines={flags.lines}: it must be 1 or above.')
    for name in ('project', 'bucket', 'corpus'):
        if getattr(flags, name):
            check(f'--{name}', getattr(flags, name))
    machine = Machine(
        Gcloud(flags.dry_run, flags.project),
        Description(
            flags.name, flags.zone, flags.topology, flags.runtime, flags.service_account,
            flags.network, flags.spot, flags.queued,
        ),
    )  # fmt: skip
    return _ACTIONS[flags.action](machine, flags, command_words)


def _parser() -> argparse.ArgumentParser:
    actions = '\n'.join(f'  {name:7} {text}' for name, text in ACTIONS.items())
    parser = command.parser('launch.tpu_vm', _DESCRIPTION, _EPILOG.format(actions=actions))
    parser.add_argument('action', choices=ACTIONS, help='see below')
    parser.add_argument('name', help='of the machine, exactly')
    parser.add_argument('--zone', required=True, help='as in us-west4-a')
    parser.add_argument('--project', default='', help="gcloud's own if left out")
    parser.add_argument('--topology', default='', help='the slice to create, as in v5e:4x4')
    parser.add_argument('--spot', action='store_true', help='cheaper, and may be taken away')
    parser.add_argument('--queued', action='store_true', help='as a queued resource')
    parser.add_argument('--runtime', default='', help='software version; that of the chips')
    parser.add_argument('--service_account', default='', help='that the machine runs as')
    parser.add_argument('--network', default='', help='of the machine')
    parser.add_argument('--bucket', default='', help='gs://NAME, mounted at /mnt/bucket')
    parser.add_argument('--corpus', default='', help='gs://NAME/FOLDER, copied to ~/corpus')
    parser.add_argument('--poll', type=float, default=60, help='seconds between looks (60)')
    parser.add_argument('--lines', type=int, default=20, help='of the log (20)')
    parser.add_argument('--follow', action='store_true', help='go on showing the log')
    parser.add_argument('--confirm', default='', metavar='NAME', help='delete without asking')
    parser.add_argument(
        '--delete_when_done', action='store_true', help='up deletes the machine when finished'
    )
    parser.add_argument('--dry_run', action='store_true', help='print the commands, run none')
    return parser


def _create(machine: Machine, flags: argparse.Namespace, words: list[str]) -> int:
    del words
    if not flags.dry_run:
        state = machine.state()
        if state != ABSENT:
            raise UserError(f'There is a {machine.name} in {flags.zone} already; it is {state}.')
    machine.create()
    if not flags.dry_run:
        state = _wait_until_ready(machine, flags.poll)
        if state != READY:
            raise UserError(f'{machine.name} in {flags.zone} is {state}; it never became {READY}.')
        print(f'{machine.name} is ready. Next: python -m launch.tpu_vm setup {machine.name} …')
    return 0


def _wait_until_ready(machine: Machine, poll: float) -> str:
    """Waits while the machine is coming; its state then."""
    last = ''
    while True:
        state = machine.state()
        if state != last:
            print(f'{machine.name}: {state}', flush=True)
            last = state
        # A queued resource is ACTIVE before its machine shows.
        if state not in (*COMING, *GOING, 'ACTIVE'):
            return state
        time.sleep(poll)


def _require_ready(machine: Machine, flags: argparse.Namespace) -> None:
    if flags.dry_run:
        return
    state = machine.state()
    if state != READY:
        raise UserError(f'{machine.name} in {flags.zone} is {state}; it must be {READY}.')


def _setup(machine: Machine, flags: argparse.Namespace, words: list[str]) -> int:
    del words
    _require_ready(machine, flags)
    commit = machine.setup(flags.bucket, flags.corpus)
    print(f'Every host of {machine.name} has commit {commit[:12]}.')
    return 0


def _run(machine: Machine, flags: argparse.Namespace, words: list[str]) -> int:
    _require_ready(machine, flags)
    machine.run(words)
    print(f'It runs. See it with python -m launch.tpu_vm logs {machine.name} --zone={flags.zone}')
    return 0


def _logs(machine: Machine, flags: argparse.Namespace, words: list[str]) -> int:
    del words
    _require_ready(machine, flags)
    machine.logs(flags.lines, flags.follow)
    return 0


def _status(machine: Machine, flags: argparse.Namespace, words: list[str]) -> int:
    del words
    if flags.dry_run:
        machine.state()
        machine.progress()
        return 0
    state = machine.state()
    print(f'{machine.name} in {flags.zone}: {state}')
    if state == READY:
        for name, count in machine.progress().items():
            print(f'  {count} host{"s" if count > 1 else ""}: {name}')
    return 0


def _stop(machine: Machine, flags: argparse.Namespace, words: list[str]) -> int:
    del words
    _require_ready(machine, flags)
    machine.stop()
    print(f'The run on {machine.name} has saved and ended. The machine is still there, and costs.')
    return 0


def _delete(machine: Machine, flags: argparse.Namespace, words: list[str]) -> int:
    del words
    typed = flags.confirm
    if not typed and sys.stdin.isatty():
        typed = input(f'Type the name of the machine to delete it ({flags.zone}): ').strip()
    if typed != machine.name:
        raise UserError(
            f'Nothing is deleted: give --confirm={machine.name}, the exact name.'
            if not typed
            else f'Nothing is deleted: {typed!r} is not {machine.name!r}.'
        )
    if not flags.dry_run and machine.state() == ABSENT:
        raise UserError(f'There is no {machine.name} in {flags.zone}.')
    machine.delete()
    print(f'Deleted {machine.name}.')
    return 0


def _up(machine: Machine, flags: argparse.Namespace, words: list[str]) -> int:
    if flags.dry_run:
        machine.state()
        machine.create()
        machine.setup(flags.bucket, flags.corpus)
        machine.run(words)
        machine.progress()
        return 0
    try:
        return _keep_up(machine, flags, words)
    except KeyboardInterrupt:
        print(
            f'\nNo longer watched. {machine.name} runs on, and costs; the same command watches it '
            f'again, stop and delete end it.'
        )
        return 130


def _keep_up(machine: Machine, flags: argparse.Namespace, words: list[str]) -> int:
    """Until the run is finished or has failed, whatever happens to the machine."""
    machine.pack(refuses_changes=machine.state() == ABSENT)
    num_silent = 0
    while True:
        try:
            _bring(machine, flags)
            status = _advance(machine, flags, words)
            num_silent = 0
        except Unreachable as error:
            # It may be going away just now; its state will tell.
            num_silent += 1
            if num_silent >= _MAX_SILENT_POLLS:
                raise
            print(f'{machine.name}: {error}', flush=True)
            status = None
        if status is not None:
            return status
        time.sleep(flags.poll)


def _advance(machine: Machine, flags: argparse.Namespace, words: list[str]) -> int | None:
    """Sets up and starts what is not; the exit status if the run has ended."""
    states = set(machine.progress())
    if states == {'finished'}:
        print(f'{machine.name}: the run is finished.')
        if flags.delete_when_done:
            machine.delete()
            print(f'Deleted {machine.name}.')
        else:
            print('The machine is still there, and costs; delete it with')
            print(
                f'  python -m launch.tpu_vm delete {machine.name} --zone={flags.zone} '
                f'--confirm={machine.name}'
            )
        return 0
    if 'failed' in states:
        print(f'{machine.name}: the run has failed. The end of its log:', flush=True)
        machine.logs(flags.lines, False)
        return 1
    # A start of all hosts that was cut in the middle leaves some stopped and some with nothing.
    if 'stopped' in states and not states & {'none', 'lost'}:
        print(f'{machine.name}: the run was stopped; run starts it again.')
        return 1
    if states & {'none', 'lost'}:
        if 'running' in states:
            # All hosts of a pod start together.
            machine.stop()
        if not machine.is_set_up():
            commit = machine.setup(flags.bucket, flags.corpus)
            print(f'{machine.name}: every host has commit {commit[:12]}', flush=True)
        machine.run(words)
        print(f'{machine.name}: started', flush=True)
    return None


def _bring(machine: Machine, flags: argparse.Namespace) -> None:
    """Makes the machine ready, anew if it was taken away."""
    while True:
        state = _wait_until_ready_quietly(machine, flags.poll)
        if state == READY:
            return
        if state != ABSENT:
            if state not in TAKEN or not machine.is_ours():
                whose = '' if machine.is_ours() else ', and was not created by this program'
                raise UserError(
                    f'{machine.name} in {flags.zone} is {state}{whose}; look after it yourself, or '
                    f'choose another name.'
                )
            print(f'{machine.name}: {state}; making it anew', flush=True)
            machine.delete()
        try:
            machine.create()
        except NoCapacity as error:
            print(f'{error} Trying again in {flags.poll:g} s.', flush=True)
            time.sleep(flags.poll)
        except UserError as error:
            if isinstance(error, Unreachable) or machine.state() == ABSENT:
                raise
            print(f'{machine.name} was half made: {error}', flush=True)


def _wait_until_ready_quietly(machine: Machine, poll: float) -> str:
    state = machine.state()
    return state if state in (READY, ABSENT) else _wait_until_ready(machine, poll)


_ACTIONS = {
    'create': _create,
    'setup': _setup,
    'run': _run,
    'logs': _logs,
    'status': _status,
    'stop': _stop,
    'delete': _delete,
    'up': _up,
}

if __name__ == '__main__':
    command.run(main)
