"""What the lines of tagging files are: words, sentences, comments, running numbers."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from albert_jax.cli.errors import UserError
from albert_jax.model.heads import Head
from albert_jax.tasks.inputs import parse_lines
from tests import tiny

IOB = Head('token_classification', ('B-LOC', 'B-PER', 'O'))
UPOS = Head('token_classification', ('ADP', 'DET', 'NOUN', 'PUNCT', 'VERB'))


def write(folder: Path, content: str, name: str = 'x.txt') -> Path:
    (folder / name).write_bytes(content.encode())
    return folder / name


def train(folder, content, name='ner', file='x.txt', **settings):
    """The words and tags of each sentence, as training reads them."""
    task = tiny.task(name, **settings)
    examples = task.read(write(folder, content, file), True)
    return [list(zip(e.words, e.tags, strict=True)) for e in examples]


def predict(folder, content, name='ner', file='x.txt', head: Head = IOB, **settings):
    """The words of each sentence, as prediction with a model reads them."""
    task = tiny.task(name, **settings)
    task.use_head(head, 'the model')
    examples = task.read(write(folder, content, file), False, is_labelled=False)
    assert not any(example.is_labelled for example in examples)
    return [' '.join(example.words) for example in examples]


# fmt: off
SENTENCES = [  # each with the sentences that prediction answers
    ('Anna lives in Oslo .\nChen lives in Lima .\n', [
        'Anna lives in Oslo .', 'Chen lives in Lima .']),
    ('Anna lives in Oslo .', ['Anna lives in Oslo .']),
    ('Hello .\n\n\nHow are you ?\r\nFine', ['Hello .', 'How are you ?', 'Fine']),
    ('Anna sees Chen .\nChen sees Anna .\n\nAnna sees Lima !\nAnna sees Oslo !', [
        'Anna sees Chen .', 'Chen sees Anna .', 'Anna sees Lima !', 'Anna sees Oslo !']),
    ('# Chapter 1\nAnna lives here\nChen too\n', ['# Chapter 1', 'Anna lives here', 'Chen too']),
    ('ANNA LIVES IN OSLO\nCHEN LIVES IN LIMA\n', ['ANNA LIVES IN OSLO', 'CHEN LIVES IN LIMA']),
    ('安娜 住 在 奥斯陆 。\n小陈 住 在 利马 。\n', ['安娜 住 在 奥斯陆 。', '小陈 住 在 利马 。']),
    ('Anna lives .\rChen lives , too .\r', ['Anna lives .', 'Chen lives , too .']),
]
COLUMNS = [  # each with the sentences that prediction answers; right on the code before, but for #
    ('Anna B-PER\nlives O\n\nOslo B-LOC\n', ['Anna lives', 'Oslo']),
    ('-DOCSTART- -X- O O\n\nEU NNP I-NP I-ORG\nrejects VBZ I-VP O\n', ['EU rejects']),
    ('EU NNP I-NP\nrejects VBZ I-VP\n', ['EU rejects']),
    ('EU NNP\nrejects VBZ\n\nPeter NNP\n', ['EU rejects', 'Peter']),
    ('Anna\nlives\n\nOslo\n', ['Anna lives', 'Oslo']),
    ('Anna\tx\nlives\ty\n\nOslo\tx\n', ['Anna lives', 'Oslo']),
    ('New York\tB-LOC\nis\tO\nbig\tO\n', ['New York is big']),
    ('Anna B-PER\nlives\nin O\n', ['Anna lives in']),
    ('# O\n#oslo B-LOC\n', ['# #oslo']),
    ('Anna B-ELSE\nlives B-OTHER\n', ['Anna lives']),
]
# fmt: on


@pytest.mark.parametrize(('content', 'expected'), SENTENCES, ids=str)
def test_a_text_file_of_plain_sentences(content, expected, tmp_path):
    assert predict(tmp_path, content) == expected
    assert predict(tmp_path, content, 'upos', head=UPOS) == expected
    assert predict(tmp_path, content, file='x.bio') == expected


@pytest.mark.parametrize(('content', 'expected'), COLUMNS, ids=str)
def test_a_text_file_of_columns(content, expected, tmp_path):
    assert predict(tmp_path, content) == expected
    assert predict(tmp_path, content, file='eng.testa') == expected


def test_sentences_have_their_line_and_its_number(tmp_path):
    task = tiny.task('ner')
    examples = task.read(write(tmp_path, 'a b c\n\nd e\n'), False, is_labelled=False)
    assert [(e.key, e.where.rpartition(', ')[2]) for e in examples] == [
        ('0', 'line 1'), ('2', 'line 3'),
    ]  # fmt: skip


def test_columns_are_told_by_tags_of_the_model_or_of_the_training_file(tmp_path):
    head = Head('token_classification', ('noun', '+', '.'))
    assert predict(tmp_path, 'EU noun\nx verb\n', 'tags', head=head) == ['EU x']
    assert predict(tmp_path, 'EU +\nx +\n', 'tags', head=head) == ['EU x']
    # The end of a sentence may be a tag, too.
    assert predict(tmp_path, 'Anna lives .\nChen lives .\n', 'tags', head=head) == [
        'Anna lives .', 'Chen lives .',
    ]  # fmt: skip
    task = tiny.task('tags')
    task.read(write(tmp_path, 'EU noun\nlives verb\n', 'train.txt'), True)
    (test,) = task.read(write(tmp_path, 'Oslo noun\nx verb\n', 'test.txt'), False, False)
    assert test.words == ('Oslo', 'x')


@pytest.mark.parametrize(
    ('file', 'content', 'message'),
    [
        ('x.txt', 'Anna sleeps\nBob sleeps\n\nCarl sleeps\nDora wakes', 'x.txt may have CoNLL '
         'columns or sentences: rename it to .conll'),
        ('x.txt', 'Anna lives here\nBob was there\n\nCarl lives here\nDora ran home', 'may have'),
        ('x.txt', 'Anna lives in Oslo .\t1\nChen too .\t0\n', 'may have CoNLL columns or'),
        ('x.tsv', 'id\ttext\na1\tAnna lives\na2\tChen sleeps\na3\tx y\n', 'may have CoNLL'),
        ('x.jsonl', '{"text": "Anna lives"}\n', 'x.jsonl is not of tagging: give CoNLL columns'),
        ('x.json', '{"text":"a"}\n', 'x.json is not of tagging'),
        ('x.csv', 'Anna,B-PER\nlives,O\n', 'x.csv is not of tagging'),
    ],
)  # fmt: skip
def test_what_may_be_either_is_refused(file, content, message, tmp_path):
    with pytest.raises(UserError, match=message):
        predict(tmp_path, content, file=file)


def test_tags_that_look_alike_are_told(tmp_path, capsys):
    assert train(tmp_path, 'a NOUN\nb noun\n\nc NOUN\nd X\u200b\ne X\n', 'tags')[1][0] == (
        'c',
        'NOUN',
    )
    told = capsys.readouterr().err
    assert "the tags 'NOUN' (2 examples), 'noun' (1 examples), which differ in their case" in told
    assert r"the tags 'X\u200b' (1 examples), 'X' (1 examples), which look the same, are 2" in told
    train(tmp_path, 'a\tB-ORG\nb\tI-ORG\nc\tO\n')
    assert not capsys.readouterr().err


def test_a_file_behind_another_begins_with_no_mark(tmp_path):
    content = '\ufeffa O\n\n\ufeff-DOCSTART- -X- O O\n\n\ufeffb O\n\ufeff O\n'
    assert train(tmp_path, content, 'tags') == [[('a', 'O')], [('b', 'O'), ('\ufeff', 'O')]]


def test_the_ending_of_columns_settles_it(tmp_path):
    assert predict(tmp_path, 'Anna sleeps\nEU foo\n\nx bar\ny foo', file='x.conll') == [
        'Anna EU', 'x y',
    ]  # fmt: skip


def test_columns_on_standard_input_are_no_sentences():
    task = tiny.task('ner')
    task.use_head(IOB, 'the model')
    lines = ['EU NNP B-ORG\n', 'rejects VBZ O\n', '\n', 'Oslo NNP B-LOC\n']
    with pytest.raises(UserError, match='input has a word and its tag in each line, .*conll'):
        parse_lines(task, lines, 'input')
    for lines in (['Vitamin O', 'I like vitamin O'], ['Anna is B-PER'], ['EU B-ORG', 'is here']):
        assert [list(e.words) for e in parse_lines(task, lines, 'x')] == [x.split() for x in lines]


# Running numbers.

NUMBERED = '1\tOslo\tNOUN\n2\tsees\tVERB\n\n1\tAnna\tNOUN\n2\t.\tPUNCT\n'
CONLLU = (
    '# sent_id = 1\n# text = du Lac\n1-2\tdu' + '\t_' * 8 + '\n1\tde\tde\tADP\tP' + '\t_' * 5
    + '\n2\tle\tle\tDET\tD' + '\t_' * 5 + '\n2.1\tx\tx\tNOUN\tN' + '\t_' * 5
    + '\n3\t10\u00a0000\tlac\tNOUN\tN' + '\t_' * 5 + '\n'
)  # fmt: skip


@pytest.mark.parametrize(
    'content',
    [
        NUMBERED,
        NUMBERED.replace('\t', ' '),
        # From 0, in one sentence, through the file, and the number of the sentence.
        '0\tOslo\tNOUN\n1\tsees\tVERB\n\n0\tAnna\tNOUN\n1\t.\tPUNCT\n',
        '1\tOslo\tNOUN\n2\tsees\tVERB\n',
        '7\tOslo\tNOUN\n8\tsees\tVERB\n\n9\tAnna\tNOUN\n10\t.\tPUNCT\n',
        '1\tOslo\tNOUN\n1\tsees\tVERB\n\n2\tAnna\tNOUN\n2\t.\tPUNCT\n',
        'doc1\tOslo\tNOUN\ndoc1\tsees\tVERB\n\ndoc1\tAnna\tNOUN\ndoc1\t.\tPUNCT\n',
        '#\thttp://x [2009]\n1\tOslo\tNOUN\n2\tsees\tVERB\n\n#\thttp://y [2009]\n1\tAnna\tNOUN\n',
        CONLLU,
    ],
)
def test_a_column_of_numbers_is_not_taken_for_the_words(content, tmp_path):
    message = r'x.txt: column 0, .* should have the words .*--config.task.word_column=1'
    with pytest.raises(UserError, match=message):
        train(tmp_path, content, 'tags')
    assert train(tmp_path, content, 'tags', word_column=1)
    if content != CONLLU:
        with pytest.raises(UserError, match=message):
            predict(tmp_path, content, 'tags', head=UPOS)


def test_the_column_of_the_words_is_a_setting(tmp_path):
    expected = [[('Oslo', 'NOUN'), ('sees', 'VERB')], [('Anna', 'NOUN'), ('.', 'PUNCT')]]
    assert train(tmp_path, NUMBERED, 'tags', word_column=1) == expected
    assert predict(tmp_path, NUMBERED, 'tags', head=UPOS, word_column=1) == ['Oslo sees', 'Anna .']
    with pytest.raises(UserError, match=r'line 1 has 3 column\(s\); the word is in column 3'):
        train(tmp_path, NUMBERED, 'tags', word_column=3)
    with pytest.raises(UserError, match=r'line 1: the word and its tag are both in column 2'):
        train(tmp_path, NUMBERED, 'tags', word_column=2)
    with pytest.raises(UserError, match=r'task.word_column is -1; it must be 0 or above'):
        tiny.task('tags', word_column=-1)


@pytest.mark.parametrize(
    'content',
    [
        # A sentence of numbers among others, and alone.
        '1 NUM\n2 NUM\n3 NUM\n\nAnna NOUN\n',
        '1 CD NUM\n2 CD NUM\n3 CD NUM\n',
        '1 B-X\n2 I-X\n3 I-X\n',
        '1 NUM\n2 NUM\n\n1 NUM\n2 NUM\n',
        '3 CD X\n1 NN Y\n',
        'no UH X\nno NN Y\n\nwell UH X\n',
    ],
)
def test_sentences_of_numbers_are_sentences(content, tmp_path):
    lines = [[tuple(line.split()[::2] if line.count(' ') == 2 else line.split())
              for line in block.splitlines()] for block in content.split('\n\n')]  # fmt: skip
    assert train(tmp_path, content, 'tags') == lines


def test_conll_u_without_the_task_upos(tmp_path):
    assert train(tmp_path, CONLLU, 'tags', word_column=1, tag_column=4) == [
        [('de', 'P'), ('le', 'D'), ('10\u00a0000', 'N')]
    ]
    for name in ('tags', 'upos'):
        for file in ('x.conllu', 'x.txt'):
            assert predict(tmp_path, CONLLU, name, file, UPOS) == ['de le 10\u00a0000']


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (('\tADP\t', '\t_\t'), r"x.conllu, line 4: the word 'de' has no UPOS, while others"),
        (('\tADP\t', '\t\t'), r'x.conllu, line 4: the tag \(UPOS\) is empty'),
        (('\tle\tle\t', '\t\tle\t'), r'x.conllu, line 5: the word \(FORM\) is empty'),
        (('\n3\t', '\nthree\t'), r"x.conllu, line 7: the id 'three' is none of CoNLL-U"),
    ],
)
def test_conll_u_that_lacks_something(change, message, tmp_path):
    assert change[0] in CONLLU
    with pytest.raises(UserError, match=message):
        train(tmp_path, CONLLU.replace(*change), 'upos', 'x.conllu')


def test_conll_u_without_any_tag_or_word(tmp_path):
    blank = '1\tde' + '\t_' * 8 + '\n2\tle' + '\t_' * 8 + '\n'
    with pytest.raises(UserError, match='x.conllu has no tags: UPOS is _ in every line'):
        train(tmp_path, blank, 'upos', 'x.conllu')
    (unlabelled,) = tiny.task('upos').read(write(tmp_path, blank, 'x.conllu'), False)
    assert unlabelled.words == ('de', 'le') and not unlabelled.is_labelled
    hidden = '1\t_\t_\tADP' + '\t_' * 6 + '\n2\t_\t_\tDET' + '\t_' * 6 + '\n'
    with pytest.raises(UserError, match='x.conllu has no words: FORM is _ in every line'):
        train(tmp_path, hidden, 'upos', 'x.conllu')


# Empty words and tags, comments, line ends and spaces.


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('tags', 'Lima\tNOUN\t\nis\tVERB\t\n', r'line 1: the tag is empty; remove the tab at'),
        ('ner', 'Lima\tB-LOC\t\n', r'line 1: the tag is empty; remove the tab at'),
        ('tags', 'a\tX\nLima\t\nis\tY\n', r'line 2: the tag is empty'),
        ('tags', 'a\tX\nLima\t\u200b\nis\tY\n', r'line 2: the tag is empty'),
        ('tags', 'a X\n\tNOUN\n', r'line 2: the word is empty \(column 0, counted from 0\)'),
        ('tags', 'a X\n  \tNOUN\n', r'line 2: the word is empty'),
        ('ner', 'a B-\n', r"line 1: the tag 'B-' is none of IOB: O, B-TYPE or I-TYPE"),
    ],
)  # fmt: skip
def test_empty_words_and_tags_are_refused(name, content, message, tmp_path):
    with pytest.raises(UserError, match=message):
        train(tmp_path, content, name)


def test_a_tab_at_the_end_does_not_matter_where_the_tags_column_is_named(tmp_path):
    assert train(tmp_path, 'Lima\tNOUN \t\nis\tVERB\t\n', 'tags', tag_column=1) == [
        [('Lima', 'NOUN'), ('is', 'VERB')]
    ]


def test_one_tag_is_too_few(tmp_path):
    task = tiny.task('tags')
    examples = task.read(write(tmp_path, 'a X\nb X\n'), True)
    with pytest.raises(UserError, match=r"x.txt: the tags are \['X'\]; tagging needs two or more"):
        task.head(examples)


# fmt: off
COMMENTS = [  # each with the words that are left
    ('ner', '# id 1\nAnna B-PER\n# O\n\n# id 2\n#x O\n', 'Anna # / #x'),
    ('ner', '# id 7f\tdomain=en\nAnna _ _ B-PER\n\n# id 8\tdomain=en\nOslo _ _ O\n', 'Anna / Oslo'),
    ('ner', '# id x\nAnna B-PER\nis O\n', 'Anna is'),
    ('ner', '# id 1\nAnna NNP B-PER\n\n# id 2\nOslo NNP B-LOC\n', 'Anna / Oslo'),
    ('tags', '# id 1\nAnna NNP N\n\n# id 2\nOslo NNP M\n', 'Anna / Oslo'),
    ('tags', '# sent_id = 1\n# text = Anna is\nAnna N\nis V\n', 'Anna is'),
    ('tags', '#begin document (a); part 000\nAnna N\nis V\n\n#end document\n', 'Anna is'),
    ('tags', '# 1\nAnna N\n\n# 2\nis V\n', 'Anna / is'),
    ('tags', '#\nAnna N\nis V\n', 'Anna is'),
    # Words.
    ('tags', '# #\nAnna N\n\nis V\n', '# Anna / is'),
    ('tags', 'Anna N\n# SYM\n1 V\n', 'Anna # 1'),
    ('tags', '#oslo N\n#lima V\n', '#oslo #lima'),
    ('tags', '# N\n# V\n\n# N\n', '# # / #'),
    ('tags', '#\tSYM\nAnna\tN\n\n#x\tH\nis\tV\n', '# Anna / #x is'),
    ('ner', '# O\nAnna B-PER\n', '# Anna'),
    ('ner', '#text O\n#id B-PER\n', '#text #id'),
]
# fmt: on


@pytest.mark.parametrize(('name', 'content', 'words'), COMMENTS, ids=str)
def test_comments_are_no_words_and_words_no_comments(name, content, words, tmp_path, capsys):
    sentences = train(tmp_path, content, name)
    assert ' / '.join(' '.join(word for word, _ in rows) for rows in sentences) == words
    num_lines = len([line for line in content.splitlines() if line])
    num_left = num_lines - sum(map(len, sentences))
    note = f'note: {tmp_path}/x.txt: {num_left} line(s) that begin with # are comments.\n'
    assert capsys.readouterr().err == (note if num_left else '')


def test_a_hashtag_without_its_tag_is_no_comment(tmp_path):
    with pytest.raises(UserError, match=r'line 2 has 1 column\(s\); a word and its tag are needed'):
        train(tmp_path, 'Anna B-PER\n#oslo\n')


@pytest.mark.parametrize('end', ['\n', '\r\n', '\r', '\r\r\n'])
def test_line_ends_of_any_system(end, tmp_path):
    content = end.join(['Anna B-PER', 'lives O', '', 'Oslo B-LOC', ''])
    expected = [[('Anna', 'B-PER'), ('lives', 'O')], [('Oslo', 'B-LOC')]]
    assert train(tmp_path, content) == expected
    assert train(tmp_path, content.replace(' ', '\t')) == expected


def test_other_spaces_are_part_of_a_word_unless_nothing_else_is_between_columns(tmp_path):
    for space in '\u00a0\u2009\u202f\u3000':
        word = f'10{space}000'
        assert train(tmp_path, f'{word} B-X\n{space} O\n') == [[(word, 'B-X'), (space, 'O')]]
        assert train(tmp_path, f'Anna{space}B-PER\nis{space}O\n') == [
            [('Anna', 'B-PER'), ('is', 'O')]
        ]
        assert predict(tmp_path, f'Anna{space}B-PER\nis{space}O\n') == ['Anna is']


def test_words_with_spaces_are_written_with_tabs(tmp_path):
    task = tiny.task('ner')
    examples = task.read(write(tmp_path, 'New York\tB-LOC\nis\tO\n'), True)
    (file,) = task.write(examples, [{'prediction': ['O', 'O']}], tmp_path)
    assert file.read_text() == 'New York\tB-LOC\tO\nis\tO\tO\n\n'
    assert [e.words for e in task.read(file, True)] == [('New York', 'is')]


# Properties.

_LINE_ENDS = st.sampled_from(['\n', '\r\n', '\r'])
_WORDS = st.text(
    st.characters(exclude_categories=['Cs'], exclude_characters='\t\n\r '), min_size=1, max_size=6
)
_TAGS = st.sampled_from(['O', 'B-PER', 'I-PER', 'B-Ort'])
_SENTENCES = st.lists(
    st.lists(st.tuples(_WORDS, _TAGS), min_size=1, max_size=4), min_size=1, max_size=4
)


@example([[('\ufeff', 'O')]], ' ', '\n', False)
@example([[('0', 'O'), ('1', 'B-PER')], [('0', 'O')]], ' ', '\n', False)
@example([[('#', 'O'), ('\x1c', 'O')], [('\u2028', 'B-PER')]], '\t', '\r', True)
@given(_SENTENCES, st.sampled_from(' \t'), _LINE_ENDS, st.booleans())
def test_any_words_and_tags_are_read_back_or_refused(
    tmp_path_factory, sentences, separator, end, has_comments
):
    """What -DOCSTART- begins is no word; a running number is refused where it looks like one."""
    blocks = [''.join(f'{word}{separator}{tag}{end}' for word, tag in rows) for rows in sentences]
    comment = f'# id 1 of these{end}' if has_comments else ''
    content = end.join(comment + block for block in blocks)
    folder = tmp_path_factory.getbasetemp()
    try:
        # A word may begin with a byte-order mark; the file's own is none of it.
        found = train(folder, f'\ufeff{content}')
    except UserError as error:
        assert 'x.txt' in str(error) and 'running numbers' in str(error)
        return
    assert found == sentences


@given(st.text(st.sampled_from('ab#1O \t\r\n\u00a0{"-_.=B'), max_size=40), st.booleans())
def test_any_lines_are_read_or_refused_in_one_sentence(tmp_path_factory, content, is_labelled):
    folder = tmp_path_factory.getbasetemp()
    for name in ('ner', 'tags', 'upos'):
        task = tiny.task(name)
        try:
            examples = task.read(write(folder, content), False, is_labelled)
        except UserError as error:
            assert 'x.txt' in str(error) and '\n' not in str(error)
            continue
        assert examples and all(e.words and all(e.words) for e in examples)
        assert all(all(e.tags) for e in examples if e.tags is not None)


@given(st.lists(st.text(st.characters(exclude_categories=['Cs'], exclude_characters='\r\n'),
                        max_size=20), min_size=1, max_size=5))  # fmt: skip
def test_no_word_of_plain_lines_is_lost(tmp_path_factory, lines):
    folder = tmp_path_factory.getbasetemp()
    content = '\n'.join(lines)
    try:
        found = predict(folder, content)
    except UserError:
        return
    # As sentences every word is there; as columns at least one of each line.
    assert sum(len(words.split()) for words in found) >= sum(
        bool(line.strip(' \t\ufeff')) and not line.startswith(('#', '-DOC')) for line in lines
    ) - 1  # fmt: skip
