"""Pairs of a source and a target: tables, JSON Lines, or two files that belong together by line."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from albert_jax.cli.errors import UserError
from albert_jax.cli.json_text import is_visible
from albert_jax.cli.notes import note
from albert_jax.tasks.tables import TABLE_ENDINGS, read_rows, read_text, split_lines, text_ending

# Of a row: 'FILE, line N', its id or its number from 0, source and target, which may not be known.
PairRow = tuple[str, str, str, str | None]


@dataclasses.dataclass(frozen=True)
class TextPair:
    """A source, and the target that is to be made of it; None where it is not known."""

    # 'FILE, line N', for messages.
    where: str
    key: str
    source: str
    target: str | None

    @property
    def is_labelled(self) -> bool:
        """Whether the target is known."""
        return self.target is not None

    @property
    def group(self) -> str:
        """Pairs with the same source are held out together."""
        return self.source


class Sides(NamedTuple):
    """What source and target are called: a column, a column's number, or the ending of a file."""

    source: str
    target: str


def read_pairs(path: Path, sides: Sides, is_labelled: bool) -> list[TextPair]:
    """The pairs of a table, or of two files of which line N of one belongs to line N of the other.

    Two files are named by what they share, `X` of `X.en` and `X.de`, or by that of the sources.

    Args:
      path: a table (.tsv, .csv, .jsonl), or two files; each perhaps with .gz behind.
      sides: the columns, or the endings of the two files. Numbers are columns, counted from 0, of a
        table whose first line does not name them.
      is_labelled: the targets are read too.

    Raises:
      UserError: if a file is not there or cannot be read, the files have not the same number of
        lines, a side of a pair is empty, or there is no pair.
    """
    two_files = _two_files(path, sides)
    if two_files is not None:
        rows = _lines(*two_files, is_labelled)
    elif text_ending(path) in TABLE_ENDINGS:
        rows = _table_rows(path, sides, is_labelled)
    elif path.exists():
        raise UserError(
            f'{path} is neither a table (.tsv, .csv, .jsonl) nor ends in .{sides.source}, as the '
            f'sources of two files would; rename it, or set --config.task.source and '
            f'--config.task.target to the endings of the two files.'
        )
    else:
        raise UserError(
            f'{path} is not there, and neither are {path}.{sides.source} and '
            f'{path}.{sides.target}, with or without .gz.'
        )
    return checked_pairs(rows, str(path))


def _two_files(path: Path, sides: Sides) -> tuple[Path, Path] | None:
    """The files of the sources and of the targets, if the path means two."""
    if path.is_file():
        stem = path.with_suffix('') if path.suffix == '.gz' else path
        if stem.suffix != f'.{sides.source}':
            return None
        return path, _plain_or_packed(stem.with_suffix(f'.{sides.target}'))
    if path.is_dir():
        return None
    files = tuple(_plain_or_packed(Path(f'{path}.{side}')) for side in sides)
    return (files[0], files[1]) if any(file.is_file() for file in files) else None


def _plain_or_packed(path: Path) -> Path:
    """The file, or that with .gz behind if only it is there."""
    packed = Path(f'{path}.gz')
    return packed if packed.is_file() and not path.is_file() else path


def _lines(source: Path, target: Path, is_labelled: bool) -> list[PairRow]:
    """The rows of two files.

    Raises:
      UserError: if they have not the same number of lines.
    """
    sources = _lines_of(source)
    targets: Sequence[str | None] = [None] * len(sources)
    if is_labelled:
        targets = _lines_of(target)
        if len(sources) != len(targets):
            raise UserError(
                f'{source} has {len(sources):,} lines and {target} has {len(targets):,}; each line '
                f'of the one must belong to the line with the same number of the other.'
            )
    return [
        (f'{source}, line {number + 1}', str(number), *pair)
        for number, pair in enumerate(zip(sources, targets, strict=True))
    ]


def _lines_of(path: Path) -> list[str]:
    lines = split_lines(read_text(path))
    return lines[:-1] if not lines[-1] else lines


def _table_rows(path: Path, sides: Sides, is_labelled: bool) -> list[PairRow]:
    has_header = not all(re.fullmatch('[0-9]+', side) for side in sides)
    return [
        (
            row.where,
            row.key(None if 'id' in sides else 'id'),
            row.value(sides.source),
            row.value(sides.target) if is_labelled else None,
        )
        for row in read_rows(path, has_header)
    ]


def checked_pairs(rows: Sequence[PairRow], origin: str) -> list[TextPair]:
    """The pairs that have something; those with nothing on both sides are counted in a note.

    A source without a target that is known may be empty.

    Args:
      rows: where each is, what it is called, source and target.
      origin: what to call all of them in messages.

    Raises:
      UserError: if one side of a pair is empty, or all are.
    """
    pairs = []
    empty: list[tuple[str, str]] = []
    num_blank = 0
    for where, key, source, target in rows:
        has_source = is_visible(source)
        if target is not None:
            if not has_source and not is_visible(target):
                num_blank += 1
                continue
            if has_source != is_visible(target):
                empty.append((where, 'target' if has_source else 'source'))
        pairs.append(TextPair(where, key, source, target))
    if empty:
        where, side = empty[0]
        more = f' (and {len(empty) - 1} more pairs have an empty side)' if len(empty) > 1 else ''
        raise UserError(f'{where}: the {side} is empty{more}; remove such pairs, both sides.')
    if not pairs:
        raise UserError(f'{origin} has no pairs.')
    if num_blank:
        note(f'{origin}: {num_blank} pairs of which both sides are empty were left out.')
    return pairs
