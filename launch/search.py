"""Searches for the settings of a fine-tuning: `python -m launch.search --help`."""

import argparse
import dataclasses
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from albert_jax.cli import command
from albert_jax.cli.errors import UserError
from albert_jax.cli.notes import note
from albert_jax.cli.paths import expand, local_path
from albert_jax.runs.runs import FinetuneRun
from configs.search_space import Search
from launch import record, search_members, search_report, stages
from launch.local import LocalRunner
from launch.search_members import Trials

_DESCRIPTION = """\
Search for the settings of a fine-tuning: trials of a space of parameters, chosen by Optuna or as a
grid, beside the default settings. Trials that fall behind are stopped. Resumes when it is started
again. Needs the extra search, and --dry_run does not.
"""
_EPILOG = """\
studies:
  configs/searches/finetuning.py:NAME  with NAME mrpc (rate, batch, epochs and warm-up) or mrpc-grid
    (the twenty combinations of Turc et al.)

examples:
  python -m launch.search --study=configs/searches/finetuning.py:mrpc --workdir=runs/search \\
      --override init_from=albert-base-v2 --override data.path=GLUE/MRPC
  python -m launch.search --report=runs/search    (what it has found so far)

An override names a field of the config and a value, for all runs of the search.
"""


def main(arguments: Sequence[str]) -> int:
    """Checks the search, runs it, and shows what it has found."""
    flags = _parser().parse_args(arguments)
    if flags.report:
        others = ('workdir', 'override', 'trials', 'dry_run')
        given = next((name for name in others if getattr(flags, name)), None)
        if given:
            raise UserError(f'--{given} is for --study; --report=DIR shows what is there.')
        _check_optuna()
        _report(flags.report)
        return 0
    if not flags.workdir:
        raise UserError('--study needs --workdir=DIR, the folder of all runs of the search.')
    for name in ('jobs', 'trials'):
        number = getattr(flags, name)
        if number is not None and number < 1:
            raise UserError(f'--{name}={number}: it must be 1 or above.')
    return run(flags)


def _parser() -> argparse.ArgumentParser:
    parser = command.parser('launch.search', _DESCRIPTION, _EPILOG, FinetuneRun)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument('--study', type=expand, metavar='FILE:NAME', help='what to search')
    what.add_argument(
        '--report', type=local_path, metavar='DIR', help='show what a search has found so far'
    )
    parser.add_argument('--workdir', type=local_path, help='folder of all runs')
    parser.add_argument(
        '--override', action='append', default=[], metavar='FIELD=VALUE',
        help='set a field of all runs; may be given again',
    )  # fmt: skip
    parser.add_argument('--jobs', type=int, default=1, help='runs at a time (1)')
    parser.add_argument('--trials', type=int, help="so many of them, in place of the study's")
    parser.add_argument('--dry_run', action='store_true', help='show the space and the commands')
    return parser


def run(flags: argparse.Namespace) -> int:
    """Checks all corners of the space, then runs the trials that are missing; the exit status.

    Raises:
      UserError: if the study, an override or the folder is wrong, or Optuna is not installed.
    """
    search = search_members.read_search(flags.study)
    overrides = search_members.read_overrides(flags.override)
    trials = Trials(flags.study, search, overrides, flags.workdir)
    num_trials = _num_trials(search, flags.trials)
    if not flags.dry_run:
        _check_optuna()
    trials.check(has_inputs=not flags.dry_run)
    trials.check_folder()
    default = trials.default
    record.check_same(flags.workdir, [default])
    if flags.dry_run:
        _show_plan(trials, num_trials)
        return 0
    from launch.search_study import Feed

    runner = LocalRunner(flags.workdir, [default], flags.jobs, feed=Feed(trials, num_trials))
    status = runner.run(trials.write_identity)
    _report(flags.workdir)
    return status


def _num_trials(search: Search, given: int | None) -> int:
    number = given or search.num_trials
    if search.sampler != 'grid':
        assert number is not None
        return number
    num_combinations = len(search.corners())
    if number is not None and number > num_combinations:
        note(f'the grid has {num_combinations} combinations, so that there are no more trials.')
    return min(number or num_combinations, num_combinations)


def _check_optuna() -> None:
    if importlib.util.find_spec('optuna') is None:
        raise UserError("launch.search needs Optuna; run pip install -e '.[search]' first.")


def _report(root: Path) -> None:
    search_members.read_identity(root)
    from launch.search_study import read_parameters

    search_report.show(root, search_report.read(root, read_parameters(root)))


def _show_plan(trials: Trials, num_trials: int) -> None:
    """The space, and the commands: of a grid all, of another space the first corner's."""
    search = trials.search
    print(f'{search.title}: the default and {num_trials} trials, the best by {search.metric}.')
    for name, values in search.space.items():
        shown = ' '.join(f'{key}={value}' for key, value in dataclasses.asdict(values).items())
        print(f'  {name}: {type(values).__name__} {shown}')
    corners = search.corners()
    is_grid = search.sampler == 'grid'
    members = [
        trials.member(number, parameters)
        for number, parameters in enumerate(corners[: num_trials if is_grid else 1])
    ]
    print('The default:')
    _print_commands([trials.default], trials.root)
    print(
        'The trials:' if is_grid else 'A trial, where each parameter has its lowest or first value:'
    )
    _print_commands(members, trials.root)


def _print_commands(members: Sequence[stages.Member], root: Path) -> None:
    for member in members:
        for stage in member.stages:
            print(stages.shell_line(stage.arguments(str(root))))


if __name__ == '__main__':
    command.run(main)
