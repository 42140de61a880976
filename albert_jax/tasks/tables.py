"""Rows of TSV, CSV and JSON Lines files, each with the line that it comes from."""

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from albert_jax.cli.errors import UserError, reason


class Row(NamedTuple):
    """Values by the name of their column, or by its number where the file has no header."""

    # 'FILE, line N', for messages.
    where: str
    values: dict[str, str]

    def value(self, column: str) -> str:
        """The value of a column.

        Raises:
          UserError: if the row has none.
        """
        value = self.values.get(column)
        if value is None:
            raise UserError(
                f'{self.where} has no column {column!r}; there are {", ".join(self.values)}.'
            )
        return value


def read_text(path: Path) -> str:
    """The content of a file of text.

    Raises:
      UserError: if it cannot be read, is empty, or is not UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f'{path} cannot be read: {reason(error)}.') from error
    try:
        text = content.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        line = content.count(b'\n', 0, error.start) + 1
        raise UserError(
            f'{path}, line {line} is not UTF-8 (byte {content[error.start]:#04x}); convert the '
            f'file, for example with iconv.'
        ) from error
    if not text.strip():
        raise UserError(f'{path} is empty.')
    return text


def read_rows(path: Path, has_header: bool = True, skips_broken: bool = False) -> Iterator[Row]:
    """The rows of a file; its ending says which of the three it is.

    TSV is as GLUE's: no quoting. CSV may quote.

    Args:
      path: .tsv, .csv or .jsonl (.json).
      has_header: if not, columns are named by their numbers, '0', '1', …
      skips_broken: leave rows out that have more or fewer fields than the header, and say how many.

    Raises:
      UserError: if it cannot be read, or a row has more or fewer fields than the header.
    """
    text = read_text(path)
    if path.suffix in ('.jsonl', '.json'):
        yield from _json_rows(path, text)
    elif path.suffix == '.csv':
        # csv.reader wants line ends of its own to keep those inside quotes.
        reader = csv.reader(io.StringIO(text, newline=''), strict=True)
        yield from _delimited(path, _csv_rows(path, reader), has_header, skips_broken)
    elif path.suffix in ('.tsv', '.txt'):
        lines = text.replace('\r\n', '\n').split('\n')
        rows = ((i, line.split('\t')) for i, line in enumerate(lines, 1) if line.strip())
        yield from _delimited(path, rows, has_header, skips_broken)
    else:
        raise UserError(f'{path} is none of .tsv, .csv and .jsonl; rename it to what it is.')


def _csv_rows(path: Path, reader: object) -> Iterator[tuple[int, list[str]]]:
    try:
        for fields in reader:  # pyright: ignore[reportGeneralTypeIssues]
            if fields:
                yield reader.line_num, fields  # pyright: ignore[reportAttributeAccessIssue]
    except csv.Error as error:
        raise UserError(f'{path} is not CSV: {error}.') from error


def _delimited(
    path: Path, rows: Iterator[tuple[int, list[str]]], has_header: bool, skips_broken: bool
) -> Iterator[Row]:
    names: list[str] | None = None
    num_broken = 0
    for number, fields in rows:
        if names is None:
            names = fields if has_header else [str(index) for index in range(len(fields))]
            if has_header:
                continue
        if len(fields) != len(names) and skips_broken:
            num_broken += 1
            continue
        if len(fields) != len(names):
            raise UserError(
                f'{path}, line {number} has {len(fields)} fields; the first line has {len(names)}.'
            )
        yield Row(f'{path}, line {number}', dict(zip(names, fields, strict=True)))
    if num_broken:
        print(f'note: {path}: {num_broken} broken rows were left out.', file=sys.stderr)


def _json_rows(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split('\n'), 1):
        if not line.strip():
            continue
        where = f'{path}, line {number}'
        try:
            content = json.loads(line)
        except ValueError as error:
            raise UserError(f'{where} is not JSON: {error}.') from error
        if not isinstance(content, dict):
            raise UserError(f'{where} is not a JSON object.')
        known = {name: value for name, value in content.items() if value is not None}
        yield Row(where, {k: v if isinstance(v, str) else json.dumps(v) for k, v in known.items()})
