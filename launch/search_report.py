"""What a search has found: a table, the best settings as a command, and a page."""

import dataclasses
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from albert_jax.cli import next_steps
from albert_jax.cli.errors import UserError, reason
from configs.changes import FieldValue
from launch import record, report, results
from launch.plan import PlannedMember
from launch.search_members import DEFAULT, read_identity, trial_name
from launch.search_values import best_so_far, final_value


@dataclasses.dataclass(frozen=True)
class Row:
    """A trial, or the default."""

    name: str
    parameters: Mapping[str, FieldValue]
    # Of the checkpoint that is kept; the best so far of one that is not finished.
    value: float | None
    state: str


@dataclasses.dataclass(frozen=True)
class Found:
    """What a search has found so far.

    Args:
      identity: as in search.json.
      rows: the default first, then the trials in the order in which they were asked.
    """

    identity: Mapping[str, Any]
    rows: Sequence[Row]

    @property
    def best(self) -> Row | None:
        """The best of the trials that are finished, the first of equals; None if none is."""
        ended = [row for row in self.rows[1:] if row.state == record.FINISHED]
        values = {row.name: row.value for row in ended if row.value is not None}
        if not values:
            return None
        name = (min if self.identity['is_lower_better'] else max)(values, key=lambda n: values[n])
        return next(row for row in ended if row.name == name)


def read(root: Path, parameters: Mapping[int, Mapping[str, FieldValue]]) -> Found:
    """What a search has found so far.

    Args:
      root: its folder.
      parameters: of each trial that was begun, by its number.

    Raises:
      UserError: if it is not the folder of a search, or a file in it is damaged.
    """
    identity = read_identity(root)
    rows = [_row(root, identity, DEFAULT, {})]
    rows += [_row(root, identity, trial_name(n), own) for n, own in sorted(parameters.items())]
    return Found(identity, rows)


def _row(
    root: Path, identity: Mapping[str, Any], name: str, parameters: Mapping[str, FieldValue]
) -> Row:
    key = f'{name}/{identity["task"]}'
    state = record.read_record(root, key).state
    read_value = final_value if state == record.FINISHED else best_so_far
    value = read_value(root, key, identity['metric'], identity['is_lower_better'])
    if state == record.FINISHED and value is None:
        state = 'undefined'
    return Row(name, parameters, value, state)


def best_command(root: Path, found: Found) -> str | None:
    """The command that fine-tunes with the best settings; None if no trial is finished."""
    if found.best is None:
        return None
    settings = dict(
        record.read_record(root, f'{found.best.name}/{found.identity["task"]}').settings
    )
    config = settings.pop('config')
    settings.pop('digest')
    fields = [f'--config.{name}={value}' for name, value in settings.items()]
    return next_steps.finetune([f'--config={config}', *fields], root.with_name(f'{root.name}-best'))


def summary(found: Found) -> str:
    """The best value beside the default's, in a sentence."""
    metric, default, best = found.identity['metric'], found.rows[0], found.best
    compared = f'the default has {_metric(default.value) or "none"} ({default.state})'
    if best is None:
        return f'No trial is finished; {compared}.'
    shown = ', '.join(f'{name} {_number(value)}' for name, value in best.parameters.items())
    return f'Best {metric}: {_metric(best.value)}, {best.name} ({shown}); {compared}.'


def show(root: Path, found: Found) -> None:
    """Prints the table and the best settings, and writes report.md and report.html.

    Raises:
      UserError: if they cannot be written.
    """
    console = Console()
    table = Table(title=found.identity['title'], box=box.SIMPLE_HEAD, pad_edge=False)
    for name in _header(found):
        table.add_column(name, justify='left' if name in ('', 'state') else 'right')
    for row in found.rows:
        is_best = found.best is not None and row.name == found.best.name
        table.add_row(*_cells(found, row), style='bold' if is_best else '')
    console.print(table)
    print(summary(found))
    command = best_command(root, found)
    if command:
        next_steps.show(command, title='The best settings as a command:')
    texts = {
        'report.md': markdown(found, command),
        'report.html': page(root, found, command),
    }
    for name, text in texts.items():
        path = root / name
        try:
            path.write_text(text, encoding='utf-8')
        except OSError as error:
            raise UserError(f'{path} cannot be written: {reason(error)}.') from error
        print(f'Wrote {path}.')


def markdown(found: Found, command: str | None) -> str:
    """The table in Markdown with the best settings.

    Args:
      found: by the search.
      command: with the best settings.
    """
    header = _header(found)
    lines = [f'## {found.identity["title"]}', '', '| ' + ' | '.join(header) + ' |']
    lines.append('|---' + '|---:' * (len(header) - 2) + '|---|')
    for row in found.rows:
        cells = [text.replace('|', '\\|') for text in _cells(found, row)]
        lines.append(f'| {" | ".join(cells)} |')
    lines += ['', summary(found)]
    if command:
        lines += ['', '```bash', command, '```']
    return '\n'.join(lines) + '\n'


def page(root: Path, found: Found, command: str | None) -> str:
    """The table, the learning curves and the runs as one HTML file that needs no network.

    Args:
      root: folder of the search.
      found: by it.
      command: with the best settings.
    """
    kinds = ['', *('number' for _ in _header(found)[1:-1]), 'text']
    head, *rows = (
        ''.join(
            f'<{tag} class="{kind}">{html.escape(text)}</{tag}>'
            for kind, text in zip(kinds, texts, strict=True)
        )
        for tag, texts in [
            ('th', _header(found)),
            *(('td', _cells(found, row)) for row in found.rows),
        ]
    )
    body = ''.join(f'<tr>{row}</tr>' for row in rows)
    settings = f'<br><code>{html.escape(command)}</code>' if command else ''
    members = [_planned(root, found.identity['task'], row) for row in found.rows]
    return report.filled_page(
        title=found.identity['title'],
        about=found.identity['study'],
        table=f'<table><tr>{head}</tr>{body}</table>',
        note=html.escape(summary(found)) + settings,
        stages=[
            results.stage_status(root, member, stage)
            for member in members
            for stage in member['stages']
        ],
        curves=[curve for member in members for curve in results.curves_of(root, member)],
    )


def _planned(root: Path, task: str, row: Row) -> PlannedMember:
    key = f'{row.name}/{task}'
    num_steps = int(record.read_record(root, key).settings.get('loop.num_steps', 0))
    return {
        'name': row.name,
        'row': row.name,
        'num_params': None,
        'fields': {name: str(value) for name, value in row.parameters.items()},
        'stages': [{'name': task, 'key': key, 'num_steps': num_steps}],
    }


def _header(found: Found) -> list[str]:
    return ['', *found.identity['space'], found.identity['metric'], 'state']


def _cells(found: Found, row: Row) -> list[str]:
    shown = [_number(row.parameters.get(name)) for name in found.identity['space']]
    return [row.name, *shown, _metric(row.value), row.state]


def _metric(value: float | None) -> str:
    return '' if value is None else f'{value:.4f}'


def _number(value: FieldValue | None) -> str:
    """A number with four digits, anything else as it is."""
    if value is None:
        return ''
    return f'{value:.4g}' if isinstance(value, float) else str(value)
