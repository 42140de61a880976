"""What classes are called where files have codes for them."""

import json

import numpy as np
import pytest

from albert_jax.cli.errors import UserError
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.interop import huggingface
from albert_jax.interop.native import Pretrained
from albert_jax.model.heads import Head
from tests import tiny
from tests.tiny import write_lines

KIND = 'sequence_classification'
NAMES = Head(KIND, ('negative', 'positive'))
LINES = ('sentence\tlabel', 'a dull film\t0', 'a fine film\tpositive', 'so so\t1.0')


def own(labels='0,1', names='bad,good'):
    return tiny.task('classification', max_length=16, labels=labels, label_names=names)


def test_sst2_says_negative_and_positive_and_its_server_gets_numbers(tokenizer, tmp_path):
    task = tiny.task('sst2', max_length=16)
    examples = task.read(write_lines(tmp_path / 'train.tsv', *LINES), True)
    # A run that began before there were names reads the same examples.
    assert [example.label for example in examples] == ['0', '1', '1']
    head = task.head(examples)
    assert head == NAMES
    features = task.encode(examples, tokenizer, head, True)
    np.testing.assert_array_equal(features.targets['labels'], [0, 1, 1])
    logits = {'logits': [np.array([3.0, 0.0]), np.array([0.0, 1.0]), np.array([0.0, 2.0])]}
    assert task.metrics(examples, features, logits, head) == {'accuracy': 1.0}
    rows = task.predictions(examples, features, logits, head)
    assert [row['prediction'] for row in rows] == ['negative', 'positive', 'positive']
    assert list(rows[0]['probabilities']) == ['negative', 'positive']
    (file,) = task.write(examples, rows, tmp_path)
    assert file.read_text() == 'index\tprediction\n0\t0\n1\t1\n2\t1\n'


@pytest.mark.parametrize('labels', [('0', '1'), ('1', '0'), ('positive', 'negative')])
def test_a_model_keeps_its_own_labels_in_its_own_order(labels, tokenizer, tmp_path):
    task, head = tiny.task('sst2', max_length=16), Head(KIND, labels)
    task.use_head(head, 'x')
    examples = task.read(write_lines(tmp_path / 'dev.tsv', *LINES), False)
    features = task.encode(examples, tokenizer, head, False)
    is_first = labels[0] in ('1', 'positive')
    np.testing.assert_array_equal(features.targets['labels'], np.array([0, 1, 1]) ^ is_first)
    # As a teacher it is asked by the names of the student.
    assert task.named(head).labels == tuple(
        {'0': 'negative', '1': 'positive'}.get(x, x) for x in labels
    )
    assert task.named(Head(KIND, ('a', 'b'))).labels == ('a', 'b')


@pytest.mark.parametrize('name', ['cola', 'mrpc', 'qqp', 'wnli'])
def test_no_task_of_glue_answers_with_numbers(name):
    task = tiny.task(name)
    assert len(set(task.names.values())) == 2 and not any(map(str.isdigit, task.names.values()))


def test_ones_own_names(tokenizer, tmp_path):
    task = own('1,0', 'good, bad')
    file = write_lines(tmp_path / 'x.csv', 'text,label', 'a,0', 'b,1', 'c,good')
    examples = task.read(file, True)
    head = task.head(examples)
    assert head.labels == ('good', 'bad')
    targets = task.encode(examples, tokenizer, head, True).targets['labels']
    np.testing.assert_array_equal(targets, [1, 0, 0])
    # They win over those that are known.
    assert tiny.task('sst2', label_names='thumb down,thumb up').head([]).labels == (
        'thumb down', 'thumb up',
    )  # fmt: skip
    again = own('1,0', 'good,bad')
    again.use_head(head, 'x')
    with pytest.raises(UserError, match=r"the label '2' is unknown; there are 1 \(good\), 0 \(bad"):
        again.read(write_lines(tmp_path / 'y.csv', 'text,label', 'a,2'), False)


@pytest.mark.parametrize(
    ('name', 'labels', 'names', 'message'),
    [
        ('classification', '', 'a,b', r'task.labels is empty; .* --config.task.labels=0,1'),
        ('classification', '0,1,2', 'a,b', 'names 2 classes; classification has 3: 0, 1, 2'),
        ('classification', '0,1', '1,0', "calls the class '0' '1', which is the label of another"),
        ('sst2', '', 'a,b,c', 'names 3 classes; sst2 has 2: 0, 1'),
        ('sst2', '', 'a,', "is 'a,', which has an empty name"),
        ('sst2', '', 'a,\u200b', 'which has an empty name'),
        ('sst2', '', 'a,b\udc80', 'task.label_names has half a surrogate pair'),
        ('classification', 'a,b\udc80', '', 'task.labels has half a surrogate pair'),
        ('sst2', '', 'a, a', "names 'a' twice"),
        ('classification', 'a,,b', '', "task.labels is 'a,,b', whose label 2 is empty; give each"),
        ('multilabel', 'a,\u200b', '', r"task.labels is 'a,\\u200b', whose label 2 is empty"),
        ('stsb', '', 'a,b', 'but stsb has no classes to name'),
        ('multilabel', 'a,b', 'c,d', 'but multilabel has no classes to name'),
        ('squad1', '', 'a,b', 'but squad1 has no classes to name'),
    ],
)  # fmt: skip
def test_names_that_do_not_fit_are_refused(name, labels, names, message):
    with pytest.raises(UserError, match=message):
        tiny.task(name, labels=labels, label_names=names)


def test_a_comma_may_stand_behind_the_last_label():
    assert tiny.task('classification', labels='a, b,').labels == ('a', 'b')
    assert tiny.task('classification', labels=' ').labels is None


def test_the_names_leave_with_the_model(vocabulary, tmp_path):
    """As `convert` writes them; no program is compiled for it."""
    config, head = tiny.config(), tiny.task('sst2').head([])
    model = Pretrained(config, tiny.classifier_params(config), Tokenizer(vocabulary), head)
    huggingface.write(model, tmp_path)
    written = json.loads((tmp_path / 'config.json').read_text())
    assert written['id2label'] == {'0': 'negative', '1': 'positive'}
    assert written['label2id'] == {'negative': 0, 'positive': 1}
