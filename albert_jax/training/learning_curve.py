"""Held-out and training metrics of runs, by step, as a picture."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from albert_jax.cli.errors import UserError, reason
from albert_jax.cli.notes import note
from albert_jax.training.metrics_file import METRICS_FILE, read_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# `mlm_loss` and `mlm_accuracy` of a unigram model on the held-out text, in the folder of a run.
UNIGRAM_FILE = 'unigram.json'
_METRICS = {'mlm_loss': 'masked-LM loss (nats)', 'mlm_accuracy': 'masked-LM accuracy'}
_LEVEL_STYLES = ('--', ':', '-.')
_SPLITS: dict[str, tuple[str, dict[str, Any]]] = {
    'train': ('training', {'alpha': 0.35}),
    'validation': ('held out', {'marker': '.'}),
}


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics that have a masked-LM loss.

    Raises:
      UserError: if there is no run, or no evaluation yet.
    """
    path = workdir / METRICS_FILE
    if not path.exists():
        raise UserError(f'{workdir} is not a run: there is no {METRICS_FILE} in it.')
    lines = [line for line in read_lines(path) if 'mlm_loss' in line]
    evaluations = [line for line in lines if line['split'] == 'validation']
    if not evaluations:
        raise UserError(f'{path} has no evaluation yet; train on and draw again.')
    if not any(_is_finite(line['mlm_loss']) for line in evaluations):
        raise UserError(f'{path} has no evaluation whose loss is finite; there is no curve.')
    return lines


def read_unigram(workdirs: Sequence[Path]) -> dict[str, dict[str, float]]:
    """What a unigram model reaches on the held-out text of runs, by what to call it.

    Runs on the same text share a line. A note names the runs for which it is not known.
    """
    known: dict[Path, dict[str, float]] = {}
    for workdir in workdirs:
        try:
            content = json.loads((workdir / UNIGRAM_FILE).read_text())
            known[workdir] = {metric: float(content[metric]) for metric in _METRICS}
        except (OSError, ValueError, KeyError, TypeError):
            note(
                f'{workdir} has no {UNIGRAM_FILE}, so there is no line of the unigram model for '
                f'it; a run writes it when it ends.'
            )
    levels = list(known.values())
    if levels and all(level == levels[0] for level in levels):
        return {'unigram model': levels[0]}
    return {f'unigram model, {workdir}': level for workdir, level in known.items()}


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def draw(
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    output: Path,
    batch_sizes: Mapping[str, int] | None = None,
    levels: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Draws masked-LM loss and accuracy by step.

    Args:
      runs: the lines of `read_metrics`, by the name of the run.
      output: PNG to write, or any other format of matplotlib.
      batch_sizes: of the runs, to draw them by sequence: steps of unequal batches differ.
      levels: metrics to draw as horizontal lines, by what they are of.

    Raises:
      UserError: if the picture cannot be written.
    """
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(1, 2, figsize=(8, 3), dpi=200, layout='constrained')
    for axis, (metric, title) in zip(axes, _METRICS.items(), strict=True):
        for number, (name, lines) in enumerate(runs.items()):
            size = 1 if batch_sizes is None else batch_sizes[name]
            _draw_run(axis, f'C{number}', name, metric, lines, size)
        for number, (name, metrics) in enumerate((levels or {}).items()):
            style = _LEVEL_STYLES[number % len(_LEVEL_STYLES)]
            axis.axhline(metrics[metric], color='grey', linestyle=style, label=name)
        axis.set_xlabel('step' if batch_sizes is None else 'sequences')
        axis.set_title(title, fontsize=10)
        if metric.endswith('accuracy'):
            axis.yaxis.set_major_formatter(ticker.PercentFormatter(1))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    try:
        figure.savefig(output)
    except (OSError, ValueError) as error:
        raise UserError(f'{output} cannot be written: {reason(error)}.') from error


def _draw_run(
    axis: 'Axes',
    colour: str,
    name: str,
    metric: str,
    lines: Sequence[Mapping[str, Any]],
    unit: int,
) -> None:
    for split, (label, style) in _SPLITS.items():
        points = [
            (unit * line['step'], line[metric])
            for line in lines
            if line['split'] == split and _is_finite(line.get(metric))
        ]
        if points:
            steps, values = zip(*points, strict=True)
            axis.plot(steps, values, color=colour, label=f'{name}, {label}', **style)
