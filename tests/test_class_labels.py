"""What labels of tables mean, and which examples are held out."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from albert_jax.cli.errors import UserError
from albert_jax.model.heads import Head
from albert_jax.tasks.splits import hold_out
from albert_jax.tasks.text_examples import TextExample
from tests import tiny
from tests.tiny import write_lines


def _read(tmp_path, spellings, name='x.jsonl', is_training=True, **settings):
    """The labels of a file with these, spelled as JSON or as cells."""
    if name.endswith('jsonl'):
        lines = [f'{{"text": "t{i}", "label": {label}}}' for i, label in enumerate(spellings)]
    else:
        lines = ['text,label', *(f't{i},{label}' for i, label in enumerate(spellings))]
    task = tiny.task('classification', **settings)
    examples = task.read(write_lines(tmp_path / name, *lines), is_training)
    return [one.label for one in examples]


@pytest.mark.parametrize('name', ['x.jsonl', 'x.csv'])
def test_one_and_one_point_zero_are_one_class(name, tmp_path, capsys):
    assert _read(tmp_path, ['1', '1.0', '0', '0.50'], name)[:3] == ['1', '1', '0']
    told = capsys.readouterr().err
    assert "the labels '1' (1 examples), '1.0' (1 examples) are one class, '1'" in told


@pytest.mark.parametrize(
    ('labels', 'name'),
    [
        (['0.0', '1.0'], 'x.jsonl'),
        (['true', 'false'], 'x.jsonl'),
        (['1', '01', '1.1', '1.10'], 'x.csv'),
        (['true', 'false', 'mixed'], 'x.csv'),
        (['cmn', 'yue', 'nan'], 'x.csv'),
        (['favor', 'none'], 'x.csv'),
        (['1', '2', 'NA'], 'x.csv'),
        (['true', 'false', '0', '7', 'red'], 'x.csv'),
        (['yes', 'YES'], 'x.csv'),
    ],
)
def test_classes_keep_their_names(labels, name, tmp_path):
    assert _read(tmp_path, labels, name) == labels


@pytest.mark.parametrize(
    ('labels', 'told'),
    [
        (['pos', 'pos\u200b', 'neg'], r"'pos' (1 examples), 'pos\u200b' (1 examples), which look "
         'the same, are 2 classes'),
        (['caf\xe9', 'cafe\u0301'], r"'caf\xe9' (1 examples), 'cafe\u0301' (1 examples), which look "
         'the same, are 2 classes'),
        (['very good', 'very\xa0good'], r"'very good' (1 examples), 'very\xa0good' (1 examples), "
         'which look the same, are 2 classes'),
        (['\u2764\ufe0f', '\u2764', 'x'], r"'\u2764\ufe0f' (1 examples), '\u2764' (1 examples), which "
         'look the same, are 2 classes'),
        (['1.0', '1', '1\u2060'], r"'1' (2 examples), '1\u2060' (1 examples), which look the same"),
        (['Pos', 'pos', 'pos\xad'], r"'pos\xad' (1 examples), which look the same but for their "
         'case, are 3 classes'),
    ],
)  # fmt: skip
def test_labels_that_look_the_same_are_told_and_never_one(labels, told, tmp_path, capsys):
    read = _read(tmp_path, labels, 'x.csv')
    assert told in capsys.readouterr().err
    assert len(set(read)) == len(set(labels) - {'1.0'})
    # Of lists too.
    lines = [json.dumps({'text': 'a', 'label': [label]}) for label in labels]
    tiny.task('multilabel').read(write_lines(tmp_path / 'x.jsonl', *lines), True)
    assert told in capsys.readouterr().err


@pytest.mark.parametrize('labels', [['a b', 'ab'], ['x²', 'x2'], ['Ａ', 'A'], ['e', 'é']])
def test_labels_that_look_different_have_no_note(labels, tmp_path, capsys):
    assert _read(tmp_path, labels, 'x.csv') == labels
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ('labels', 'read', 'told'),
    [
        (['True', 'true', 'False'], ['true', 'true', 'False'], "'True' (1 examples), 'true' (1 "
         "examples) are one class, 'true'"),
        (['+1', '1.0', '-1'], ['1', '1', '-1'], "are one class, '1'"),
        (['-0.0', '0', '1'], ['0', '0', '1'], "are one class, '0'"),
        (['Yes', 'yes', 'no'], ['Yes', 'yes', 'no'], "'Yes' (1 examples), 'yes' (1 examples), "
         'which differ in their case only, are 2 classes'),
        (['true', '0', 'red'], ['true', '0', 'red'], "'true' (1 examples), '0' (1 examples) are "
         'taken as different classes'),
    ],
)  # fmt: skip
def test_labels_that_are_nearly_the_same_are_told(labels, read, told, tmp_path, capsys):
    assert _read(tmp_path, labels, 'x.csv') == read
    assert told in capsys.readouterr().err


def test_a_truth_value_is_the_models_in_any_case(tmp_path):
    assert _read(tmp_path, ['True', 'FALSE'], 'x.csv', labels='false,true') == ['true', 'false']


@pytest.mark.parametrize(
    ('labels', 'name', 'message'),
    [
        (['1', '0', 'true'], 'x.jsonl', r"line 3: the label is 'true', but '1' at .*x.jsonl, line 1"),
        (['True', '0'], 'x.csv', r"line 2: the label is 'True', but '0' at .*x.csv, line 3"),
        (['NaN', 'a'], 'x.csv', "line 2: the label 'NaN' is a missing value"),
        (['1.0', '0.0', 'nan'], 'x.csv', "line 4: the label 'nan' is a missing value"),
        (['\u200b', 'a'], 'x.csv', "line 2 has no label in column 'label'"),
        (['"NaN"', '"a"'], 'x.jsonl', "line 1: the label 'NaN' is a missing value"),
    ],
)  # fmt: skip
def test_labels_that_are_no_classes_are_refused(labels, name, message, tmp_path):
    with pytest.raises(UserError, match=message):
        _read(tmp_path, labels, name)


def test_named_classes_are_what_they_are(tmp_path):
    names = ['NaN', 'true', '1']
    assert _read(tmp_path, names, 'x.csv', labels='NaN,true,1') == names
    assert _read(tmp_path, ['1.0', '0'], 'x.csv', labels='0,1') == ['1', '0']
    assert _read(tmp_path, ['1', '1.0'], 'x.csv', labels='1,1.0') == ['1', '1.0']
    with pytest.raises(UserError, match="the label '1.00' is unknown; there are 1, 1.0"):
        _read(tmp_path, ['1.00'], 'x.csv', labels='1,1.0')
    with pytest.raises(UserError, match="task.labels is 'a, a', which names a class twice"):
        tiny.task('classification', labels='a, a')


def test_an_unknown_label_that_looks_known_is_shown_in_escapes(tmp_path):
    message = r"line 2: the label 'cafe\\u0301' is unknown; it looks the same as 'caf\\xe9', but is"
    with pytest.raises(UserError, match=message):
        _read(tmp_path, ['cafe\u0301'], 'x.csv', labels='bar,caf\xe9')
    with pytest.raises(UserError, match='is unknown; there are bar, café'):
        _read(tmp_path, ['Café'], 'x.csv', labels='bar,caf\xe9')


def test_labels_are_those_of_the_model_as_numbers(tokenizer, tmp_path):
    """A column of integers becomes one of floats where a value is missing."""
    file = write_lines(tmp_path / 'x.csv', 'text,label', 'a,1.0', 'b,', 'c,0.0')
    task = tiny.task('classification')
    examples = task.read(file, False)
    features = task.encode(examples, tokenizer, Head('sequence_classification', ('0', '1')), False)
    assert features.targets['labels'].tolist() == [1, 0, 0]
    logits = {'logits': [np.array([0.0, 1.0])] * 3}
    head = Head('sequence_classification', ('0', '1'))
    assert task.metrics(examples, features, logits, head) == {'accuracy': 0.5}


def test_texts_of_which_nothing_is_seen_are_counted_with_the_empty_ones(tmp_path, capsys):
    file = write_lines(tmp_path / 'x.tsv', 't\tp\tlabel', 'a\tb\tx', 'a\t\u200b\ty', '\xa0\tb\tx')
    tiny.task('classification', text='t', text_pair='p').read(file, True)
    told = capsys.readouterr().err
    assert 'x.tsv: 2 of 3 examples have an empty text, the first at line 3.' in told


@pytest.mark.parametrize('label', ['null', 'NaN', '""'])
def test_a_label_that_is_missing_in_an_evaluation_is_counted(label, tmp_path, capsys):
    assert _read(tmp_path, ['"a"', label], is_training=False) == ['a', None]
    assert '1 of 2 examples have no label; metrics are over the others' in capsys.readouterr().err


@given(
    st.lists(
        st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.text(max_size=3)
        | st.lists(st.integers(), max_size=2), min_size=1, max_size=6,
    )
)  # fmt: skip
@example([1, 1.0, 0])
def test_any_label_is_a_class_or_refused(tmp_path_factory, labels):
    path = tmp_path_factory.getbasetemp() / 'labels.jsonl'
    path.write_text(''.join(json.dumps({'text': 'a', 'label': label}) + '\n' for label in labels))
    try:
        examples = tiny.task('classification').read(path, True)
    except UserError as error:
        assert str(path) in str(error)
        return
    for one, label in zip(examples, labels, strict=True):
        same = [e.label for e, other in zip(examples, labels, strict=True) if other == label]
        assert set(same) == {one.label} and one.label not in (None, '', 'NaN', 'null')


# What is held out.


def _examples(pairs) -> list[TextExample]:
    return [
        TextExample(f'x, line {i}', str(i), text, None, label)
        for i, (text, label) in enumerate(pairs)
    ]


def _by_digest(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], 'big') / 2**64


@given(
    st.lists(st.tuples(st.sampled_from('abcdefghijklmnop'), st.sampled_from('xyz')), max_size=20),
    st.sampled_from([0.1, 0.3, 0.5, 0.8]),
    st.randoms(use_true_random=False),
)
@example([(text, text) for text in 'abcdefgh'], 0.5, None)
def test_every_label_is_trained(pairs, fraction, random):
    examples = _examples(pairs)
    labels_of = tiny.task('classification').labels_of
    old_train = [e for e in examples if _by_digest(e.first) >= fraction]
    try:
        train, held_out = hold_out(examples, fraction, labels_of)
    except UserError as error:
        assert 'choose another' in str(error)
        return
    assert sorted(train + held_out, key=lambda e: int(e.key)) == examples
    assert not {e.first for e in train} & {e.first for e in held_out}
    assert {e.label for e in train} == {e.label for e in examples}
    assert set(old_train) <= set(train)
    if {e.label for e in old_train} == {e.label for e in examples}:
        assert train == old_train
    # No more moves than there are labels that would be missing.
    missing = {e.label for e in examples} - {e.label for e in old_train}
    assert len({e.first for e in train} - {e.first for e in old_train}) <= len(missing)
    if random is not None:
        shuffled = random.sample(examples, len(examples))
        assert set(hold_out(shuffled, fraction, labels_of)[0]) == set(train)


def test_what_stays_in_training_is_told(tmp_path, capsys):
    """The only example of a label would be held out."""
    rare = next(text for text in 'abcdefgh' if _by_digest(text) < 0.3)
    pairs = [(f't{i}', 'x') for i in range(30)] + [(rare, 'y'), ('z', 'z')] + [('w', 'z')] * 3
    task = tiny.task('classification')
    train, held_out = hold_out(_examples(pairs), 0.3, task.labels_of)
    assert task.head(train).labels == ('x', 'y', 'z') and held_out
    assert '1 examples that data.validation_fraction would hold out stay' in capsys.readouterr().err
    # Numbers are no classes.
    task = tiny.task('regression')
    train, _ = hold_out(
        _examples([(text, str(i)) for i, text in enumerate('abcdefgh')]), 0.3, task.labels_of
    )
    assert len(train) < 8 and not capsys.readouterr().err


def test_the_tags_of_a_sentence_are_trained_too(tmp_path):
    words = [f'w{i}' for i in range(40)]
    lines = [line for i, word in enumerate(words) for line in (f'{word} T{i}', '')]
    task = tiny.task('tags')
    train, held_out = hold_out(
        task.read(write_lines(tmp_path / 'x.txt', *lines, 'v T1', '', 'u T2'), True),
        0.3,
        task.labels_of,
    )
    assert {tag for sentence in train for tag in sentence.tags} == {f'T{i}' for i in range(40)}
    assert len(train) + len(held_out) == 42
