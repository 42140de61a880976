"""GLUE in its published files: CoLA, SST-2, MRPC, STS-B, QQP, MNLI, QNLI, RTE, WNLI, AX."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from albert_jax.runs.task import TaskSettings
from albert_jax.tasks.classification import Columns, TextExample, TextTask, write_tsv
from albert_jax.tasks.tables import read_text

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
    # Train and dev files of CoLA have no header.
    is_headless: bool = False
    # The first text's column in the test file, where it has another name.
    test_first: str | None = None
    # The texts' features in tensorflow-datasets, where they have other names.
    tfds_texts: tuple[str, str | None] | None = None
    # Whether files have rows with more or fewer fields than the header.
    has_broken_rows: bool = False


_BINARY = ('0', '1')
LAYOUTS = {
    'cola': Layout(
        '3', None, '1', ('matthews', 'accuracy'), _BINARY, 'CoLA', is_headless=True,
        test_first='sentence', tfds_texts=('sentence', None),
    ),
    'sst2': Layout('sentence', None, 'label', ('accuracy',), _BINARY, 'SST-2'),
    'mrpc': Layout(
        '#1 String', '#2 String', 'Quality', ('accuracy', 'f1'), _BINARY, 'MRPC',
        tfds_texts=('sentence1', 'sentence2'),
    ),
    'stsb': Layout('sentence1', 'sentence2', 'score', ('pearson', 'spearman'), None, 'STS-B'),
    'qqp': Layout(
        'question1', 'question2', 'is_duplicate', ('accuracy', 'f1'), _BINARY, 'QQP',
        has_broken_rows=True,
    ),
    'mnli': Layout(
        'sentence1', 'sentence2', 'gold_label', ('accuracy',), _MNLI, 'MNLI-m',
        {'': 'dev_matched.tsv', '_mismatched': 'dev_mismatched.tsv'},
        {'': 'test_matched.tsv', '_mismatched': 'test_mismatched.tsv'},
        tfds_texts=('premise', 'hypothesis'),
    ),
    'qnli': Layout('question', 'sentence', 'label', ('accuracy',), _ENTAILMENT, 'QNLI'),
    'rte': Layout('sentence1', 'sentence2', 'label', ('accuracy',), _ENTAILMENT, 'RTE'),
    'wnli': Layout('sentence1', 'sentence2', 'label', ('accuracy',), _BINARY, 'WNLI'),
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

    def __init__(self, settings: TaskSettings) -> None:
        layout = LAYOUTS[settings.name]
        super().__init__(settings, layout.labels is None, layout.metrics, layout.labels)
        self.layout = layout
        self.skips_broken = layout.has_broken_rows

    def columns(self, path: Path, is_labelled: bool) -> Columns:
        """Columns of a published file."""
        layout = self.layout
        has_header = self.has_header(path, is_labelled)
        first = layout.test_first if layout.test_first and has_header else layout.first
        return Columns('index', first, layout.second, layout.label)

    def tfds_columns(self) -> Columns:
        """Features of the data set in tensorflow-datasets."""
        first, second = self.layout.tfds_texts or (self.layout.first, self.layout.second)
        return Columns(None, first, second, 'label')

    def _tfds_label(self, value: Any, feature: Any) -> str | None:
        # The score of STS-B is -1 where it is not known.
        if self.is_regression and value is not None and float(value) < 0:
            return None
        return super()._tfds_label(value, feature)

    def has_header(self, path: Path, is_labelled: bool) -> bool:
        """CoLA's labelled files have none."""
        if not self.layout.is_headless:
            return True
        if is_labelled or not path.is_file():
            return not is_labelled
        return read_text(path).lstrip().startswith('index')

    def write(
        self,
        examples: Sequence[TextExample],
        predictions: Sequence[Mapping[str, Any]],
        folder: Path,
    ) -> list[Path]:
        """The file that gluebenchmark.com takes; STS-B's scores are kept within 0 and 5."""
        name = self.layout.server_name
        if 'mismatched' in Path(examples[0].where.rpartition(', line')[0]).name:
            name = name.replace('MNLI-m', 'MNLI-mm')
        if self.is_regression:
            predictions = [
                {'id': row['id'], 'prediction': f'{min(max(row["prediction"], 0), 5):.3f}'}
                for row in predictions
            ]
        return [write_tsv(folder / f'{name}.tsv', predictions)]
