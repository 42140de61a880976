"""Draws the learning curves of runs: `python -m albert_jax.curve --help`."""

from collections.abc import Sequence

from albert_jax.cli import command
from albert_jax.cli.paths import local_path

_DESCRIPTION = """\
Draw held-out masked-LM loss and accuracy by step, for one or more runs, beside those of a unigram
model, which knows how often each piece is and nothing else, as a PNG.
"""
_EPILOG = """\
example:
  python -m albert_jax.curve --output=curve.png demo/run
"""


def main(arguments: Sequence[str]) -> int:
    """Draws the picture."""
    parser = command.parser('albert_jax.curve', _DESCRIPTION, _EPILOG)
    parser.add_argument('--output', required=True, type=local_path, help='the PNG to write')
    parser.add_argument('workdir', nargs='+', type=local_path, help='runs')
    flags = parser.parse_args(arguments)

    from albert_jax.training import learning_curve

    runs = {str(workdir): learning_curve.read_metrics(workdir) for workdir in flags.workdir}
    levels = learning_curve.read_unigram(flags.workdir)
    learning_curve.draw(runs, flags.output, levels=levels)
    print(f'Wrote {flags.output}.')
    return 0


if __name__ == '__main__':
    command.run(main)
