"""Members of a sweep on Cloud TPU VMs of their own, so many at a time."""

import argparse
import hashlib
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from albert_jax.cli.errors import UserError
from launch.stages import Member
from launch.topology import check_one_host, check_shared_folder, member_command

_LONGEST_NAME = 50
_POLL_SECONDS = 1.0


def machine_name(workdir: str, member: str) -> str:
    """A name for a member's machine that no other member has."""
    plain = f'{Path(workdir).name}-{member}'.lower().replace('_', '-').replace('.', '-')
    name = plain if plain[0].isalpha() else f'sweep-{plain}'
    if len(name) > _LONGEST_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        name = f'{name[:_LONGEST_NAME]}-{digest}'
    return name


def arguments_of(member: Member, flags: argparse.Namespace) -> list[str]:
    """What `python -m launch.tpu_vm` is told for a member."""
    options = ['--delete_when_done', f'--topology={flags.topology}']
    for flag in ('zone', 'project', 'bucket', 'service_account', 'runtime', 'network', 'corpus'):
        value = getattr(flags, flag)
        options += [f'--{flag}={value}'] if value else []
    options += ['--spot'] if flags.spot else []
    options += ['--dry_run'] if flags.dry_run else []
    name = machine_name(flags.workdir, member.change.name)
    return ['up', name, *options, '--', *member_command(member, flags)]


def run_members(members: Sequence[Member], flags: argparse.Namespace) -> int:
    """Brings up a machine for each member, watches it, and deletes it when the member is finished.

    Raises:
      UserError: if the flags cannot be; what goes wrong with one member is told at the end.
    """
    check_one_host(flags.topology)
    check_shared_folder(flags)
    if not flags.zone:
        raise UserError('--runner=tpu_vm needs --zone.')
    waiting = [(m.change.name, arguments_of(m, flags)) for m in members]
    running: dict[str, subprocess.Popen[bytes]] = {}
    failed: list[str] = []
    try:
        while waiting or running:
            while waiting and len(running) < flags.jobs:
                name, arguments = waiting.pop(0)
                running[name] = subprocess.Popen(
                    [sys.executable, '-m', 'launch.tpu_vm', *arguments]
                )
            for name, process in list(running.items()):
                if process.poll() is not None:
                    del running[name]
                    failed += [name] if process.returncode else []
            time.sleep(_POLL_SECONDS if not flags.dry_run else 0.05)
    except KeyboardInterrupt:
        # Ctrl-C has reached each of them too: they stop watching, and their machines run on.
        for process in running.values():
            process.wait()
        print('No longer watched; the same command watches again. These run on, and cost:')
        for name in running:
            print(f'  {machine_name(flags.workdir, name)}')
        return 130
    if failed:
        print(
            f'{len(failed)} of {len(members)} members failed: {", ".join(failed)}. Their machines '
            f'are still there, and cost.'
        )
        return 1
    print(f'All {len(members)} members are finished; report on the folder in the bucket.')
    return 0
