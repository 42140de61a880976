"""Rows of TSV, CSV and JSON Lines files, each with the line that it comes from."""

import collections
import csv
import gzip
import io
import json
import math
import re
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from albert_jax.cli.errors import UserError, reason
from albert_jax.cli.json_text import check_lines, check_text, parse_row
from albert_jax.cli.notes import note
from albert_jax.cli.utf16 import check_is_not_utf16

# In characters; csv's own limit is 131,072, and the largest that it takes is a C long.
_LONGEST_FIELD = 2**31 - 1
# What JSON Lines have for a value that is not there.
MISSING = ('null', 'NaN')
# Of files with rows and columns, perhaps with .gz behind.
TABLE_ENDINGS = ('.tsv', '.csv', '.jsonl', '.json')
# What rows are called by.
_KEYS = ('id', 'index')
# A cell that was written with CSV's quoting: "so ""they"" said".
_QUOTED = re.compile(r'"[^"]*""(""|[^"])*"')


class Row(NamedTuple):
    """Values by the name of their column, or by its number where the file has no header."""

    # 'FILE, line N' of its first line, for messages.
    where: str
    # Its place among the rows of the file, from 0. Rows that were left out have a place too.
    number: int
    # Numbers, lists and objects of JSON Lines as JSON.
    values: Mapping[str, str]
    # What other values of JSON Lines are: 'null', 'NaN', 'a list', …
    kinds: Mapping[str, str] = {}
    # 'FILE, line N' of the header or the object, by the names that it has more than once.
    repeated: Mapping[str, str] = {}

    @property
    def is_empty(self) -> bool:
        """Whether there are cells and every one is empty, or white space."""
        return bool(self.values) and not self.kinds and not ''.join(self.values.values()).strip()

    def get(self, column: str) -> str | None:
        """The value of a column; None if the row has none.

        Raises:
          UserError: if there are two of them, or it is a list, an object or half a character.
        """
        if column in self.repeated:
            raise UserError(
                f'{self.repeated[column]} has the column {column!r} twice; rename or remove one.'
            )
        value = self.values.get(column)
        if value is None:
            return None
        if column in self.kinds:
            raise UserError(
                f'{self.where}: {column!r} is {self.kinds[column]}; a text or a number is needed.'
            )
        return value if value.isascii() else check_text(value, f'{self.where}, column {column!r}')

    def value(self, column: str) -> str:
        """The value of a column.

        Raises:
          UserError: if the row has none, or `get` refuses it.
        """
        value = self.get(column)
        if value is None and column in self.kinds:
            raise UserError(
                f'{self.where}: {column!r} is {self.kinds[column]}; give it a value or remove the '
                f'row.'
            )
        if value is None:
            names = dict.fromkeys([*self.values, *self.kinds])
            listed = ', '.join(name if name.isprintable() else repr(name) for name in names)
            raise UserError(f'{self.where} has no column {column!r}; there are {listed}.')
        return value

    def key(self, column: str | None = 'id') -> str:
        """What the row is called: its value of a column, or its number if it has none there.

        Args:
          column: of the names; None if the rows have none.

        Raises:
          UserError: if the name has half a character.
        """
        if column is None or column in self.repeated:
            return str(self.number)
        value = self.values.get(column, '').strip()
        return check_text(value, f'{self.where}, column {column!r}') or str(self.number)


def text_ending(path: Path) -> str:
    """The ending of a file's name in small letters, without the .gz of one that is packed."""
    return (path.with_suffix('') if _is_packed(path) else path).suffix.lower()


def _is_packed(path: Path) -> bool:
    return path.suffix.lower() == '.gz'


def read_text(path: Path) -> str:
    """The content of a file of text; one whose name ends in .gz is unpacked.

    Raises:
      UserError: if it cannot be read, is empty, or is not UTF-8 or looks like UTF-16.
    """
    try:
        content = path.read_bytes()
        if _is_packed(path):
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error, ValueError) as error:  # \0 in a name is a ValueError
        raise UserError(f'{path} cannot be read: {reason(error)}.') from error
    text = decode(content, str(path))
    if not text.strip():
        raise UserError(f'{path} is empty.')
    return text


def decode(content: bytes, origin: str) -> str:
    """The text of bytes, without a byte-order mark.

    Args:
      content: the bytes.
      origin: what to call them in the message.

    Raises:
      UserError: if they are not UTF-8, or look like UTF-16.
    """
    check_is_not_utf16(content, origin)
    try:
        return content.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        line = content.count(b'\n', 0, error.start) + 1
        raise UserError(
            f'{origin}, line {line} is not UTF-8 (byte {content[error.start]:#04x}); convert it, '
            f'for example with iconv.'
        ) from error


def split_lines(text: str) -> list[str]:
    r"""The lines of a text, which end in \n or \r\n, or in \r where no \n is before the end."""
    # A \n at the end alone is of another program than the lines.
    if '\n' not in text[:-1] and not text.endswith('\r\n'):
        lines = text.removesuffix('\n').split('\r')
        return [*lines, ''] if text.endswith('\n') else lines
    return text.replace('\r\n', '\n').split('\n')


def read_rows(path: Path, has_header: bool = True, skips_broken: bool = False) -> Iterator[Row]:
    """The rows of a file; its ending says which of the three it is.

    TSV is as GLUE's: no quoting. CSV may quote. A line without any cell is no row, unless the file
    has one column: there it is an empty cell, but not at the end of the file. Whatever is left out
    is counted in a note.

    Args:
      path: .tsv, .csv or .jsonl (.json), perhaps with .gz behind.
      has_header: if not, columns are named by their numbers, '0', '1', …
      skips_broken: leave rows out that have more or fewer fields than the header.

    Raises:
      UserError: if it cannot be read, or a row has more or fewer fields than the header.
    """
    text = read_text(path)
    ending = text_ending(path)
    if ending in ('.jsonl', '.json'):
        yield from _json_rows(path, text)
    elif ending == '.csv':
        yield from _delimited(path, _csv_records(path, text), has_header, skips_broken)
    elif ending in ('.tsv', '.txt'):
        yield from _delimited(path, _tsv_records(path, text), has_header, skips_broken)
    else:
        raise UserError(f'{path} is none of .tsv, .csv and .jsonl; rename it to what it is.')


def _tsv_records(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """The number and the fields of each line; none for an empty line."""
    num_quoted = 0
    for number, line in enumerate(split_lines(text), 1):
        fields = line.split('\t') if line else []
        if '""' in line:
            num_quoted += sum(_QUOTED.fullmatch(field) is not None for field in fields)
        yield number, fields
    if num_quoted:
        note(
            f'{path}: {num_quoted} fields look quoted as in CSV, but TSV is read without quoting: '
            f'their quotation marks are kept.'
        )


def _csv_records(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """The number of the first line and the fields of each row; none for an empty line."""
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))
    # csv.reader wants line ends of its own to keep those inside quotes.
    reader = csv.reader(io.StringIO(text, newline=''), strict=True)
    first = 1
    try:
        for fields in reader:
            yield first, fields
            first = reader.line_num + 1
    except csv.Error as error:
        if 'end of data' in str(error):
            raise UserError(
                f'{path}, line {first}: the row that starts here has a quotation mark that is '
                f'never closed; close it, or write it twice within quotes.'
            ) from error
        since = f' in the row that starts in line {first}' if first < reader.line_num else ''
        raise UserError(
            f'{path}, line {reader.line_num} is not CSV: {error}{since}; within quotes a quotation '
            f'mark is written twice.'
        ) from error


def _delimited(
    path: Path, records: Iterator[tuple[int, list[str]]], has_header: bool, skips_broken: bool
) -> Iterator[Row]:
    names: list[str] | None = None
    header = 0
    repeated: dict[str, str] = {}
    blank_lines: list[tuple[int, list[str]]] = []
    number = num_broken = num_blank = 0
    for line, fields in records:
        if names is None:
            if _is_blank(fields, len(fields)):
                continue
            names = fields if has_header else [str(index) for index in range(len(fields))]
            if has_header:
                header = line
                repeated = {name: f'{path}, line {line}' for name in _repeated(names)}
                _note_keys(f'{path}, line {line}', repeated)
                continue
        if header and len(names) > 1 and _without_mark(fields) == _without_mark(names):
            raise UserError(
                f'{path}, line {line} names the columns again, as line {header} does; remove it '
                f'from files that were put together.'
            )
        if _is_blank(fields, len(names)):
            blank_lines.append((line, fields))
            continue
        # Blank lines at the end of the file do not come here.
        for blank_line, cells in blank_lines:
            if len(names) > 1:
                num_blank += 1
                continue
            values = {names[0]: ''.join(cells)}
            yield Row(f'{path}, line {blank_line}', number, values, repeated=repeated)
            number += 1
        blank_lines = []
        if len(fields) == len(names):
            values = dict(zip(names, fields, strict=True))
            yield Row(f'{path}, line {line}', number, values, repeated=repeated)
        elif skips_broken:
            num_broken += 1
        else:
            raise UserError(
                f'{path}, line {line} has {len(fields)} fields; the first line has {len(names)}.'
            )
        number += 1
    if num_broken:
        note(f'{path}: {num_broken} broken rows were left out.')
    if num_blank:
        note(f'{path}: {num_blank} blank lines were skipped.')


def _without_mark(fields: Sequence[str]) -> list[str]:
    """Fields without the byte-order mark that a file within another begins with."""
    return [fields[0].removeprefix('\ufeff'), *fields[1:]] if fields else []


def _is_blank(fields: Sequence[str], num_columns: int) -> bool:
    """Whether a line has no cell, or only empty cells that are too many or too few."""
    if ''.join(fields).strip():
        return False
    # The one empty cell of a line that is not empty is CSV's "".
    return len(fields) != num_columns if len(fields) > 1 else fields != ['']


def _note_keys(where: str, repeated: Collection[str]) -> None:
    for key in _KEYS:
        if key in repeated:
            note(f'{where} has the column {key!r} twice; rows with two are called by their number.')


def _repeated(names: Sequence[str]) -> list[str]:
    return [name for name, count in collections.Counter(names).items() if count > 1]


def _json_rows(path: Path, text: str) -> Iterator[Row]:
    lines = split_lines(text.rstrip())
    check_lines(lines, str(path))
    number = num_blank = 0
    first_repeated = ''
    for line_number, line in enumerate(lines, 1):
        if not line.strip():
            num_blank += 1
            continue
        where = f'{path}, line {line_number}'
        content, repeated = parse_row(line, where)
        kinds = {name: _kind(value) for name, value in content.items()}
        kinds = {name: kind for name, kind in kinds.items() if kind}
        values = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in content.items()
            if kinds.get(name) not in MISSING
        }
        if not first_repeated and set(repeated) & set(_KEYS):
            first_repeated = where
            _note_keys(where, repeated)
        yield Row(where, number, values, kinds, dict.fromkeys(repeated, where))
        number += 1
    if num_blank:
        note(f'{path}: {num_blank} blank lines were skipped.')


def _kind(value: Any) -> str:
    """What a value of JSON is, if it cannot be taken for a text."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return json.dumps(value)
    if isinstance(value, list | dict):
        return 'a list' if isinstance(value, list) else 'an object'
    return ''
