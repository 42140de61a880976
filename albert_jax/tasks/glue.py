"""GLUE in its published files: CoLA, SST-2, MRPC, STS-B, QQP, MNLI, QNLI, RTE, WNLI, AX."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from albert_jax.runs.task import TaskSettings
from albert_jax.tasks.classification import Columns, TextExample, TextTask, write_tsv
from albert_jax.tasks.tables import read_text, split_lines, text_ending

_ENTAILMENT = ('entailment', 'not_entailment')
_MNLI = ('contradiction', 'entailment', 'neutral')


@dataclasses.dataclass(frozen=True)
class Layout:
    """The columns of a task's files, and how it is scored."""

    first: str
    second: str | None
    label: str
    metrics: tuple[str, ...]
    # None for a regression.
    labels: tuple[str, ...] | None
    # Of the file that the server takes.
    server_name: str
    validation: Mapping[str, str] = dataclasses.field(default_factory=lambda: {'': 'dev.tsv'})
    test: Mapping[str, str] = dataclasses.field(default_factory=lambda: {'': 'test.tsv'})
    # Columns of the text and the label in files with a header, of a task (CoLA) whose train and dev
    # files have none.
    headed: tuple[str, str] | None = None
    # The texts' features in tensorflow-datasets, where they have other names.
    tfds_texts: tuple[str, str | None] | None = None
    # Whether files have rows with more or fewer fields than the header.
    has_broken_rows: bool = False
    # What the labels are called, where they are numbers.
    names: tuple[str, ...] = ()


_BINARY = ('0', '1')
LAYOUTS = {
    'cola': Layout(
        '3', None, '1', ('matthews', 'accuracy'), _BINARY, 'CoLA', headed=('sentence', 'label'),
        tfds_texts=('sentence', None), names=('unacceptable', 'acceptable'),
    ),
    'sst2': Layout(
        'sentence', None, 'label', ('accuracy',), _BINARY, 'SST-2',
        names=('negative', 'positive'),
    ),
    'mrpc': Layout(
        '#1 String', '#2 String', 'Quality', ('accuracy', 'f1'), _BINARY, 'MRPC',
        tfds_texts=('sentence1', 'sentence2'), names=('not_equivalent', 'equivalent'),
    ),
    'stsb': Layout('sentence1', 'sentence2', 'score', ('pearson', 'spearman'), None, 'STS-B'),
    'qqp': Layout(
        'question1', 'question2', 'is_duplicate', ('accuracy', 'f1'), _BINARY, 'QQP',
        has_broken_rows=True, names=('not_duplicate', 'duplicate'),
    ),
    'mnli': Layout(
        'sentence1', 'sentence2', 'gold_label', ('accuracy',), _MNLI, 'MNLI-m',
        {'': 'dev_matched.tsv', '_mismatched': 'dev_mismatched.tsv'},
        {'': 'test_matched.tsv', '_mismatched': 'test_mismatched.tsv'},
        tfds_texts=('premise', 'hypothesis'),
    ),
    'qnli': Layout('question', 'sentence', 'label', ('accuracy',), _ENTAILMENT, 'QNLI'),
    'rte': Layout('sentence1', 'sentence2', 'label', ('accuracy',), _ENTAILMENT, 'RTE'),
    'wnli': Layout(
        'sentence1', 'sentence2', 'label', ('accuracy',), _BINARY, 'WNLI',
        names=_ENTAILMENT[::-1],
    ),
    'ax': Layout(
        'sentence1', 'sentence2', 'label', ('matthews', 'accuracy'), _MNLI, 'AX',
        {'': 'diagnostic.tsv'}, {'': 'diagnostic.tsv'}, tfds_texts=('premise', 'hypothesis'),
    ),
}  # fmt: skip


class GlueTask(TextTask):
    """One of GLUE's tasks.

    Args:
      settings: of the task; its name is a key of LAYOUTS.
    """

    # The score of STS-B is -1 where it is not known.
    is_negative_unknown = True

    def __init__(self, settings: TaskSettings) -> None:
        layout = LAYOUTS[settings.name]
        super().__init__(
            settings, layout.labels is None, layout.metrics, layout.labels, layout.names
        )
        self.layout = layout
        self.skips_broken = layout.has_broken_rows

    def columns(self, path: Path, is_labelled: bool) -> Columns:
        """Columns of a published file."""
        layout = self.layout
        first, label = layout.first, layout.label
        if layout.headed and self.has_header(path, is_labelled):
            first, label = layout.headed
        return Columns('index', first, layout.second, label)

    def tfds_columns(self) -> Columns:
        """Features of the data set in tensorflow-datasets."""
        first, second = self.layout.tfds_texts or (self.layout.first, self.layout.second)
        return Columns('idx', first, second, 'label')

    def tfds_advice(self, setting: str) -> str:
        """The features are GLUE's."""
        del setting
        return (
            f'{self.settings.name} reads tfds:glue/{self.settings.name}, and classification and '
            f'regression other data sets'
        )

    def has_header(self, path: Path, is_labelled: bool) -> bool:
        """CoLA's labelled files have none, but for those of one's own with the test file's."""
        if not self.layout.headed:
            return True
        if not path.is_file():
            return not is_labelled
        first, ending = split_lines(read_text(path).lstrip())[0], text_ending(path)
        if ending in ('.jsonl', '.json') or (not is_labelled and first.startswith('index')):
            return True
        cells = first.replace('"', '').split(',') if ending == '.csv' else first.split('\t')
        return self.layout.headed[0] in cells

    def write(
        self,
        examples: Sequence[TextExample],
        predictions: Sequence[Mapping[str, Any]],
        folder: Path,
    ) -> list[Path]:
        """The file that gluebenchmark.com takes; STS-B's scores are kept within 0 and 5."""
        name = self.layout.server_name
        if 'mismatched' in Path(examples[0].where.rpartition(',')[0]).name:
            name = name.replace('MNLI-m', 'MNLI-mm')
        if self.is_regression:
            predictions = [
                {'id': row['id'], 'prediction': f'{min(max(row["prediction"], 0), 5):.3f}'}
                for row in predictions
            ]
        else:
            predictions = self._with_labels(predictions)
        return [write_tsv(folder / f'{name}.tsv', predictions)]

    def _with_labels(self, predictions: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The predictions with the labels of the published files in place of their names."""
        labels = {name: label for label, name in self.names.items()}
        return [
            {**row, 'prediction': labels.get(row['prediction'], row['prediction'])}
            for row in predictions
        ]
