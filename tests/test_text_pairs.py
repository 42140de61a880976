"""Pairs of a source and a target as users have them."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from albert_jax.cli.errors import UserError
from albert_jax.tasks.inputs import read_input
from albert_jax.tasks.registry import find_files
from albert_jax.tasks.text_pairs import Sides, read_pairs
from tests import tiny
from tests.conftest import shared_data

SIDES = Sides('en', 'de')
PAIRS = [('A man.', 'Ein Mann.'), ('Two dogs play, ', 'Zwei Hunde "spielen",'), ('Ω', 'ß')]
TABLE = 'en\tde\n' + ''.join(f'{source}\t{target}\n' for source, target in PAIRS)
CSV = 'en,id,de\nA man.,1,Ein Mann.\n"Two dogs play, ",2,"Zwei Hunde ""spielen"","\nΩ,3,ß\n'


def found(path: Path, sides: Sides = SIDES, is_labelled: bool = True) -> list:
    return [(pair.source, pair.target) for pair in read_pairs(path, sides, is_labelled)]


def write_sides(folder: Path, sources: str, targets: str, packed: str = '') -> Path:
    for side, text in (('en', sources), ('de', targets)):
        content = text.encode()
        file = folder / f'x.train.{side}{packed}'
        file.write_bytes(gzip.compress(content) if packed else content)
    return folder / 'x.train'


@pytest.mark.parametrize('packed', ['', '.gz'])
@pytest.mark.parametrize(
    ('name', 'content', 'sides'),
    [
        ('pairs.tsv', TABLE, SIDES),
        ('pairs.tsv', TABLE.partition('\n')[2], Sides('0', '1')),
        ('pairs.csv', CSV, SIDES),
        ('pairs.jsonl', ''.join(json.dumps({'de': t, 'en': s}) + '\n' for s, t in PAIRS), SIDES),
    ],
)  # fmt: skip
def test_tables_and_json_lines_are_read(name, content, sides, packed, tmp_path):
    data = content.encode()
    (tmp_path / f'{name}{packed}').write_bytes(gzip.compress(data) if packed else data)
    assert found(tmp_path / f'{name}{packed}', sides) == PAIRS
    only_sources = found(tmp_path / f'{name}{packed}', sides, is_labelled=False)
    assert only_sources == [(source, None) for source, _ in PAIRS]


@pytest.mark.parametrize('packed', ['', '.gz'])
def test_two_files_are_named_by_what_they_share_or_by_the_sources(packed, tmp_path):
    sources, targets = ('\n'.join(side) + '\n' for side in zip(*PAIRS, strict=True))
    path = write_sides(tmp_path, sources, targets.removesuffix('\n'), packed)
    assert found(path) == PAIRS == found(tmp_path / f'x.train.en{packed}')
    (pair,) = read_pairs(path, SIDES, True)[1:2]
    assert pair.where == f'{tmp_path}/x.train.en{packed}, line 2' and pair.key == '1'
    (tmp_path / f'x.train.de{packed}').unlink()
    assert found(path, is_labelled=False)[0] == ('A man.', None)
    with pytest.raises(UserError, match=r'x\.train\.de cannot be read: No such file'):
        read_pairs(path, SIDES, True)


# Letters of which some end a line elsewhere; no side is empty or begins a file with a mark.
SIDE = st.text('aé",\t\u2028\x85\x0b', max_size=4).map('x{}'.format)
LINES = st.lists(st.tuples(SIDE, SIDE), min_size=1, max_size=5)


@given(LINES, st.sampled_from(['\n', '\r\n']))
@example([('\u2028'.join('ab'), 'c\x85d')], '\n')
def test_lines_end_where_other_programs_end_them(tmp_path_factory, pairs, end):
    folder = tmp_path_factory.mktemp('lines')
    path = write_sides(folder, *(end.join(side) + end for side in zip(*pairs, strict=True)))
    assert found(path) == pairs


@pytest.mark.parametrize(
    ('sources', 'targets', 'message'),
    [
        ('a\nb\nc\n', 'x\ny\n', r'x\.train\.en has 3 lines and .*x\.train\.de has 2; each line'),
        ('a\nb\n', 'x\ny\n\n', r'en has 2 lines and .*de has 3'),
        ('a\n\nc\n\n', 'x\ny\nz\n\n', r'x\.train\.en, line 2: the source is empty; remove'),
        ('a\nb\nc\n', 'x\n \u200b\n\t\n',
         r'line 2: the target is empty \(and 1 more pairs have an empty side\); remove'),
        ('\n \n', 'a\nb\n', r'x\.train\.en is empty'),
    ],
)  # fmt: skip
def test_files_that_do_not_belong_together_are_refused(sources, targets, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read_pairs(write_sides(tmp_path, sources, targets), SIDES, True)


def test_pairs_of_which_both_sides_are_empty_are_counted(tmp_path, capsys):
    path = write_sides(tmp_path, 'a\n\nb\n', 'x\n \ny\n')
    assert found(path) == [('a', 'x'), ('b', 'y')]
    assert '1 pairs of which both sides are empty were left out.' in capsys.readouterr().err
    (tmp_path / 'pairs.tsv').write_text('en\tde\na\tx\n\t\nb\ty\n')
    assert found(tmp_path / 'pairs.tsv') == [('a', 'x'), ('b', 'y')]
    assert 'left out' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('pairs.tsv', 'en\tfr\na\tb\n', "line 2 has no column 'de'; there are en, fr"),
        ('pairs.tsv', 'en\tde\na\t\n', 'line 2: the target is empty; remove'),
        ('pairs.jsonl', '{"en": "a", "de": null}\n', "'de' is null; give it a value"),
        ('pairs.jsonl', '{"en": "a", "de": ["b"]}\n', "'de' is a list; a text"),
        ('pairs.jsonl', '{"en": "a", "de": "\\ud83d"}\n', 'half a surrogate pair'),
        ('pairs.fr', 'a\n', r'neither a table \(.tsv, .csv, .jsonl\) nor ends in .en'),
        ('', '', 'is not there, and neither are .*nothing.en and .*nothing.de, with or without'),
    ],
)
def test_bad_files_are_refused_with_their_place(name, content, message, tmp_path):
    path = tmp_path / (name or 'nothing')
    if name:
        path.write_text(content)
    with pytest.raises(UserError, match=message):
        read_pairs(path, SIDES, True)


def test_the_two_sides_have_names_of_their_own():
    with pytest.raises(UserError, match="task.source and task.target are both 'en'"):
        tiny.task('translation', source='en', target='en')


def test_a_folder_with_the_usual_names_is_found(tmp_path):
    for name in ('train.en', 'train.de', 'valid.en.gz', 'test.tsv'):
        (tmp_path / name).touch()
    train, validation, test = find_files('translation', tmp_path, 'en')
    assert train == tmp_path / 'train.en'
    assert validation == {'': tmp_path / 'valid.en.gz'} and test == {'': tmp_path / 'test.tsv'}


def test_lines_to_predict_for_stay_in_line(tmp_path, capsys):
    task = tiny.task('translation', source='en', target='de')
    tiny.write_lines(tmp_path / 'a.en', 'A man.', '', '{"en": "In JSON.", "id": "x"}', '{x}')
    examples = read_input(task, str(tmp_path / 'a.en'))
    assert [(e.key, e.source, e.target) for e in examples] == [
        ('0', 'A man.', None), ('1', '', None), ('x', 'In JSON.', None), ('3', '{x}', None),
    ]  # fmt: skip
    (tmp_path / 'a.tsv.gz').write_bytes(gzip.compress(TABLE.encode()))
    assert [e.source for e in read_input(task, str(tmp_path / 'a.tsv.gz'))] == [s for s, _ in PAIRS]
    assert 'empty lines' not in capsys.readouterr().err


def test_the_marks_between_sentences_become_spaces(tmp_path):
    (tmp_path / 'a.tsv').write_text('A b .\tA . <::::> B .\n')
    (pair,) = tiny.task('splitting', source='0', target='1').read(tmp_path / 'a.tsv', True)
    assert pair.target == 'A . B .'


@pytest.mark.parametrize('target', ['<::::>', ' <::::> <::::>', '<::::>\u200b'])
def test_a_target_of_nothing_but_marks_is_an_empty_one(target, tmp_path):
    (tmp_path / 'a.tsv').write_text(f'A .\tA .\nB .\t{target}\n')
    task = tiny.task('splitting', source='0', target='1')
    with pytest.raises(UserError, match='a.tsv, line 2: the target is empty but for <::::>, which'):
        task.read(tmp_path / 'a.tsv', True)
    # Elsewhere it is a text.
    task = tiny.task('generation', source='0', target='1')
    assert task.read(tmp_path / 'a.tsv', True)[1].target == target


def test_published_files_are_read():
    folder = shared_data('seq2seq')
    pairs = read_pairs(folder / 'multi30k.train', SIDES, True)
    assert len(pairs) == 29_000 and pairs[0].target.startswith('Zwei junge weiße Männer')
    assert len(read_pairs(folder / 'wikisplit.tune.tsv.gz', Sides('0', '1'), True)) == 5_000
