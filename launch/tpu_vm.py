"""Runs on Cloud TPU VMs, through gcloud: `python -m launch.tpu_vm --help`."""

import argparse
from collections.abc import Sequence

from albert_jax.cli import command
from albert_jax.cli.errors import UserError
from launch.actions import ACTIONS
from launch.gcloud import Gcloud
from launch.machine import Description, Machine, check

_HELP = {
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


def main(arguments: Sequence[str]) -> int:
    """Does one action."""
    own, run_command = _split(list(arguments))
    flags = _parser().parse_args(own)
    if flags.action in ('run', 'up') and not run_command:
        raise UserError(f'{flags.action} needs the command to run, after --.')
    if flags.action not in ('run', 'up') and run_command:
        raise UserError(f'{flags.action} takes no command; {run_command[0]!r} follows --.')
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
    return ACTIONS[flags.action](machine, flags, run_command)


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The arguments of this command, and the command to run, which follows `--`."""
    end = arguments.index('--') if '--' in arguments else len(arguments)
    return arguments[:end], arguments[end + 1 :]


def _parser() -> argparse.ArgumentParser:
    actions = '\n'.join(f'  {name:7} {text}' for name, text in _HELP.items())
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
    parser.add_argument('--follow', action='store_true', help='keep showing the log')
    parser.add_argument('--confirm', default='', metavar='NAME', help='delete without asking')
    parser.add_argument(
        '--delete_when_done', action='store_true', help='up deletes the machine when finished'
    )
    parser.add_argument('--dry_run', action='store_true', help='print the commands, run none')
    return parser


if __name__ == '__main__':
    command.run(main)
