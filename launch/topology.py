"""What a member of a sweep is on a machine of its own: this sweep again, for that member alone."""

import argparse

from albert_jax.cli.errors import UserError
from albert_jax.planning.topologies import Slice, parse
from launch.machine import check
from launch.stages import Member

# Chips of the largest slice that is one host.
_CHIPS_OF_A_HOST = {'v2': 4, 'v3': 4, 'v4': 4, 'v5e': 8, 'v5p': 4, 'v6e': 8}


def check_one_host(topology: str | None) -> Slice:
    """The slice for each member.

    Raises:
      UserError: if none is given, or it has several hosts: fine-tunings run on one.
    """
    if not topology:
        raise UserError('--topology is missing; give the slice for each member, as in v5e:2x4.')
    where = parse(topology)
    most = _CHIPS_OF_A_HOST.get(where.chip.kind, 0)
    if where.num_chips > most:
        raise UserError(
            f'--topology={topology} has several hosts, and the fine-tunings of a member run on '
            f'one (up to {most} chips of {where.chip.kind}). Pretrain on a pod with python -m '
            f'launch.tpu_vm up, then fine-tune from its checkpoint.'
        )
    return where


def check_shared_folder(flags: argparse.Namespace) -> None:
    """Refuses folders that would go away with the machines.

    Raises:
      UserError: if there is no bucket, or --workdir is not in it.
    """
    if not flags.bucket:
        raise UserError(
            f'--runner={flags.runner} needs --bucket=gs://NAME, where members leave all.'
        )
    check('--bucket', flags.bucket)
    if flags.corpus:
        check('--corpus', flags.corpus)
    if not flags.workdir.startswith('/mnt/bucket/'):
        raise UserError(
            f'--workdir={flags.workdir}: members leave all in the bucket, which their machines '
            f'have at /mnt/bucket; give a folder below it.'
        )


def member_command(member: Member, flags: argparse.Namespace) -> list[str]:
    """The command that runs one member, as a list of arguments, in the folder of the sweep."""
    command = [
        'python', '-m', 'launch.sweep', f'--sweep={flags.sweep}', f'--workdir={flags.workdir}',
        f'--only={member.change.name}',
    ]  # fmt: skip
    command += [f'--override={override}' for override in flags.override]
    return [*command, *([f'--seeds={flags.seeds}'] if flags.seeds else [])]
