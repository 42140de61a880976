"""Files for a tagger of which nothing but their form says that they are columns."""

import pytest

from albert_jax.model.heads import Head
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
