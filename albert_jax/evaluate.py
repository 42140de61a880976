"""Scores a fine-tuned model on a labelled file: `python -m albert_jax.evaluate --help`."""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from albert_jax.cli import command
from albert_jax.cli.errors import UserError

_DESCRIPTION = """\
Score a fine-tuned model with the official metrics of its task, each example once; or a pretrained
one on the held-out text of a corpus: masked pieces, sentence order and next sentence."""
_EPILOG = """\
examples:
  python -m albert_jax.evaluate --checkpoint=runs/sst2 --data=GLUE/SST-2/dev.tsv
  python -m albert_jax.evaluate --checkpoint=someone/albert-imdb --task=classification \\
      --data=reviews.csv --output=out
  python -m albert_jax.evaluate --checkpoint=runs/base --data=runs/corpus
"""


def main(arguments: Sequence[str]) -> int:
    """Prints a table of metrics; writes the predictions if asked."""
    parser = command.parser('albert_jax.evaluate', _DESCRIPTION, _EPILOG)
    parser.add_argument('--checkpoint', required=True, help='a fine-tuned model, in any format')
    parser.add_argument(
        '--data', required=True, help="a labelled file or folder in the task's format, or a corpus"
    )
    parser.add_argument('--task', help='where the checkpoint does not say')
    parser.add_argument(
        '--labels', help="names of the outputs in order, with commas, in place of the model's"
    )
    parser.add_argument('--output', type=Path, help='folder for predictions or results')
    parser.add_argument('--batch_size', type=int, default=32, help='examples a batch (32)')
    flags = parser.parse_args(arguments)
    if flags.batch_size < 1:
        raise UserError(f'--batch_size is {flags.batch_size}; it must be 1 or above.')

    from albert_jax.data.dataset import is_prepared

    if is_prepared(Path(flags.data)):
        return _evaluate_pretraining(flags)

    from albert_jax.tasks.answering import Answerer
    from albert_jax.tasks.job import write_predictions

    answerer = Answerer(
        flags.checkpoint,
        flags.task,
        flags.batch_size,
        labels=flags.labels.split(',') if flags.labels else None,
    )
    examples = answerer.family.read(Path(flags.data), False)
    metrics, answers = answerer.evaluate(examples)
    if not metrics:
        raise UserError(
            f'{flags.data} has no labels; use python -m albert_jax.predict for its answers.'
        )
    print(f'{flags.data}: {len(examples):,} examples')
    _show(metrics)
    if flags.output:
        for file in write_predictions(answerer.family, examples, answers, flags.output):
            print(f'Wrote {file}.')
    return 0


def _evaluate_pretraining(flags: argparse.Namespace) -> int:
    from albert_jax.data.dataset import PreparedCorpus
    from albert_jax.interop import source
    from albert_jax.pretraining import intrinsic

    for name in ('task', 'labels'):
        if getattr(flags, name):
            raise UserError(f'--{name} is for fine-tuned models; {flags.data} is a corpus.')
    model = source.read(flags.checkpoint)
    metrics = intrinsic.evaluate(model, PreparedCorpus(flags.data), flags.batch_size)
    print(f'{flags.data}: the held-out text')
    _show(metrics)
    if flags.output:
        file = flags.output / 'results.json'
        try:
            flags.output.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(metrics, indent=2) + '\n')
        except OSError as error:
            raise UserError(f'{file} cannot be written: {error.strerror}.') from error
        print(f'Wrote {file}.')
    return 0


def _show(metrics: Mapping[str, float]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    table.add_column('metric')
    table.add_column('value', justify='right')
    for name, value in metrics.items():
        table.add_row(name, 'undefined' if math.isnan(value) else f'{value:.4f}')
    Console().print(table)


if __name__ == '__main__':
    command.run(main)
