"""How far the members of a sweep are, as a table on the terminal."""

import dataclasses
from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from launch.record import FAILED, FINISHED, PRUNED, RUNNING, STOPPED, WAITING

_NOT_SHOWN = ('step', 'split', 'speed', 'learning_rate', 'skipped_steps', 'grad_norm')
_STYLES = {FINISHED: 'green', FAILED: 'red', RUNNING: 'yellow'}
# Of the stages of a member that are not finished, the first of these is shown.
_SHOWN_FIRST = (RUNNING, FAILED, STOPPED, PRUNED, WAITING)
# Names, and whether they hold numbers.
_COLUMNS = (
    ('member', False), ('done', True), ('now', False), ('state', False), ('step', True),
    ('results', False), ('time', True), ('ETA', True),
)  # fmt: skip


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
    members: Sequence[MemberProgress],
    has_results: bool = False,
    num_to_come: int = 0,
    is_short: bool = False,
) -> Table:
    """A row for each member: its finished stages, and the one that is most of interest now.

    A column that is empty in all rows is left out.

    Args:
      members: so far.
      has_results: whether every stage that is finished has a line with what it reached.
      num_to_come: stages of members that are not decided on yet.
      is_short: whether only members that run have a row.
    """
    states = [stage.state for member in members for stage in member.stages]
    num_pruned = states.count(PRUNED)
    pruned = f', {num_pruned} {PRUNED}' if num_pruned else ''
    title = f'{states.count(FINISHED)} of {len(states) + num_to_come} finished{pruned}'
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    rows = [
        _cells(member, has_results)
        for member in members
        if not is_short or any(stage.state == RUNNING for stage in member.stages)
    ]
    shown = [place for place in range(len(_COLUMNS)) if any(row[place] for row in rows)]
    for name, is_number in (_COLUMNS[place] for place in shown):
        fold = name in ('member', 'results')
        table.add_column(
            name, justify='right' if is_number else 'left', no_wrap=not fold, overflow='fold'
        )
    for row in rows:
        table.add_row(*(row[place] for place in shown))
    return table


def _cells(member: MemberProgress, has_results: bool) -> list[Text]:
    unfinished = [stage for stage in member.stages if stage.state != FINISHED]
    done = f'{len(member.stages) - len(unfinished)}/{len(member.stages)}'
    total = sum(stage.seconds for stage in member.stages)
    time = format_duration(total) if total else ''
    results = [
        f'{stage.name}: {stage.metrics}'
        for stage in member.stages
        if has_results and stage.state == FINISHED and stage.metrics
    ]
    name, state, step, eta = '', FINISHED, '', ''
    if unfinished:
        now = min(unfinished, key=lambda stage: _SHOWN_FIRST.index(stage.state))
        name, state, step, eta = now.name, now.state, now.step, now.eta
        results += [now.metrics] if now.metrics else []
    style = _STYLES.get(state, 'dim')
    cells = [member.name, done, name, Text(state, style), step, '\n'.join(results), time, eta]
    return [Text(cell) if isinstance(cell, str) else cell for cell in cells]


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
