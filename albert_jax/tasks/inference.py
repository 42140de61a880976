"""Evaluation and prediction over files, as the commands do them."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from albert_jax.cli.errors import UserError, reason
from albert_jax.cli.report import print_metrics, write_results
from albert_jax.tasks.answer_table import answer_table
from albert_jax.tasks.answering import Answerer
from albert_jax.tasks.inputs import read_input
from albert_jax.tasks.output import answering, write_predictions
from albert_jax.tasks.task import check_keys


def evaluate_file(answerer: Answerer, file: Path, output: Path | None) -> None:
    """Prints the metrics of a labelled file, and writes the predictions if asked.

    Args:
      answerer: the model.
      file: a labelled file or folder in the task's layout.
      output: folder for the predictions, and the metrics as results.json.

    Raises:
      UserError: if it cannot be read, has no labels, or the predictions cannot be written.
    """
    examples = answerer.task.read(file, False)
    with answering(len(examples)) as progress:
        metrics, predictions = answerer.evaluate(examples, progress.advance)
    if not metrics:
        raise UserError(f'{file} has no labels; use python -m albert_jax.predict for its answers.')
    print(f'{file}: {len(examples):,} examples')
    print_metrics(metrics)
    for line in answerer.task.signatures():
        print(line)
    if output:
        written = write_predictions(answerer.task, examples, predictions, output)
        _print_written([*written, write_results(metrics, output)])


def predict_file(answerer: Answerer, source: str, output: Path | None, server: Path | None) -> None:
    """Predicts for all examples of a file or of standard input, and writes or prints the answers.

    A terminal gets a table for texts and pairs, a file or a pipe JSON Lines.

    Args:
      answerer: the model.
      source: as in `read_input`.
      output: file for the predictions, as JSON Lines or as the task shows them.
      server: folder for the files that the benchmark's server takes.

    Raises:
      UserError: if the source cannot be read, a file cannot be written, or two examples have the
        same id where the server goes by it.
    """
    examples = read_input(answerer.task, source)
    if server and answerer.task.writes_by_key:
        check_keys(examples, source, is_refused=True)
    with answering(len(examples), is_on_stderr=True) as progress:
        predictions = answerer.evaluate(examples, progress.advance)[1]
    as_json = output is not None and output.suffix in ('.jsonl', '.json')
    text = answerer.task.shown(predictions, as_json)
    if output:
        try:
            output.write_text(text, 'utf-8')
        except OSError as error:
            raise UserError(f'{output} cannot be written: {reason(error)}.') from error
        print(f'Wrote {len(predictions)} answers to {output}.')
    if server:
        _print_written(write_predictions(answerer.task, examples, predictions, server))
    if not output and not server:
        console = Console()
        table = answer_table(examples, predictions) if console.is_terminal else None
        if table is None:
            sys.stdout.write(text)
        else:
            console.print(table)


def _print_written(files: Sequence[Path]) -> None:
    for file in files:
        print(f'Wrote {file}.')
