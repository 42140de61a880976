"""Files for a tagger of which nothing but their form says that they are columns."""

import pytest

from albert_jax.cli.errors import UserError
from albert_jax.model.heads import Head
from albert_jax.tasks.inputs import parse_lines, read_input
from tests import tiny

IOB = Head('token_classification', ('B-LOC', 'B-PER', 'O'))


def predict(folder, content, **settings):
    """The words of each sentence, as prediction with a model reads them."""
    task = tiny.task('ner', **settings)
    task.use_head(IOB, 'the model')
    (folder / 'x.txt').write_text(content, 'utf-8')
    examples = task.read(folder / 'x.txt', False, is_labelled=False)
    return [' '.join(example.words) for example in examples]


# fmt: off
LIKELY = [  # of tags that the model does not have; right on the code before
    ('EU foo\nlives bar\n\nx bar\ny foo\n', ['EU lives', 'x y']),
    ('Anna n\nlives v\nin p\nOslo n\n', ['Anna lives in Oslo']),
    ('Anna anna\nlives live\n\nChen chen\nruns run\n', ['Anna lives', 'Chen runs']),
    ('Anna NNP anna\nlives VBZ live\nhere RB here\n', ['Anna lives here']),
    ('Anna 0.5\nlives 0.25\n\nChen 1\nruns -3\n', ['Anna lives', 'Chen runs']),
    # Without a blank line.
    ('Anna NNP\nlives VBZ\n', ['Anna lives']),
    ('Yes\nNo\n', ['Yes No']),
]
NO_COLUMNS = [
    'Hello there\nGood morning\nThank you\nHow nice\n', 'Bye bye\nHa ha\nOk then\n',
    '我 来\n他 去\n你 在\n', 'Anna sleeps here now\nBob eats\n\nok\n',
]
# fmt: on


@pytest.mark.parametrize(('content', 'expected'), LIKELY, ids=str)
def test_what_is_most_likely_columns_is_read_so_with_a_note(content, expected, tmp_path, capsys):
    assert predict(tmp_path, content) == expected
    told = capsys.readouterr().err
    assert 'x.txt is read as CoNLL columns with the words in column 0, counted from 0; if' in told


@pytest.mark.parametrize('content', NO_COLUMNS)
def test_short_sentences_are_no_columns(content, tmp_path):
    lines = [line for line in content.split('\n') if line]
    assert predict(tmp_path, content) == lines


def test_a_word_a_line_is_a_word_wherever_the_task_has_its_words(tmp_path):
    content = 'Anna\nlives\n\nOslo\n'
    assert predict(tmp_path, content, word_column=1) == ['Anna lives', 'Oslo']


def train(folder, content, name='tags', file='x.txt', **settings):
    """The words and tags of each sentence, as training reads them."""
    (folder / file).write_text(content, 'utf-8')
    examples = tiny.task(name, **settings).read(folder / file, True)
    return [list(zip(e.words, e.tags, strict=True)) for e in examples]


@pytest.mark.parametrize(
    ('content', 'settings'),
    [
        ('New York B-LOC\nis O\nbig O\n', {}),
        ('is O\nNew York B-LOC\nbig O\n', {}),
        ('is\tVERB\nNew\tYork\tPROPN\nbig\tADJ\n', {}),
        ('New York B-LOC\nis O\nbig O\n', {'tag_column': 1}),
        ('Anna lives in Oslo\nBob sleeps\n', {}),
        # The other sentence is right.
        ('big O\n\nNew York B-LOC\nis O\n', {}),
    ],
)
def test_a_word_with_a_space_is_not_cut(content, settings, tmp_path):
    message = (
        r'x.conll, line \d has \d columns, and line \d of the same sentence has \d; a word with'
    )
    with pytest.raises(UserError, match=message):
        train(tmp_path, content, file='x.conll', **settings)
    if 'O\n' in content and not settings:
        with pytest.raises(UserError, match=message):
            train(tmp_path, content, 'ner', 'x.conll')
        with pytest.raises(UserError, match=message):
            tiny.task('ner').read(tmp_path / 'x.conll', False, is_labelled=False)


def test_lines_of_other_lengths_that_say_where_the_tag_is(tmp_path):
    # Tags from the left with tabs; sentences that differ, as in CoNLL-2012.
    assert train(tmp_path, 'a b\tX\tof\nc\tY\n', tag_column=1) == [[('a b', 'X'), ('c', 'Y')]]
    assert train(tmp_path, 'a N - X\nb N - Y\n\nc N X\n') == [
        [('a', 'X'), ('b', 'Y')], [('c', 'X')],
    ]  # fmt: skip
    assert predict(tmp_path, 'Anna B-PER\nlives\nin O\n') == ['Anna lives in']


@pytest.mark.parametrize(
    'numbers',
    ['1. 2. | 1. 2.', 'T1 T2 | T3 T4', '1-1 1-2 | 2-1 2-2', '5 6 | 9 10', '10 20 | 10 30', '1 | 1'],
)
def test_running_numbers_in_other_spellings_are_no_words(numbers, tmp_path):
    words = iter(['Oslo', 'sees', 'Anna', 'too'])
    tags = iter(['PROPN', 'VERB', 'PROPN', 'ADV'])
    blocks = [
        ''.join(f'{number}\t{next(words)}\t{next(tags)}\n' for number in block.split())
        for block in numbers.split('|')
    ]
    with pytest.raises(UserError, match='column 0, .* has running numbers .*word_column=1'):
        train(tmp_path, '\n'.join(blocks))
    assert train(tmp_path, '\n'.join(blocks), word_column=1)[0][0] == ('Oslo', 'PROPN')


@pytest.mark.parametrize(
    'content', ['10 CD X\n20 NN Y\n', '2020. CD X\n1. NN Y\n\n7. CD X\n', 'A1 NN X\nA1 NN Y\n']
)
def test_words_that_are_numbers(content, tmp_path):
    words = [[line.split()[0] for line in b.split('\n') if line] for b in content.split('\n\n')]
    assert [[word for word, _ in rows] for rows in train(tmp_path, content)] == words


def test_running_numbers_are_no_tags(tmp_path):
    content = 'New\tB-LOC\t1\nYork\tI-LOC\t2\nis\tO\t3\n\nbig\tO\t1\n'
    message = r"column -1 should have the tags and has .* \(line 1: '1'\); name .*.tag_column=1"
    with pytest.raises(UserError, match=message):
        train(tmp_path, content)
    assert train(tmp_path, content, tag_column=1)[1] == [('big', 'O')]
    assert train(tmp_path, 'a\tx\t0\nb\ty\t1\n') == [[('a', '0'), ('b', '1')]]


def test_a_header_is_no_word(tmp_path):
    message = r'x.txt, line 1 names the columns \(Token and NER\); files of columns have no header'
    with pytest.raises(UserError, match=message):
        train(tmp_path, 'Token\tNER\nAnna\tPER\nsleeps\tNONE\n')
    assert train(tmp_path, 'word pos\nfor tag\nof pos\n')[0][0] == ('word', 'pos')
    # Two files, one behind the other.
    with pytest.raises(UserError, match=r'x.txt, line 4 names the columns \(word and tag\)'):
        train(tmp_path, 'a N\nb V\n\nword tag\nc N\n')
    with pytest.raises(UserError, match=r'x.txt, line 1 names the columns \(word and tag\)'):
        train(tmp_path, 'word tag\na N\n\nword tag\nc N\n')
    assert train(tmp_path, 'Token NN\nx pos\n')[0][0] == ('Token', 'NN')


def test_ids_of_conll_u_that_start_anew(tmp_path):
    rows = [f'{n}\t{word}\t_\tNOUN' + '\t_' * 6 for n, word in ((1, 'a'), (2, 'b'), (1, 'c'))]
    message = 'x.conllu, line 3: the id 1 follows 2; sentences have a blank line between them'
    with pytest.raises(UserError, match=message):
        train(tmp_path, '\n'.join(rows), 'upos', 'x.conllu')
    with pytest.raises(UserError, match='x.conllu, line 2: the id 1 follows 1'):
        tiny.task('upos').read(tmp_path / write(tmp_path, [rows[0]] * 2), False, False)
    # Some words of a sentence.
    assert train(tmp_path, '\n'.join([rows[1], rows[1].replace('2', '5', 1)]), 'upos') == [
        [('b', 'NOUN'), ('b', 'NOUN')]
    ]
    with pytest.raises(UserError, match=r'line 1: the tag \(UPOS\) is empty'):
        train(tmp_path, rows[0].replace('NOUN', '\u200b'), 'upos')


def write(folder, rows):
    (folder / 'x.conllu').write_text('\n'.join(rows), 'utf-8')
    return 'x.conllu'


CONLLU = [f'{n}\t{word}\t_\tNOUN' + '\t_' * 6 for n, word in ((1, 'New'), (2, 'York'))]


@pytest.mark.parametrize('name', ['ner', 'upos', 'tags'])
def test_other_formats_on_standard_input_are_no_sentences(name):
    task = tiny.task(name)
    for lines, message in (
        (['# sent_id = 1', *CONLLU], 'x is CoNLL-U and has no sentences; give it as a file with'),
        (['Anna\tNNP\tx', 'is\tVBZ\ty'], 'x has 3 columns with tabs between them in each line'),
        (['Anna is', '{"text": "Anna lives here"}'], 'x, line 2 is a JSON object; a sentence is'),
    ):
        with pytest.raises(UserError, match=message):
            parse_lines(task, lines, 'x')
    for lines in (['Anna\tis\there', 'so\twe'], ['{ : }', '{"a'], ['{}']):
        assert [' '.join(e.words) for e in parse_lines(task, lines, 'x')] == [
            line.replace('\t', ' ') for line in lines
        ]


@pytest.mark.parametrize('name', ['x.CONLLU', 'x.conll2003', 'x.pos', 'x.md', 'x'])
def test_what_is_in_a_file_says_what_it_is_whatever_it_is_called(name, tmp_path):
    task = tiny.task('upos')
    (tmp_path / name).write_text('\n'.join(CONLLU), 'utf-8')
    (one,) = read_input(task, str(tmp_path / name))
    assert one.words == ('New', 'York')
    (tmp_path / name).write_text('Anna lives in Oslo .\nBob too .', 'utf-8')
    if not name.endswith('U'):
        assert [len(e.words) for e in read_input(task, str(tmp_path / name))] == [5, 3]


@pytest.mark.parametrize('name', ['tags', 'ner', 'upos'])
@pytest.mark.parametrize('is_labelled', [True, False])
def test_json_is_not_of_tagging(name, is_labelled, tmp_path):
    (tmp_path / 'x.jsonl').write_text('{"tokens": ["a", "b"], "tags": ["O", "O"]}\n' * 2, 'utf-8')
    with pytest.raises(UserError, match='x.jsonl is not of tagging: give CoNLL columns'):
        tiny.task(name).read(tmp_path / 'x.jsonl', is_labelled, is_labelled)


@pytest.mark.parametrize('name', ['tags', 'ner', 'upos'])
@pytest.mark.parametrize('content', ['-DOCSTART- -X- O\n', '# id 1\n\n# id 2\n'])
def test_a_file_of_nothing_but_comments_has_no_sentences(name, content, tmp_path):
    with pytest.raises(UserError, match=r'x\.txt has no sentences'):
        train(tmp_path, content, name)
