"""The table that a sweep was for: `python -m launch.report --help`."""

import csv
import html
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from albert_jax.cli import command
from albert_jax.cli.errors import UserError
from launch import results
from launch.record import FINISHED
from launch.results import Results, Row

_DESCRIPTION = """\
Fill the table of a sweep with what it has found so far, beside the paper's numbers: Markdown on the
terminal, and report.md, report.csv and report.html (one file, with learning curves) in its folder.
"""
_EPILOG = """\
example:
  python -m launch.report runs/sharing
"""
_PUBLISHED = 'published'


def main(arguments: Sequence[str]) -> int:
    """Writes the report in three forms."""
    parser = command.parser('launch.report', _DESCRIPTION, _EPILOG)
    parser.add_argument('workdir', type=Path, metavar='DIR', help='--workdir of launch.sweep')
    flags = parser.parse_args(arguments)
    found = results.read(flags.workdir)
    texts = {
        'report.md': markdown(found),
        'report.csv': comma_separated(found),
        'report.html': page(found),
    }
    print(texts['report.md'])
    for name, text in texts.items():
        path = flags.workdir / name
        try:
            path.write_text(text, encoding='utf-8')
        except OSError as error:
            raise UserError(f'{path} cannot be written: {error.strerror}.') from error
        print(f'Wrote {path}.')
    return 0


def _header(found: Results) -> list[str]:
    return ['', *found.titles, *(f'{title}, {_PUBLISHED}' for title in found.published_titles)]


def _cells(found: Results, row: Row) -> Iterator[tuple[str, str]]:
    """Each cell's text and kind: number, state or published."""
    for title in found.titles:
        cell = row.cells.get(title)
        text = '' if cell is None else cell.text(title)
        yield text, 'number' if cell is not None and cell.values else 'state'
    for title in found.published_titles:
        value = row.published.get(title)
        yield '' if value is None else f'{value:g}', _PUBLISHED


def note(found: Results) -> str:
    """What the numbers are."""
    parts = ['Accuracies in per cent on validation files and held-out text.']
    counts = {cell.num_seeds for row in found.rows for cell in row.cells.values()}
    if max(counts, default=1) > 1:
        parts.append(f'Mean ± sample standard deviation over {max(counts)} seeds.')
    if found.published_titles:
        parts.append(f'Columns marked {_PUBLISHED} are from {found.source}; not measured here.')
    unfinished = [stage for stage in found.stages if stage['state'] != FINISHED]
    if unfinished:
        parts.append(f'{len(unfinished)} of {len(found.stages)} runs are not finished.')
    return ' '.join(parts)


def markdown(found: Results) -> str:
    """The table, with what failed below it."""
    header = _header(found)
    lines = [f'## {found.title}', '', '| ' + ' | '.join(header) + ' |']
    lines.append('|---' + '|---:' * (len(header) - 1) + '|')
    for row in found.rows:
        texts = [text.replace('|', '\\|') for text, _ in _cells(found, row)]
        lines.append(f'| {" | ".join([row.name, *texts])} |')
    lines += ['', note(found)]
    for stage in found.stages:
        if stage['message']:
            lines.append(f'- {stage["member"]}/{stage["stage"]} failed: {stage["message"]}')
    return '\n'.join(lines) + '\n'


def comma_separated(found: Results) -> str:
    """A line for each row and column: mean, standard deviation, seeds, and the paper's number."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator='\n')
    writer.writerow(['row', 'column', 'mean', 'std', 'seeds', 'state', _PUBLISHED])
    for row in found.rows:
        titles = dict.fromkeys([*found.titles, *found.published_titles])
        for title in titles:
            cell, value = row.cells.get(title), row.published.get(title)
            if cell is None and value is None:
                continue
            numbers = ['', '', 0, '']
            if cell is not None:
                mean = cell.mean if cell.values else ''
                spread = '' if cell.spread is None else cell.spread
                numbers = [mean, spread, len(cell.values), cell.state]
            writer.writerow([row.name, title, *numbers, '' if value is None else value])
    return stream.getvalue()


def page(found: Results) -> str:
    """One HTML file that needs no network."""
    cells = ''.join(
        f'<th{_class(_PUBLISHED if _PUBLISHED in title else "")}>{html.escape(title)}</th>'
        for title in _header(found)
    )
    body = ''.join(
        f'<tr><td>{html.escape(row.name)}</td>'
        + ''.join(
            f'<td{_class(kind)}>{html.escape(text)}</td>' for text, kind in _cells(found, row)
        )
        + '</tr>'
        for row in found.rows
    )
    curves = [
        {
            'member': curve.member,
            'row': curve.row,
            'stage': curve.stage,
            'metric': curve.metric if curve.split == 'validation' else f'training {curve.metric}',
            'points': curve.points,
        }
        for curve in found.curves
        if curve.split == 'validation' or curve.metric == 'loss'
    ]
    # What ends the element early would be a tag; JSON can say < otherwise.
    data = json.dumps(curves).replace('<', '\\u003c')
    filled = (Path(__file__).parent / 'page.html').read_text(encoding='utf-8')
    parts = {
        'TITLE': html.escape(found.title),
        'ABOUT': f'<code>{html.escape(found.sweep)}</code>',
        'TABLE': f'<table><tr>{cells}</tr>{body}</table>',
        'NOTE': html.escape(note(found)),
        'STAGES': _stages(found),
        'DATA': data,
    }
    return re.sub('__([A-Z]+)__', lambda mark: parts[mark[1]], filled)


def _stages(found: Results) -> str:
    rows = []
    for stage in found.stages:
        state, minutes = stage['state'], stage['seconds'] / 60
        step = f'{stage["step"]}/{stage["num_steps"]}' if stage['num_steps'] else ''
        settings = ''.join(
            f'<div><code>{html.escape(f"{name}={value}")}</code></div>'
            for name, value in stage['settings'].items()
        )
        more = f'<details><summary>settings</summary>{settings}</details>' if settings else ''
        said = html.escape(stage['message'])
        rows.append(
            f'<tr><td>{html.escape(stage["member"])}</td><td class="text">{stage["stage"]}</td>'
            f'<td class="text {state}">{state}</td><td>{step}</td><td>{minutes:.1f} min</td>'
            f'<td class="text">{said}{more}</td></tr>'
        )
    names = ''.join(f'<th>{name}</th>' for name in ('member', 'run', 'state', 'step', 'time', ''))
    return f'<table><tr>{names}</tr>{"".join(rows)}</table>'


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ''


if __name__ == '__main__':
    command.run(main)
