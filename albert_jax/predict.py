"""Answers of a fine-tuned model for new texts: `python -m albert_jax.predict --help`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from albert_jax.cli import command
from albert_jax.cli.errors import UserError

_DESCRIPTION = """\
Answers of a fine-tuned model, a JSON object a line, or in the form of the benchmark's server.

--input is a file of the task's own format (.tsv, .csv, .jsonl, .json, .conllu, for tagging .txt, a
folder of RACE), or lines (any other ending, or - for standard input):
  texts        a text a line; a pair with a tab between; or JSON with the task's columns
  tagging      words with spaces between
  questions    JSON with question and passage; for RACE also options, a list of four"""
_EPILOG = """\
examples:
  echo 'A gripping, beautiful film.' | python -m albert_jax.predict --checkpoint=runs/sst2 --input=-
  python -m albert_jax.predict --checkpoint=runs/sst2 --input=GLUE/SST-2/test.tsv --server=out
"""
_OWN_ENDINGS = ('.tsv', '.csv', '.jsonl', '.json', '.conllu', '.conll')


def main(arguments: Sequence[str]) -> int:
    """Prints or writes an answer for each example."""
    parser = command.parser('albert_jax.predict', _DESCRIPTION, _EPILOG)
    parser.add_argument('--checkpoint', required=True, help='a fine-tuned model, in any format')
    parser.add_argument('--input', required=True, help='file, folder, or - for standard input')
    parser.add_argument('--output', type=Path, help='file of JSON Lines (standard output)')
    parser.add_argument('--server', type=Path, help='folder for files that a server takes')
    parser.add_argument('--task', help='where the checkpoint does not say')
    parser.add_argument(
        '--labels', help="names of the outputs in order, with commas, in place of the model's"
    )
    parser.add_argument('--batch_size', type=int, default=32, help='examples a batch (32)')
    flags = parser.parse_args(arguments)
    if flags.batch_size < 1:
        raise UserError(f'--batch_size is {flags.batch_size}; it must be 1 or above.')
    if flags.output and flags.output.exists():
        raise UserError(f'{flags.output} exists already; choose another --output or remove it.')

    from albert_jax.tasks.answering import Answerer
    from albert_jax.tasks.job import write_predictions

    answerer = Answerer(
        flags.checkpoint,
        flags.task,
        flags.batch_size,
        labels=flags.labels.split(',') if flags.labels else None,
    )
    examples = read(answerer, flags.input)
    answers = answerer.evaluate(examples)[1]
    lines = [json.dumps(answer, ensure_ascii=False) + '\n' for answer in answers]
    if flags.output:
        try:
            flags.output.write_text(''.join(lines), 'utf-8')
        except OSError as error:
            raise UserError(f'{flags.output} cannot be written: {error.strerror}.') from error
        print(f'Wrote {len(answers)} answers to {flags.output}.')
    if flags.server:
        for file in write_predictions(answerer.family, examples, answers, flags.server):
            print(f'Wrote {file}.')
    if not flags.output and not flags.server:
        sys.stdout.writelines(lines)
    return 0


def read(answerer: Any, source: str) -> list[Any]:
    """The examples of a file in the task's format, of lines, or of standard input.

    Raises:
      UserError: if there are none, or one is not what the task wants.
    """
    from albert_jax.tasks.tables import read_text

    path = Path(source)
    if source == '-':
        examples = list(answerer.examples(_standard_input(), 'standard input'))
    elif path.is_dir() or path.suffix in _own_endings(answerer.family) or '.tar.gz' in source:
        examples = answerer.family.read(path, False, is_labelled=False)
    else:
        examples = list(answerer.examples(read_text(path).split('\n'), source))
    if not examples:
        raise UserError(f'{"Standard input" if source == "-" else source} has no examples.')
    return examples


def _own_endings(family: Any) -> tuple[str, ...]:
    from albert_jax.tasks.tagging import TaggingTask

    # The CoNLL files are published as .txt.
    return (*_OWN_ENDINGS, '.txt') if isinstance(family, TaggingTask) else _OWN_ENDINGS


def _standard_input() -> list[str]:
    content = sys.stdin.buffer.read()
    try:
        return content.decode('utf-8').split('\n')
    except UnicodeDecodeError as error:
        line = content.count(b'\n', 0, error.start) + 1
        raise UserError(f'Standard input, line {line} is not UTF-8.') from error


if __name__ == '__main__':
    command.run(main)
