"""Lines, standard input and objects to predict: every door takes and refuses the same."""

import gzip
import io
import json
import sys
import types

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from albert_jax.cli.errors import UserError
from albert_jax.data.hub_tokenizer import HubTokenizer
from albert_jax.model.heads import Head
from albert_jax.tasks.answering import Answerer
from albert_jax.tasks.inference import predict_file
from albert_jax.tasks.inputs import parse_lines, read_input
from tests import tiny
from tests.tiny import write_lines

HALF = '\ud83d'
_MARK = '\ufeff'


def _pipe(monkeypatch, content: bytes) -> None:
    monkeypatch.setattr(sys, 'stdin', types.SimpleNamespace(buffer=io.BytesIO(content)))


def test_a_byte_order_mark_is_no_text(monkeypatch, tmp_path):
    content = f'{_MARK}{{"text": "a", "id": "x"}}\r\nb{_MARK}\r\n'.encode()
    task = tiny.task('classification')
    _pipe(monkeypatch, content)
    (tmp_path / 'x.txt').write_bytes(content)
    for examples in (
        read_input(task, '-'),
        read_input(task, str(tmp_path / 'x.txt')),
        list(parse_lines(task, content.decode().split('\n'), 'lines')),
    ):
        assert [(e.first, e.key) for e in examples] == [('a', 'x'), (f'b{_MARK}', '1')]


def test_standard_input_that_is_not_utf_8(monkeypatch):
    _pipe(monkeypatch, 'a\né\n'.encode('latin-1'))
    with pytest.raises(UserError, match='Standard input, line 2 is not UTF-8'):
        read_input(tiny.task('classification'), '-')


@pytest.mark.parametrize(
    'text',
    [
        '{"Hello"} she said',
        "{ 'x' }",
        '{laughs} no',
        '{{name}} is here',
        '{} is a set',
        '{not: json}',
        '{',
        '[1]',
        '"a"',
    ],
)
def test_a_text_in_braces_is_a_text(text):
    (one,) = parse_lines(tiny.task('classification'), [text], 'x')
    assert one.first == text
    pairs = tiny.task('classification', text='a', text_pair='b')
    (pair,) = parse_lines(pairs, [f'{text}\tb'], 'x')
    assert (pair.first, pair.second) == (text, 'b')


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('{"text": "a}', 'x, line 1 is not JSON'),
        ('{"text": "a"} and more', 'x, line 1 is not JSON'),
        ("{'text': 'a'}", 'x, line 1 is not JSON'),
        ('{text: "a"}', 'x, line 1 is not JSON'),
        ('{}', 'x, line 1 lacks text'),
        ('{"texts": "a"}', 'x, line 1 lacks text'),
        ('{"text": "a", "text": "b"}', "x, line 1: a JSON object has the key 'text' twice"),
        ('{"text": null}', 'x, line 1: text must be a text'),
        ('{"text": ["a"]}', 'x, line 1: text must be a text'),
        ('{"text" "a"}', 'x, line 1 is not JSON'),
        ('{"text": "\\ud83d"}', 'x, line 1, text has half a surrogate pair'),
        ('{"text": "a", "id": "\\ud83d"}', 'x, line 1, id has half a surrogate pair'),
        (f'a {HALF}', 'x, line 1 has half a surrogate pair'),
    ],
)
def test_broken_lines_are_refused(line, message):
    with pytest.raises(UserError, match=message):
        parse_lines(tiny.task('classification'), [line], 'x')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('[{"text": "good"}]', 'x begins with a JSON list; give one object a line, as `jq -c`'),
        ('[\n  {\n    "text": "good"\n  }\n]', 'x begins with a JSON list'),
        ('["good",\n"bad"]', 'x begins with a JSON list'),
        ('\n\ufeff {\n  "text": "good"\n}', 'x begins with a JSON object over several lines'),
        ('{\n"text": "a"\n}\n{\n"text": "b"\n}\n', 'x begins with a JSON object over several'),
    ],
)
@pytest.mark.parametrize('name', ['classification', 'splitting', 'upos', 'squad1'])
def test_json_of_several_lines_is_no_text(name, text, message):
    with pytest.raises(UserError, match=message):
        parse_lines(tiny.task(name), text.split('\n'), 'x')


@pytest.mark.parametrize('text', ['[\n1', '{\na\n}', '[]\na', '{\n}', '[1] a\n[2] b', '[1, 2]'])
def test_lines_with_brackets_are_texts(text):
    examples = parse_lines(tiny.task('classification'), text.split('\n'), 'x')
    assert [e.first for e in examples] == text.split('\n')


def test_marks_that_nobody_sees_before_an_object_do_not_make_it_a_text():
    # As `cat a.jsonl b.jsonl` writes, of files of Windows.
    lines = ['\ufeff{"text": "a"}', '\ufeff{"text": "b"}', '\ufeffc']
    examples = parse_lines(tiny.task('classification'), lines, 'x')
    assert [e.first for e in examples] == ['a', 'b', 'c']
    with pytest.raises(UserError, match='x, line 1 is not JSON'):
        parse_lines(tiny.task('classification'), ['\u200b{"text": "a"}'], 'x')


@pytest.mark.parametrize('name', ['x.CSV', 'x.Tsv', 'x.JSONL', 'x.CSV.GZ'])
def test_endings_in_capitals_are_endings(name, tmp_path):
    content = b'{"text": "a"}\n' if 'JSON' in name else b'text\na\n'
    (tmp_path / name).write_bytes(gzip.compress(content) if 'GZ' in name else content)
    (one,) = read_input(tiny.task('classification'), str(tmp_path / name))
    assert one.first == 'a'


@pytest.mark.parametrize('name', ['classification', 'regression', 'multilabel', 'generation'])
def test_a_table_is_no_texts(name, tmp_path, monkeypatch):
    content = 'text\tlabel\nA film.\tyes\n\nGood.\tno\n'
    (tmp_path / 'x.txt').write_text(content)
    _pipe(monkeypatch, content.encode())
    for source in (str(tmp_path / 'x.txt'), '-'):
        with pytest.raises(UserError, match='has 2 columns with tabs between them in each line'):
            read_input(tiny.task(name), source)
    # A tab in a text, or in some of them.
    task = tiny.task(name)
    assert len(parse_lines(task, ['A\tfilm.'], 'x')) == 1
    assert len(parse_lines(task, ['A\tfilm.', 'Good.'], 'x')) == 2
    assert len(parse_lines(task, ['a\tb', '{"source": "a", "text": "a"}'], 'x')) == 2


def test_the_names_of_the_columns_are_no_pair():
    task = tiny.task('classification', text='a', text_pair='b')
    with pytest.raises(UserError, match=r"x: the first line, 'a\\tb', names the columns"):
        parse_lines(task, ['', 'a\tb', 'c\td'], 'x')
    assert len(parse_lines(task, ['a\tb'], 'x')) == 1
    assert len(parse_lines(task, ['c\td', 'a\tb'], 'x')) == 2


def test_a_second_text_is_refused_where_the_task_has_one_and_other_columns_are_not_read():
    task = tiny.task('classification')
    (one,) = parse_lines(task, ['{"text": "a", "date": 1, "text_pair": null}'], 'x')
    assert (one.first, one.second) == ('a', None)
    with pytest.raises(UserError, match="^x, line 1: there is no field 'text_pair'; the task tak"):
        parse_lines(task, ['{"text": "a", "text_pair": "b"}'], 'x')
    # Of a column with that name.
    task = tiny.task('classification', text='text_pair')
    assert parse_lines(task, ['{"text_pair": "b"}'], 'x')[0].first == 'b'


@pytest.mark.parametrize('name', ['squad1', 'squad2', 'race', 'generation', 'rte', 'multilabel'])
def test_objects_may_have_what_labelled_examples_have_and_nothing_else(name):
    answerer = Answerer.__new__(Answerer)
    answerer.task = tiny.task(name)
    sample = answerer.task.sample
    fields = sample if isinstance(sample, dict) else {answerer.task.other_fields[0]: sample}
    others = dict.fromkeys(answerer.task.other_fields, 'x')
    assert 'id' in others and len(others) > 1
    answerer.check_all_is_read(others | fields, 'input 0')
    answerer.example(others | fields | {'context': 'c'}, 'input 0', '')
    with pytest.raises(UserError, match="^input 0: there is no field 'context'; the task takes "):
        answerer.check_all_is_read(fields | {'context': 'c'}, 'input 0')


@pytest.mark.parametrize('name', ['x.jsonl', 'x.JSONL', 'x.jsonl.gz'])
def test_json_lines_of_questions_are_read_from_a_file(name, tmp_path):
    question = {'question': 'a', 'passage': 'b', 'id': 'q'}
    of_race = question | {'options': ['1', '2', '3', '4']}
    for task, asked in (('squad1', question), ('squad2', question), ('race', of_race)):
        content = f'{json.dumps(asked)}\n{json.dumps(asked | {"id": "r"})}\n'.encode()
        for text, keys in ((content, ['q', 'r']), (content.splitlines()[0], ['q'])):
            (tmp_path / name).write_bytes(gzip.compress(text) if '.gz' in name else text)
            examples = read_input(tiny.task(task), str(tmp_path / name))
            assert [(e.key, e.question, e.passage) for e in examples] == [
                (key, 'a', 'b') for key in keys
            ]
    # A file to train on must have the answers.
    with pytest.raises(UserError, match=f"{name} is not of SQuAD's layout: a JSON object with"):
        tiny.task('squad1').read(tmp_path / name, True)


@pytest.mark.parametrize('indent', [None, 1])
def test_a_file_in_squads_layout_may_be_called_json_lines(indent, tmp_path):
    asked = {'id': 'q', 'question': 'a'}
    content = {'data': [{'paragraphs': [{'context': 'b', 'qas': [asked]}]}]}
    (tmp_path / 'x.jsonl').write_text(json.dumps(content, indent=indent))
    (one,) = read_input(tiny.task('squad1'), str(tmp_path / 'x.jsonl'))
    assert (one.key, one.question, one.passage) == ('q', 'a', 'b')


@pytest.mark.parametrize(
    ('name', 'fields', 'empty'),
    [
        ('squad2', {'question': '', 'passage': 'b'}, 'question'),
        ('squad1', {'question': 'a', 'passage': '\u200b'}, 'passage'),
        (
            'race',
            {'question': ' ', 'passage': '', 'options': ['1', '', '', '']},
            'question and passage',
        ),
        ('race', {'question': 'a', 'passage': 'b', 'options': ['', ' ', '', '']}, 'options'),
        ('rte', {'sentence1': 'a', 'sentence2': ''}, 'sentence2'),
    ],
)
def test_lines_without_one_of_several_texts_are_counted(name, fields, empty, capsys):
    task, (one, *_) = tiny.task(name), parse_lines(tiny.task(name), [json.dumps(fields)] * 2, 'x')
    assert task.empty_texts(one) == tuple(empty.split(' and '))
    listed = empty.replace(' and ', ', ')
    said = f'x: 2 of 2 examples have an empty text, the first at line 1 ({listed}).'
    assert said in ' '.join(capsys.readouterr().err.split())
    parse_lines(task, [json.dumps(task.sample)], 'x')
    assert not capsys.readouterr().err


def test_ids_are_kept():
    lines = [
        '{"text": "a", "id": "x"}',
        'b',
        '',
        '{"text": "c", "id": 7}',
        '{"text": "d", "id": null}',
        '{"text": "e", "id": {"$oid": "5f"}, "m": 1, "m": 2}',
    ]
    examples = parse_lines(tiny.task('classification'), lines, 'x')
    assert [e.key for e in examples] == ['x', '1', '7', '4', '{"$oid": "5f"}']
    question = {'question': 'a', 'passage': 'b', 'options': ['a', 'b', 'c', 4], 'id': 'q'}
    (one,) = parse_lines(tiny.task('race'), [json.dumps(question)], 'x')
    assert one.key == 'q' and one.options[3] == '4'


def test_repeated_ids_of_lines(capsys):
    line = '{"text": "a", "id": "x"}'
    assert len(parse_lines(tiny.task('classification'), [line, 'b', line], 'x')) == 3
    assert 'x: 1 examples have the id of another one' in capsys.readouterr().err
    question = '{"question": "a", "passage": "b", "options": ["1", "2", "3", "4"], "id": "q"}'
    for name in ('race', 'squad1'):
        assert len(parse_lines(tiny.task(name), [question, '', question], 'x')) == 2
        assert 'x: 1 examples have the id of another one' in capsys.readouterr().err


def test_repeated_ids_are_refused_where_answers_are_written_by_them(tmp_path):
    answerer = Answerer.__new__(Answerer)
    answerer.task = tiny.task('squad1')
    line = '{"question": "a", "passage": "b", "id": "q"}'
    path = write_lines(tmp_path / 'x.text', line, line)
    with pytest.raises(UserError, match=r"x.text, line 2: the id 'q' is also at .*, line 1; give"):
        predict_file(answerer, str(path), None, tmp_path / 'out')


def test_empty_lines_are_counted(tmp_path, capsys):
    path = write_lines(tmp_path / 'x.text', 'a', '', ' ', 'b', '', '')
    examples = read_input(tiny.task('classification'), str(path))
    assert [(e.key, e.first) for e in examples] == [('0', 'a'), ('3', 'b')]
    assert 'x.text: 2 empty lines were skipped' in capsys.readouterr().err
    read_input(tiny.task('classification'), str(write_lines(path, 'a', '')))
    assert not capsys.readouterr().err


@given(
    st.lists(
        st.text(st.characters(), max_size=8) | st.sampled_from(['', '{', '{"text": "a"}']),
        max_size=5,
    )
)
@example(['{laughs}'])
@example([f'{{"text": "{HALF}"}}'])
def test_any_line_is_an_example_or_refused(lines):
    for name in ('classification', 'tags', 'race', 'squad2'):
        try:
            examples = parse_lines(tiny.task(name), lines, 'x')
        except UserError as error:
            assert str(error).startswith('x, line ')
        else:
            assert len(examples) == sum(bool(line.rstrip('\r\n').strip()) for line in lines)


# Half a surrogate pair.


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        ('classification', HALF),
        ('classification', {'text': HALF}),
        ('squad1', {'question': HALF, 'passage': 'a'}),
        ('squad2', {'question': 'a', 'passage': HALF}),
        ('race', {'question': 'a', 'passage': 'b', 'options': ['a', 'b', 'c', HALF]}),
        ('race', {'question': 'a', 'passage': 'b', 'options': list('abcd'), 'id': HALF}),
    ],
)
def test_objects_with_half_a_pair_are_refused(name, content):
    with pytest.raises(UserError, match=r'input 0.* has half a surrogate pair, \\ud83d'):
        tiny.task(name).parse(content, 'input 0', '0')


def test_the_last_net_is_the_tokenizer(tokenizer):
    pieces = '\n'.join(['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a'])
    tokenizers = [tokenizer]
    if pytest.importorskip('tokenizers'):
        tokenizers.append(HubTokenizer.from_wordpiece(pieces))
    for one in tokenizers:
        for encode in (one.encode, one.encode_with_offsets):
            with pytest.raises(UserError, match='Text 1 has half a surrogate pair'):
                encode(['a', f'b {HALF}'])
        with pytest.raises(UserError, match='has half a surrogate pair'):
            one.encode_with_masks(f'a [MASK] {HALF}')


def test_names_that_a_task_does_not_have_are_answered_with_those_that_it_has():
    head = Head('sequence_classification', ('bad', 'good'))
    with pytest.raises(UserError, match=r'--labels=negative,positive, or take --task=cl') as told:
        tiny.task('sst2').use_head(head, 'runs/x with --labels')
    assert 'runs/x with --labels has the labels bad, good, but those' in str(told.value)
    # Both ways that it names work.
    tiny.task('sst2').use_head(Head('sequence_classification', ('positive', 'negative')), 'x')
    own = tiny.task('classification')
    own.use_head(head, 'x')
    assert own.labels == head.labels
