"""Draws finished sweeps beside the paper: learning curves, and our numbers against the published.

    python -m benchmarks.ablations --output=docs/images/ablations.png \
        runs/sentence_loss runs/sharing runs/embedding runs/depth

A row for each folder of launch.sweep: training loss of masked-LM by step, our held-out accuracy of
masked-LM and of sentence order with their standard deviation over seeds, and what the paper reports
for the same members.
"""

import argparse
import math

from albert_jax.cli.errors import UserError
from albert_jax.cli.paths import local_path
from launch import results

_OURS = ('MLM', 'SOP')
# The same in both pictures of a row.
_COLOURS = {'MLM': 'C0', 'SOP': 'C1', 'Avg': 'C2'}


def main() -> None:
    """Reads the folders and writes the picture."""
    form = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument('--output', type=local_path, required=True, help='the PNG to write')
    parser.add_argument('folders', nargs='+', type=local_path, help='workdirs of launch.sweep')
    flags = parser.parse_args()

    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    try:
        sweeps = [results.read(folder) for folder in flags.folders]
    except UserError as error:
        raise SystemExit(f'error: {error}') from error
    num = len(sweeps)
    figure, axes = pyplot.subplots(
        num, 3, figsize=(10, 2.4 * num), dpi=100, layout='constrained', squeeze=False
    )
    for row, swept in zip(axes, sweeps, strict=True):
        _curves(row[0], swept)
        rows = [each for each in swept.rows if each.cells]
        titles = [title for title in _OURS if title in swept.titles]
        ours = {
            title: [(each.cells[title].mean, each.cells[title].spread or 0.0) for each in rows]
            for title in titles
        }
        _values(row[1], [each.name for each in rows], ours, 'here')
        # Where the paper's members are others (other sizes of E), all of its own.
        published_rows = [each for each in swept.rows if each.published]
        like = [each for each in published_rows if each.cells] or published_rows
        titles = [title for title in swept.published_titles if title in ('Avg', *_OURS)]
        published = {t: [(each.published.get(t, math.nan), 0.0) for each in like] for t in titles}
        _values(row[2], [each.name for each in like], published, 'published')
    figure.savefig(flags.output)
    print(f'Wrote {flags.output}.')


def _curves(axis, swept: results.Results) -> None:
    for curve in swept.curves:
        if (curve.stage, curve.split, curve.metric) == ('pretrain', 'train', 'mlm_loss'):
            # What all members fall from at first would flatten the rest.
            points = [point for point in curve.points if point[0] >= 200]
            if not points:
                continue
            axis.plot([p[0] for p in points], [p[1] for p in points], label=curve.member, lw=1)
    axis.set_title(f'{swept.title}: training loss', fontsize=9)
    axis.set_xlabel('step', fontsize=8)
    axis.grid(alpha=0.3)
    if axis.get_lines():
        axis.legend(fontsize=7)


def _values(
    axis, names: list[str], columns: dict[str, list[tuple[float, float]]], where: str
) -> None:
    """A mark for each name and column, with its standard deviation over seeds."""
    for number, (title, values) in enumerate(columns.items()):
        # Members have no order, so no line joins them; columns stand side by side.
        left = 0.15 * (number - (len(columns) - 1) / 2)
        places = [place + left for place in range(len(names))]
        means, spreads = ([value[k] for value in values] for k in (0, 1))
        axis.errorbar(
            places, means, spreads, fmt='o', markersize=4, capsize=3, label=title,
            color=_COLOURS.get(title),
        )  # fmt: skip
    axis.set_xticks(range(len(names)), names)
    axis.set_title(f'{where}, per cent', fontsize=9)
    axis.tick_params(axis='x', labelsize=8, rotation=30 if len(names) > 5 else 0)
    axis.grid(alpha=0.3)
    if columns:
        axis.legend(fontsize=7)


if __name__ == '__main__':
    main()
