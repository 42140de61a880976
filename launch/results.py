"""Results of a sweep so far: a table of numbers with their spread, and learning curves."""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from albert_jax.cli.errors import UserError
from configs.finetune import SEQ2SEQ
from launch import compute, record
from launch.plan import Plan, PlannedMember, PlannedStage
from launch.stages import INTRINSIC, PAIRS, PRETRAIN

# The average of the paper takes the mean of these for the SQuADs, and the accuracy of the others.
_AVERAGED = {
    'squad1': ('exact_match', 'f1'),
    'squad2': ('best_exact_match', 'best_f1'),
}
_NO_CURVE = ('learning_rate', 'grad_norm')
PARAMETERS, AVERAGE = 'parameters', 'average'
FLOPS, COMPUTE_TO_REACH = 'flops', 'compute_to_reach'


@dataclasses.dataclass(frozen=True)
class Cell:
    """A measured number over seeds, or why there is none."""

    # Of the seeds that are finished.
    values: tuple[float, ...]
    # Finished or not.
    num_seeds: int
    # Of the stages that the number needs, where not all are finished.
    state: str = ''

    @property
    def mean(self) -> float:
        """Over the seeds that are finished; not a number if none is."""
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def spread(self) -> float | None:
        """Sample standard deviation over seeds; None for fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def text(self, title: str) -> str:
        """Mean and spread, as in 80.1 ± 0.3, or the state if no seed is finished.

        Args:
          title: of the column, which decides the number of decimals and the unit.
        """
        if not self.values:
            return self.state
        if 'FLOP' in title:
            return f'{self.mean:.2e}'
        digits = num_digits(title)
        shown = f'{self.mean:.{digits}f}'
        if self.spread is not None:
            shown += f' ± {self.spread:.{digits}f}'
        if title == PARAMETERS:
            shown += ' M'
        missing = self.num_seeds - len(self.values)
        return f'{shown} ({missing} of {self.num_seeds} {self.state})' if missing else shown


def num_digits(title: str) -> int:
    """Decimals of a column: two of a loss or a ratio, one of a number in per cent."""
    return 2 if title == PARAMETERS or 'loss' in title or 'compute' in title else 1


@dataclasses.dataclass(frozen=True)
class Row:
    """A member over all its seeds."""

    name: str
    cells: Mapping[str, Cell]
    published: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Curve:
    """A metric of a stage by step."""

    member: str
    row: str
    stage: str
    split: str
    metric: str
    points: Sequence[tuple[int, float]]


class StageStatus(TypedDict):
    """A stage as the report shows it."""

    member: str
    stage: str
    state: str
    # The last that was logged.
    step: int
    num_steps: int
    # Over all processes that worked on it.
    seconds: float
    # Its error, if it has failed.
    message: str
    settings: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Results:
    """All that a report shows."""

    title: str
    sweep: str
    source: str
    titles: Sequence[str]
    published_titles: Sequence[str]
    rows: Sequence[Row]
    stages: Sequence[StageStatus]
    curves: Sequence[Curve]


def read(root: Path) -> Results:
    """The results in a sweep's folder.

    Args:
      root: `--workdir` of launch.sweep.

    Raises:
      UserError: if it is not the folder of a sweep, or a file in it is damaged.
    """
    plan = read_plan(root)
    try:
        return _read(root, plan)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f'{root} holds a file that is not what launch.sweep writes ({error!r}); start the '
            f'sweep again there.'
        ) from error


def read_plan(root: Path) -> Plan:
    """The plan in a sweep's folder.

    Raises:
      UserError: if it is not the folder of a sweep, or the plan is damaged.
    """
    if not (root / record.PLAN_FILE).exists():
        raise UserError(
            f'{root} is not the folder of a sweep (there is no {record.PLAN_FILE}); give the '
            f'--workdir of python -m launch.sweep.'
        )
    return record.read_json(root / record.PLAN_FILE)


def _read(root: Path, plan: Plan) -> Results:
    members, columns, published = plan['members'], plan['columns'], plan['published']
    names = list(dict.fromkeys(member['row'] for member in members))
    rows = []
    for name in names:
        own = [member for member in members if member['row'] == name]
        cells = {title: _cell(root, plan, own, address) for address, title in columns.items()}
        rows.append(Row(name, cells, published.get(name, {})))
    # A published row that was not run here still belongs beside ours.
    rows += [Row(name, {}, cells) for name, cells in published.items() if name not in names]
    published_titles = dict.fromkeys(title for row in rows for title in row.published)
    stages = [stage_status(root, member, stage) for member in members for stage in member['stages']]
    curves = [curve for member in members for curve in curves_of(root, member)]
    return Results(
        plan['title'], plan['sweep'], plan['source'], list(columns.values()),
        list(published_titles), rows, stages, curves,
    )  # fmt: skip


def _cell(root: Path, plan: Plan, members: Sequence[PlannedMember], address: str) -> Cell:
    values: list[float] = []
    states: list[str] = []
    for member in members:
        number, state = value(root, plan, member, address)
        if number is None or not math.isfinite(number):
            states.append(state or 'undefined')
        else:
            values.append(number)
    if address in (PARAMETERS, FLOPS):
        # The same for every seed.
        return Cell(tuple(values[:1]), 1, states[0] if states else '')
    return Cell(tuple(values), len(members), _worst(states))


def _worst(states: Sequence[str]) -> str:
    order = (record.FAILED, 'undefined', record.STOPPED, record.RUNNING, record.WAITING)
    return next((state for state in order if state in states), next(iter(states), ''))


def value(root: Path, plan: Plan, member: PlannedMember, address: str) -> tuple[float | None, str]:
    """A number in the paper's unit (per cent), or the state of the stage that it waits for.

    Args:
      root: folder of the sweep.
      plan: of the sweep.
      member: of it.
      address: of the column.
    """
    if address == PARAMETERS:
        return (member['num_params'] / 1e6 if member['num_params'] else None), ''
    if address == FLOPS:
        return member.get('flops'), 'unknown'
    if address == COMPUTE_TO_REACH:
        return compute.ratio_to_reach(root, plan, member)
    if address == AVERAGE:
        return _average(root, plan, member)
    return _metric(root, member, address)


def _metric(root: Path, member: PlannedMember, address: str) -> tuple[float | None, str]:
    name, _, metric = address.partition('.')
    key = f'{member["name"]}/{name}'
    state = record.read_record(root, key).state
    if state != record.FINISHED:
        return None, state
    metrics = _metrics(root, key, name)
    value = metrics.get(metric)
    if value is None:
        return None, 'undefined'
    # Scores of texts are of a hundred already.
    return (value if metric.endswith('loss') or name in SEQ2SEQ else 100 * value), ''


def _average(root: Path, plan: Plan, member: PlannedMember) -> tuple[float | None, str]:
    """The mean over tasks, or the state of the first stage that is not finished."""
    means = []
    for stage in member['stages']:
        task = stage['name']
        if task in (PRETRAIN, INTRINSIC, PAIRS):
            continue
        names = _AVERAGED.get(task, ('accuracy',))
        values = [value(root, plan, member, f'{task}.{name}') for name in names]
        missing = next((state for value, state in values if value is None), None)
        if missing is not None:
            return None, missing
        means.append(statistics.fmean(value for value, _ in values if value is not None))
    return statistics.fmean(means), ''


def _metrics(root: Path, key: str, name: str) -> dict[str, float]:
    if name == PRETRAIN:
        lines = record.metric_lines(root, key)
        return next((line for line in reversed(lines) if line['split'] == 'validation'), {})
    content = record.read_json(root / key / 'results.json')
    # Over several seeds of one fine-tuning, the paper's median.
    return {
        metric: value['median'] if isinstance(value, dict) else value
        for metric, value in content.items()
    }


def stage_status(root: Path, member: PlannedMember, stage: PlannedStage) -> StageStatus:
    """How far a stage of a member is."""
    status = record.read_record(root, stage['key'])
    has_failed = status.state == record.FAILED
    return {
        'member': member['name'],
        'stage': stage['name'],
        'state': status.state,
        'step': record.last_line(root, stage['key']).get('step', 0),
        'num_steps': stage['num_steps'],
        'seconds': status.seconds,
        'message': record.log_tail(root, stage['key']) if has_failed else '',
        'settings': dict(status.settings),
    }


def curves_of(root: Path, member: PlannedMember) -> list[Curve]:
    """The metrics of a member's stages by step."""
    curves: dict[tuple[str, str, str], list[tuple[int, float]]] = {}
    for stage in member['stages']:
        for line in record.metric_lines(root, stage['key']):
            for metric, value in line.items():
                is_number = isinstance(value, float) and math.isfinite(value)
                if is_number and metric not in _NO_CURVE and not metric.endswith('threshold'):
                    key = (stage['name'], line['split'], metric)
                    curves.setdefault(key, []).append((line['step'], value))
    return [Curve(member['name'], member['row'], *key, points) for key, points in curves.items()]
