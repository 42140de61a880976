"""Answers of a fine-tuned model for new texts: `python -m albert_jax.predict --help`."""

from collections.abc import Sequence

from albert_jax.cli import command
from albert_jax.cli.errors import UserError
from albert_jax.cli.flags import NUM_LOOPS_HELP
from albert_jax.cli.paths import expand, local_path
from albert_jax.runs.decoding_flags import add_decoding_flags, given_decoding

_DESCRIPTION = """\
Answers of a fine-tuned model, a JSON object a line, or in the form of the benchmark's server.

--input is a file of the task's own format (.tsv, .csv, .jsonl, .json, .conllu, for tagging .txt
with columns or sentences, a folder of RACE), or lines (any other ending, or - for standard input):
  texts        a text a line; a pair with a tab between; or JSON with the task's columns
  tagging      words with spaces between
  roles        words with spaces between, a tab, and the predicate: a word or its number, from 1; or
               JSON with sentence and predicate
  questions    JSON with question and passage; for RACE also options, a list of four
  text to text a source a line, or JSON with the task's source

Of a model from text to text the answers are its texts, one a line in the order of the input; with
--num_return_sequences above 1, or an --output that ends in .jsonl, they are JSON Lines."""
_EPILOG = """\
examples:
  echo 'A gripping, beautiful film.' | python -m albert_jax.predict --checkpoint=runs/sst2 --input=-
  python -m albert_jax.predict --checkpoint=runs/sst2 --input=GLUE/SST-2/test.tsv --server=out
  python -m albert_jax.predict --checkpoint=runs/roles --input=new.conllu --predicates=3:VERB
  echo 'Two dogs play.' | python -m albert_jax.predict --checkpoint=runs/en-de --input=-
  python -m albert_jax.predict --checkpoint=runs/en-de --input=news.en --output=news.de \\
      --num_beams=8
"""


def main(arguments: Sequence[str]) -> int:
    """Prints or writes an answer for each example."""
    parser = command.parser('albert_jax.predict', _DESCRIPTION, _EPILOG)
    parser.add_argument(
        '--checkpoint', required=True, type=expand, help='a fine-tuned model, in any format'
    )
    parser.add_argument(
        '--input', required=True, type=expand, help='file, folder, or - for standard input'
    )
    parser.add_argument('--output', type=local_path, help='file of JSON Lines (standard output)')
    parser.add_argument('--server', type=local_path, help='folder for files that a server takes')
    parser.add_argument('--task', help='where the checkpoint does not say')
    parser.add_argument(
        '--labels', help="names of the outputs in order, with commas, in place of the model's"
    )
    parser.add_argument(
        '--null_score_diff_threshold', type=float,
        help='SQuAD 2.0: the no_answer_odds above which there is no answer; evaluate prints the '
        'best as best_f1_threshold (0)',
    )  # fmt: skip
    parser.add_argument(
        '--predicates', metavar='COLUMN[:VALUE,…]',
        help="roles: the column of a file, from 0, that marks the predicates, if not the layout's, "
        'and the values there that do: 3:VERB',
    )  # fmt: skip
    parser.add_argument('--num_loops', type=int, help=NUM_LOOPS_HELP)
    add_decoding_flags(parser)
    parser.add_argument('--batch_size', type=int, default=32, help='examples a batch (32)')
    flags = parser.parse_args(arguments)
    if flags.batch_size < 1:
        raise UserError(f'--batch_size is {flags.batch_size}; it must be 1 or above.')
    if flags.output and flags.output.exists():
        raise UserError(f'{flags.output} exists already; choose another --output or remove it.')

    from albert_jax.tasks.answering import Answerer
    from albert_jax.tasks.inference import predict_file

    labels = flags.labels.split(',') if flags.labels else None
    answerer = Answerer(
        flags.checkpoint, flags.task, flags.batch_size, labels=labels,
        null_score_diff_threshold=flags.null_score_diff_threshold, predicates=flags.predicates,
        decoding=given_decoding(flags), num_loops=flags.num_loops,
    )  # fmt: skip
    predict_file(answerer, flags.input, flags.output, flags.server)
    return 0


if __name__ == '__main__':
    command.run(main)
