"""Draws the learning curves of runs: `python -m albert_jax.curve --help`."""

from collections.abc import Sequence
from pathlib import Path

from albert_jax.cli import command
from albert_jax.cli.errors import UserError

_DESCRIPTION = 'Draw held-out masked-LM loss and accuracy by step, for one or more runs, as a PNG.'
_EPILOG = """\
example:
  python -m albert_jax.curve --output=curve.png demo/run
"""


def main(arguments: Sequence[str]) -> int:
    """Draws the picture."""
    parser = command.parser('albert_jax.curve', _DESCRIPTION, _EPILOG)
    parser.add_argument('--output', required=True, type=Path, help='the PNG to write')
    parser.add_argument('workdir', nargs='+', type=Path, help='runs')
    flags = parser.parse_args(arguments)

    from albert_jax.training.telemetry import METRICS_FILE, read_lines

    runs = {}
    for workdir in flags.workdir:
        path = workdir / METRICS_FILE
        if not path.exists():
            raise UserError(f'{workdir} is not a run: there is no {METRICS_FILE} in it.')
        runs[str(workdir)] = [line for line in read_lines(path) if 'mlm_loss' in line]
        if not any(line['split'] == 'validation' for line in runs[str(workdir)]):
            raise UserError(f'{path} has no evaluation yet; train on and draw again.')

    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(8, 3), dpi=100, layout='constrained')
    for axis, metric, label in (
        (axes[0], 'mlm_loss', 'masked-LM loss (nats)'),
        (axes[1], 'mlm_accuracy', 'masked-LM accuracy'),
    ):
        for number, (name, lines) in enumerate(runs.items()):
            for split, style in (('train', {'alpha': 0.35}), ('validation', {'marker': '.'})):
                points = [(x['step'], x[metric]) for x in lines if x['split'] == split]
                if points:
                    steps, values = zip(*points, strict=True)
                    what = 'held out' if split == 'validation' else 'training'
                    axis.plot(steps, values, color=f'C{number}', label=f'{name}, {what}', **style)
        axis.set_xlabel('step')
        axis.set_title(label, fontsize=10)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    try:
        figure.savefig(flags.output)
    except (OSError, ValueError) as error:
        reason = getattr(error, 'strerror', None) or error
        raise UserError(f'{flags.output} cannot be written: {reason}.') from error
    print(f'Wrote {flags.output}.')
    return 0


if __name__ == '__main__':
    command.run(main)
