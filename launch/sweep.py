"""Runs every member of a sweep: `python -m launch.sweep --help`."""

import argparse
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

from albert_jax.cli import command, next_steps
from albert_jax.cli.errors import UserError, raise_all
from albert_jax.cli.notes import note
from albert_jax.cli.paths import expand
from albert_jax.runs.runs import FinetuneRun, PretrainRun
from configs.changes import Sweep, seeds
from launch import fleet, plan, record, skypilot, stages
from launch.local import LocalRunner
from launch.stages import Member

RUNNERS = ('local', 'tpu_vm', 'skypilot')

_DESCRIPTION = """\
Run a table of the paper, or one of your own: every member of a sweep, pretraining first, then its
fine-tunings. Shows the plan and what it costs before it starts, continues when a member fails, and
resumes when it is started again: nothing that is finished runs twice.
"""
_EPILOG = """\
sweeps:
  configs/sweeps/NAME.py:SCALE  with SCALE base (for TPUs) or mini (for a laptop), and NAME one of
    embedding sharing groups sentence_loss depth width dropout added_data ngram equal_time;
    configs/sweeps/price_of_sharing.py:SCALE  loops and layers at three widths;
    configs/sweeps/recipe.py:mini  takes the recipe of today apart, at equal FLOPs
    configs/sweeps/tasks.py  fine-tunes one checkpoint on every task, against random weights;
    configs/sweeps/decoder_sharing.py:SCALE  translation by decoders that share more or less;
    configs/sweeps/splitting.py:SCALE  one sentence into two, against random weights

examples:
  python -m launch.sweep --sweep=configs/sweeps/sharing.py:mini --workdir=runs/sharing \\
      --override pretrain.data.path=runs/corpus --override sst2.data.path=GLUE/SST-2 --dry_run
  python -m launch.sweep --sweep=configs/sweeps/sharing.py:base --workdir=/mnt/bucket/sharing \\
      --override pretrain.data.path=/mnt/bucket/corpus --topology=v5e:4x4 --price=1.2 --dry_run
  python -m launch.report runs/sharing

An override names a part (pretrain, finetune for all tasks, or one task), a field and a value;
MEMBER/ before it makes it for one member. Whatever it is, it holds for all processes that need it.
"""


def main(arguments: Sequence[str]) -> int:
    """Shows the plan, then runs it."""
    flags = _parser().parse_args(arguments)
    if flags.jobs < 1:
        raise UserError(f'--jobs={flags.jobs}: it must be 1 or above.')
    if flags.seeds is not None and flags.seeds < 1:
        raise UserError(f'--seeds={flags.seeds}: it must be 1 or above.')
    if flags.price is not None and not (flags.topology and flags.price >= 0):
        raise UserError('--price is of a chip-hour, 0 or above, and needs --topology.')
    return run(flags)


def _parser() -> argparse.ArgumentParser:
    parser = command.parser('launch.sweep', _DESCRIPTION, _EPILOG, PretrainRun, FinetuneRun)
    parser.add_argument(
        '--sweep', required=True, type=expand, metavar='FILE:SCALE', help='what to run'
    )
    parser.add_argument('--workdir', required=True, type=expand, help='folder of all members')
    parser.add_argument(
        '--override', action='append', default=[], metavar='PART.FIELD=VALUE',
        help='change a field; may be given again',
    )  # fmt: skip
    parser.add_argument(
        '--runner', choices=RUNNERS, default='local', help='where members run (local)'
    )
    parser.add_argument('--seeds', type=int, help='run every member with so many')
    parser.add_argument(
        '--only', action='append', default=[], metavar='MEMBER',
        help='run that one alone; may be given again for more of them',
    )  # fmt: skip
    parser.add_argument(
        '--jobs', type=int, default=1, help='members at a time (1), each with its part of the cores'
    )
    parser.add_argument('--dry_run', action='store_true', help='show the plan, run nothing')
    parser.add_argument('--topology', help='the slice that costs are for, as in v5e:4x4')
    parser.add_argument(
        '--price', type=float, help='of one chip-hour, in any currency: adds the costs in it'
    )
    remote = parser.add_argument_group('for --runner=tpu_vm and skypilot')
    remote.add_argument('--zone', default='', help='of the machines, as in us-west4-a')
    remote.add_argument('--bucket', default='', help='gs://NAME, at /mnt/bucket of each machine')
    for name in ('project', 'service_account', 'runtime', 'network', 'corpus'):
        remote.add_argument(f'--{name}', default='', help='as for tpu_vm')
    remote.add_argument('--spot', action='store_true', help='as for tpu_vm')
    return parser


def run(flags: argparse.Namespace) -> int:
    """Reads and shows the sweep, and runs the members that are not finished; the exit status.

    Raises:
      UserError: if the sweep, an override or a flag is wrong, or a runner refuses it.
    """
    sweep, members = _read(flags)
    names = [member.change.name for member in members]
    for name in flags.only:
        if name not in names:
            raise UserError(
                f'--only={name}: there is no such member in this sweep; there are '
                f'{", ".join(names)}.'
            )
    selected = [member for member in members if not flags.only or member.change.name in flags.only]
    if flags.runner != 'local' and any(member.change.after for member in members):
        raise UserError(
            'Members of this sweep start from one another, so they run one after the other on one '
            'machine: start it there with --runner=local (launch/README.md).'
        )
    from launch import cost  # imports JAX

    root = Path(flags.workdir)
    if flags.runner == 'local':
        record.check_same(root, members)
    is_here = flags.runner == 'local'
    cost.show(sweep, members, root, flags.topology, flags.price, is_here)
    if flags.runner == 'skypilot':
        return skypilot.run_members(selected, flags)
    if flags.runner == 'tpu_vm':
        return fleet.run_members(selected, flags)
    if flags.dry_run:
        _print_commands(selected, flags.workdir)
        # They may be made before the sweep is started, so they are no mistake yet.
        for missing in stages.missing_inputs(selected) + stages.unnamed_inputs(selected):
            note(missing)
        return 0
    raise_all([UserError(missing) for missing in stages.missing_inputs(selected)])
    for unnamed in stages.unnamed_inputs(selected):
        note(unnamed)
    content = plan.make_plan(
        flags.sweep, sweep, members, cost.num_params(members), cost.pretraining_flops(members),
        cost.uses(members), cost.num_tokens(members),
    )  # fmt: skip
    status = LocalRunner(root, selected, flags.jobs, flags.only).run(
        functools.partial(plan.write_plan, root, content)
    )
    next_steps.show(next_steps.python('launch.report', str(root)), title='See it with')
    return status


def _read(flags: argparse.Namespace) -> tuple[Sweep, list[Member]]:
    """The sweep of `--sweep` and its members, with their seeds and overrides."""
    sweep = stages.read_sweep(flags.sweep)
    if flags.seeds:
        sweep = dataclasses.replace(sweep, members=seeds(sweep.members, flags.seeds))
    return sweep, stages.make_members(sweep, stages.read_overrides(flags.override))


def _print_commands(members: Sequence[Member], workdir: str) -> None:
    """One line for each stage: the command that the sweep would start."""
    for member in members:
        for stage in member.stages:
            print(stages.shell_line(stage.arguments(str(Path(workdir)))))


if __name__ == '__main__':
    command.run(main)
