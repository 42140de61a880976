"""How far the members of a sweep are, as a table on the terminal."""

import dataclasses
from collections.abc import Mapping, Sequence

from rich.table import Table

from launch.record import FAILED, FINISHED, PRUNED, RUNNING, STOPPED, WAITING

_NOT_SHOWN = ('step', 'split', 'speed', 'learning_rate', 'skipped_steps', 'grad_norm')
_STYLES = {FINISHED: 'green', FAILED: 'red', RUNNING: 'yellow'}
# Of the stages of a member that are not finished, the first of these is shown.
_SHOWN_FIRST = (RUNNING, FAILED, STOPPED, PRUNED, WAITING)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageProgress:
    """How far a stage is; texts are empty where nothing is known."""

    name: str
    state: str
    # Over all processes that worked on it.
    seconds: float
    # As in `300/1000`.
    step: str
    metrics: str
    # Time left, as in `0:12:05`.
    eta: str


@dataclasses.dataclass(frozen=True)
class MemberProgress:
    """A member and its stages, in order."""

    name: str
    stages: Sequence[StageProgress]


def progress_table(
    members: Sequence[MemberProgress], num_to_come: int = 0, is_short: bool = False
) -> Table:
    """A row for each member: its finished stages, and the one that is most of interest now.

    Args:
      members: so far.
      num_to_come: stages of members that are not decided on yet.
      is_short: whether only members that run have a row.
    """
    states = [stage.state for member in members for stage in member.stages]
    num_pruned = states.count(PRUNED)
    pruned = f', {num_pruned} {PRUNED}' if num_pruned else ''
    table = Table(title=f'{states.count(FINISHED)} of {len(states) + num_to_come} finished{pruned}')
    for name in ('member', 'done', 'now', 'state', 'step', '', 'time', 'ETA'):
        is_number = name in ('done', 'step', 'time', 'ETA')
        table.add_column(name, justify='right' if is_number else 'left')
    for member in members:
        if not is_short or any(stage.state == RUNNING for stage in member.stages):
            table.add_row(member.name, *_cells(member))
    return table


def _cells(member: MemberProgress) -> list[str]:
    unfinished = [stage for stage in member.stages if stage.state != FINISHED]
    done = f'{len(member.stages) - len(unfinished)}/{len(member.stages)}'
    total = sum(stage.seconds for stage in member.stages)
    time = format_duration(total) if total else ''
    if not unfinished:
        return [done, '', f'[{_STYLES[FINISHED]}]{FINISHED}[/]', '', '', time, '']
    shown = min(unfinished, key=lambda stage: _SHOWN_FIRST.index(stage.state))
    state = f'[{_STYLES.get(shown.state, "dim")}]{shown.state}[/]'
    return [done, shown.name, state, shown.step, shown.metrics, time, shown.eta]


def format_metrics(line: Mapping[str, object]) -> str:
    """The first two metrics of a line of metrics.jsonl, as in `loss 5.464 mlm_accuracy 0.152`."""
    metrics = {
        name: value
        for name, value in line.items()
        if name not in _NOT_SHOWN and isinstance(value, float)
    }
    return ' '.join(f'{name} {value:.4g}' for name, value in list(metrics.items())[:2])


def format_duration(seconds: float) -> str:
    """Hours, minutes and seconds, as in `1:02:03`."""
    num_seconds = int(seconds)
    return f'{num_seconds // 3600}:{num_seconds // 60 % 60:02d}:{num_seconds % 60:02d}'
