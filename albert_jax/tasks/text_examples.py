"""Texts and pairs as they are read, and what is said of a file of them."""

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from albert_jax.cli.json_text import is_visible
from albert_jax.cli.notes import note
from albert_jax.tasks.class_labels import classes


@dataclasses.dataclass(frozen=True)
class TextExample:
    """A text or a pair; the label is None where it is not known."""

    # 'FILE, line N', for messages.
    where: str
    key: str
    first: str
    second: str | None
    label: str | None

    @property
    def is_labelled(self) -> bool:
        """Whether the label is known."""
        return self.label is not None

    @property
    def has_empty_text(self) -> bool:
        """Whether of one of its texts nothing is seen."""
        return not is_visible(self.first) or (
            self.second is not None and not is_visible(self.second)
        )

    @property
    def group(self) -> str:
        """Examples with the same first text are held out together."""
        return self.first or str(self)


class Columns(NamedTuple):
    """Names of the columns of a file."""

    key: str | None
    first: str
    # None for tasks of single texts.
    second: str | None
    label: str


def with_classes(examples: Sequence[TextExample], origin: str) -> list[TextExample]:
    """The examples to train on with the names of their classes as labels.

    Args:
      examples: all with a label.
      origin: what to call their file in notes.

    Raises:
      UserError: as of `classes`.
    """
    places: dict[str, str] = {}
    for example in examples:
        places.setdefault(example.label or '', example.where)
    counts = collections.Counter(example.label or '' for example in examples)
    names = classes(places, counts, origin)
    return [
        example
        if example.label == (name := names[example.label or ''])
        else dataclasses.replace(example, label=name)
        for example in examples
    ]


def note_gaps(examples: Sequence[TextExample], path: Path, is_labelled: bool) -> None:
    """Notes what is missing in examples that are kept.

    Args:
      examples: of a file.
      path: the file.
      is_labelled: its labels were read.
    """
    empty = [example for example in examples if example.has_empty_text]
    if empty:
        note(
            f'{path}: {len(empty)} of {len(examples)} examples have an empty text, the first '
            f'at {empty[0].where.rpartition(", ")[2]}.'
        )
    num_unlabelled = sum(not example.is_labelled for example in examples)
    if is_labelled and 0 < num_unlabelled < len(examples):
        note(
            f'{path}: {num_unlabelled} of {len(examples)} examples have no label; metrics '
            f'are over the others.'
        )
