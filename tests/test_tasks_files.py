"""One's own files: columns, labels, what is held out, what is refused."""

import math

import numpy as np
import pytest

from albert_jax.cli.errors import UserError
from albert_jax.model.heads import Head
from albert_jax.tasks.registry import TASKS, find_files
from albert_jax.tasks.splits import hold_out
from tests import tiny
from tests.tiny import write_lines


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        ('d.tsv', 'id\tbody\tmood\n1\tAll "good"\tgood\n2\tBad, very\tbad\n'),
        ('d.csv', 'id,body,mood\r\n1,"All ""good""",good\r\n2,"Bad, very",bad\r\n'),
        ('d.jsonl', '{"body": "All \\"good\\"", "mood": "good"}\n{"body": "Bad, very", "mood": "bad"}'),
    ],
)  # fmt: skip
def test_ones_own_files_with_named_columns(name, content, tokenizer, tmp_path):
    (tmp_path / name).write_bytes(b'\xef\xbb\xbf' + content.encode())
    task = tiny.task('classification', text='body', label='mood')
    examples = task.read(tmp_path / name, True)
    assert [(e.first, e.label) for e in examples] == [('All "good"', 'good'), ('Bad, very', 'bad')]
    head = task.head(examples)
    assert head == Head('sequence_classification', ('bad', 'good'))
    assert task.encode(examples, tokenizer, head, True).targets['labels'].tolist() == [1, 0]
    ordered = tiny.task('classification', text='body', label='mood', labels='good, bad')
    assert ordered.head(examples).labels == ('good', 'bad')


def test_regression_to_a_constant_is_undefined(tokenizer, tmp_path):
    task = tiny.task('regression', text='a', text_pair='b', label='score')
    file = write_lines(tmp_path / 'x.csv', 'a,b,score', 'x,y,1.5', 'z,w,-2')
    examples = task.read(file, True)
    head = task.head(examples)
    features = task.encode(examples, tokenizer, head, True)
    assert features.targets['labels'].dtype == np.float32
    found = task.metrics(examples, features, {'logits': [np.array([3.0]), np.array([3.0])]}, head)
    assert math.isnan(found['pearson']) and found['mean_squared_error'] > 0


# fmt: off
BAD_FILES = [  # the lines are long: one case each
    ('classification', 'x.csv', 'text,sign\na,1\n', r"x.csv, line 2 has no column 'label'; there are"),
    ('classification', 'x.csv', 'body,label\na,1\n', r"line 2 has no column 'text'"),
    ('classification', 'x.csv', 'text,label\na,1\nb,\n', r'line 3 has no label in column .label.; remove'),
    ('classification', 'x.csv', 'text,label\na,1\nb,2,3\n', r'line 3 has 3 fields; the first line has 2'),
    ('classification', 'x.csv', 'text,label\na,1\nb,1\n', r"the labels are \['1'\]; classification needs two"),
    ('classification', 'x.csv', '', r'x.csv is empty'),
    ('classification', 'x.csv', 'text,label\n', r'x.csv has no examples'),
    ('classification', 'x.jsonl', '{"text": "a", "label": "1"}\nnot json\n', r'line 2 is not JSON'),
    ('classification', 'x.jsonl', '[1]\n', r'line 1 is not a JSON object'),
    ('classification', 'x.json', '[{"text": "a", "label": "1"}]', r'x.json begins with a JSON list; give one object a l'),
    ('multilabel', 'x.jsonl', '[\n{"text": "a"},\n{"text": "b"}\n]', r'x.jsonl begins with a JSON list; give one'),
    ('regression', 'x.json', '{\n"text": "a"\n}\n', r'x.json begins with a JSON object over several lines; gi'),
    ('classification', 'x.parquet', 'abc', r'is none of .tsv, .csv and .jsonl'),
    ('regression', 'x.csv', 'text,label\na,high\n', r"line 2: the label 'high' is not a number"),
    ('regression', 'x.csv', 'text,label\na,nan\n', r"line 2: the label 'nan' is not a number"),
    ('sst2', 'x.tsv', 'sentence\tlabel\nok\t2\n', r"line 2: the label '2' is unknown; there are 0 \(negative\), 1"),
    ('upos', 'x.conllu', '1\tword\n', r'x.conllu, line 1 has 2 columns; CoNLL-U has 10'),
    ('ner', 'x.txt', 'word PERSON\n', r"line 1: the tag 'PERSON' is none of IOB"),
    ('ner', 'x.txt', 'word\n', r'line 1 has 1 column\(s\); a word and its tag are needed'),
    ('tags', 'x.txt', '\n\n', r'x.txt is empty'),
    ('squad1', 'x.json', '{"data": 3}', r'x.json'),
    ('squad1', 'x.json', '[]', r"x.json is not of SQuAD's layout"),
    ('squad2', 'x.json', '{"data": []}', r'x.json has no questions'),
]
# fmt: on


@pytest.mark.parametrize(('name', 'file', 'content', 'message'), BAD_FILES, ids=str)
def test_bad_files_are_refused_with_file_line_and_reason(name, file, content, message, tmp_path):
    (tmp_path / file).write_text(content)
    task = tiny.task(name)
    with pytest.raises(UserError, match=message) as caught:
        task.head(task.read(tmp_path / file, True))
    assert '\n' not in str(caught.value)


def test_mixed_encodings_are_refused_with_the_line(tmp_path):
    (tmp_path / 'x.csv').write_bytes('text,label\nnaïve,1\n'.encode() + 'é,0\n'.encode('latin-1'))
    with pytest.raises(UserError, match=r'x.csv, line 3 is not UTF-8 \(byte 0xe9\); convert'):
        tiny.task('classification').read(tmp_path / 'x.csv', True)


def test_a_label_that_the_model_does_not_know(tokenizer, tmp_path):
    task = tiny.task('classification')
    examples = task.read(write_lines(tmp_path / 'x.csv', 'text,label', 'a,maybe'), False)
    with pytest.raises(
        UserError, match=r"line 2: the label 'maybe' is unknown; the model has no, y"
    ):
        task.encode(examples, tokenizer, Head('sequence_classification', ('no', 'yes')), False)


def test_unknown_tasks_and_missing_folders(tmp_path):
    with pytest.raises(UserError, match="task.name is 'sst'; it must be one of cola"):
        tiny.task('sst')
    with pytest.raises(UserError, match='which is not a directory'):
        find_files('sst2', tmp_path / 'nothing')
    with pytest.raises(UserError, match='has none of the files of sst2'):
        find_files('sst2', tmp_path)
    assert set(TASKS) >= {'squad1', 'squad2', 'race', 'ner', 'upos', 'regression'}


@pytest.mark.parametrize(
    ('name', 'files', 'read', 'others'),
    [
        ('upos', ('en_ewt-ud-train.conllu', 'en_gum-ud-train.conllu'), 0, 'en_gum-ud-train.conllu'),
        ('classification', ('train.jsonl', 'train.csv', 'train.tsv'), 2, 'train.csv, train.jsonl'),
        ('roles', ('train.conllu', 'train.conllu.gz'), 0, 'train.conllu.gz'),
    ],
)
def test_of_several_files_for_a_split_those_that_are_not_read_are_named(
    name, files, read, others, tmp_path, capsys
):
    for file in files:
        (tmp_path / file).touch()
    assert find_files(name, tmp_path)[0] == tmp_path / files[read]
    assert (
        f'{tmp_path}: {files[read]} is read for train; not read: {others} (name another with '
        f'--config.data.train=FILE).'
    ) in ' '.join(capsys.readouterr().err.split())
    # Where the settings name a file, nothing of the folder is read for the split.
    find_files(name, tmp_path, unread=['train'])
    assert not capsys.readouterr().err


def test_files_of_several_splits_are_no_files_beside_others(tmp_path, capsys):
    for file in ('train', 'dev_matched', 'dev_mismatched', 'test_matched', 'test_mismatched'):
        (tmp_path / f'{file}.tsv').touch()
    assert len(find_files('mnli', tmp_path)[1]) == 2
    assert not capsys.readouterr().err


def test_what_is_held_out_depends_on_the_text_alone(tmp_path):
    file = write_lines(tmp_path / 'x.tsv', 'text\tlabel', *(f't{i}\t{i % 2}' for i in range(500)))
    examples = tiny.task('classification').read(file, True)
    train, held = hold_out(examples, 0.2)
    assert len(train) + len(held) == 500 and 70 < len(held) < 130
    again, _ = hold_out(examples[::-1], 0.2)
    assert {e.first for e in again} == {e.first for e in train}
    with pytest.raises(UserError, match='which leaves 500 examples for training and 0'):
        hold_out(examples, 1e-9)


def test_a_line_separator_of_unicodes_does_not_end_a_csv_row(tmp_path):
    (tmp_path / 'x.csv').write_text('text,label\n"a\u2028b",1\nc\x85d,0\n', 'utf-8')
    examples = tiny.task('classification').read(tmp_path / 'x.csv', True)
    assert [e.first for e in examples] == ['a\u2028b', 'c\x85d']


def test_where_a_text_was_found_is_not_part_of_it(tmp_path):
    from albert_jax.tasks.task import digest_of

    rows = ('text\tlabel', 'a\t1', 'b\t0')
    one, two = (write_lines(tmp_path / f'{name}.tsv', *rows) for name in 'xy')
    task = tiny.task('classification')
    assert digest_of(task.read(one, True)) == digest_of(task.read(two, True))
    other = write_lines(tmp_path / 'z.tsv', *rows[:2], 'b\t1')
    assert digest_of(task.read(one, True)) != digest_of(task.read(other, True))
