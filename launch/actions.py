"""The actions of launch.tpu_vm: functions of the machine, the flags and the command to run."""

import argparse
import sys

from albert_jax.cli import next_steps
from albert_jax.cli.errors import UserError
from launch.machine import ABSENT, READY, Machine
from launch.watch import Watch, WatchOptions, wait_until_settled


def _create(machine: Machine, flags: argparse.Namespace, run_command: list[str]) -> int:
    del run_command
    if not flags.dry_run:
        state = machine.state()
        if state != ABSENT:
            raise UserError(f'There is a {machine.name} in {flags.zone} already; it is {state}.')
    machine.create()
    if not flags.dry_run:
        state = wait_until_settled(machine, flags.poll)
        if state != READY:
            raise UserError(f'{machine.name} in {flags.zone} is {state}; it never became {READY}.')
        print(f'{machine.name} is ready.')
        places = [
            f'--{name}={value}'
            for name in ('project', 'bucket', 'corpus')
            if (value := getattr(flags, name))
        ]
        next_steps.show(
            next_steps.python(
                'launch.tpu_vm', 'setup', machine.name, f'--zone={flags.zone}', *places
            )
        )
    return 0


def _require_ready(machine: Machine, flags: argparse.Namespace) -> None:
    if flags.dry_run:
        return
    state = machine.state()
    if state != READY:
        raise UserError(f'{machine.name} in {flags.zone} is {state}; it must be {READY}.')


def _setup(machine: Machine, flags: argparse.Namespace, run_command: list[str]) -> int:
    del run_command
    _require_ready(machine, flags)
    commit = machine.setup(flags.bucket, flags.corpus)
    print(f'Every host of {machine.name} has commit {commit[:12]}.')
    return 0


def _run(machine: Machine, flags: argparse.Namespace, run_command: list[str]) -> int:
    _require_ready(machine, flags)
    machine.run(run_command)
    project = [f'--project={flags.project}'] if flags.project else []
    next_steps.show(
        next_steps.python('launch.tpu_vm', 'logs', machine.name, f'--zone={flags.zone}', *project),
        title='It runs. See it with',
    )
    return 0


def _logs(machine: Machine, flags: argparse.Namespace, run_command: list[str]) -> int:
    del run_command
    _require_ready(machine, flags)
    machine.logs(flags.lines, flags.follow)
    return 0


def _status(machine: Machine, flags: argparse.Namespace, run_command: list[str]) -> int:
    del run_command
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


def _stop(machine: Machine, flags: argparse.Namespace, run_command: list[str]) -> int:
    del run_command
    _require_ready(machine, flags)
    machine.stop()
    print(f'The run on {machine.name} has saved and ended. The machine is still there, and costs.')
    return 0


def _delete(machine: Machine, flags: argparse.Namespace, run_command: list[str]) -> int:
    del run_command
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


def _up(machine: Machine, flags: argparse.Namespace, run_command: list[str]) -> int:
    if flags.dry_run:
        machine.state()
        machine.create()
        machine.setup(flags.bucket, flags.corpus)
        machine.run(run_command)
        machine.progress()
        return 0
    options = WatchOptions(
        flags.bucket, flags.corpus, flags.poll, flags.lines, flags.delete_when_done
    )
    try:
        return Watch(machine, run_command, options).run()
    except KeyboardInterrupt:
        print(
            f'\nNo longer watched. {machine.name} runs on, and costs; the same command watches it '
            f'again, stop and delete end it.'
        )
        return 130


ACTIONS = {
    'create': _create,
    'setup': _setup,
    'run': _run,
    'logs': _logs,
    'status': _status,
    'stop': _stop,
    'delete': _delete,
    'up': _up,
}
