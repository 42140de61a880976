"""SQuAD's files: what is refused with the question's id, what is told, and spans of any text."""

import json
import math
import unicodedata
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from albert_jax import evaluate, predict
from albert_jax.cli.errors import UserError
from albert_jax.cli.json_text import is_visible
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.interop.native import Pretrained
from albert_jax.model.heads import HEADS, Head
from albert_jax.runs.data import FinetuneDataSettings
from albert_jax.tasks.answering import Answerer
from albert_jax.tasks.encoded import read_examples
from tests import tiny

CONTEXT = 'Anna lives in Oslo .'
SQUAD2 = Head('conditional_question_answering', ())


def ask(key: Any = 'q1', text: Any = 'Oslo', start: Any = 14, **other: Any) -> dict[str, Any]:
    answers = [{'text': text, 'answer_start': start}]
    return {'id': key, 'question': 'Where?', 'answers': answers} | other


def document(*asked: Any, context: Any = CONTEXT) -> dict[str, Any]:
    return {'data': [{'title': 't', 'paragraphs': [{'context': context, 'qas': list(asked)}]}]}


def write(folder: Path, content: Any) -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / 'x.json').write_text(text)
    return folder / 'x.json'


def read(folder, content, name='squad1', is_training=True, is_labelled=True):
    return tiny.task(name).read(write(folder, content), is_training, is_labelled)


@pytest.mark.parametrize('name', ['squad1', 'squad2'])
def test_questions_without_a_text_are_counted(name, tmp_path, capsys):
    content = document(ask(), ask('q2', question='\u200b'), ask('q3', question=''))
    assert len(read(tmp_path, content, name)) == 3
    said = 'x.json: 2 of 3 examples have an empty text, the first at question q2 (question).'
    assert said in ' '.join(capsys.readouterr().err.split())
    read(tmp_path, document(ask(answers=None), context=' '), name, False)
    assert '1 of 1 examples have an empty text, the first at question q1 (passage).' in ' '.join(
        capsys.readouterr().err.split()
    )
    read(tmp_path, document(ask()), name)
    assert not capsys.readouterr().err


# Repeated ids.


@pytest.mark.parametrize('is_labelled', [True, False])
def test_an_id_twice_is_refused_with_both_places(is_labelled, tmp_path, capsys):
    content = document(ask(), ask('q2'))
    content['data'] += document(ask('q2'))['data']
    message = (
        r"x.json has the question id 'q2' twice, in data\[0\].paragraphs\[0\].qas\[1\] and in "
        r'data\[1\].paragraphs\[0\].qas\[0\]; give each question'
    )
    for name in ('squad1', 'squad2'):
        with pytest.raises(UserError, match=message):
            read(tmp_path, content, name, False, is_labelled)
        # Training does not go by the id.
        assert len(read(tmp_path, content, name)) == 3
        assert '1 question(s) have the id of another one before' in capsys.readouterr().err
    # A number and a text are the same key of JSON.
    with pytest.raises(UserError, match="the question id '7' twice"):
        read(tmp_path, document(ask(7), ask('7')), is_training=False)


def test_an_id_twice_among_what_is_held_out(tmp_path):
    """Its metrics go by the id, and training on the rest does not."""
    articles = [document(ask())['data'][0] | {'title': f't{i}'} for i in range(20)]
    path = write(tmp_path, {'data': articles})
    data = FinetuneDataSettings(train=str(path), validation_fraction=0.5)
    with pytest.raises(UserError, match="x.json, question q1: the id 'q1' is also at"):
        read_examples(data, tiny.task('squad1'))


# Layout.

_ANSWER = {'text': 'Oslo', 'answer_start': 14}
BAD = [
    ('[1, 2', r'x.json is not JSON'),
    ([], r"x.json is not of SQuAD's layout: a JSON object with data .* standard input"),
    ({'data': {}}, r"x.json is not of SQuAD's layout"),
    ({'question': 'a', 'passage': 'b'}, r"x.json is not of SQuAD's layout"),
    ({'data': [7]}, r'x.json, data\[0\] must be an object with paragraphs'),
    ({'data': [{}]}, r'x.json, data\[0\] has no paragraphs'),
    ({'data': [{'paragraphs': {}}]}, r'data\[0\]: paragraphs must be a list'),
    ({'data': [{'paragraphs': [{'qas': []}]}]}, r'paragraphs\[0\] has no context'),
    ({'data': [{'paragraphs': [{'context': 'a'}]}]}, r'paragraphs\[0\] has no qas'),
    (document(ask(), context=None), r'paragraphs\[0\]: context must be a text'),
    (document('q'), r'qas\[0\] must be an object'),
    (document({'question': 'a', 'answers': []}), r'qas\[0\] has no id'),
    (document(ask(None)), r'qas\[0\] has no id; in SQuAD.s layout each question has one of'),
    (document(ask('')), r'qas\[0\] has an empty id; in SQuAD.s layout each question has one'),
    (document(ask('\u200b')), r'qas\[0\] has an empty id'),
    (document(ask(question=None)), r'x.json, question q1: question must be a text'),
    (document({'id': 'q', 'answers': [_ANSWER]}), r'question q has no question'),
    (document(ask(answers=None)), r'question q1 has no answers'),
    (document(ask(answers={'text': ['Oslo'], 'answer_start': [14]})),
     r'question q1: answers must be a list of objects with text and answer_start'),
    (document(ask(answers=['Oslo'])), r'question q1, answers\[0\] must be an object with text'),
    (document(ask(answers=[{'text': 'Oslo'}])), r'answers\[0\] has no answer_start'),
    (document(ask(text=5)), r'answers\[0\]: text must be a text'),
    (document(ask(start='14')), r"answers\[0\]: answer_start is '14'; it must be an integer"),
    (document(ask(start=14.0)), r'answer_start is 14.0; it must be an integer'),
    (document(ask(start=True)), r'answer_start is True; it must be an integer'),
    (document(ask(start=-6)), r"question q1: the answer 'Oslo' is not in its passage at .* -6"),
    (document(ask(start=10**30)), r"question q1: the answer 'Oslo' is not in its passage at"),
    (document(ask(is_impossible='false')), r"question q1: is_impossible is 'false'; it must be"),
    (document(ask(is_impossible=[])), r'question q1: is_impossible is \[\]; it must be'),
    (document(ask(text='', start=0)), r'question q1 has an empty answer, which no prediction can'),
    (document(ask(text=' ', start=4)), r'question q1 has an empty answer'),
    (document(ask(text='', start=-1)), r'question q1 has an empty answer'),
    (document(ask(text='\u200b', start=1), context='a\u200bb'), r'question q1 has an empty answer'),
    (document(ask(text='\u0301', start=1), context='e\u0301 b'), r'question q1 has an empty an'),
    (document(ask(text=' \xa0', start=1), context='a \xa0b'), r'question q1 has an empty answer'),
    ('{"data": [{"title": 1, "title": 2}]}', r"x.json: a JSON object has the key 'title' twice"),
    ('{"data": [], "data": []}', r"x.json: a JSON object has the key 'data' twice"),
    (document(ask(question='\ud83d')), r'question q1: its question has half a surrogate pair'),
    (document(ask(), context=f'{CONTEXT}\udc00'), r'question q1: its context has half a surrogate'),
    (document(ask('\ud83d')), r'qas\[0\], id has half a surrogate pair'),
]  # fmt: skip


@pytest.mark.parametrize(('content', 'message'), BAD, ids=[message for _, message in BAD])
def test_bad_files_are_refused_with_the_questions_id(content, message, tmp_path):
    for name in ('squad1', 'squad2') if 'has no answers' not in message else ('squad1',):
        with pytest.raises(UserError, match=message) as caught:
            read(tmp_path, content, name)
        assert '\n' not in str(caught.value)
        # None of Python's words.
        assert not any(word in str(caught.value) for word in ('Error', 'object is', 'NoneType'))


def test_what_was_right_stays_right(tmp_path):
    content = document(
        ask(7),
        ask('q2', is_impossible=None),
        ask('q3', is_impossible=False),
        ask('q4', plausible=1),
    )
    content['data'][0].pop('title')
    assert [q.key for q in read(tmp_path, content)] == ['7', 'q2', 'q3', 'q4']
    # Without answers, and with half a pair where nobody reads.
    test = {'id': 'q', 'question': 'Who?', 'comment': '\ud83d'}
    (question,) = read(tmp_path, document(test), is_training=False)
    assert question.answers is None
    (question,) = read(tmp_path, document(ask(text='')), 'squad1', False, False)
    assert question.answers is None
    # An article or a point is nothing after SQuAD's normalisation, and still an answer.
    (question,) = read(tmp_path, document(ask(text='.', start=19)))
    assert question.answers == (('.', 19),)
    # A vowel sign, a letter with its accent, and marks beside letters are text.
    for text in ('\u093f', 'e\u0301', '\u0301b\u200b'):
        (question,) = read(tmp_path, document(ask(text=text, start=2), context=f'a {text} b'))
        assert question.answers == ((text, 2),)


def test_what_is_left_out_is_told(tmp_path, capsys):
    both = ask(answers=[{'text': '', 'answer_start': 0}, _ANSWER, {'text': ' ', 'answer_start': 4},
                        {'text': '\u2060', 'answer_start': 20}])  # fmt: skip
    (question,) = read(tmp_path, document(both, context=f'{CONTEXT}\u2060'))
    assert question.answers == (('Oslo', 14),)
    assert 'x.json: 3 empty answer(s) beside others are ignored.' in capsys.readouterr().err
    (question,) = read(tmp_path, document(ask(is_impossible=True)), 'squad2')
    assert question.answers == ()
    assert '1 question(s) with is_impossible and answers count as' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('name', 'effect'), [('squad1', 'are not trained on'), ('squad2', 'count as impossible')]
)
def test_answers_in_no_window_are_counted(name, effect, tokenizer, tmp_path, capsys):
    context = ' '.join(f'word{i} is here' for i in range(40))
    task = tiny.task(name, max_length=24, stride=8)
    asked = [ask('short', 'here', 9), ask('long', context, 0)]
    examples = task.read(write(tmp_path, document(*asked, context=context)), True)
    features = task.encode(examples, tokenizer, task.head(examples), True)
    assert (features.targets['is_impossible'][features.targets['example'] == 1] == 1).all()
    assert (
        f'note: 1 of 2 questions {effect}, as no window of task.max_length, 24 tokens, has their '
        f'answer; the first is {tmp_path}/x.json, question long.'
    ) in capsys.readouterr().err
    task.encode(examples, tokenizer, task.head(examples), False)
    assert not capsys.readouterr().err


# The threshold of version 2.0.


@pytest.fixture(scope='module')
def squad2(vocabulary, tmp_path_factory):
    config = tiny.config()
    params = tiny.random_params(config)
    head = HEADS[SQUAD2.kind].init(1, config, jax.random.key(1))
    encoder = {name: params[name] for name in ('embeddings', 'encoder', 'pooler')}
    model = Pretrained(
        config, encoder | {'head': tiny.random_tree(head)}, Tokenizer(vocabulary), SQUAD2
    )
    return tiny.write(model, tmp_path_factory.mktemp('squad2') / 'model')


def test_predict_has_the_threshold_that_evaluation_finds(squad2, tmp_path, capsys):
    file = write(tmp_path, document(ask(), ask('q2', question='Who lives in Oslo ?')))

    def answers(*flags: str) -> dict[str, dict[str, Any]]:
        assert predict.main([f'--checkpoint={squad2}', f'--input={file}', *flags]) == 0
        return {row['id']: row for row in map(json.loads, capsys.readouterr().out.splitlines())}

    rows = answers()
    low, high = sorted(row['no_answer_odds'] for row in rows.values())
    for threshold in (0.0, low - 1, (low + high) / 2, high + 1, math.inf):
        found = answers(f'--null_score_diff_threshold={threshold}') if threshold else rows
        for key, row in rows.items():
            expected = '' if row['no_answer_odds'] > threshold else row['best_text']
            assert found[key] == row | {'prediction': expected}


def test_a_threshold_that_is_no_number(squad2):
    with pytest.raises(UserError, match='null_score_diff_threshold is nan; it must be a number'):
        Answerer(squad2, num_devices=1, null_score_diff_threshold=math.nan)


def test_names_and_thresholds_that_do_not_fit(checkpoints):
    with pytest.raises(UserError, match='may have no answer .task squad2., not for the task class'):
        Answerer(checkpoints / 'mood', num_devices=1, null_score_diff_threshold=1.0)
    with pytest.raises(UserError, match='--labels has an empty name in place 2'):
        Answerer(checkpoints / 'mood', num_devices=1, labels=['no', ' \u200b'])
    with pytest.raises(UserError, match="--labels names 'a' twice"):
        Answerer(checkpoints / 'mood', num_devices=1, labels=['a', ' a'])


def test_evaluate_refuses_a_file_with_an_id_twice(squad2, tmp_path):
    file = write(tmp_path, document(ask(), ask()))
    with pytest.raises(UserError, match="has the question id 'q1' twice"):
        evaluate.main([f'--checkpoint={squad2}', f'--data={file}'])


# Properties.

_TEXTS = st.text(st.characters(exclude_categories=['Cs']), max_size=60)
_NAMES = st.sampled_from(
    ['paragraphs', 'qas', 'id', 'context', 'question', 'answers', 'text', 'answer_start']
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=5,
)


@given(_JSON, st.sampled_from(['data', 'paragraph', 'question', 'answer', 'key', 'is_impossible']))
def test_any_json_is_read_or_refused(tmp_path_factory, value, place):
    content: Any = document(ask())
    paragraph = content['data'][0]['paragraphs'][0]
    if place == 'data':
        content['data'] = value
    elif place == 'paragraph':
        content['data'][0]['paragraphs'] = [value]
    elif place == 'question':
        paragraph['qas'] = [value]
    elif place == 'answer':
        paragraph['qas'][0]['answers'] = value
    elif place == 'key':
        paragraph['qas'][0]['id'] = value
    else:
        paragraph['qas'][0]['is_impossible'] = value
    folder = tmp_path_factory.getbasetemp()
    for name in ('squad1', 'squad2'):
        try:
            questions = read(folder, content, name, is_training=False)
        except UserError as error:
            assert 'x.json' in str(error) and '\n' not in str(error)
            continue
        assert all(isinstance(q.key, str) and q.group for q in questions)


@example('Japan½ ﬁne e\u0301', 0, 1)
@example('a\u200bb \u00adc', 0, 2)
@given(_TEXTS, st.integers(0, 20), st.integers(0, 5))
def test_answers_of_whole_tokens_come_back_as_they_are(
    tmp_path_factory, tokenizer, context, first, more
):
    """From characters to tokens and windows, and back to the same characters."""
    _, offsets = tokenizer.encode_with_offsets([context])[0]
    shown = [(begin, end) for begin, end in offsets if context[begin:end].strip()]
    if not shown:
        return
    first = first % len(shown)
    begin, end = shown[first][0], shown[min(first + more, len(shown) - 1)][1]
    folder = tmp_path_factory.getbasetemp()
    task = tiny.task('squad2', max_length=128)
    asked = ask(text=context[begin:end], start=begin)
    examples = task.read(write(folder, document(asked, context=context)), True)
    head = task.head(examples)
    features = task.encode(examples, tokenizer, head, True)
    assert task.recovered(examples, features) == [True]
    start, stop = (int(features.targets[name][0]) for name in ('start', 'end'))
    outputs = {
        'start_positions': [np.full(5, start)], 'start_scores': [np.zeros(5)],
        'end_positions': [np.full((5, 5), stop)], 'end_scores': [np.zeros((5, 5))],
        'impossible': [np.float32(-1)],
    }  # fmt: skip
    (row,) = task.predictions(examples, features, outputs, head)
    assert row['prediction'] == context[begin:end].strip()


@given(_TEXTS, st.integers(0, 60), st.integers(1, 20))
def test_the_tokens_of_an_answer_hold_all_of_it(tmp_path_factory, tokenizer, context, begin, size):
    """But for characters of which the tokenizer makes nothing."""
    text = context[begin : begin + size]
    if not is_visible(''.join(x for x in text if not unicodedata.combining(x))):
        return
    folder = tmp_path_factory.getbasetemp()
    task = tiny.task('squad2', max_length=128)
    asked = ask(text=text, start=begin)
    examples = task.read(write(folder, document(asked, context=context)), True)
    features = task.encode(examples, tokenizer, task.head(examples), True)
    end = begin + len(text)
    touched = [
        (max(first, begin), min(last, end))
        for first, last in tokenizer.encode_with_offsets([context])[0].offsets
        if first < end and last > begin
    ]
    assert bool(features.targets['is_impossible'][0]) == (not touched)
    if touched:
        start, stop = (int(features.targets[name][0]) for name in ('start', 'end'))
        first = features.token_targets['begin_character'][start]
        last = features.token_targets['end_character'][stop]
        assert first <= touched[0][0] and touched[-1][1] <= last
