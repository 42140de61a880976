"""Two rows of a sweep's table beside each other, seed by seed."""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from scipy import stats

from albert_jax.cli.errors import UserError
from launch import results
from launch.plan import PlannedMember
from launch.results import FLOPS, PARAMETERS

LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A column of the table for two rows.

    Args:
      title: of the column.
      first: values of the first row by seed, in the table's unit.
      second: of the second row.
      missing: members that have no value, and why.
    """

    title: str
    first: Mapping[str, float]
    second: Mapping[str, float]
    missing: Mapping[str, str]

    @property
    def differences(self) -> list[float]:
        """Second minus first, for each seed that both have."""
        return [self.second[seed] - self.first[seed] for seed in self.first if seed in self.second]

    @property
    def mean(self) -> float:
        """Of the differences; not a number if there are none."""
        return statistics.fmean(self.differences) if self.differences else math.nan

    @property
    def interval(self) -> tuple[float, float] | None:
        """Student's interval of the mean difference at `LEVEL`; None for fewer than two pairs."""
        differences = self.differences
        if len(differences) < 2:
            return None
        error = statistics.stdev(differences) / math.sqrt(len(differences))
        half = error * float(stats.t.ppf((1 + LEVEL) / 2, len(differences) - 1))
        return self.mean - half, self.mean + half


def compare(root: Path, first: str, second: str) -> list[Comparison]:
    """Every column of the table for two of its rows.

    Args:
      root: folder of the sweep.
      first: row of the table.
      second: row that it is compared with.

    Raises:
      UserError: if the folder is not a sweep's, or a row is not in its table.
    """
    plan = results.read_plan(root)
    rows = {
        row: [member for member in plan['members'] if member['row'] == row]
        for row in (first, second)
    }
    for row, members in rows.items():
        if not members:
            known = dict.fromkeys(member['row'] for member in plan['members'])
            raise UserError(f'--compare: there is no row {row!r}; there are {", ".join(known)}.')
    if first == second:
        raise UserError(f'--compare: {first!r} is given twice; give two rows.')
    comparisons = []
    for address, title in plan['columns'].items():
        if address in (PARAMETERS, FLOPS):
            continue
        values: list[dict[str, float]] = []
        missing: dict[str, str] = {}
        for members in rows.values():
            own = {}
            for member in members:
                value, state = results.value(root, plan, member, address)
                if value is None or not math.isfinite(value):
                    missing[member['name']] = state or 'undefined'
                else:
                    own[_seed(member)] = value
            values.append(own)
        comparisons.append(Comparison(title, values[0], values[1], missing))
    return comparisons


def _seed(member: PlannedMember) -> str:
    return member['fields'].get('pretrain.loop.seed', '')


def markdown(first: str, second: str, comparisons: Sequence[Comparison]) -> str:
    """The comparisons as a table, and what they lack.

    Args:
      first: row of the sweep's table.
      second: the other.
      comparisons: of the two.
    """
    lines = [
        f'| | {first} | {second} | {second} − {first} | {LEVEL:.0%} interval | pairs |',
        '|---|---:|---:|---:|---:|---:|',
    ]
    for one in comparisons:
        digits = results.num_digits(one.title)
        interval = one.interval
        cells = [
            one.title,
            *(_mean(values, digits) for values in (one.first, one.second)),
            f'{one.mean:+.{digits}f}' if one.differences else '',
            f'{interval[0]:+.{digits}f} to {interval[1]:+.{digits}f}' if interval else '',
            str(len(one.differences)),
        ]
        lines.append(f'| {" | ".join(cells)} |')
    lines += ['', f"Differences are taken seed by seed; the interval is Student's at {LEVEL:.0%}."]
    if any(len(one.differences) == 1 for one in comparisons):
        lines.append('One pair has no interval: run the sweep with --seeds=2 or more.')
    missing = {name: state for one in comparisons for name, state in one.missing.items()}
    if missing:
        named = ', '.join(f'{name} ({state})' for name, state in missing.items())
        lines.append(f'Missing: {named}.')
    return '\n'.join(lines) + '\n'


def _mean(values: Mapping[str, float], digits: int) -> str:
    return f'{statistics.fmean(values.values()):.{digits}f}' if values else ''
