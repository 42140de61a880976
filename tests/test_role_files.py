"""Files of semantic roles: both layouts, there and back, and what is refused."""

import hypothesis
import pytest
from hypothesis import strategies as st

from albert_jax.cli.errors import UserError
from albert_jax.tasks.role_files import PredicateMarks, read_sentences
from albert_jax.tasks.role_layout import CONLL_2009, CONLL_U, render_all
from albert_jax.tasks.tables import read_text
from tests import tiny
from tests.conftest import shared_data

# The words of a sentence, which of them are predicates, and for each of these the roles by word.
UP = """\
# sent_id = 1
1\tBush\tBush\tPROPN\tNNP\t_\t2\tnsubj\t_\t_\t_\tARG0\t_
2\tnominated\tnominate\tVERB\tVBD\t_\t0\troot\t_\t_\tnominate.01\tV\t_
3-4\tthem to\t_\t_\t_\t_\t_\t_\t_\t_\t_\t_\t_
3\tthem\tthey\tPRON\tPRP\t_\t2\tobj\t_\t_\t_\tARG1\tR-ARG0
4\tto\tto\tPART\tTO\t_\t5\tmark\t_\t_\t_\t_\t_
4.1\tsoon\t_\t_\t_\t_\t_\t_\t_\t_
5\trun\trun\tVERB\tVB\t_\t2\txcomp\t_\t_\trun.01\tC-ARG1\tV

# text = Hm .
1\tHm\thm\tINTJ\tUH\t_\t0\troot\t_\t_\t_\t
2\t.\t.\tPUNCT\t.\t_\t1\tpunct\t_\t_\t_\t

1\tRun\trun\tVERB\tVB\t_\t0\troot\t_\t_\trun.02\tV
2\t!\t!\tPUNCT\t.\t_\t1\tpunct\t_\t_\t_\t_

1\tOh\toh\tINTJ\tUH\t_\t0\troot\t_\t_\t_
"""
OF_2009 = """\
1\tThe\tthe\tthe\tDT\tDT\t_\t_\t2\t2\tNMOD\tNMOD\t_\t_\t_\t_
2\tteacher\tteacher\tteacher\tNN\tNN\t_\t_\t3\t3\tSBJ\tSBJ\tY\tteacher.01\tA0\tA0
3\tsleeps\tsleep\tsleep\tVBZ\tVBZ\t_\t_\t0\t0\tROOT\tROOT\tY\tsleep.01\t_\t_

1\tYes\tyes\tyes\tUH\tUH\t_\t_\t0\t0\tROOT\tROOT\t_\t_

"""


def write(folder, text, name='x.conllu'):
    path = folder / name
    path.write_text(text, 'utf-8', newline='')
    return path


def rendered(sentences):
    return render_all(
        (one, predicate, one.roles[place])
        for one in sentences
        for place, predicate in enumerate(one.predicates)
    )


def test_universal_propositions(tmp_path, capsys):
    first, second = read_sentences(write(tmp_path, UP), UP, is_labelled=True)
    assert first.layout == CONLL_U
    assert first.words == ('Bush', 'nominated', 'them', 'to', 'run')
    assert first.predicates == (1, 4)
    # V is no role.
    assert first.roles == (
        ('ARG0', '_', 'ARG1', '_', 'C-ARG1'),
        ('_', '_', 'R-ARG0', '_', '_'),
    )
    assert first.where.endswith('x.conllu, line 2')
    assert (second.words, second.predicates, second.roles) == (('Run', '!'), (0,), (('_', '_'),))
    assert '2 of 4 sentences have no predicate and no example.' in capsys.readouterr().err
    # An empty node has as many columns as the words then.
    short = '\n4.1\tsoon\t_\t_\t_\t_\t_\t_\t_\t_'
    assert rendered([first, second]) == UP.replace(short, short + '\t_\t_\t_')


def test_conll_2009(tmp_path):
    (sentence,) = read_sentences(write(tmp_path, OF_2009), OF_2009, is_labelled=True)
    assert sentence.layout == CONLL_2009
    assert sentence.predicates == (1, 2)
    # A noun can have a role of its own.
    assert sentence.roles == (('_', 'A0', '_'), ('_', 'A0', '_'))
    assert rendered([sentence]) == OF_2009
    # Without the senses, as in the files to predict.
    blind = OF_2009.replace('teacher.01\tA0\tA0', '_').replace('sleep.01\t_\t_', '_')
    blind = blind.replace('NMOD\t_\t_\t_\t_', 'NMOD\t_\t_')
    (sentence,) = read_sentences(write(tmp_path, blind), blind, is_labelled=True)
    assert (sentence.predicates, sentence.roles) == ((1, 2), None)


def test_predicates_by_a_column_that_is_named(tmp_path):
    plain = '\n'.join(
        '\t'.join(line.split('\t')[:10]) for line in UP.replace('Hm', 'hm').split('\n')
    )
    marks = PredicateMarks.parse('3:VERB,PRON')
    sentences = read_sentences(write(tmp_path, plain), plain, False, marks)
    assert [one.predicates for one in sentences] == [(1, 2, 4), (0,)]
    roles = [(one, p, ['X'] * len(one.words)) for one in sentences for p in one.predicates]
    text = render_all(roles)
    # Its own form can be read again, the sentences without predicates too.
    again = read_sentences(write(tmp_path, text), text, True)
    assert [one.predicates for one in again] == [(1, 2, 4), (0,)]
    assert again[0].roles == (('X',) * 5,) * 3
    assert '\n2\tnominated\tnominate\tVERB\tVBD\t_\t0\troot\t_\t_\tnominated\tX\tX\tX\n' in text
    assert '\n3\tthem\tthey\tPRON\tPRP\t_\t2\tobj\t_\t_\tthem\tX\tX\tX\n' in text
    # In place of the column that the layout has.
    (first,) = read_sentences(tmp_path / 'x', UP, False, PredicateMarks(3, ('PRON',)))
    assert [line.split('\t')[10:] for line in first.render({}).split('\n')[1:5]] == [
        ['_', '_'], ['_', '_'], ['_', '_'], ['them', 'V'],
    ]  # fmt: skip
    (of_2009,) = read_sentences(tmp_path / 'x', OF_2009, False, PredicateMarks(4, ('VBZ',)))
    assert [line.split('\t')[12:] for line in of_2009.render({}).split('\n')[:3]] == [
        ['_', '_', '_'], ['_', '_', '_'], ['Y', 'sleep.01', '_'],
    ]  # fmt: skip


NAMES = st.sampled_from(['Bush', '#1', 'l’été', '"', 'run', '一', 'New York', '-'])
ROLES = st.sampled_from(['_', '_', '_', 'ARG0', 'ARG1', 'R-ARG0', 'C-V', 'ARGM-TMP'])


@st.composite
def files(draw):
    """A layout with its file, and the words, predicates and roles of each sentence."""
    is_2009 = draw(st.booleans())
    blocks, expected = [], []
    for _ in range(draw(st.integers(1, 4))):
        words = draw(st.lists(NAMES, min_size=1, max_size=6))
        places = range(len(words))
        predicates = sorted(draw(st.sets(st.sampled_from(places), max_size=3)))
        columns = []
        for predicate in predicates:
            roles = [draw(ROLES) for _ in places]
            if not is_2009:
                roles[predicate] = '_'
            columns.append(tuple(roles))
        lines = [f'# {draw(NAMES)}'] if not is_2009 and draw(st.booleans()) else []
        for place, word in enumerate(words):
            is_one = place in predicates
            own = ['1', '1', 'X', 'X', 'Y' if is_one else '_', 'x.01' if is_one else '_']
            rest = ['_'] * 6 + own if is_2009 else ['_'] * 8 + ['x.01' if is_one else '_']
            cells = [
                'V' if not is_2009 and place == predicate else column[place]
                for predicate, column in zip(predicates, columns, strict=True)
            ]
            lines.append('\t'.join([str(place + 1), word, *rest, *cells]))
        blocks.append('\n'.join(lines) + '\n')
        if predicates:
            expected.append((tuple(words), tuple(predicates), tuple(columns)))
    separator = draw(st.sampled_from(['\n', '\n\n', ' \n']))
    return is_2009, separator.join(blocks), expected


@hypothesis.given(files())
def test_what_is_written_is_read_and_written_again(given):
    is_2009, text, expected = given
    if not expected:
        with pytest.raises(UserError, match=r'f has no predicates: column 1[02], counted from 0,'):
            read_sentences(tiny.Path('f'), text, True)
        return
    sentences = read_sentences(tiny.Path('f'), text, True)
    assert [(s.words, s.predicates, s.roles) for s in sentences] == expected
    assert {s.layout for s in sentences} == {CONLL_2009 if is_2009 else CONLL_U}
    assert rendered(sentences) == text
    # Windows' and old line ends change nothing but the line ends.
    for end in ('\r\n', '\r'):
        assert read_sentences(tiny.Path('f'), text.replace('\n', end), True) == sentences


def row(*cells: str, number: int | str = 1, word: str = 'run') -> str:
    return '\t'.join([str(number), word, *['_'] * 8, *cells])


# fmt: off
REFUSED = [
    (['1 Bush'], 'line 1 has 1 column.s.; CoNLL-U with predicate columns has 11 or more and CoN'),
    (['1\tBush\tBush\tPROPN\tARG0'], 'line 1 has 5 column.s.; CoNLL-U with predicate'),
    ([row()], 'x.conllu has the 10 columns of CoNLL-U, and none behind them that marks pre'),
    ([row('_')], 'has no predicates: column 10, counted from 0, marks them in CoNLL-U with'),
    ([row('run.01')], 'x.conllu has predicates and no columns of roles for them'),
    ([row('run.01', 'V', '_')],
     r'line 1: the sentence has 1 predicate\(s\) \(run\) and 2 column\(s\) of roles; each'),
    ([row('_', 'ARG0')], r'the sentence has 0 predicate.s. \(none\) and 1 column.s. of roles'),
    ([row('run.01', 'V'), row('run.01', '_', number=2)], r'2 predicate.s. \(run, run\) and 1 c'),
    ([row('run.01', 'V'), row('_', number=2)],
     'line 2 has 11 columns, but line 1 of the same sentence has 12; a sentence'),
    ([row('run.01', 'V'), row('', '_', number=2)], 'line 2: column 10, counted from 0, marks pred'),
    ([row('run.01', 'V'), row('_', '', number=2)], 'line 2: the role is empty; write _ at words'),
    ([row('run.01', 'V'), row('_', '\u200b', number=2)], 'line 2: the role is empty; write _ at'),
    ([row('run.01', 'V'), row('_', '\xa0', number=2)], 'line 2: the role is empty; write _ at wo'),
    ([row('run.01', 'V'), row('\u200b', '_', number=2)], 'line 2: column 10, counted from 0, mar'),
    ([row('run.01', 'V'), row('_', 'no role', number=2)], "line 2: the role 'no role' has a space"),
    ([row('run.01', 'V'), row('_', '(ARG0*)', number=2)], r"line 2: '\(ARG0\*\)' is part of a"),
    ([row('run.01', 'V'), row('_', '_', number=3)], 'line 2: the id is 3, but this is word 2 of'),
    ([row('run.01', 'V'), row('run.01', 'V')], 'line 2: the id is 1, but this is word 2 of its s'),
    ([row('run.01', 'V'), row('_', '_', number='x')], "line 2: the id 'x' is none of CoNLL-U"),
    ([row('run.01', 'V'), row('_', '_', number=2, word='')], r'line 2: the word \(FORM\) is empty'),
    ([row('run.01', 'V', word='_'), row('_', 'ARG1', number=2, word='_')], 'FORM is _ in every'),
    ([row('run.01', 'V', ''), row('_', 'ARG1', '_', number=2)], '1 predicate.s. .run. and 2 co'),
    ([row('run.01', 'V'), '', row('run.01')],
     'line 3: the sentence has 1 predicate.s. and no columns of roles, while others of'),
    ([row('run.01', 'ARG1'), row('_', 'V', number=2)],
     "line 1: 'run' is a predicate, but its column of roles has V at another word, and so "
     'have 1 of 1'),
    (['# global.columns = ID FORM UP:PRED UP:ARGHEADS', row('run.01', '1:V')],
     r'line 1: the roles are in one column \(UP:ARGHEADS\), as in version 2 of Universal'),
    (['# only a comment'], 'has no sentences'),
    ([row('run.01', 'V')], 'x.conllu: no predicate has a role; there is nothing to learn'),
]
# fmt: on


@pytest.mark.parametrize(('lines', 'message'), REFUSED, ids=range(len(REFUSED)))
def test_what_does_not_fit_is_refused_with_its_line(lines, message, tmp_path):
    task = tiny.task('roles')
    with pytest.raises(UserError, match=message) as error:
        task.head(task.read(tiny.write_lines(tmp_path / 'x.conllu', *lines), True))
    assert str(error.value).count('\n') == 0


def test_a_tab_at_the_end_of_lines_is_no_column(tmp_path):
    lines = [row('run.01', 'V', ''), row('_', 'ARG1', '', number=2)]
    (example,) = tiny.task('roles').read(tiny.write_lines(tmp_path / 'x.conllu', *lines), True)
    assert example.roles == ('_', 'ARG1')


def test_roles_that_look_the_same_are_told(tmp_path, capsys):
    lines = [row('run.01', 'ARG1'), row('_', 'ARG0', number=2), row('_', 'ARG0\u200b', number=3)]
    file = tiny.write_lines(tmp_path / 'x.conllu', *lines)
    (example,) = tiny.task('roles').read(file, True)
    assert example.roles == ('ARG1', 'ARG0', 'ARG0\u200b')
    told = r"the roles 'ARG0' (1 examples), 'ARG0\u200b' (1 examples), which look the same, are 2"
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    'text', ['', 'x', '-1', '3:', '3:A,', ':VERB', '3 VERB', '99999', '³', '3:\u200b']
)
def test_a_column_of_predicates_must_be_a_number(text):
    with pytest.raises(UserError, match=f'--predicates={text}: give a column, counted from 0,'):
        PredicateMarks.parse(text)


def test_a_column_that_is_not_there_or_has_no_predicates(tmp_path):
    for marks, message in (
        ('13', 'line 2 has 13 columns, counted from 0; --predicates names column 13'),
        ('3:NONE', 'has no predicates: column 3, counted from 0, has none of NONE'),
        ('9', 'has no predicates: column 9, counted from 0, is _'),
    ):
        with pytest.raises(UserError, match=message):
            read_sentences(tmp_path / 'x', UP, False, PredicateMarks.parse(marks))


def test_ewt_there_and_back():
    path = shared_data('tasks/srl/en_ewt-up-test.conllu.gz')
    text = read_text(path)
    sentences = read_sentences(path, text, True)
    assert sum(len(one.predicates) for one in sentences) == 4799
    changed = [
        one
        for one in zip(text.split('\n'), rendered(sentences).split('\n'), strict=True)
        if one[0] != one[1]
    ]
    # Four predicates have V at two words or at another one, and an empty node has too few columns.
    assert len(changed) == 6
