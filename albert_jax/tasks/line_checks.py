"""Lines for tasks of texts that are a table: each would be read as a text with its label in it."""

from collections.abc import Sequence

from albert_jax.cli.errors import UserError


def check_single_texts(lines: Sequence[str], origin: str) -> None:
    """Refuses lines that all have columns with tabs between, where each should be one text.

    Args:
      lines: without their line ends; what begins as JSON is none.
      origin: what to call them in messages.

    Raises:
      UserError: if there are two or more, and all have as many tabs.
    """
    texts = [line for line in lines if line.strip() and not line.lstrip().startswith('{')]
    counts = {line.count('\t') for line in texts}
    if len(texts) > 1 and len(counts) == 1 and counts != {0}:
        raise UserError(
            f'{origin} has {counts.pop() + 1} columns with tabs between them in each line, where '
            f'each line should be one text; give it as a file with the ending .tsv, whose first '
            f'line names the columns.'
        )


def check_pairs(lines: Sequence[str], names: Sequence[str], origin: str) -> None:
    """Refuses a first line that names the two columns, which would be a pair.

    Args:
      lines: without their line ends.
      names: of the columns.
      origin: what to call them in messages.

    Raises:
      UserError: if the first line is the names.
    """
    first = next((line for line in lines if line.strip()), '')
    if len(lines) > 1 and first.split('\t') == list(names):
        raise UserError(
            f'{origin}: the first line, {first!r}, names the columns; give it as a file with the '
            f'ending .tsv, or without that line.'
        )
