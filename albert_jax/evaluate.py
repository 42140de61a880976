"""Scores a fine-tuned model on a labelled file: `python -m albert_jax.evaluate --help`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from albert_jax.cli import command
from albert_jax.cli.errors import UserError
from albert_jax.cli.flags import NUM_LOOPS_HELP
from albert_jax.cli.paths import expand, local_path
from albert_jax.runs.decoding_flags import add_decoding_flags, given_decoding

_DESCRIPTION = """\
Score a fine-tuned model with the official metrics of its task, each example once; or a pretrained
one on the held-out text of a corpus: masked pieces, sentence order and next sentence; or on pairs
of sentences of which it should find the first likelier (BLiMP, CrowS-Pairs, your own)."""
_EPILOG = """\
examples:
  python -m albert_jax.evaluate --checkpoint=runs/sst2 --data=GLUE/SST-2/dev.tsv
  python -m albert_jax.evaluate --checkpoint=someone/albert-imdb --task=classification \\
      --data=reviews.csv --output=out
  python -m albert_jax.evaluate --checkpoint=runs/en-de --data=multi30k.test_2016_flickr
  python -m albert_jax.evaluate --checkpoint=runs/base --data=runs/corpus
  python -m albert_jax.evaluate --checkpoint=runs/base --pairs=blimp.jsonl --limit_per_group=100
  python -m albert_jax.evaluate --checkpoint=runs/base --pairs=my.csv --pair_columns=good,bad,topic
"""


def main(arguments: Sequence[str]) -> int:
    """Prints a table of metrics; writes the predictions if asked."""
    parser = command.parser('albert_jax.evaluate', _DESCRIPTION, _EPILOG)
    parser.add_argument(
        '--checkpoint', required=True, type=expand, help='a fine-tuned model, in any format'
    )
    parser.add_argument(
        '--data', type=expand, help="a labelled file or folder in the task's format, or a corpus"
    )
    parser.add_argument('--pairs', type=local_path, help='a file or folder of minimal pairs')
    parser.add_argument(
        '--pair_columns', help='BETTER,WORSE or BETTER,WORSE,GROUP, where they are not those of '
        'BLiMP or CrowS-Pairs',
    )  # fmt: skip
    parser.add_argument(
        '--limit_per_group', type=int, default=0, help='so many pairs of each group; 0 for all (0)'
    )
    parser.add_argument('--task', help='where the checkpoint does not say')
    parser.add_argument(
        '--labels', help="names of the outputs in order, with commas, in place of the model's"
    )
    parser.add_argument('--num_loops', type=int, help=NUM_LOOPS_HELP)
    add_decoding_flags(parser)
    parser.add_argument('--output', type=local_path, help='folder for predictions and results')
    parser.add_argument(
        '--batch_size', type=int, default=32, help='examples a batch (32); --pairs has its own'
    )
    flags = parser.parse_args(arguments)
    if flags.batch_size < 1:
        raise UserError(f'--batch_size is {flags.batch_size}; it must be 1 or above.')
    if flags.output and _is_run(flags.output):
        raise UserError(
            f'--output={flags.output} is the folder of a run, whose results.json would be '
            f'replaced; name one of its own, as in --output={flags.output / "test"}.'
        )

    if (flags.data is None) == (flags.pairs is None):
        raise UserError('Give one of --data and --pairs.')
    if flags.pairs:
        return _evaluate_pairs(flags)
    for name in ('pair_columns', 'limit_per_group'):
        if getattr(flags, name):
            raise UserError(f'--{name} is for --pairs and not for --data.')

    from albert_jax.data.dataset import is_prepared

    if is_prepared(Path(flags.data)):
        from albert_jax.interop import native, source
        from albert_jax.pretraining import intrinsic

        for name in ('task', 'labels', *given_decoding(flags)):
            if getattr(flags, name) is not None:
                raise UserError(f'--{name} is for fine-tuned models; {flags.data} is a corpus.')
        model = source.read_at_depth(flags.checkpoint, flags.num_loops)
        native.check_no_decoder(model, flags.checkpoint, 'evaluation on a corpus')
        intrinsic.report(model, flags.data, flags.batch_size, flags.output)
        return 0

    from albert_jax.tasks.answering import Answerer
    from albert_jax.tasks.inference import evaluate_file

    labels = flags.labels.split(',') if flags.labels else None
    answerer = Answerer(
        flags.checkpoint, flags.task, flags.batch_size, labels=labels,
        decoding=given_decoding(flags), num_loops=flags.num_loops,
    )  # fmt: skip
    evaluate_file(answerer, Path(flags.data), flags.output)
    return 0


def _is_run(folder: Path) -> bool:
    # With several seeds each has a folder of its own.
    return any(folder.glob('checkpoints')) or any(folder.glob('seed-*/checkpoints'))


def _evaluate_pairs(flags: argparse.Namespace) -> int:
    if flags.limit_per_group < 0:
        raise UserError(f'--limit_per_group is {flags.limit_per_group}; it must be 0 or above.')
    for name in ('task', 'labels', *given_decoding(flags)):
        if getattr(flags, name) is not None:
            raise UserError(f'--{name} is for fine-tuned models and not for --pairs.')
    columns = flags.pair_columns.split(',') if flags.pair_columns else []
    if len(columns) not in (0, 2, 3):
        raise UserError(
            f'--pair_columns is {flags.pair_columns!r}; write BETTER,WORSE or BETTER,WORSE,GROUP.'
        )
    from albert_jax.tasks.pairs_report import evaluate_pairs

    evaluate_pairs(
        flags.checkpoint, flags.pairs, columns, flags.limit_per_group, flags.output, flags.num_loops
    )
    return 0


if __name__ == '__main__':
    command.run(main)
