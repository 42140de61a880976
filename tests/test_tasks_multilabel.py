"""Several labels for a text: how they are read, refused, scored and answered."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.special import expit
from sklearn.metrics import f1_score

from albert_jax.cli.errors import UserError
from albert_jax.model.heads import Head
from albert_jax.tasks import tfds_source
from albert_jax.tasks.encoded import hold_out
from albert_jax.tasks.metrics import multi_label_f1
from tests import tiny
from tests.tiny import write_lines

ROWS = [('a', ('x', 'y')), ('b', ()), ('c', ('y',))]
FILES = [
    ('d.jsonl', ['{"text": "a", "label": ["y", "x"]}', '{"text": "b", "label": []}',
                 '{"text": "c", "label": ["y"]}']),
    ('d.tsv', ['text\tlabel', 'a\t["x", "y"]', 'b\t[]', 'c\t["y"]']),
    ('d.csv', ['text,label', 'a,"[""x"", ""y""]"', 'b,[]', 'c,"[""y""]"']),
    ('d.tsv', ['id\ttext\tx\ty', '7\ta\t1\t1', '8\tb\t0\t0', '9\tc\t0\t1']),
    ('d.csv', ['x,text,y', '1.0,a,TRUE', '0.0,b,False', '0.0,c,True']),
    ('d.jsonl', ['{"text": "a", "x": 1, "y": true}', '{"text": "b", "x": 0, "y": false}',
                 '{"text": "c", "x": 0, "y": 1}']),
]  # fmt: skip


@pytest.mark.parametrize(('name', 'lines'), FILES, ids=lambda value: str(value)[:30])
@pytest.mark.parametrize('labels', ['', 'y,x'])
def test_lists_and_columns_are_the_same_labels(name, lines, labels, tokenizer, tmp_path):
    task = tiny.task('multilabel', labels=labels)
    file = write_lines(tmp_path / name, *lines)
    examples = task.read(file, True)
    assert [(e.first, tuple(sorted(e.labels))) for e in examples] == ROWS
    has_ids = lines[0].startswith('id')
    assert [e.key for e in examples] == (['7', '8', '9'] if has_ids else ['0', '1', '2'])
    assert all(e.is_labelled for e in examples)
    head = task.head(examples)
    assert head == Head('multi_label_classification', ('y', 'x') if labels else ('x', 'y'))
    targets = task.encode(examples, tokenizer, head, True).targets['labels']
    assert targets.dtype == np.float32
    expected = [[1, 1], [0, 0], [1, 0]] if labels else [[1, 1], [0, 0], [0, 1]]
    assert targets.tolist() == expected
    assert [task.labels_of(e) for e in examples][1:] == [(), ('y',)]
    # The file again, as a model of these labels evaluates it.
    again = tiny.task('multilabel')
    again.use_head(head, 'the model')
    assert [sorted(e.labels) for e in again.read(file, False)] == [list(x) for _, x in ROWS]
    assert not any(e.is_labelled for e in again.read(file, False, is_labelled=False))


def test_pairs_columns_of_ones_own_and_numbers_as_names(tmp_path):
    settings = {'text': 'q', 'text_pair': 'p', 'label': 'topics'}
    task = tiny.task('multilabel', **settings)
    lines = ['{"q": "a", "p": "b", "topics": [3, 11]}', '{"q": "c", "p": "d", "topics": ["3"]}']
    examples = task.read(write_lines(tmp_path / 'x.jsonl', *lines), True)
    assert [(e.first, e.second, e.labels) for e in examples] == [
        ('a', 'b', ('3', '11')), ('c', 'd', ('3',)),
    ]  # fmt: skip
    assert task.head(examples).labels == ('11', '3')


def test_rows_without_labels_are_kept_for_answers(tmp_path, capsys):
    task = tiny.task('multilabel', labels='x,y')
    lines = ['{"text": "a", "label": null}', '{"text": "b"}', '{"text": "c", "label": ["x"]}']
    examples = task.read(write_lines(tmp_path / 'x.jsonl', *lines), False)
    assert [e.labels for e in examples] == [None, None, ('x',)]
    assert '2 of 3 examples have no label' in capsys.readouterr().err
    empty = write_lines(tmp_path / 'x.tsv', 'text\tx\ty', 'a\t\t')
    assert [e.labels for e in task.read(empty, False)] == [None]
    assert [e.labels for e in task.read(write_lines(tmp_path / 'y.csv', 'text', 'a'), False)] == [
        None
    ]


def test_the_only_examples_of_a_label_stay_in_training(tmp_path):
    lines = [json.dumps({'text': f't{i}', 'label': ['a', f'l{i % 40}']}) for i in range(60)]
    task = tiny.task('multilabel')
    examples = task.read(write_lines(tmp_path / 'x.jsonl', *lines), True)
    train, held_out = hold_out(examples, 0.3, task.labels_of)
    assert {x for e in train for x in e.labels} == {x for e in examples for x in e.labels}
    assert len(train) + len(held_out) == 60 and held_out


BAD_FILES = [
    ('x.jsonl', '{"text": "a", "label": "y"}\n', r"""line 1: 'label' is 'y'; it must be a list"""),
    ('x.jsonl', '{"text": "a", "label": {"y": 1}}\n', "line 1: 'label' is .* it must be a list"),
    ('x.jsonl', '{"text": "a", "label": 3}\n', "line 1: 'label' is '3'; it must be a list"),
    ('x.jsonl', '{"text": "a", "label": ["y", 1.5]}\n', r'line 1: 1\.5 is no label'),
    ('x.jsonl', '{"text": "a", "label": [true]}\n', r'line 1: true is no label'),
    ('x.jsonl', '{"text": "a", "label": [null]}\n', r'line 1: null is no label'),
    ('x.jsonl', '{"text": "a", "label": [["y"]]}\n', r'line 1: \["y"\] is no label'),
    ('x.jsonl', '{"text": "a", "label": [" "]}\n', r'line 1: " " is no label'),
    ('x.jsonl', '{"text": "a", "label": ["y", "y "]}\n', r"line 1: the label 'y' is in the list 2"),
    ('x.jsonl', '{"text": "a", "label": [0, 1, 0]}\n', r"the label '0' is in the list 2 times; a"),
    ('x.jsonl', '{"text": "a", "label": ["\\ud83d"]}\n', r'line 1.* half a surrogate pair'),
    ('x.jsonl', '{"text": "a", "label": null}\n', r"line 1 has no labels; give it a list in"),
    ('x.jsonl', '{"text": "a"}\n', r"line 1 has no labels; give it a list in column 'label'"),
    ('x.jsonl', '{"text": "a", "label": []}\n', r'x.jsonl: no example has a label; there is noth'),
    ('x.jsonl', '{"text": "a", "label": ["NaN"]}\n', r"the label 'NaN' is a missing value"),
    ('x.jsonl', '{"text": "a", "label": [1], "label": [2]}\n', r"has the column 'label' twice"),
    ('x.jsonl', '{"text": "a", "labels": ["x"]}\n',
     r"line 1 has a list in 'labels', and no column 'label'; n.* with --config.task.label=labels"),
    ('x.jsonl', '{"text": "a", "words": ["a"], "labels": ["x"]}\n',
     r"line 1 has a list in 'words' and 'labels', and no column .* with --config.task.label=NAME"),
    ('x.tsv', 'text\tlabel\na\tx,y\n', r"line 2: 'label' is 'x,y'; it must be a list of labels"),
    ('x.tsv', 'text\tlabel\na\t["x"\n', r"x.tsv, line 2, column 'label' is not JSON"),
    ('x.tsv', 'text\tlabel\na\t\n', r'line 2 has no labels'),
    ('x.tsv', 'text\tx\ty\na\t1\t2\n', r"line 2: column 'y' holds '2'; the column of a label"),
    ('x.tsv', 'text\tx\ty\na\t1\t\n', r"line 2: column 'y' holds ''; the column of a label"),
    ('x.csv', 'text,x,notes\na,1,good\n', r"column 'notes' holds 'good'; .* --config.task.labels"),
    ('x.csv', 'text,x,x\na,1,1\n', r"line 1 has the column 'x' twice"),
    ('x.csv', 'body,x\na,1\n', r"line 2 has no column 'text'"),
    ('x.jsonl', '{"text": "a", "x": 1}\n{"text": "b", "x": 0, "y": 1}\n',
     r"line 2: the column 'y' holds '1', and rows before this one have no such column; give every"),
    ('x.jsonl', '{"text": "a", "x": 1, "y": 0}\n{"text": "b", "x": 0}\n',
     r"line 2 has no value for the label 'y'; give it 0 or 1"),
    ('x.jsonl', '{"text": "a", "\\ud83d": 1}\n', r'line 1: the name of a column has half a surrog'),
    ('x.jsonl', '{"text": "a", "\\u200b": 1}\n', r"line 1: the column '\\u200b' has 0 or 1, and a"),
]  # fmt: skip


@pytest.mark.parametrize(('name', 'content', 'message'), BAD_FILES, ids=str)
def test_bad_files_are_refused_with_file_line_and_reason(name, content, message, tmp_path):
    (tmp_path / name).write_text(content)
    task = tiny.task('multilabel')
    with pytest.raises(UserError, match=message) as caught:
        task.head(task.read(tmp_path / name, True))
    assert '\n' not in str(caught.value)


def test_labels_that_are_not_among_those_named(tokenizer, tmp_path):
    file = write_lines(tmp_path / 'x.jsonl', '{"text": "a", "label": ["z"]}')
    with pytest.raises(UserError, match=r"line 1: the label 'z' is unknown; there are x, y"):
        tiny.task('multilabel', labels='x,y').read(file, True)
    task = tiny.task('multilabel')
    examples = task.read(file, False)
    head = Head('multi_label_classification', ('x', 'y'))
    with pytest.raises(UserError, match=r"line 1: the label 'z' is unknown; the model has x, y"):
        task.encode(examples, tokenizer, head, False)
    file = write_lines(tmp_path / 'x.csv', 'text,x', 'a,1')
    with pytest.raises(UserError, match=r"line 2 has no value for the label 'y'; give it 0 or 1"):
        tiny.task('multilabel', labels='x,y').read(file, True)


def test_columns_that_are_no_labels_are_told(tmp_path, capsys):
    lines = ['{"text": "a", "x": 1, "y": 0}', '{"text": "b", "x": 0, "y": 1, "from": "the web"}',
             '{"text": "c", "x": 0, "y": 1, "from": null}']  # fmt: skip
    file = write_lines(tmp_path / 'x.jsonl', *lines)
    task = tiny.task('multilabel')
    assert [e.labels for e in task.read(file, True)] == [('x',), ('y',), ('y',)]
    told = capsys.readouterr().err
    assert "x.jsonl: the column 'from' of 1 rows is no label that is known, and is not read" in told
    # Of a file to evaluate what may have been a label, as a list of them would be refused.
    more = write_lines(tmp_path / 'y.csv', 'text,x,y,z,from', 'a,1,0,1,web', 'b,0,0,0,web')
    assert [e.labels for e in task.read(more, False)] == [('x',), ()]
    told = capsys.readouterr().err
    assert (
        "y.csv: the column 'z' of 2 rows is no label that is known" in told and 'from' not in told
    )
    # A table of pandas has a first column without a name.
    unnamed = write_lines(tmp_path / 'z.csv', ',text,x', '0,a,1', '1,b,0')
    assert [e.labels for e in tiny.task('multilabel').read(unnamed, True)] == [('x',), ()]
    # Whoever names the labels says that the others are none.
    named = tiny.task('multilabel', labels='x,y')
    assert [e.labels for e in named.read(more, True)] == [('x',), ()]
    assert not capsys.readouterr().err


def test_columns_that_look_the_same_are_told(tmp_path, capsys):
    file = write_lines(tmp_path / 'x.csv', 'text,x,x\u200b', 'a,1,0', 'b,1,1')
    task = tiny.task('multilabel')
    assert task.head(task.read(file, True)).labels == ('x', 'x\u200b')
    told = capsys.readouterr().err
    assert r"the labels 'x' (2 examples), 'x\u200b' (1 examples), which look the same" in told


def test_data_sets_of_tfds_are_refused():
    with pytest.raises(UserError, match='multilabel from its published files|not read from tensor'):
        tfds_source.read('tfds:glue/sst2', tiny.task('multilabel'))
    with pytest.raises(UserError, match='multilabel is not read from tensorflow-datasets; write'):
        tiny.task('multilabel').tfds_columns()


def test_heads_that_do_not_suit():
    several = Head('multi_label_classification', ('x', 'y'))
    with pytest.raises(UserError, match='has a multi label classification head, which the task cl'):
        tiny.task('classification').use_head(several, 'm')
    with pytest.raises(UserError, match='has a sequence classification head, which the task multi'):
        tiny.task('multilabel').use_head(Head('sequence_classification', ('x', 'y')), 'm')
    with pytest.raises(
        UserError, match='m has the labels x, y, but those of the task multilabel are x, z'
    ):
        tiny.task('multilabel', labels='x,z').use_head(several, 'm')
    twice = Head('multi_label_classification', ('x', 'x'))
    with pytest.raises(UserError, match='of which two are the same; name them in the order of the'):
        tiny.task('multilabel').use_head(twice, 'm')
    # One label is a yes or no.
    tiny.task('multilabel').use_head(Head('multi_label_classification', ('spam',)), 'm')


@given(
    pair=st.tuples(st.integers(1, 6), st.integers(1, 4)).flatmap(
        lambda shape: st.tuples(*[arrays.arrays(bool, shape)] * 2)
    )
)
def test_f1_is_that_of_scikit_learn(pair):
    labels, predictions = pair
    found = multi_label_f1(labels, predictions)
    # As (examples, labels) of one label scikit-learn takes them for two classes.
    true, predicted = (x.astype(int) for x in pair)
    if labels.shape[1] == 1:
        expected = f1_score(true[:, 0], predicted[:, 0], zero_division=0)
        assert math.isclose(found['micro_f1'], expected, abs_tol=1e-12)
        assert math.isclose(found['macro_f1'], expected, abs_tol=1e-12)
        return
    for average in ('micro', 'macro'):
        expected = f1_score(true, predicted, average=average, zero_division=0)
        assert math.isclose(found[f'{average}_f1'], expected, abs_tol=1e-12)


def test_answers_are_sigmoids_and_are_written_in_columns(tokenizer, tmp_path):
    task = tiny.task('multilabel', labels='x,y,z')
    lines = ['{"text": "a", "label": ["x"]}', '{"text": "b", "label": []}', '{"text": "c"}']
    examples = task.read(write_lines(tmp_path / 'x.jsonl', *lines), False)
    head = Head('multi_label_classification', ('x', 'y', 'z'))
    features = task.encode(examples, tokenizer, head, False)
    logits = np.array([[3.0, 0.1, -2.0], [-900.0, -1.0, 900.0], [0.0, 0.0, 0.0]], np.float32)
    found = task.predictions(examples, features, {'logits': list(logits)}, head)
    assert [answer['prediction'] for answer in found] == [['x', 'y'], ['z'], []]
    probabilities = np.array([list(answer['probabilities'].values()) for answer in found])
    np.testing.assert_allclose(probabilities, expit(logits.astype(np.float64)), rtol=1e-12)
    # The example without labels is not scored.
    scores = task.metrics(examples, features, {'logits': list(logits)}, head)
    assert scores == {'micro_f1': pytest.approx(2 / 4), 'macro_f1': pytest.approx(1 / 3)}
    (file,) = task.write(examples, found, tmp_path)
    assert file.read_text() == 'index\tx\ty\tz\n0\t1\t1\t0\n1\t0\t0\t1\n2\t0\t0\t0\n'
