"""The table that a sweep was for: `python -m launch.report --help`."""

import csv
import html
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from albert_jax.cli import command
from albert_jax.cli.errors import UserError, reason
from albert_jax.cli.json_output import to_json
from albert_jax.cli.paths import local_path
from launch import comparison, recurrence
from launch.record import FINISHED
from launch.results import Curve, Results, Row, StageStatus
from launch.results import read as read_results

_DESCRIPTION = """\
Fill the table of a sweep with its results so far, beside the paper's numbers: Markdown on the
terminal, and report.md, report.csv and report.html (one file, with learning curves) in its folder.
"""
_EPILOG = """\
examples:
  python -m launch.report runs/sharing
  python -m launch.report runs/sharing --compare all none    (the difference, paired by seed)
  python -m launch.report runs/price --recurrence            (what a loop is worth)
"""
_PUBLISHED = 'published'


def main(arguments: Sequence[str]) -> int:
    """Writes the report in three forms."""
    parser = command.parser('launch.report', _DESCRIPTION, _EPILOG)
    parser.add_argument('workdir', type=local_path, metavar='DIR', help='--workdir of launch.sweep')
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        '--compare', nargs=2, metavar='ROW', help='print the difference of two rows, seed by seed'
    )
    what.add_argument(
        '--recurrence', action='store_true',
        help='fit what it is worth to use layers again, of a sweep over loops: recurrence.png too',
    )  # fmt: skip
    flags = parser.parse_args(arguments)
    results = read_results(flags.workdir)
    if flags.recurrence:
        return _recurrence(flags.workdir)
    if flags.compare:
        first, second = flags.compare
        print(comparison.markdown(first, second, comparison.compare(flags.workdir, first, second)))
        return 0
    texts = {
        'report.md': markdown(results),
        'report.csv': comma_separated(results),
        'report.html': page(results),
    }
    print(texts['report.md'])
    for name, text in texts.items():
        path = flags.workdir / name
        try:
            path.write_text(text, encoding='utf-8')
        except OSError as error:
            raise UserError(f'{path} cannot be written: {reason(error)}.') from error
        print(f'Wrote {path}.')
    return 0


def _recurrence(root: Path) -> int:
    found = recurrence.estimate(recurrence.read(root))
    print(recurrence.markdown(found))
    path = root / 'recurrence.png'
    try:
        recurrence.draw(found, path)
    except OSError as error:
        raise UserError(f'{path} cannot be written: {reason(error)}.') from error
    print(f'Wrote {path}.')
    return 0


def _header(results: Results) -> list[str]:
    return ['', *results.titles, *(f'{title}, {_PUBLISHED}' for title in results.published_titles)]


def _cells(results: Results, row: Row) -> Iterator[tuple[str, str]]:
    """Each cell's text and kind: number, state or published."""
    for title in results.titles:
        cell = row.cells.get(title)
        text = '' if cell is None else cell.text(title)
        yield text, 'number' if cell is not None and cell.values else 'state'
    for title in results.published_titles:
        value = row.published.get(title)
        yield '' if value is None else f'{value:g}', _PUBLISHED


def note(results: Results) -> str:
    """The line below the table: units, seeds, source, and how many runs are not finished."""
    parts = ['Accuracies in per cent on validation files and held-out text.']
    counts = {cell.num_seeds for row in results.rows for cell in row.cells.values()}
    if max(counts, default=1) > 1:
        parts.append(f'Mean ± sample standard deviation over {max(counts)} seeds.')
    if results.published_titles:
        parts.append(f'Columns marked {_PUBLISHED} are from {results.source}; not measured here.')
    unfinished = [stage for stage in results.stages if stage['state'] != FINISHED]
    if unfinished:
        parts.append(f'{len(unfinished)} of {len(results.stages)} runs are not finished.')
    return ' '.join(parts)


def markdown(results: Results) -> str:
    """The table in Markdown, followed by the stages that failed."""
    header = _header(results)
    lines = [f'## {results.title}', '', '| ' + ' | '.join(header) + ' |']
    lines.append('|---' + '|---:' * (len(header) - 1) + '|')
    for row in results.rows:
        texts = [text.replace('|', '\\|') for text, _ in _cells(results, row)]
        lines.append(f'| {" | ".join([row.name, *texts])} |')
    lines += ['', note(results)]
    for stage in results.stages:
        if stage['message']:
            lines.append(f'- {stage["member"]}/{stage["stage"]} failed: {stage["message"]}')
    return '\n'.join(lines) + '\n'


def comma_separated(results: Results) -> str:
    """A line of CSV for each row and column: mean, standard deviation, seeds, published number."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator='\n')
    writer.writerow(['row', 'column', 'mean', 'std', 'seeds', 'state', _PUBLISHED])
    for row in results.rows:
        titles = dict.fromkeys([*results.titles, *results.published_titles])
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


def page(results: Results) -> str:
    """The table, learning curves and stages as one HTML file that needs no network."""
    cells = ''.join(
        f'<th{_class(_PUBLISHED if _PUBLISHED in title else "")}>{html.escape(title)}</th>'
        for title in _header(results)
    )
    body = ''.join(
        f'<tr><td>{html.escape(row.name)}</td>'
        + ''.join(
            f'<td{_class(kind)}>{html.escape(text)}</td>' for text, kind in _cells(results, row)
        )
        + '</tr>'
        for row in results.rows
    )
    return filled_page(
        title=results.title,
        about=results.sweep,
        table=f'<table><tr>{cells}</tr>{body}</table>',
        note=html.escape(note(results)),
        stages=results.stages,
        curves=results.curves,
    )


def filled_page(
    *,
    title: str,
    about: str,
    table: str,
    note: str,
    stages: Sequence[StageStatus],
    curves: Sequence[Curve],
) -> str:
    """The page of a report as one HTML file.

    Args:
      title: of the page.
      about: what was run, as on the command line.
      table: HTML of the results.
      note: HTML below it.
      stages: that were run.
      curves: of the stages.
    """
    drawn = [
        {
            'member': curve.member,
            'row': curve.row,
            'stage': curve.stage,
            'metric': curve.metric if curve.split == 'validation' else f'training {curve.metric}',
            'points': curve.points,
        }
        for curve in curves
        if curve.split == 'validation' or curve.metric == 'loss'
    ]
    filled = (Path(__file__).parent / 'page.html').read_text(encoding='utf-8')
    parts = {
        'TITLE': html.escape(title),
        'ABOUT': f'<code>{html.escape(about)}</code>',
        'TABLE': table,
        'NOTE': note,
        'STAGES': _stages(stages),
        # What ends the element early would be a tag; JSON can say < otherwise.
        'DATA': to_json(drawn).replace('<', '\\u003c'),
    }
    return re.sub('__([A-Z]+)__', lambda mark: parts[mark[1]], filled)


def _stages(stages: Sequence[StageStatus]) -> str:
    rows = []
    for stage in stages:
        state, minutes = stage['state'], stage['seconds'] / 60
        step = f'{stage["step"]}/{stage["num_steps"]}' if stage['num_steps'] else ''
        settings = ''.join(
            f'<div><code>{html.escape(f"{name}={value}")}</code></div>'
            for name, value in stage['settings'].items()
        )
        more = f'<details><summary>settings</summary>{settings}</details>' if settings else ''
        message = html.escape(stage['message'])
        rows.append(
            f'<tr><td>{html.escape(stage["member"])}</td><td class="text">{stage["stage"]}</td>'
            f'<td class="text {state}">{state}</td><td>{step}</td><td>{minutes:.1f} min</td>'
            f'<td class="text">{message}{more}</td></tr>'
        )
    columns = (
        ('member', 'text'),
        ('run', 'text'),
        ('state', 'text'),
        ('step', ''),
        ('time', ''),
        ('', 'text'),
    )
    names = ''.join(f'<th{_class(kind)}>{name}</th>' for name, kind in columns)
    return f'<table><tr>{names}</tr>{"".join(rows)}</table>'


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ''


if __name__ == '__main__':
    command.run(main)
