"""Classification and regression of texts and pairs: one's own files, and the base of GLUE."""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from albert_jax.cli.errors import UserError
from albert_jax.cli.json_text import check_text, is_json_object, is_visible, parse_json
from albert_jax.cli.notes import note
from albert_jax.data.hub_tokenizer import AnyTokenizer
from albert_jax.model.heads import Head
from albert_jax.runs.task import TaskSettings
from albert_jax.tasks import metrics
from albert_jax.tasks.class_labels import known_label, look_alike
from albert_jax.tasks.class_names import class_names, listed, named_labels
from albert_jax.tasks.features import Features, FeaturesWriter, truncate_pair
from albert_jax.tasks.line_checks import check_pairs, check_single_texts
from albert_jax.tasks.numbers import parse_number
from albert_jax.tasks.tables import Row, read_rows
from albert_jax.tasks.task import (
    Outputs,
    Task,
    check_fields,
    check_keys,
    check_no_others,
    key_of,
    softmax,
)
from albert_jax.tasks.text_examples import Columns, TextExample, note_gaps, with_classes

METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    'accuracy': metrics.accuracy,
    'f1': metrics.f1,
    'matthews': metrics.matthews,
    'pearson': metrics.pearson,
    'spearman': metrics.spearman,
    'mean_squared_error': metrics.mean_squared_error,
}


class TextTask(Task[TextExample]):
    """Texts or pairs with a label or a number each, from TSV, CSV or JSON Lines.

    Args:
      settings: of the task.
      is_regression: the labels are numbers.
      metric_names: of METRICS; the first has to be best.
      labels: of the classes; None for those of the training file, or of the settings.
      names: what the labels are called, where the settings do not say.
    """

    head_kind = 'sequence_classification'
    reads_tfds = True
    # Whether rows with more or fewer fields than the header are known to be there.
    skips_broken = False
    # Of tensorflow-datasets: whether a number below zero is a label that is not known.
    is_negative_unknown = False

    def __init__(
        self,
        settings: TaskSettings,
        is_regression: bool = False,
        metric_names: Sequence[str] | None = None,
        labels: Sequence[str] | None = None,
        names: Sequence[str] = (),
    ) -> None:
        super().__init__(settings)
        self.is_regression = is_regression
        default = ('pearson', 'spearman', 'mean_squared_error') if is_regression else ('accuracy',)
        self.metric_names = tuple(metric_names or default)
        self.best_metric = self.metric_names[0]
        given = named_labels(settings)
        _check_columns(settings)
        self.labels: tuple[str, ...] | None = tuple(labels) if labels else given or None
        # By label; empty where the labels are the names.
        self.names = {} if is_regression else class_names(settings, self.labels, names)

    def columns(self, path: Path, is_labelled: bool) -> Columns:
        """Columns of a file."""
        del path, is_labelled
        return self._own_columns()

    def tfds_columns(self) -> Columns:
        """Features of a data set of tensorflow-datasets."""
        return self._own_columns()._replace(key='idx')

    def tfds_advice(self, setting: str) -> str:
        """What to do where a feature is missing or of another kind: the end of a sentence."""
        return f'choose another with --config.task.{setting}=NAME'

    def _own_columns(self) -> Columns:
        settings = self.settings
        key = None if 'id' in (settings.text, settings.text_pair, settings.label) else 'id'
        return Columns(key, settings.text, settings.text_pair or None, settings.label)

    def has_header(self, path: Path, is_labelled: bool) -> bool:
        """Whether the first line of a file names its columns."""
        del path, is_labelled
        return True

    def read(self, path: Path, is_training: bool, is_labelled: bool = True) -> list[TextExample]:
        """The examples of a file.

        Raises:
          UserError: if a column is missing, a label is unknown or missing, or there is no row.
        """
        columns = self.columns(path, is_labelled)
        examples = []
        num_empty = 0
        for row in read_rows(path, self.has_header(path, is_labelled), self.skips_broken):
            if is_training and row.is_empty:
                num_empty += 1
                continue
            first = row.value(columns.first)
            second = row.value(columns.second) if columns.second else None
            label = self._label(row, columns.label, is_training) if is_labelled else None
            examples.append(TextExample(row.where, row.key(columns.key), first, second, label))
        if not examples:
            raise UserError(f'{path} has no examples.')
        if num_empty:
            note(f'{path}: {num_empty} empty rows were left out.')
        note_gaps(examples, path, is_labelled)
        if columns.key:
            check_keys(examples, str(path), is_refused=False)
        if is_training and not self.is_regression and not self.labels:
            return with_classes(examples, str(path))
        return examples

    @property
    def fields(self) -> tuple[str, ...]:
        """Both columns of a pair; a single text needs no object."""
        _, first, second, _ = self.columns(Path(), False)
        return (first, second) if second else ()

    @property
    def other_fields(self) -> tuple[str, ...]:
        """The columns of the text and the label, too."""
        key, first, _, label = self.columns(Path(), False)
        return (first, 'id', *([key] if key else []), label)

    def parse(self, content: str | dict[str, Any], where: str, key: str) -> TextExample:
        """The example of a text, or of an object with the columns of the texts."""
        _, first, second, _ = self.columns(Path(), False)
        if isinstance(content, str) and not second:
            return TextExample(where, key, check_text(content, where), None, None)
        if not second and not isinstance(content, str):
            # Other columns are not read; a second text would be missed.
            check_no_others({'text_pair': content.get('text_pair')}, where, self.other_fields)
        fields = check_fields(content, where, [first, *([second] if second else [])])
        key = key_of(fields, where, key)
        return TextExample(where, key, fields[first], fields[second] if second else None, None)

    def parse_line(self, line: str, where: str, key: str) -> TextExample:
        """The example of a text, of a pair with a tab between, or of a JSON object."""
        _, first, second, _ = self.columns(Path(), False)
        names = (first, second or first, 'id')
        if is_json_object(line, names):
            return self.parse(parse_json(line, where, names), where, key)
        if not self.fields:
            return TextExample(where, key, line, None, None)
        texts = line.split('\t')
        if len(texts) != 2:
            raise UserError(f'{where}: the task wants two texts with a tab between them.')
        return TextExample(where, key, texts[0], texts[1], None)

    def check_lines(self, lines: Sequence[str], origin: str) -> None:
        """Refuses lines that are a table.

        Raises:
          UserError: if they are.
        """
        if self.fields:
            check_pairs(lines, self.fields, origin)
        else:
            check_single_texts(lines, origin)

    def empty_texts(self, example: TextExample) -> tuple[str, ...]:
        """Of pairs: a single text that is empty is counted when it is encoded."""
        texts = zip(self.fields, (example.first, example.second or ''), strict=False)
        return tuple(name for name, text in texts if not is_visible(text))

    def _label(self, row: Row, column: str, is_training: bool) -> str | None:
        if row.get(column) is None and not is_training:
            return None
        value = row.value(column).strip()
        if not is_visible(value):
            if is_training:
                raise UserError(
                    f'{row.where} has no label in column {column!r}; remove the row or label it.'
                )
            return None
        if self.is_regression:
            parse_number(value, row.where)
        elif self.labels:
            return self._known_label(value, row.where, self.labels, 'there are')
        return value

    def _name(self, label: str) -> str:
        """What the head calls a class."""
        return self.names.get(label, label)

    def _known_label(self, value: str, where: str, known: Sequence[str], who: str) -> str:
        label = known_label(value, known)
        if label is None:
            label = next((label for label in known if self._name(label) == value), None)
        if label is None:
            if alike := look_alike(value, known):
                raise UserError(
                    f'{where}: the label {value!a} is unknown; it looks the same as '
                    f'{alike!a}, but is spelled with other characters.'
                )
            raise UserError(
                f'{where}: the label {value!r} is unknown; {who} {listed(known, self.names)}.'
            )
        return label

    def labels_of(self, example: TextExample) -> tuple[str, ...]:
        """The class, if it is known."""
        return () if self.is_regression or example.label is None else (example.label,)

    def head(self, examples: Sequence[TextExample]) -> Head:
        """A class for each label, in the settings' order or sorted; one output for a regression.

        Raises:
          UserError: if there are fewer than two labels.
        """
        if self.is_regression:
            return Head(self.head_kind, ('score',))
        labels = self.labels or tuple(sorted({e.label for e in examples if e.label is not None}))
        if len(labels) < 2:
            raise UserError(
                f'{examples[0].where.rpartition(",")[0]}: the labels are {list(labels)}; '
                f'classification needs two or more.'
            )
        return Head(self.head_kind, tuple(map(self._name, labels)))

    def suits(self, head: Head) -> bool:
        """A regression wants one output, a classification more."""
        return super().suits(head) and self.is_regression == (len(head.labels) == 1)

    def use_head(self, head: Head, origin: str) -> None:
        """Takes the labels of a model's head where the task has none of its own.

        Raises:
          UserError: if the head is of another kind, or its labels are not the task's.
        """
        super().use_head(head, origin)
        name = self.settings.name
        if not self.suits(head):
            raise UserError(
                f'{origin} has {len(head.labels)} output(s), which do not fit the task {name}.'
            )
        if self.is_regression:
            return
        if len(set(head.labels)) < len(head.labels):
            raise UserError(
                f'{origin} has the labels {", ".join(head.labels)}, of which two are the same; '
                f'name them in the order of the outputs with --labels=A,B.'
            )
        if self.labels is None:
            self.labels = head.labels
        # A model of an earlier version has the labels of the files.
        named = tuple(map(self._name, self.labels))
        if set(head.labels) not in (set(self.labels), set(named)):
            raise UserError(
                f'{origin} has the labels {", ".join(head.labels)}, but those of the task {name} '
                f'are {listed(self.labels, self.names)}: give these in the order of the outputs, '
                f'as in --labels={",".join(named)}, or take --task=classification, which has any '
                f'labels.'
            )

    def named(self, head: Head) -> Head:
        """The head with the names of the classes for the labels of the files."""
        if set(head.labels) != set(self.labels or ()):
            return head
        return Head(head.kind, tuple(map(self._name, head.labels)))

    def encode(
        self,
        examples: Sequence[TextExample],
        tokenizer: AnyTokenizer,
        head: Head,
        is_training: bool,
    ) -> Features:
        """[CLS] first [SEP] or [CLS] first [SEP] second [SEP], the longer cut first.

        Raises:
          UserError: if a label is none of the head's.
        """
        del is_training
        writer = FeaturesWriter(tokenizer)
        firsts = tokenizer.encode([example.first for example in examples])
        seconds: Sequence[list[int] | None] = [None] * len(examples)
        if examples[0].second is not None:
            seconds = tokenizer.encode([example.second or '' for example in examples])
        for first, second in zip(firsts, seconds, strict=True):
            length = writer.add(*truncate_pair(first, second, self.settings.max_length))
            num_special = 2 if second is None else 3
            writer.num_cut += length < len(first) + len(second or ()) + num_special
        return writer.finish({'labels': self._targets(examples, head)})

    def _targets(self, examples: Sequence[TextExample], head: Head) -> np.ndarray:
        if self.is_regression:
            numbers = [parse_number(e.label, e.where) if e.label else 0.0 for e in examples]
            return np.array(numbers, np.float32)
        ids = {label: index for index, label in enumerate(head.labels)}
        targets = []
        for example in examples:
            label = example.label
            if label is not None and label not in ids:
                label = self._name(label)
            if label is not None and label not in ids:
                label = self._known_label(label, example.where, head.labels, 'the model has')
            targets.append(ids[label] if label else 0)
        return np.array(targets, np.int32)

    def metrics(
        self, examples: Sequence[TextExample], features: Features, outputs: Outputs, head: Head
    ) -> dict[str, float]:
        """The task's metrics over the labelled examples; none if there are none."""
        del head
        labelled = np.array([e.is_labelled for e in examples])
        if not labelled.any():
            return {}
        predicted = self._answers(outputs)[labelled]
        labels = np.asarray(features.targets['labels'])[labelled]
        return {name: METRICS[name](labels, predicted) for name in self.metric_names}

    def _answers(self, outputs: Outputs) -> np.ndarray:
        logits = np.stack(list(outputs['logits']))
        return logits[:, 0] if self.is_regression else logits.argmax(-1)

    def predictions(
        self, examples: Sequence[TextExample], features: Features, outputs: Outputs, head: Head
    ) -> list[dict[str, Any]]:
        """The label and the probability of each, or the score."""
        del features
        logits = np.stack(list(outputs['logits']))
        if self.is_regression:
            return [
                {'id': e.key, 'prediction': float(value)}
                for e, value in zip(examples, logits[:, 0], strict=True)
            ]
        return [
            {
                'id': example.key,
                'prediction': head.labels[int(row.argmax())],
                'probabilities': dict(zip(head.labels, row.tolist(), strict=True)),
            }
            for example, row in zip(examples, softmax(logits), strict=True)
        ]

    def write(
        self,
        examples: Sequence[TextExample],
        predictions: Sequence[Mapping[str, Any]],
        folder: Path,
    ) -> list[Path]:
        """GLUE's form: a TSV with the columns index and prediction."""
        del examples
        return [write_tsv(folder / 'predictions.tsv', predictions)]


def _check_columns(settings: TaskSettings) -> None:
    columns = {'text': settings.text, 'text_pair': settings.text_pair, 'label': settings.label}
    by_name: dict[str, str] = {}
    for setting, name in columns.items():
        other = by_name.setdefault(name, setting)
        if name and other != setting:
            raise UserError(
                f'task.{other} and task.{setting} are both {name!r}; name a column for each.'
            )


def write_tsv(file: Path, predictions: Sequence[Mapping[str, Any]]) -> Path:
    """Writes the columns index and prediction."""
    with file.open('w', encoding='utf-8', newline='') as stream:
        writer = csv.writer(stream, delimiter='\t', lineterminator='\n')
        writer.writerow(['index', 'prediction'])
        writer.writerows([row['id'], row['prediction']] for row in predictions)
    return file
