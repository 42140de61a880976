"""Members of a sweep on Cloud TPU VMs of their own, so many at a time."""

import argparse
import concurrent.futures
import sys
from collections.abc import Sequence
from pathlib import Path

from albert_jax.errors import UserError
from launch import tpu_vm
from launch.machine import check_bucket
from launch.stages import Member
from launch.topology import check_one_host, member_command


def arguments_of(member: Member, flags: argparse.Namespace) -> list[str]:
    """What `python -m launch.tpu_vm` is told for a member."""
    prefix = Path(flags.workdir).name.lower().replace('_', '-').replace('.', '-')
    name = f'{prefix}-{member.change.name}'.replace('_', '-').replace('.', '-')[:62]
    options = ['--delete_when_done', f'--topology={flags.topology}']
    for flag in ('zone', 'project', 'bucket', 'service_account', 'runtime', 'network', 'corpus'):
        value = getattr(flags, flag)
        options += [f'--{flag}={value}'] if value else []
    options += ['--spot'] if flags.spot else []
    options += ['--dry_run'] if flags.dry_run else []
    return ['up', name, *options, '--', *member_command(member, flags)]


def run_members(members: Sequence[Member], flags: argparse.Namespace) -> int:
    """Brings up a machine for each member, watches it, and deletes it when the member is finished.

    Raises:
      UserError: if the flags cannot be; what goes wrong with one member is told at the end.
    """
    check_one_host(flags.topology)
    check_bucket(flags.bucket)
    for flag in ('zone', 'bucket'):
        if not getattr(flags, flag):
            raise UserError(f'--runner=tpu_vm needs --{flag}.')
    if not flags.workdir.startswith('/mnt/bucket/'):
        raise UserError(
            f'--workdir={flags.workdir}: members leave all in the bucket, which their machines '
            f'have at /mnt/bucket; give a folder below it.'
        )

    def run(member: Member) -> int:
        try:
            return tpu_vm.main(arguments_of(member, flags))
        except UserError as error:
            print(f'error: {member.change.name}: {error}', file=sys.stderr, flush=True)
            return 2

    with concurrent.futures.ThreadPoolExecutor(flags.jobs) as pool:
        statuses = dict(zip((m.change.name for m in members), pool.map(run, members), strict=True))
    failed = [name for name, status in statuses.items() if status]
    if failed:
        print(
            f'{len(failed)} of {len(members)} members failed: {", ".join(failed)}. Their machines '
            f'are still there, and cost.'
        )
    else:
        print(f'All {len(members)} members are finished; report on the folder in the bucket.')
    return 1 if failed else 0
