"""Scores a fine-tuned model on a labelled file: `python -m albert_jax.evaluate --help`."""

from collections.abc import Sequence
from pathlib import Path

from albert_jax.cli import command
from albert_jax.cli.errors import UserError
from albert_jax.cli.paths import expand, local_path

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
    parser.add_argument(
        '--checkpoint', required=True, type=expand, help='a fine-tuned model, in any format'
    )
    parser.add_argument(
        '--data', required=True, type=expand,
        help="a labelled file or folder in the task's format, or a corpus",
    )  # fmt: skip
    parser.add_argument('--task', help='where the checkpoint does not say')
    parser.add_argument(
        '--labels', help="names of the outputs in order, with commas, in place of the model's"
    )
    parser.add_argument('--output', type=local_path, help='folder for predictions or results')
    parser.add_argument('--batch_size', type=int, default=32, help='examples a batch (32)')
    flags = parser.parse_args(arguments)
    if flags.batch_size < 1:
        raise UserError(f'--batch_size is {flags.batch_size}; it must be 1 or above.')

    from albert_jax.data.dataset import is_prepared

    if is_prepared(Path(flags.data)):
        from albert_jax.interop import source
        from albert_jax.pretraining import intrinsic

        for name in ('task', 'labels'):
            if getattr(flags, name):
                raise UserError(f'--{name} is for fine-tuned models; {flags.data} is a corpus.')
        model = source.read(flags.checkpoint)
        intrinsic.report(model, flags.data, flags.batch_size, flags.output)
        return 0

    from albert_jax.tasks.answering import Answerer
    from albert_jax.tasks.inference import evaluate_file

    labels = flags.labels.split(',') if flags.labels else None
    answerer = Answerer(flags.checkpoint, flags.task, flags.batch_size, labels=labels)
    evaluate_file(answerer, Path(flags.data), flags.output)
    return 0


if __name__ == '__main__':
    command.run(main)
