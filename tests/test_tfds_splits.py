"""Data sets of tensorflow-datasets: GLUE's own, splits, missing labels, and what is refused."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from albert_jax.cli.errors import UserError
from albert_jax.runs.data import FinetuneDataSettings
from albert_jax.tasks import tfds_source
from albert_jax.tasks.encoded import read_examples
from tests import tfds_data_sets, tiny

F = tfds.features

# The features of GLUE's builders and the labels of its files, by the number of the class.
GLUE = {
    'cola': (('sentence',), ('0', '1')),
    'sst2': (('sentence',), ('0', '1')),
    'mrpc': (('sentence1', 'sentence2'), ('0', '1')),
    'qqp': (('question1', 'question2'), ('0', '1')),
    'mnli': (('premise', 'hypothesis'), ('entailment', 'neutral', 'contradiction')),
    'qnli': (('question', 'sentence'), ('entailment', 'not_entailment')),
    'rte': (('sentence1', 'sentence2'), ('entailment', 'not_entailment')),
    'wnli': (('sentence1', 'sentence2'), ('0', '1')),
    'stsb': (('sentence1', 'sentence2'), (3.8, 0.25, 5.0)),
}

# What the classes are called where the files have numbers.
NAMES = {
    'sst2': ('negative', 'positive'), 'cola': ('unacceptable', 'acceptable'),
    'mrpc': ('not_equivalent', 'equivalent'), 'qqp': ('not_duplicate', 'duplicate'),
    'wnli': ('not_entailment', 'entailment'),
}  # fmt: skip


def glue_rows(texts, labels):
    """Examples whose texts are their features' names and whose idx begins at 10."""
    return [
        {**{name: f'{name} é {i}' for name in texts}, 'label': label, 'idx': 10 + i}
        for i, label in enumerate(labels)
    ]


@pytest.mark.parametrize('name', GLUE)
def test_glues_own_builders_are_read_as_its_files(name, tmp_path, capsys):
    texts, labels = GLUE[name]
    is_regression = name == 'stsb'
    numbers = labels if is_regression else range(len(labels))
    kinds = ('_matched', '_mismatched') if name == 'mnli' else ('',)
    splits = {'train': glue_rows(texts, numbers)}
    for kind in kinds:
        splits[f'validation{kind}'] = glue_rows(texts, [*list(numbers)[:1], -1])
        splits[f'test{kind}'] = glue_rows(texts, [-1, -1])
    path = tfds_data_sets.write_glue(name, splits, tmp_path)
    task = tiny.task(name)
    train, validation, test = tfds_source.read(path, task)
    files = ('3.8', '0.25', '5') if is_regression else labels
    first, second = (*texts, None)[:2]
    assert sorted((e.key, e.first, e.second, e.label) for e in train) == [
        (str(10 + i), f'{first} é {i}', second and f'{second} é {i}', label)
        for i, label in enumerate(files)
    ]
    suffixes = ['', '_mismatched'][: len(kinds)]
    assert sorted(validation) == sorted(test) == suffixes
    for suffix in suffixes:
        assert {e.key: e.label for e in validation[suffix]} == {'10': files[0], '11': None}
        assert [(e.label, e.key) for e in test[suffix]] == [(None, '10'), (None, '11')]
    if not is_regression:
        assert set(task.labels) == set(labels)
        assert set(task.head(train).labels) == set(NAMES.get(name, labels))
    assert task.tfds_columns().first in tfds.builder(path.removeprefix('tfds:')).info.features
    assert ' 1 of 2 examples have no label' in capsys.readouterr().err

    # The same builder with the random examples of TFDS's own mock, and with what it knows alone.
    with tfds.testing.mock_data(num_examples=8, data_dir=str(tmp_path)):
        mocked = tfds_source.read(path, task)
        assert len(mocked.train) == len(mocked.test['']) == 8 and set(mocked.validation) == set(
            suffixes
        )
        assert is_regression or {e.label for e in mocked.train} <= set(labels)
        assert all(e.first and (e.second is None) == (second is None) for e in mocked.train)


def test_a_data_set_that_is_mocked_without_metadata(capsys):
    with tfds.testing.mock_data(num_examples=5):
        train, validation, test = tfds_source.read('tfds:glue/ax', tiny.task('mnli'))
    assert len(train) == len(validation['']) == len(test['']) == 5


def test_the_server_file_of_mismatched_test_texts_has_its_own_name(tmp_path):
    task = tiny.task('mnli')
    example = tfds_source.TextExample(
        'tfds:glue/mnli:test_mismatched, example 0', '0', 'a', 'b', None
    )
    (file,) = task.write([example], [{'id': '0', 'prediction': 'neutral'}], tmp_path)
    assert file.name == 'MNLI-mm.tsv'


ONE = {'text': 'a', 'label': 0}
PLAIN = {'text': F.Text(), 'label': F.ClassLabel(names=['no', 'yes'])}


@pytest.mark.parametrize(
    ('names', 'validation', 'test', 'note'),
    [
        (['train', 'validation', 'test'], [''], [''], ''),
        (['train', 'validation_matched', 'test_matched'], [''], [''], ''),
        # Neither is lost where there are both.
        (['train', 'validation', 'validation_matched'], ['', '_matched'], [], ''),
        (['train', 'dev', 'test_a', 'test_b'], [''], ['_a', '_b'], ''),
        (['train', 'valid_hard', 'tester'], ['_hard'], [], 'not read: tester.'),
        (['train', 'validation', 'dev'], [''], [], 'not read: dev.'),
        (['train', 'test', 'unsupervised'], [], [''], 'not read: unsupervised.'),
    ],
)  # fmt: skip
def test_splits_by_the_suffix_of_their_metrics(names, validation, test, note, tmp_path, capsys):
    name = 'splits_' + '_'.join(names)
    path = tfds_data_sets.write(name, PLAIN, {key: [ONE] for key in names}, tmp_path)
    capsys.readouterr()
    splits = tfds_source.read(path, tiny.task('classification'))
    assert list(splits.validation) == validation and list(splits.test) == test
    assert capsys.readouterr().err == (f'note: {path}: {note}\n' if note else '')


def test_a_data_set_without_validation_holds_some_out(tmp_path):
    rows = [{'text': f'text {i}', 'label': i % 2} for i in range(40)]
    path = tfds_data_sets.write('no_validation', PLAIN, {'train': rows}, tmp_path)
    task = tiny.task('classification')
    with pytest.raises(UserError, match='There is no validation file'):
        read_examples(FinetuneDataSettings(path=path), task)
    examples = read_examples(FinetuneDataSettings(path=path, validation_fraction=0.25), task)
    both = [*examples.train, *examples.validation['']]
    assert 2 < len(examples.validation['']) < 20
    assert sorted(e.first for e in both) == sorted(row['text'] for row in rows)


@pytest.mark.parametrize(
    ('name', 'feature', 'known', 'unknown'),
    [
        ('class', F.ClassLabel(names=['no', 'yes']), 'yes', -1),
        ('text', F.Text(), 'yes', ' '),
        ('int', F.Scalar(np.int64, optional=True), 1, None),
        ('bool', F.Scalar(np.bool_, optional=True), True, None),
        ('string', F.Scalar(np.str_, optional=True), 'yes', None),
    ],
)
def test_missing_labels_are_left_out_of_training_and_counted(
    name, feature, known, unknown, tmp_path, capsys
):
    rows = [{'text': str(i), 'label': unknown if i % 3 == 0 else known} for i in range(7)]
    nothing = [{'text': 'a', 'label': unknown}]
    features = {'text': F.Text(), 'label': feature}
    splits = {'train': rows, 'validation': rows, 'test': nothing}
    path = tfds_data_sets.write(f'missing_{name}', features, splits, tmp_path)
    task = tiny.task('classification')
    train, validation, test = tfds_source.read(path, task)
    assert [e.first for e in train] == ['1', '2', '4', '5']
    assert [e.is_labelled for e in validation['']] == [False, True, True] * 2 + [False]
    assert [e.label for e in test['']] == [None]
    error = capsys.readouterr().err
    assert f'note: {path}:train: 3 of 7 examples have no label and are left out.' in error
    assert f'{path}:validation: 3 of 7 examples have no label' in error
    path = tfds_data_sets.write(
        f'missing_all_{name}', features, {'train': nothing}, tmp_path / 'none'
    )
    with pytest.raises(UserError, match=f'{path}:train has 1 examples, none of them with a label'):
        tfds_source.read(path, task)


@pytest.mark.parametrize(
    ('name', 'labels', 'found'),
    [
        ('classification', '', ['no', 'yes']),
        ('classification', 'yes,no', ['no', 'yes']),
        # As GLUE's files: the classes by their numbers.
        ('classification', '0,1', ['0', '1']),
    ],
)
def test_classes_are_called_as_the_task_calls_them(name, labels, found, tmp_path):
    rows = [ONE, {'text': 'b', 'label': 1}]
    path = tfds_data_sets.write(
        f'named_{labels.replace(",", "_")}', PLAIN, {'train': rows}, tmp_path
    )
    task = tiny.task(name, labels=labels)
    train = tfds_source.read(path, task).train
    assert [e.label for e in train] == found
    assert task.head(train).labels == (tuple(labels.split(',')) if labels else ('no', 'yes'))


def test_numbers_are_learned_as_they_are_named(tokenizer, tmp_path):
    """Class 0 of the reviews with one star is called 1, not 0."""
    cases = {
        'stars': (F.ClassLabel(names=['1', '2', '3']), ['2', '3'], [2, 3]),
        'count': (F.ClassLabel(num_classes=4), [3, 0], [3, 0]),
        'number': (np.uint8, [255, 0], [255, 0]),
        'signed_score': (np.float32, [-1.5, -1], [-1.5, -1]),
        'written': (F.Text(), ['1e-3', ' -2 '], [1e-3, -2]),
    }
    task = tiny.task('regression')
    for name, (feature, labels, numbers) in cases.items():
        rows = [{'text': 'a', 'label': label} for label in labels]
        features = {'text': F.Text(), 'label': feature}
        path = tfds_data_sets.write(f'learned_{name}', features, {'train': rows}, tmp_path)
        train = tfds_source.read(path, task).train
        targets = task.encode(train, tokenizer, task.head(train), True).targets['labels']
        np.testing.assert_array_equal(targets, np.float32(numbers), err_msg=name)


def test_labels_are_classes_as_those_of_files_are(tmp_path, capsys):
    rows = [{'text': f't{i}', 'label': x} for i, x in enumerate(['1', '1.0', '0', 'True', 'x'])]
    features = {'text': F.Text(), 'label': F.Text()}
    path = tfds_data_sets.write('spelled_labels', features, {'train': rows}, tmp_path)
    train = tfds_source.read(path, tiny.task('classification')).train
    assert [e.label for e in train] == ['1', '1', '0', 'True', 'x']
    told = capsys.readouterr().err
    assert f"{path}:train: the labels '1' (1 examples), '1.0' (1 examples) are one class" in told
    named = tfds_source.read(path, tiny.task('classification', labels='1,1.0,0,True,x')).train
    assert [e.label for e in named] == ['1', '1.0', '0', 'True', 'x']
    rows[4]['label'] = 'NaN'
    path = tfds_data_sets.write('missing_labels', features, {'train': rows}, tmp_path)
    with pytest.raises(UserError, match=r'train, example 4: the label .NaN. is a missing value'):
        tfds_source.read(path, tiny.task('classification'))
