"""Any number of labels for a text or a pair: from lists, or from a 0/1 column for each label."""

import collections
import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from albert_jax.cli.errors import UserError
from albert_jax.cli.json_text import check_text, is_visible, parse_json
from albert_jax.cli.notes import note
from albert_jax.model.heads import Head
from albert_jax.runs.task import TaskSettings
from albert_jax.tasks import metrics
from albert_jax.tasks.class_labels import classes, note_alike
from albert_jax.tasks.classification import TextTask
from albert_jax.tasks.features import Features
from albert_jax.tasks.tables import MISSING, Row, read_rows
from albert_jax.tasks.task import Outputs, check_keys
from albert_jax.tasks.text_examples import Columns, TextExample, note_gaps

_YES_OR_NO = {'0': False, '0.0': False, 'false': False, '1': True, '1.0': True, 'true': True}
# Columns that are no labels unless task.labels says so.
_NUMBERING = ('id', 'idx', 'index')


@dataclasses.dataclass(frozen=True)
class MultiLabelExample(TextExample):
    """A text or a pair; the labels are None where they are not known, and may be none."""

    labels: tuple[str, ...] | None = None

    @property
    def is_labelled(self) -> bool:
        """Whether the labels are known."""
        return self.labels is not None


class MultiLabelTask(TextTask):
    """Texts or pairs with any number of labels each.

    In the column `task.label` is a JSON list of labels; or, in place of that column, there is one
    of 0 and 1 for each label: those that `task.labels` names, or all but the texts.

    Args:
      settings: of the task.
    """

    head_kind = 'multi_label_classification'
    reads_tfds = False

    def __init__(self, settings: TaskSettings) -> None:
        super().__init__(settings, metric_names=('micro_f1', 'macro_f1'))
        # Whether the settings say which columns are those of labels.
        self._names_columns = self.labels is not None

    def tfds_columns(self) -> Columns:
        """None: the label of a data set of tensorflow-datasets is read as one class.

        Raises:
          UserError: always.
        """
        raise UserError(
            f'The task {self.settings.name} is not read from tensorflow-datasets; write its '
            f'examples to a .jsonl with a list of labels each, and set --config.data.train=FILE.'
        )

    @property
    def other_fields(self) -> tuple[str, ...]:
        """The columns of the text and of the labels, too."""
        return (*super().other_fields, *(self.labels or ()))

    def read(self, path: Path, is_training: bool, is_labelled: bool = True) -> list[TextExample]:
        """The examples of a file.

        Raises:
          UserError: if a column is missing, labels are missing or not what they must be, or there
            is no row.
        """
        columns = self.columns(path, is_labelled)
        key_column = None if columns.key in (self.labels or ()) else columns.key
        examples: list[MultiLabelExample] = []
        num_empty = 0
        # How many rows have a column that is none of a label, by its name.
        unread: collections.Counter[str] = collections.Counter()
        for row in read_rows(path):
            if is_training and row.is_empty:
                num_empty += 1
                continue
            first = row.value(columns.first)
            second = row.value(columns.second) if columns.second else None
            labels = self._row_labels(row, is_training, unread) if is_labelled else None
            key = row.key(key_column)
            examples.append(MultiLabelExample(row.where, key, first, second, None, labels))
        if not examples:
            raise UserError(f'{path} has no examples.')
        if num_empty:
            note(f'{path}: {num_empty} empty rows were left out.')
        for name, count in unread.items():
            note(
                f'{path}: the column {name!r} of {count} rows is no label that is known, and is '
                f'not read.'
            )
        note_gaps(examples, path, is_labelled)
        check_keys(examples, str(path), is_refused=False)
        if is_training and not self.labels:
            return _with_classes(examples, path)
        if is_training and not self._names_columns:
            note_alike({x: _num_with(x, examples) for x in self.labels or ()}, str(path))
        return list(examples)

    def _row_labels(
        self, row: Row, is_training: bool, unread: collections.Counter[str]
    ) -> tuple[str, ...] | None:
        """The labels of a row; None where it has none and is not to be learnt from."""
        column = self.settings.label
        names = dict.fromkeys([*row.values, *row.kinds])
        if column in names and column not in (self.labels or ()):
            labels = _listed_labels(row, column)
        else:
            labels = self._marked_labels(row, list(names), is_training, unread)
        if labels is None and is_training:
            raise UserError(
                f'{row.where} has no labels; give it a list in column {column!r} (an empty one if '
                f'none is right), or a column of 0 and 1 for each label.'
            )
        if labels is None or not self.labels:
            return labels
        return tuple(self._known_label(x, row.where, self.labels, 'there are') for x in labels)

    def _marked_labels(
        self,
        row: Row,
        names: Sequence[str],
        is_training: bool,
        unread: collections.Counter[str],
    ) -> tuple[str, ...] | None:
        """The labels whose columns have a 1."""
        texts = (self.settings.text, self.settings.text_pair, *_NUMBERING)
        others = [name for name in names if name not in texts]
        labels = self.labels or tuple(others)
        if not self.labels:
            _check_lists(row, labels, self.settings.label)
        missing = [label for label in labels if row.get(label) is None]
        if len(missing) == len(labels):
            return None
        if missing:
            raise UserError(
                f'{row.where} has no value for the label {missing[0]!r}; give it 0 or 1.'
            )
        marks = {label: row.value(label).strip().lower() for label in labels}
        if not any(marks.values()) and not is_training:
            return None
        for label, mark in marks.items():
            if mark not in _YES_OR_NO:
                raise UserError(
                    f'{row.where}: column {label!r} holds {row.value(label)!r}; the column of a '
                    f'label holds 0 or 1 (name these columns with --config.task.labels=A,B, or the '
                    f'column of lists with --config.task.label=NAME).'
                )
        if not self.labels:
            _check_names(labels, row.where)
            self.labels = labels
        elif not self._names_columns:
            others = [name for name in others if name not in labels]
            unread.update(_unread(row, others, is_training))
        return tuple(label for label in labels if _YES_OR_NO[marks[label]])

    def labels_of(self, example: TextExample) -> tuple[str, ...]:
        """The labels, if they are known."""
        return (example.labels or ()) if isinstance(example, MultiLabelExample) else ()

    def head(self, examples: Sequence[TextExample]) -> Head:
        """An output for each label, in the order of the settings or the columns, or sorted.

        Raises:
          UserError: if no example has a label.
        """
        labels = self.labels or tuple(sorted({x for e in examples for x in self.labels_of(e)}))
        if not labels:
            raise UserError(
                f'{examples[0].where.rpartition(",")[0]}: no example has a label; there is nothing '
                f'to learn.'
            )
        return Head(self.head_kind, labels)

    def suits(self, head: Head) -> bool:
        """Any number of outputs."""
        return head.kind == self.head_kind

    def _targets(self, examples: Sequence[TextExample], head: Head) -> np.ndarray:
        """1 for each label that is right, [examples, labels]."""
        targets = np.zeros((len(examples), len(head.labels)), np.float32)
        for row, example in enumerate(examples):
            for label in self.labels_of(example):
                known = self._known_label(label, example.where, head.labels, 'the model has')
                targets[row, head.labels.index(known)] = 1
        return targets

    def metrics(
        self, examples: Sequence[TextExample], features: Features, outputs: Outputs, head: Head
    ) -> dict[str, float]:
        """Micro and macro F1 over the labelled examples; none if there are none."""
        del head
        labelled = np.array([example.is_labelled for example in examples])
        if not labelled.any():
            return {}
        predicted = np.stack(list(outputs['logits'])) > 0
        labels = np.asarray(features.targets['labels']) > 0
        return metrics.multi_label_f1(labels[labelled], predicted[labelled])

    def predictions(
        self, examples: Sequence[TextExample], features: Features, outputs: Outputs, head: Head
    ) -> list[dict[str, Any]]:
        """The labels with a probability above 1/2, and the probability of each."""
        del features
        logits = np.stack(list(outputs['logits'])).astype(np.float64)
        # Without an overflow for logits far below 0.
        probabilities = np.exp(-np.logaddexp(0, -logits))
        return [
            {
                'id': example.key,
                'prediction': [x for x, z in zip(head.labels, of_row, strict=True) if z > 0],
                'probabilities': dict(zip(head.labels, row.tolist(), strict=True)),
            }
            for example, of_row, row in zip(examples, logits, probabilities, strict=True)
        ]

    def write(
        self,
        examples: Sequence[TextExample],
        predictions: Sequence[Mapping[str, Any]],
        folder: Path,
    ) -> list[Path]:
        """A TSV with the column index, and one of 0 and 1 for each label."""
        del examples
        file = folder / 'predictions.tsv'
        labels = list(predictions[0]['probabilities']) if predictions else []
        with file.open('w', encoding='utf-8', newline='') as stream:
            writer = csv.writer(stream, delimiter='\t', lineterminator='\n')
            writer.writerow(['index', *labels])
            for row in predictions:
                marks = [int(label in row['prediction']) for label in labels]
                writer.writerow([row['id'], *marks])
        return [file]


def _check_lists(row: Row, labels: Sequence[str], column: str) -> None:
    """Refuses a list in a column that is taken for one of 0 and 1: its name is another."""
    lists = [label for label in labels if row.kinds.get(label) == 'a list']
    if lists:
        name = lists[0] if len(lists) == 1 else 'NAME'
        raise UserError(
            f'{row.where} has a list in {" and ".join(map(repr, lists))}, and no column '
            f'{column!r}; name the column with the lists of labels with --config.task.label={name}.'
        )


def _check_names(labels: Sequence[str], where: str) -> None:
    """Refuses names of columns that are no names of labels."""
    for label in labels:
        check_text(label, f'{where}: the name of a column')
        if not is_visible(label):
            raise UserError(
                f'{where}: the column {label!r} has 0 or 1, and a name of which nothing is seen; '
                f'rename or remove it, or name the columns of labels with --config.task.labels=A,B.'
            )


def _unread(row: Row, names: Sequence[str], is_training: bool) -> list[str]:
    """Which of the columns that are none of a label should be known of.

    In training, where the first row says which labels there are, they are those that it lacks; in
    other files columns that are marked as those of labels are.

    Raises:
      UserError: if the first row of a training file lacks a label.
    """
    found: list[str] = []
    for name in names:
        value = row.values.get(name, '')
        is_marked = value.strip().lower() in _YES_OR_NO
        if is_training and is_marked:
            raise UserError(
                f'{row.where}: the column {name!r} holds {value!r}, and rows before this one have '
                f'no such column; give every row 0 or 1 for each label, or name those that are '
                f'labels with --config.task.labels=A,B.'
            )
        if is_marked or (is_training and value.strip()):
            found.append(name)
    return found


def _num_with(label: str, examples: Sequence[MultiLabelExample]) -> int:
    return sum(label in (example.labels or ()) for example in examples)


def _listed_labels(row: Row, column: str) -> tuple[str, ...] | None:
    """The labels in a cell that holds a list; None where the cell is empty."""
    if column in row.repeated:
        row.get(column)
    value, where = row.values.get(column, ''), f'{row.where}, column {column!r}'
    if row.kinds.get(column) in MISSING or not value.strip():
        return None
    labels = parse_json(value, where) if value.lstrip().startswith('[') else value
    if not isinstance(labels, list):
        raise UserError(
            f'{row.where}: {column!r} is {value!r}; it must be a list of labels, such as '
            f'["A", "B"].'
        )
    names: list[str] = []
    for label in labels:
        is_number = isinstance(label, int) and not isinstance(label, bool)
        name = str(label) if is_number else label
        if not isinstance(name, str) or not is_visible(name):
            raise UserError(
                f'{row.where}: {json.dumps(label)} is no label; a list has the names of the labels '
                f'that are right.'
            )
        names.append(check_text(name, where).strip())
    for name, count in collections.Counter(names).items():
        if count > 1:
            raise UserError(
                f'{row.where}: the label {name!r} is in the list {count} times; a list has the '
                f'names of the labels that are right, each once.'
            )
    return tuple(names)


def _with_classes(examples: Sequence[MultiLabelExample], path: Path) -> list[TextExample]:
    """The examples of a training file with one spelling for each label."""
    places: dict[str, str] = {}
    counts: collections.Counter[str] = collections.Counter()
    for example in examples:
        for label in example.labels or ():
            places.setdefault(label, example.where)
            counts[label] += 1
    names = classes(places, counts, str(path))
    return [
        dataclasses.replace(e, labels=tuple(dict.fromkeys(names[x] for x in e.labels or ())))
        for e in examples
    ]
