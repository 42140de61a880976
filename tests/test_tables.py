"""Rows of TSV, CSV and JSON Lines: what is written is read, with its line, or told."""

import contextlib
import csv
import io
import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from albert_jax.cli.errors import UserError
from albert_jax.tasks.tables import read_rows
from tests import tiny

NAMES = ('text', 'label', 'c', 'd')
_CHARACTERS = st.characters(exclude_categories=['Cs'])
_CELLS = st.text(_CHARACTERS, max_size=6) | st.sampled_from(
    ['', ' ', '"', '""', '\n', '\ufeff', 'é']
)
_PLAIN_CELLS = _CELLS.map(lambda cell: re.sub(r'[\t\n\r]', '', cell))


def _tables(cells: st.SearchStrategy[str]) -> st.SearchStrategy[list[list[str]]]:
    """Tables of two to four columns."""
    return st.integers(2, 4).flatmap(
        lambda width: st.lists(st.lists(cells, min_size=width, max_size=width), max_size=5)
    )


@pytest.fixture(scope='session')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('tables')


def _write(path, text):
    path.write_bytes(text.encode())
    return path


@given(_tables(_CELLS), st.sampled_from(['\n', '\r\n']))
@example([['a\nb', '1'], ['c', '0']], '\n')
def test_what_pythons_csv_writes_is_read_with_its_line(folder, table, line_end):
    if line_end == '\n':
        # Python before 3.13 writes \r without quotes here: a line end, if one is to read it.
        table = [[cell.replace('\r', '') for cell in row] for row in table]
    stream = io.StringIO(newline='')
    writer = csv.writer(stream, lineterminator=line_end)
    writer.writerow(NAMES[: len(table[0]) if table else 2])
    lines = []
    for row in table:
        lines.append(len(list(io.StringIO(stream.getvalue(), newline=''))) + 1)
        writer.writerow(row)
    path = _write(folder / 'x.csv', stream.getvalue())
    rows = list(read_rows(path))
    assert [list(row.values.values()) for row in rows] == table
    assert [row.where for row in rows] == [f'{path}, line {line}' for line in lines]


@given(_tables(_PLAIN_CELLS), st.sampled_from(['\n', '\r\n', '\r']))
@example([['', ''], ['a', '1']], '\n')
@example([['a', '1'], [' ', '']], '\n')
def test_every_row_of_a_tsv_is_read_with_its_line(folder, table, line_end):
    table = [list(NAMES[: len(table[0]) if table else 2]), *table]
    path = _write(folder / 'x.tsv', ''.join('\t'.join(row) + line_end for row in table))
    with contextlib.redirect_stderr(io.StringIO()):
        rows = list(read_rows(path))
    assert [list(row.values.values()) for row in rows] == table[1:]
    assert [(row.where, row.number) for row in rows] == [
        (f'{path}, line {index + 2}', index) for index in range(len(table) - 1)
    ]


@given(
    st.lists(st.dictionaries(_CELLS, st.text(st.characters(), max_size=4)), max_size=4),
    st.booleans(),
)
def test_texts_of_json_lines_are_read_or_refused(folder, table, is_ascii):
    lines = [json.dumps(row, ensure_ascii=is_ascii) for row in table]
    path = folder / 'x.jsonl'
    path.write_bytes('\n'.join([*lines, '{}']).encode('utf-8', 'surrogatepass'))
    try:
        rows = list(read_rows(path))
    except UserError as error:
        assert not is_ascii and 'is not UTF-8' in str(error)
        return
    assert len(rows) == len(table) + 1
    for row, written in zip(rows, table, strict=False):
        for name, text in written.items():
            if re.search('[\ud800-\udfff]', text):
                with pytest.raises(UserError, match='half a surrogate pair'):
                    row.value(name)
            else:
                assert row.value(name) == text


_PIECES = st.sampled_from(
    [b'text', b'label', b',', b'\t', b'\n', b'\r', b'"', b'{', b'}', b':', b'1', b'\xff', b'\xef\xbb\xbf', b'\x00']
)  # fmt: skip


@given(
    st.binary(max_size=60) | st.lists(_PIECES, max_size=25).map(b''.join),
    st.sampled_from(['.tsv', '.csv', '.jsonl']),
    st.booleans(),
)
def test_any_bytes_are_read_or_refused_in_one_sentence(folder, content, ending, is_training):
    path = folder / f'any{ending}'
    path.write_bytes(content)
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            examples = tiny.task('classification').read(path, is_training)
        except UserError as error:
            assert str(path) in str(error) and '\n' not in str(error)
        else:
            assert examples


@given(
    st.lists(st.sampled_from(['', ' ', '\t', ' \t', 'a\t1', '\t1', 'b\t0', '\t\t']), max_size=8),
    st.booleans(),
)
@example(['a\t1', '\t', 'b\t0'], True)
@example(['a\t1', '', 'b\t0'], False)
def test_no_row_goes_without_a_count(folder, lines, is_training):
    path = _write(folder / 'count.tsv', '\n'.join(['text\tlabel', *lines, '']))
    told = io.StringIO()
    with contextlib.redirect_stderr(told):
        try:
            examples = tiny.task('classification', labels='0,1').read(path, is_training)
        except UserError as error:
            assert 'has no examples' in str(error)
            examples = []
    # White space at the end is no row.
    while lines and lines[-1] in ('', ' ', '\t\t'):
        lines = lines[:-1]
    left_out = re.findall(
        r'(\d+) (?:blank lines were skipped|empty rows were left out)', told.getvalue()
    )
    is_counted = bool(examples) or not is_training
    assert not is_counted or len(examples) + sum(map(int, left_out)) == len(lines)


@pytest.mark.parametrize(
    ('name', 'content', 'texts'),
    [
        ('x.tsv', 'text\na\n\n  \nb\n\n \n', ['a', '', '  ', 'b']),
        ('x.csv', 'text\na\n\n""\nb\n\n', ['a', '', '', 'b']),
        ('x.tsv', 'text\tpair\na\t\n\t\nb\tc\n', ['a', '', 'b']),
        ('x.csv', 'text,pair\na,b\n,\n', ['a', '']),
        ('x.tsv', 'text\tpair\ra\tb\rc\td\r', ['a', 'c']),
        ('x.jsonl', '{"text": "a"}\r{"text": "b"}\r', ['a', 'b']),
    ],
)  # fmt: skip
def test_an_answer_for_each_row_to_predict(name, content, texts, tmp_path):
    path = _write(tmp_path / name, content)
    examples = tiny.task('classification').read(path, False, is_labelled=False)
    assert [example.first for example in examples] == texts
    assert [example.key for example in examples] == [str(index) for index in range(len(texts))]


def test_what_is_missing_is_told(tmp_path, capsys):
    path = _write(tmp_path / 'x.tsv', 'text\tlabel\na\t1\n\t\n\n\t0\nb\t\n')
    examples = tiny.task('classification').read(path, False)
    assert [(e.key, e.first, e.label) for e in examples] == [
        ('0', 'a', '1'), ('1', '', None), ('2', '', '0'), ('3', 'b', None),
    ]  # fmt: skip
    told = capsys.readouterr().err
    assert 'x.tsv: 1 blank lines were skipped' in told
    assert 'x.tsv: 2 of 4 examples have an empty text, the first at line 3' in told
    assert 'x.tsv: 2 of 4 examples have no label' in told


def test_broken_rows_keep_their_numbers(tmp_path):
    row = '7\t1\t2\tHow?\tWhy?\t1\n'
    path = _write(
        tmp_path / 'x.tsv', f'id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n{row}x\n{row}'
    )
    examples = tiny.task('qqp').read(path, True)
    assert [(e.key, e.where.rpartition(' ')[2]) for e in examples] == [('0', '2'), ('2', '4')]


def test_a_field_of_csv_may_be_long(tmp_path):
    text = 'word ' * 100_000
    path = _write(tmp_path / 'x.csv', f'text,label\n"{text}",1\nb,0\n')
    assert tiny.task('classification').read(path, True)[0].first == text


# fmt: off
REFUSED = [  # a line for each
    ('x.csv', 'text,label\n"a\nb",1\n"c,0\nd,1\n', 'line 4: the row that starts here has a quotation mark that is never'),
    ('x.csv', 'text,label\n"a\nb",1\n"c"d,0\n', "line 4 is not CSV: ',' expected after"),
    ('x.csv', 'text,label\na,1\n"c\nd"e,0\n', 'line 4 is not CSV: .* in the row that starts in line 3'),
    ('x.csv', 'text,text,label\na,b,1\n', "line 1 has the column 'text' twice"),
    ('x.tsv', '\ntext\tlabel\tlabel\na\t0\t1\n', "line 2 has the column 'label' twice"),
    ('x.jsonl', '{"text": "a", "label": 1}\n{"text": "a", "text": "b", "label": 1}', "line 2 has the column 'text' twice"),
    ('x.jsonl', '{"text": null, "label": 1}', "line 1: 'text' is null; give it a value"),
    ('x.jsonl', '{"text": NaN, "label": 1}', "line 1: 'text' is NaN; give it a value"),
    ('x.jsonl', '{"text": ["a", "b"], "label": 1}', "line 1: 'text' is a list; a text or a number"),
    ('x.jsonl', '{"text": {"a": "b"}, "label": 1}', "line 1: 'text' is an object"),
    ('x.jsonl', '{"text": "a", "label": ["x"]}', "line 1: 'label' is a list"),
    ('x.jsonl', '{"text": "a", "label": null}', "line 1: 'label' is null"),
    ('x.jsonl', '{"text": "a", "label": NaN}', "line 1: 'label' is NaN"),
    ('x.jsonl', '{"text": "a", "label": 1e999}', "line 1: 'label' is Infinity"),
    ('x.jsonl', '{"text": "a"}\n\n{"text": "b \\ud83d", "label": 1}', 'line 1 has no column .label.; there are text'),
    ('x.jsonl', '{"text": "a", "label": 1}\n\n{"text": "b \\ud83d", "label": 1}', "line 3, column 'text' has half a surrogate pair"),
    ('x.jsonl', '{"text": "a", "label": "\\udc00"}', "line 1, column 'label' has half a surrogate pair"),
    ('x.tsv', 'text\tlabel\na\t0\ntext\tlabel\nb\t1\n', 'line 3 names the columns again, as line 1 does'),
    ('x.csv', '\nlabel,text\n0,a\n\ufefflabel,text\n1,b\n', 'line 4 names the columns again, as line 2'),
    ('x.jsonl', '[' * 100_000, 'line 1 is JSON that is nested too deep'),
]
# fmt: on


@pytest.mark.parametrize(('name', 'content', 'message'), REFUSED, ids=range(len(REFUSED)))
def test_what_has_no_one_meaning_is_refused_with_its_line(name, content, message, tmp_path):
    path = _write(tmp_path / name, content)
    with pytest.raises(UserError, match=message):
        tiny.task('classification').read(path, True)


def test_lines_of_an_old_mac_with_another_end(tmp_path):
    content = 'text\tlabel\ra\t0\rb\t1\n'
    for text in (content, content[:-1]):
        examples = tiny.task('classification').read(_write(tmp_path / 'x.tsv', text), True)
        assert [(e.first, e.label) for e in examples] == [('a', '0'), ('b', '1')]


@pytest.mark.parametrize('setting', ['text', 'text_pair'])
def test_the_label_is_no_text(setting):
    with pytest.raises(UserError, match=f'task.{setting} and task.label are both .label.; name'):
        tiny.task('classification', **{setting: 'label'})


def test_a_column_that_nobody_reads_may_be_anything(tmp_path):
    task = tiny.task('classification')
    line = '{"text": "a", "label": "x", "meta": ["\\ud83d", null], "more": NaN}'
    (one,) = task.read(_write(tmp_path / 'x.jsonl', line), True)
    assert (one.first, one.label) == ('a', 'x')
    line = '{"text": "a", "m": 1, "label": "x", "m": {"k": 1, "k": 2}}'
    (one,) = task.read(_write(tmp_path / 'x.jsonl', line), True)
    assert (one.first, one.label) == ('a', 'x')
    (two,) = task.read(_write(tmp_path / 'x.csv', 'text,,,label\na,b,c,x\n'), True)
    assert (two.first, two.label) == ('a', 'x')


def test_quotation_marks_of_csv_in_a_tsv_are_told(tmp_path, capsys):
    path = _write(tmp_path / 'x.tsv', 'text\tlabel\n"she ""said"" it"\t1\n"so"\t0\n')
    examples = tiny.task('classification').read(path, True)
    assert [e.first for e in examples] == ['"she ""said"" it"', '"so"']
    assert 'x.tsv: 1 fields look quoted as in CSV' in capsys.readouterr().err


def test_repeated_ids_of_a_table(tmp_path, capsys):
    content = 'index\tsentence1\tsentence2\tlabel\n4\ta\tb\tentailment\n4\tc\td\tentailment\n'
    path = _write(tmp_path / 'x.tsv', content)
    task = tiny.task('rte')
    # Nothing goes by the id: the server's file has the rows in their order.
    for is_training, is_labelled in ((True, True), (False, True), (False, False)):
        assert [e.first for e in task.read(path, is_training, is_labelled)] == ['a', 'c']
        assert 'x.tsv: 1 examples have the id of another' in capsys.readouterr().err


_ROWS_WITH_IDS = {
    'x.jsonl': '{"id": "a-7", "text": "one"}\n{"text": "two"}\n{"id": 12, "text": "three"}\n'
    '{"id": null, "text": "four"}\n{"id": "", "text": "five"}\n',
    'x.csv': 'id,text\na-7,one\n,two\n12,three\n" ",four\n,five\n',
    'x.tsv': 'text\tid\none\ta-7\ntwo\t\nthree\t12\nfour\t \nfive\t\n',
}


@pytest.mark.parametrize('name', _ROWS_WITH_IDS)
@pytest.mark.parametrize('task_name', ['classification', 'multilabel', 'regression', 'splitting'])
def test_rows_keep_their_ids(task_name, name, tmp_path):
    path = _write(tmp_path / name, _ROWS_WITH_IDS[name])
    settings = {'source': 'text'} if task_name == 'splitting' else {}
    task = tiny.task(task_name, **settings)
    examples = task.read(path, False, is_labelled=False)
    assert [example.key for example in examples] == ['a-7', '1', '12', '3', '4']


def test_a_column_of_ids_that_is_read_for_something_else_names_no_row(tmp_path):
    path = _write(tmp_path / 'x.csv', 'text,id\na,left\nb,right\nc,left\n')
    examples = tiny.task('classification', label='id').read(path, True)
    assert [(e.key, e.label) for e in examples] == [('0', 'left'), ('1', 'right'), ('2', 'left')]
    examples = tiny.task('splitting', source='text', target='id').read(path, True)
    assert [(e.key, e.target) for e in examples] == [('0', 'left'), ('1', 'right'), ('2', 'left')]
    path = _write(tmp_path / 'y.csv', 'text,id,x\na,1,0\nb,0,1\n')
    examples = tiny.task('multilabel', labels='id,x').read(path, True)
    assert [(e.key, e.labels) for e in examples] == [('0', ('id',)), ('1', ('x',))]


@pytest.mark.parametrize('task_name', ['classification', 'multilabel', 'splitting'])
def test_ids_that_are_there_twice_are_told(task_name, tmp_path, capsys):
    path = _write(tmp_path / 'x.csv', 'id,text\n4,a\n4,b\n')
    settings = {'source': 'text'} if task_name == 'splitting' else {}
    examples = tiny.task(task_name, **settings).read(path, False, is_labelled=False)
    assert [e.key for e in examples] == ['4', '4']
    assert 'x.csv: 1 examples have the id of another' in capsys.readouterr().err


def test_a_row_with_two_ids_has_its_number(tmp_path, capsys):
    # As a join of two tables writes.
    path = _write(tmp_path / 'x.csv', 'id,text,id\na,one,b\n')
    assert tiny.task('classification').read(path, False, False)[0].key == '0'
    assert "x.csv, line 1 has the column 'id' twice; rows with two" in capsys.readouterr().err
    lines = ('{"id": "a", "text": "one"}\n', '{"id": "b", "text": "two", "id": "c"}\n')
    path = _write(tmp_path / 'x.jsonl', ''.join([*lines, lines[1]]))
    examples = tiny.task('classification').read(path, False, False)
    assert [e.key for e in examples] == ['a', '1', '2']
    assert capsys.readouterr().err.count("has the column 'id' twice") == 1
