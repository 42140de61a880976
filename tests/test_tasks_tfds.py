"""Fine-tuning from tensorflow-datasets: real features, real ArrayRecord, no TensorFlow."""

import io
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import example, given
from hypothesis import strategies as st

from albert_jax import evaluate, finetune, predict
from albert_jax.cli.errors import UserError
from albert_jax.cli.json_text import is_visible
from albert_jax.interop import native
from albert_jax.model.heads import Head
from albert_jax.tasks import tfds_source
from tests import tfds_data_sets, tiny
from tests.tiny import NEGATIVE, POSITIVE, finetune_flags

F = tfds.features
# Of data sets that a property writes: each has a name of its own.
NUMBERS = itertools.count()

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


# The five kinds of the case, end to end; that the others are read as these are is shown above.
END_TO_END = [
    'bool', 'float32',
    *(pytest.param(kind, marks=pytest.mark.slow) for kind in ('class', 'int', 'text')),
]  # fmt: skip


@pytest.mark.parametrize('kind', END_TO_END)
def test_a_run_trains_evaluates_and_predicts(kind, checkpoint, tmp_path, capsys):
    feature, values, names = LABELS[kind]
    task = 'regression' if kind == 'float32' else 'classification'
    splits = {
        'train': two_kinds(values, 64), 'validation': two_kinds(values, 16),
        'test': two_kinds(values, 6),
    }  # fmt: skip
    features = {'text': F.Text(), 'label': feature}
    path = tfds_data_sets.write(f'run_{kind}', features, splits, tmp_path)
    more = ('--config.loop.num_steps=20', '--config.loop.eval_every=20')
    flags = finetune_flags(checkpoint, path, tmp_path / 'cache', *more, task=task)
    assert finetune.main([*flags, f'--workdir={tmp_path / "run"}']) == 0
    results = json.loads((tmp_path / 'run/results.json').read_text())
    rows = (tmp_path / 'run/predictions/test/predictions.jsonl').read_text().splitlines()
    answers = [json.loads(row)['prediction'] for row in rows]
    file = tmp_path / 'dev.jsonl'
    lines = [{**row, 'label': names[i % 2]} for i, row in enumerate(splits['validation'])]
    file.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    capsys.readouterr()
    assert evaluate.main([f'--checkpoint={tmp_path / "run"}', f'--data={file}']) == 0
    evaluated = capsys.readouterr().out
    assert predict.main([f'--checkpoint={tmp_path / "run"}', f'--input={file}']) == 0
    predicted = [json.loads(line)['prediction'] for line in capsys.readouterr().out.splitlines()]
    if task == 'regression':
        assert results['pearson'] > 0.9 and f'{results["pearson"]:.3f}'[:4] in evaluated
        assert answers[1] > answers[0] and predicted[1] > predicted[0]
    else:
        assert results['accuracy'] == 1
        assert native.read(tmp_path / 'run').head == Head('sequence_classification', names)
        assert answers == list(names) * 3 and predicted == list(names) * 8


def write_pairs(name: str, folder: Path) -> str:
    """A data set with features of every kind, two examples, and what is refused in them."""
    features = {
        'text': F.Text(), 'other': F.Text(optional=True), 'label': F.ClassLabel(names=['a', 'b']),
        'yes': np.bool_, 'score': np.float32, 'word': F.Text(), 'tags': F.Sequence(np.int64),
        'nested': {'text': F.Text(), 'label': np.int64},
        'title': F.Text(), 'vector': F.Tensor(shape=(1,), dtype=np.int64),
        'both': F.Translation(['en', 'de']),
    }  # fmt: skip
    row = {
        'text': 'a', 'other': 'b', 'label': 0, 'yes': True, 'score': 0.5, 'word': '1', 'tags': [1],
        'nested': {'text': 'a', 'label': 0}, 'title': 'a', 'vector': [1],
        'both': {'en': 'a', 'de': 'b'},
    }  # fmt: skip
    bad = {**row, 'text': b'\xff', 'other': None, 'score': math.nan, 'word': 'one'}
    return tfds_data_sets.write(name, features, {'train': [row, bad], 'validation': [row]}, folder)


NAMES = 'both, label, nested, other, score, tags, text, title, vector, word, yes'


@pytest.mark.parametrize(
    ('name', 'columns', 'message'),
    [
        ('classification', {'text': 'body'}, f"has no feature 'body'; there are {NAMES}; choose "
         'another with --config.task.text=NAME'),
        ('classification', {'text_pair': 'body'}, 'task.text_pair=NAME'),
        ('classification', {'label': 'nested/label'}, "has no feature 'nested/label'; there are"),
        ('sst2', {}, "no feature 'sentence'; there are .*; sst2 reads tfds:glue/sst2, and"),
        ('classification', {'text': 'nested'}, "'nested' is FeaturesDict, which is no text"),
        ('classification', {'text': 'score'}, r"'score' is Tensor\(shape=\(\), dtype=float32\), "),
        ('classification', {'text_pair': 'both'}, "'both' is Translation, which is no text"),
        ('classification', {'label': 'tags'}, "'tags' is Sequence.*, which is neither a "
         'label nor a number; choose another with --config.task.label=NAME'),
        ('classification', {'label': 'vector'}, r"'vector' is Tensor\(shape=\(1,\), dtype=int64\)"),
        ('regression', {}, "'label' has the values a, b, but regression wants numbers; choose an"),
        ('regression', {'label': 'yes'}, "'yes' has the values false, true, but regression wants"),
        ('classification', {}, 'train, example 1: text is not UTF-8 .byte 0xff at position 1'),
        ('classification', {'text': 'other'}, 'train, example 1 has no other'),
        ('classification', {'text': 'word', 'label': 'text'}, 'example 1: text is not UTF-8'),
        ('regression', {'text': 'word', 'label': 'score'}, 'example 1: score is nan, which is no'),
        ('regression', {'text': 'title', 'label': 'word'}, "example 1: the label 'one' is not a"),
        ('squad1', {}, 'squad1 from its published files'),
    ],
)  # fmt: skip
def test_what_is_no_text_or_no_label_is_refused(name, columns, message, pairs):
    with pytest.raises(UserError, match=f'{pairs}.*{message}'):
        tfds_source.read(pairs, tiny.task(name, **columns))


@pytest.fixture(scope='module')
def pairs(tmp_path_factory):
    return write_pairs('pairs', tmp_path_factory.mktemp('pairs'))


def test_an_image_is_no_text_and_no_label(tmp_path):
    """It is refused by its feature: to decode it would take another package."""
    features = {'text': F.Text(), 'image': F.Image(shape=(1, 1, 3))}
    row = {'text': 'a', 'image': io.BytesIO(b'not decoded')}
    path = tfds_data_sets.write('images', features, {'train': [row]}, tmp_path)
    image = r"the feature 'image' is Image\(shape=\(1, 1, 3\), dtype=uint8\), which is"
    with pytest.raises(UserError, match=f'{path}: {image} no text; choose another'):
        tfds_source.read(path, tiny.task('classification', text='image'))
    with pytest.raises(UserError, match=f'{path}: {image} neither a label nor a number; choose'):
        tfds_source.read(path, tiny.task('classification', label='image'))


def test_a_label_that_is_none_of_the_tasks_is_refused(tokenizer, tmp_path):
    rows = [{'text': 'a', 'label': 2}, {'text': 'b', 'label': 7}]
    features = {'text': F.Text(), 'label': np.int64}
    path = tfds_data_sets.write('unknown_label', features, {'train': rows}, tmp_path)
    task = tiny.task('classification', labels='2,3')
    train = tfds_source.read(path, task).train
    with pytest.raises(UserError, match="example 1: the label '7' is unknown; .* 2, 3"):
        task.encode(train, tokenizer, task.head(train), True)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    features = {'text': F.Text(), 'label': np.int64}
    splits = {'train': two_kinds((0, 1), 4)}
    task = tiny.task('classification')
    path = tfds_data_sets.write('damaged', features, splits, tmp_path)
    (file,) = (tmp_path / 'damaged').rglob('*.array_record*')
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match='tfds:damaged'):
        tfds_source.read(path, task)
    file.unlink()
    with pytest.raises(UserError, match='tfds:damaged.*(cannot be read|cannot be opened)'):
        tfds_source.read(path, task)
    info = tmp_path / 'damaged/1.0.0/dataset_info.json'
    info.write_text(info.read_text().replace('array_record', 'tfrecord'))
    with pytest.raises(UserError, match='format that cannot be read by index; convert it to array'):
        tfds_source.read(path, task)
    with pytest.raises(UserError, match=r'tfds:no_such_set cannot be opened: .*\[tensorflow\]'):
        tfds_source.read('tfds:no_such_set', task)
    path = tfds_data_sets.write('only_test', features, {'test': two_kinds((0, 1), 2)}, tmp_path)
    with pytest.raises(UserError, match='only_test has no split train; it has test'):
        tfds_source.read(path, task)


# Any data set of scalars.

INTEGERS = (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64)
FLOATS = (np.float16, np.float32, np.float64)
TEXTS = st.text(max_size=8) | st.binary(max_size=4)


@st.composite
def scalar_columns(draw) -> tuple[Any, list[Any]]:
    """A feature of one value, and values of it."""
    match draw(st.sampled_from(['class', 'names', 'text', 'bool', 'int', 'float'])):
        case 'class':
            count = draw(st.integers(1, 4))
            return F.ClassLabel(num_classes=count), draw(values(st.integers(-1, count - 1)))
        case 'names':
            words = st.text('ab1.-é ', min_size=1, max_size=3).map(str.strip).filter(bool)
            names = draw(st.lists(words, min_size=1, max_size=3, unique=True))
            return F.ClassLabel(names=names), draw(values(st.integers(-1, len(names) - 1)))
        case 'text':
            return draw(st.sampled_from([F.Text(), F.Scalar(np.object_)])), draw(values(TEXTS))
        case 'bool':
            return F.Scalar(np.bool_), draw(values(st.booleans()))
        case 'int':
            dtype = draw(st.sampled_from(INTEGERS))
            info = np.iinfo(dtype)
            return F.Scalar(dtype), draw(values(st.integers(int(info.min), int(info.max))))
        case _:
            dtype = draw(st.sampled_from(FLOATS))
            return F.Scalar(dtype), draw(values(st.floats(width=16 if dtype == np.float16 else 32)))


def text_columns() -> st.SearchStrategy[tuple[Any, list[Any]]]:
    return st.tuples(st.just(F.Text()), values(st.text(max_size=8)))


def values(one: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(one, min_size=3, max_size=3)


def expected_label(feature: Any, value: Any) -> str | float | None:
    """What a value is called, by other means than the reader's: a number for floats."""
    if isinstance(feature, F.ClassLabel):
        return None if value < 0 else feature.int2str(value)
    if feature.np_dtype == np.bool_:
        return json.dumps(value)
    if isinstance(value, str | bytes):
        text = (value if isinstance(value, str) else value.decode()).strip()
        return text if is_visible(text) else None
    return float(value) if isinstance(value, float) else str(value)


@pytest.fixture(scope='module')
def any_sets(tmp_path_factory):
    return tmp_path_factory.mktemp('any')


@given(
    text=scalar_columns(),
    label=scalar_columns(),
    name=st.sampled_from(['classification', 'regression']),
)
@example(
    text=(F.Text(), ['a', 'b', 'c']),
    label=(F.Scalar(np.uint64), [0, 2**64 - 1, 1]),
    name='classification',
)
@example(
    text=(F.Text(), ['a', 'b', 'c']),
    label=(F.Text(), ['\u200b', ' x ', '\xa0']),
    name='classification',
)
@example(
    text=(F.Text(), ['a\0', '', '\u2028']),
    label=(F.Scalar(np.float16), [0.1, 1.0, -0.0]),
    name='regression',
)
def test_any_data_set_of_scalars_is_right_or_refused(any_sets, text, label, name):
    rows = [{'text': a, 'label': b} for a, b in zip(text[1], label[1], strict=True)]
    features = {'text': text[0], 'label': label[0]}
    splits = {'train': rows, 'validation': rows}
    path = tfds_data_sets.write(f'any_{next(NUMBERS)}', features, splits, any_sets)
    try:
        train, validation, _ = tfds_source.read(path, tiny.task(name))
    except UserError as error:
        assert path in str(error) and '\n' not in str(error)
        return
    found = validation['']
    for e, row in zip(found, rows, strict=True):
        assert e.first == (row['text'] if isinstance(row['text'], str) else row['text'].decode())
        expected = expected_label(label[0], row['label'])
        if isinstance(expected, float) or (name == 'regression' and expected is not None):
            assert np.float32(e.label) == np.float32(expected)
        else:
            assert e.label == expected
    assert [e.label for e in train] == [e.label for e in found if e.label is not None]


def test_pairs_are_read_by_the_features_of_their_sides(tmp_path, capsys):
    pairs = [{'en': f'Text {i}.', 'de': f'Täxt {i}.'} for i in range(3)]
    empty = {'en': 'A text.', 'de': ''}
    features = F.Translation(languages=('de', 'en'))
    splits = {'train': pairs, 'validation': pairs[:1], 'test': pairs[1:], 'other': [empty]}
    path = tfds_data_sets.write('translations', dict(features), splits, tmp_path)
    task = tiny.task('translation', source='en', target='de')
    train, validation, test = tfds_source.read(path, task)
    assert [(e.source, e.target, e.key) for e in train] == [
        ('Text 0.', 'Täxt 0.', '0'), ('Text 1.', 'Täxt 1.', '1'), ('Text 2.', 'Täxt 2.', '2'),
    ]  # fmt: skip
    assert len(validation['']) == 1 and len(test['']) == 2
    assert 'not read: other.' in capsys.readouterr().err
    with pytest.raises(UserError, match=r"no feature 'source'.*--config\.task\.source=NAME"):
        tfds_source.read(path, tiny.task('generation'))
    path = tfds_data_sets.write('gaps', dict(features), {'train': [*pairs, empty]}, tmp_path)
    with pytest.raises(UserError, match='tfds:gaps.*:train, example 3: the target is empty'):
        tfds_source.read(path, task)
