"""GLUE and other data sets of texts through tensorflow-datasets: `tfds:glue/sst2`."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from albert_jax.cli.errors import UserError
from albert_jax.cli.json_text import is_visible
from albert_jax.cli.notes import note
from albert_jax.data import tfds_reader
from albert_jax.data.tfds_reader import DataSet
from albert_jax.tasks.classification import TextExample, TextTask
from albert_jax.tasks.generation import GenerationTask
from albert_jax.tasks.numbers import number_of
from albert_jax.tasks.task import Task
from albert_jax.tasks.text_examples import with_classes
from albert_jax.tasks.text_pairs import PairRow, TextPair, checked_pairs

# The names of the splits that are for validation; the first that a data set has is taken.
_VALIDATION = ('validation', 'valid', 'val', 'dev')


class Splits(NamedTuple):
    """Training examples, and validation and test examples by the suffix of their metrics."""

    train: list[Any]
    validation: dict[str, list[Any]]
    test: dict[str, list[Any]]


def read(path: str, task: Task) -> Splits:
    """The examples of a data set.

    Args:
      path: `tfds:NAME`.
      task: one of texts, pairs, or from text to text.

    Raises:
      UserError: if the data set cannot be opened, or the task cannot be read from it.
    """
    if not task.reads_tfds or not isinstance(task, TextTask | GenerationTask):
        raise UserError(
            f'data.path is {path}; tasks of texts and pairs can be read from TFDS, '
            f'{task.settings.name} from its published files.'
        )
    data_set = tfds_reader.open_data_set(path.removeprefix('tfds:'))
    if 'train' not in data_set.splits:
        raise UserError(f'{path} has no split train; it has {", ".join(data_set.splits)}.')
    if isinstance(task, GenerationTask):
        return _read_pairs(data_set, task)
    columns = task.tfds_columns()
    data_set.check_text(columns.first, task.tfds_advice('text'))
    if columns.second:
        data_set.check_text(columns.second, task.tfds_advice('text_pair'))
    label = _label_column(data_set, columns.label, task)
    validation, test = _held_out_splits(data_set)
    return Splits(
        _labelled(f'{path}:train', _examples(data_set, 'train', task, label), task),
        {
            suffix: _noted(f'{path}:{split}', _examples(data_set, split, task, label))
            for suffix, split in validation.items()
        },
        # In the order of GLUE's files: TFDS shuffles what it writes.
        {
            suffix: sorted(_examples(data_set, split, task, None), key=lambda e: int(e.key))
            for suffix, split in test.items()
        },
    )


def _read_pairs(data_set: DataSet, task: GenerationTask) -> Splits:
    """The pairs of a data set with a feature for the source and one for the target."""
    for setting, feature in (('source', task.sides.source), ('target', task.sides.target)):
        data_set.check_text(feature, f'choose another with --config.task.{setting}=NAME')
    validation, test = _held_out_splits(data_set)
    return Splits(
        _pairs(data_set, 'train', task),
        {suffix: _pairs(data_set, split, task) for suffix, split in validation.items()},
        {suffix: _pairs(data_set, split, task) for suffix, split in test.items()},
    )


def _pairs(data_set: DataSet, split: str, task: GenerationTask) -> list[TextPair]:
    rows: list[PairRow] = []
    for number, (where, row) in enumerate(data_set.rows(split)):
        source, target = (tfds_reader.decode_text(row.get(x), where, x) for x in task.sides)
        rows.append((where, str(number), source, target))
    pairs = checked_pairs(rows, f'{data_set.where}:{split}')
    return [task.with_own_target(pair) for pair in pairs]


def _held_out_splits(data_set: DataSet) -> tuple[dict[str, str], dict[str, str]]:
    """The splits for validation and for test by suffix; a note tells which are not read."""
    validation, test = (_by_suffix(data_set.splits, names) for names in (_VALIDATION, ['test']))
    unread = sorted(set(data_set.splits) - {'train', *validation.values(), *test.values()})
    if unread:
        note(f'{data_set.where}: not read: {", ".join(unread)}.')
    return validation, test


def _by_suffix(splits: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """The splits of the first of these names, by the suffix of their metrics.

    The suffix is empty for the matched or only one of them.
    """
    for name in names:
        suffixes = {split.removeprefix(name) for split in splits if split.split('_')[0] == name}
        if suffixes:
            plain = '' if '' in suffixes else '_matched'
            return {'' if suffix == plain else suffix: name + suffix for suffix in sorted(suffixes)}
    return {}


def _labelled(where: str, examples: Sequence[TextExample], task: TextTask) -> list[TextExample]:
    """Those to train on, with the names of their classes as labels.

    Raises:
      UserError: if there are none, or a label is no class.
    """
    labelled = [example for example in examples if example.is_labelled]
    if not labelled:
        raise UserError(f'{where} has {len(examples)} examples, none of them with a label.')
    if len(labelled) < len(examples):
        note(f'{where}: {_num_unlabelled(examples)} and are left out.')
    return labelled if task.is_regression or task.labels else with_classes(labelled, where)


def _noted(where: str, examples: list[TextExample]) -> list[TextExample]:
    """The examples; a note says if the metrics are over some of them only."""
    if any(not example.is_labelled for example in examples):
        note(f'{where}: {_num_unlabelled(examples)}; metrics are over the others.')
    return examples


def _num_unlabelled(examples: Sequence[TextExample]) -> str:
    missing = sum(not example.is_labelled for example in examples)
    return f'{missing} of {len(examples)} examples have no label'


@dataclasses.dataclass(frozen=True)
class LabelColumn:
    """The label of a data set, which becomes what the task's files have."""

    name: str
    # Of tfds_reader.scalar_kind.
    kind: str
    dtype: np.dtype
    # Of a class or a bool, by its number.
    names: tuple[str, ...] = ()
    # Whether the task wants a number.
    is_number: bool = False
    # Whether a number below zero stands for a label that is not known.
    is_negative_unknown: bool = False

    def text(self, row: tfds_reader.Row, where: str) -> str | None:
        """The label of an example; None where it is not known.

        Raises:
          UserError: if it is not what its feature or the task says.
        """
        value = tfds_reader.scalar(row.get(self.name))
        if value is None or (self.is_negative_unknown and value < 0):
            return None
        if self.kind == 'text':
            text = tfds_reader.decode_text(value, where, self.name).strip()
            if not is_visible(text):
                return None
            if self.is_number and not _is_finite_number(text):
                raise UserError(f'{where}: the label {text!r} is not a number.')
            return text
        if self.kind == 'float':
            return self._decimal(value, where)
        number = int(value)
        if not self.names:
            return str(number)
        if number >= len(self.names):
            raise UserError(
                f'{where}: {self.name} is {number}, but its feature has {len(self.names)} classes.'
            )
        return self.names[number]

    def _decimal(self, value: float, where: str) -> str:
        """The shortest decimal of a float, which TFDS keeps as float32; 1 for 1.0."""
        if not math.isfinite(value):
            raise UserError(f'{where}: {self.name} is {value}, which is no label.')
        if float(value).is_integer():
            return str(int(value))
        narrow = self.dtype.type(value) if self.dtype.itemsize < 4 else np.float32(value)
        return str(narrow) if float(narrow) == value else str(float(value))


def _label_column(data_set: DataSet, name: str, task: TextTask) -> LabelColumn:
    """How the labels of a data set are read for a task.

    Raises:
      UserError: if there is no such feature, or it is no label for the task.
    """
    advice = task.tfds_advice('label')
    feature = data_set.feature(name, advice)
    kind = tfds_reader.scalar_kind(feature)
    if kind is None:
        raise UserError(
            f'{data_set.where}: the feature {name!r} is {tfds_reader.describe(feature)}, which is '
            f'neither a label nor a number; {advice}.'
        )
    names: tuple[str, ...] = ()
    if kind == 'class':
        names = _class_names(tuple(feature.names), task)  # pyright: ignore[reportAttributeAccessIssue]
    elif kind == 'bool':
        names = _class_names(('false', 'true'), task)
    if task.is_regression and not all(map(_is_finite_number, names)):
        raise UserError(
            f'{data_set.where}: the feature {name!r} has the values {", ".join(names)}, but '
            f'{task.settings.name} wants numbers; {advice}, or another task.'
        )
    is_negative_unknown = kind == 'class' or (task.is_negative_unknown and kind in ('int', 'float'))
    return LabelColumn(
        name, kind, tfds_reader.dtype_of(feature), names, task.is_regression, is_negative_unknown
    )


def _class_names(names: tuple[str, ...], task: TextTask) -> tuple[str, ...]:
    """What classes are called: by their numbers where the task calls them so, as GLUE does."""
    numbers = tuple(map(str, range(len(names))))
    labels = set(task.labels or ())
    return numbers if labels and labels <= set(numbers) and not labels <= set(names) else names


def _is_finite_number(text: str) -> bool:
    """Whether a text is a number, in float32 too."""
    value = number_of(text)
    return value is not None and abs(value) <= float(np.finfo(np.float32).max)


def _examples(
    data_set: DataSet, split: str, task: TextTask, label: LabelColumn | None
) -> list[TextExample]:
    """The examples of a split, without labels if there is no column for them."""
    columns = task.tfds_columns()
    examples: list[TextExample] = []
    for where, row in data_set.rows(split):
        first = tfds_reader.decode_text(row.get(columns.first), where, columns.first)
        second = None
        if columns.second:
            second = tfds_reader.decode_text(row.get(columns.second), where, columns.second)
        value = label.text(row, where) if label else None
        key = _key(row, columns.key, len(examples))
        examples.append(TextExample(where, key, first, second, value))
    if not examples:
        raise UserError(f'{data_set.where}:{split} has no examples.')
    if len({example.key for example in examples}) < len(examples):
        note(f'{data_set.where}:{split}: {columns.key} is not unique; examples are numbered.')
        return [dataclasses.replace(e, key=str(number)) for number, e in enumerate(examples)]
    return examples


def _key(row: tfds_reader.Row, name: str | None, number: int) -> str:
    """The name of an example: the whole number in its feature, or else its own number."""
    value = tfds_reader.scalar(row.get(name)) if name else None
    return str(value if type(value) is int else number)
