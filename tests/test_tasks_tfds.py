"""Fine-tuning from tensorflow-datasets: real features, real ArrayRecord, no TensorFlow."""

from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from albert_jax.tasks import tfds_source
from albert_jax.tasks.tfds_source import Splits
from tests import tfds_data_sets, tiny
from tests.tiny import NEGATIVE, POSITIVE

F = tfds.features

# A feature, its values for the two kinds of text, and what they are called: the kinds of labels of
# the case tfds-plain-label and their relatives.
LABELS = {
    'class': (F.ClassLabel(names=['neg', 'pos']), ('neg', 'pos'), ('neg', 'pos')),
    'class_number': (F.ClassLabel(num_classes=2), (0, 1), ('0', '1')),
    'int': (np.int64, (0, 1), ('0', '1')),
    'signed': (np.int8, (-1, 1), ('-1', '1')),
    'unsigned': (np.uint64, (7, 2**63), ('7', str(2**63))),
    'bool': (np.bool_, (False, True), ('false', 'true')),
    'text': (F.Text(), ('neg', ' pos '), ('neg', 'pos')),
    'string': (F.Scalar(np.str_), ('à', 'b'), ('à', 'b')),
    'float32': (np.float32, (0.1, 1.0), ('0.1', '1')),
    'float64': (np.float64, (0.1, 2.5), ('0.1', '2.5')),
    'float16': (np.float16, (0.1, 2.0), ('0.1', '2')),
    'optional': (F.Scalar(np.int64, optional=True), (0, 1), ('0', '1')),
}  # fmt: skip


def two_kinds(values: Any, count: int) -> list[dict[str, Any]]:
    """Examples whose label is a matter of the words."""
    texts = (NEGATIVE, POSITIVE)
    return [{'text': f'{texts[i % 2]} {i % 7}', 'label': values[i % 2]} for i in range(count)]


def read(path: str, name: str = 'classification', **settings: Any) -> Splits:
    return tfds_source.read(path, tiny.task(name, **settings))


@pytest.mark.parametrize('kind', LABELS)
def test_any_kind_of_label_is_read(kind, tokenizer, tmp_path):
    feature, values, names = LABELS[kind]
    splits = {'train': two_kinds(values, 4), 'validation': two_kinds(values, 2)}
    path = tfds_data_sets.write(
        f'kind_{kind}', {'text': F.Text(), 'label': feature}, splits, tmp_path
    )
    task = tiny.task('classification')
    train, validation, test = tfds_source.read(path, task)
    assert [(e.first, e.label, e.key) for e in train] == [
        (f'{NEGATIVE} 0', names[0], '0'), (f'{POSITIVE} 1', names[1], '1'),
        (f'{NEGATIVE} 2', names[0], '2'), (f'{POSITIVE} 3', names[1], '3'),
    ]  # fmt: skip
    assert [e.label for e in validation['']] == list(names) and test == {}
    head = task.head(train)
    assert head.labels == tuple(sorted(names))
    targets = task.encode(train, tokenizer, head, True).targets['labels'].tolist()
    assert targets == [head.labels.index(name) for name in names] * 2
