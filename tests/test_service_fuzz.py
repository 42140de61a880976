"""The API with every kind of head: any text and any JSON is answered, or refused in a sentence."""

import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.service_of_heads import (
    HEADS,
    PRETRAINED,
    WRITER,
    Client,
    listening,
    make_service,
    write_models,
)

MODELS = (PRETRAINED, *HEADS)
# What is left of them after normalisation is nothing, less than it seems, or very much.
TEXTS = [
    '', ' ', '\t\n', '\u200b', '\ufeff', '\u0301', '\x00', '\x07\x1b', '\u00ad', '\u2028', '\ufffd',
    '\U000e0001', 'a\u200b', '\ufeffreturns a list', 'an\x00index', 'a\u0301\u0302\u0303 value',
    '\u4e2d\u6587', '\u0e20\u0e32\u0e29\u0e32', 'ﷺ', '👩‍👩‍👧‍👦', 'İ', 'ß', '[CLS]', '[SEP] [SEP]',
    '<pad>',
    'returns an index of the list', 'x' * 3000, 'a ' * 3000, '. ' * 400, '\u200b' * 3000,
]  # fmt: skip
BESIDE_MASKS = [
    '\u200b[MASK]', '[MASK]\u200b', '\ufeff[MASK]', '[MASK]\u0301', '\x07[MASK]', 
    '\u00ad[MASK]\u00ad',
    '[MASK]', '[MASK][MASK]', ' [MASK] ', 'a\u200b[MASK]\u200bb', '[MASK', '[mask]',
    '[MASK]\u2028',
    '[MASK] ' * 9,
]  # fmt: skip
HALVES = ['\ud83d', 'a\udc00b', '[MASK]\ud800', '\ude00\ud83d']
texts = (
    st.sampled_from(TEXTS)
    | st.sampled_from(BESIDE_MASKS)
    | st.sampled_from(HALVES)
    | st.text(max_size=30)
    | st.lists(st.sampled_from([*TEXTS[:24], *BESIDE_MASKS]), max_size=4).map(''.join)
)
parts = (
    texts | st.integers() | st.floats() | st.lists(texts, max_size=5) | st.none() | st.booleans()
)
FIELDS = ['text', 'other', 'question', 'passage', 'context', 'options', 'id', 'words', '\ud83d']
FIELDS += ['sentence', 'predicate']
objects = st.fixed_dictionaries(
    {},
    optional={name: parts for name in FIELDS}
    | {'question': texts, 'passage': texts, 'text': texts, 'other': texts}
    | {'options': st.lists(texts, min_size=3, max_size=5)},
)
questions = st.fixed_dictionaries({'question': texts, 'passage': texts})
choices = st.fixed_dictionaries(
    {'question': texts, 'passage': texts, 'options': st.lists(texts, min_size=4, max_size=4)}
)
pairs = st.fixed_dictionaries({'text': texts, 'other': texts})
roles = st.fixed_dictionaries({'sentence': texts, 'predicate': texts | st.integers(-1, 4)})
WELL_FORMED = {
    'single': texts, 'pairs': pairs, 'several': texts, 'regression': texts, 'choice': choices,
    'tagging': texts, 'roles': roles, 'questions': questions, 'unanswerable': questions,
}  # fmt: skip
BODIES = [
    b'', b'{', b'null', b'[]', b'"a"', b'\xff', b'\xef\xbb\xbf{"input": "a"}', b'{"input": NaN}',
    b'{"input": {"question": 1e400, "passage": "b"}}', b'{"input": {"id": -1e400, "text": "a"}}',
    b'{"input": {"question": "a", "passage": "b", "id": Infinity}}', b'[' * 100_000,
    b'{"input": ' * 20_000, b'{"input": ' + b'9' * 5000 + b'}', b'{"input": "a", "input": "b"}',
    b'{"input": {"\\ud83d": "a"}}', b'{"\\ud83d": "a"}', b'{"input": "a", "model": "\\ud83d"}',
    b'{"input": "a", "top": 1e400}', b'{"input": "a", "top": 9e99}', b'{"input": "a\x00"}',
    b'{"input": "[MASK]", "top": true}', b'{"input": "a", "max_new_tokens": 1e400}',
    b'{"input": "a", "max_new_tokens": 2.5}', b'{"input": "a", "max_new_tokens": true}',
    b'{"input": [[["a"]]]}', b'{"input": {}}',
    b'{"input": {"options": ["a", 1]}}', b'{"text": "a", "text_pair": "\\udc00"}',
    b'{"input": {"id": "\\ud83d", "question": "a", "passage": "b"}}',
]  # fmt: skip
# Documented, and of a request rather than of the service.
REFUSALS = (400, 404, 413, 422)


@pytest.fixture(scope='module')
def folder(vocabulary, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('heads')
    write_models(folder, vocabulary)
    return folder


@pytest.fixture(scope='module')
def app(folder):
    return make_service(folder)


@pytest.fixture(scope='module')
def client(app):
    client = Client(app)
    yield client
    client.close()


def check(answer, given_input=None):
    status, content = answer
    assert status == 200 or status in REFUSALS, (status, content)
    if status != 200:
        assert set(content) == {'error'} and '\n' not in content['error']
    elif isinstance(given_input, list):
        assert len(content['output']) == len(given_input)


@pytest.mark.parametrize('model', HEADS)
def test_every_head_answers_any_text_or_says_why_not(model, client):
    few = hypothesis.settings(max_examples=40)

    @few
    @given(WELL_FORMED[model] | st.lists(WELL_FORMED[model], max_size=3) | objects | texts)
    def ask(content):
        check(client.post('predict', {'model': model, 'input': content}), content)

    # One at a time: a mistake in one example would hide those of the others.
    for text in (*TEXTS, *BESIDE_MASKS, *HALVES):
        fields = {'text': text, 'other': 'a list', 'question': text, 'passage': 'a list'}
        fields |= {'options': [text, 'b', 'c', 'd']}
        fields |= {'sentence': text, 'predicate': 1}
        wanted = {
            'pairs': ('text', 'other'), 'choice': ('question', 'passage', 'options'),
            'roles': ('sentence', 'predicate'),
        }  # fmt: skip
        names = wanted.get(model, ('question', 'passage'))
        given_input = text
        if model not in ('single', 'several', 'regression', 'tagging'):
            given_input = {name: fields[name] for name in names}
        status, content = client.post('predict', {'model': model, 'input': given_input})
        check((status, content))
        assert status == 200 or text in HALVES or not text.strip() or model == 'tagging', content
        if not isinstance(given_input, str):
            others = {'question': 'passage', 'text': 'other', 'sentence': 'predicate'}
            other = others[names[0]]
            check(client.post('predict', {'model': model, 'input': given_input | {other: text}}))
    ask()


@given(texts | st.lists(texts, max_size=3), st.integers(-1, 21))
@example('\u200b[MASK]', 1)
@example(['a', '[MASK]'], 20)
def test_any_text_with_masks_is_filled_or_refused(client, given_input, top):
    body = {'input': given_input, 'top': top}
    check(client.post('fill-mask', body), given_input)


@pytest.mark.parametrize('text', BESIDE_MASKS)
def test_what_is_beside_a_mask_is_no_matter(text, client):
    """Fault 4 of issue 20: what vanishes in normalisation took the mask with it."""
    status, content = client.post('fill-mask', {'input': text})
    check((status, content))
    if status == 200:
        assert len(content['output']) == text.count('[MASK]')


@hypothesis.settings(max_examples=25)
@given(texts | st.lists(texts, max_size=3), st.integers(-1, 17) | st.none())
@example(['a', '', '\u200b'], 3)
@example('x' * 3000, None)
def test_any_text_is_a_source_or_refused(client, given_input, limit):
    body = {'input': given_input, 'max_new_tokens': limit}
    check(client.post('generate', body), given_input)


@given(st.sampled_from(MODELS), texts | st.lists(texts, max_size=3))
def test_any_text_has_a_vector_or_is_refused(client, model, given_input):
    check(client.post('embed', {'model': model, 'input': given_input}), given_input)


@pytest.mark.parametrize('model', [PRETRAINED, 'single', 'pairs', 'several', 'tagging', WRITER])
def test_any_text_is_looked_into_or_refused(model, client):
    for text in (*TEXTS, *BESIDE_MASKS, *HALVES):
        check(client.post('inspect', {'model': model, 'text': text}))
        check(client.post('inspect', {'model': model, 'text': 'a', 'text_pair': text}))


@pytest.mark.parametrize('ability', ['predict', 'fill-mask', 'embed', 'generate', 'inspect'])
def test_any_body_is_answered_or_refused(ability, client):
    for body in BODIES:
        check(client.post(ability, body))
        if body.startswith(b'{"input": {'):
            for model in HEADS:
                named = body[:-1] + f', "model": "{model}"}}'.encode()
                check(client.post(ability, named))


@pytest.mark.parametrize(
    ('ability', 'body', 'key'),
    [
        ('predict', '"model": "single", "input": "a", "input": "b"', 'input'),
        ('predict', '"model": "single", "model": "regression", "input": "a"', 'model'),
        ('predict', '"model": "pairs", "input": {"text": "a", "text": "b", "other": "c"}', 'text'),
        (
            'predict',
            '"model": "pairs", "input": [{"other": "b", "text": "a", "other": ""}]',
            'other',
        ),
        ('embed', '"model": "single", "input": "a", "input": ["a"]', 'input'),
        ('fill-mask', '"input": "[MASK]", "top": 1, "top": 2', 'top'),
        ('generate', '"input": "a", "max_new_tokens": 1, "max_new_tokens": null', 'max_new_tokens'),
        ('inspect', '"model": "single", "text": "a", "text": "b"', 'text'),
    ],
)
def test_a_key_with_two_values_is_refused(ability, body, key, client):
    status, content = client.post(ability, f'{{{body}}}'.encode())
    assert status == 422
    assert content['error'] == (
        f'The body has the key {key!r} twice in an object, with different values; keep one of the '
        f'two.'
    )


def test_a_key_may_say_the_same_twice(client):
    one = client.post('predict', b'{"model": "single", "input": "a"}')
    twice = client.post('predict', b'{"model": "single", "input": "a", "input": "a"}')
    assert one == twice and one[0] == 200


def test_true_is_no_number_of_a_word(client):
    body = {'model': 'roles', 'input': {'sentence': 'a list', 'predicate': 1}}
    assert client.post('predict', body)[0] == 200
    body['input']['predicate'] = True
    status, content = client.post('predict', body)
    assert status == 422 and 'predicate must be a word of the sentence or its number' in str(
        content
    )


@pytest.mark.parametrize(
    ('model', 'has_second', 'sentence'),
    [
        ('single', True, 'the task classification with single texts; leave the second one out'),
        ('several', True, 'the task multilabel with single texts; leave the second one out'),
        ('tagging', True, 'the task tags with single texts; leave the second one out'),
        ('pairs', False, 'with two texts, text and other; give the second one, too'),
        ('questions', False, 'with two texts, question and passage; give the second one, too'),
    ],
)
def test_as_many_texts_are_inspected_as_the_task_has(model, has_second, sentence, client):
    body = {'model': model, 'text': 'a list'}
    with_second = body | {'text_pair': 'a value'}
    right, wrong = (body, with_second) if has_second else (with_second, body)
    assert client.post('inspect', right)[0] == 200
    status, content = client.post('inspect', wrong)
    assert status == 422 and sentence in content['error']
    # A model without a task takes either.
    for either in (right, wrong):
        assert client.post('inspect', either | {'model': PRETRAINED})[0] == 200


@pytest.mark.slow  # needs schemathesis
@pytest.mark.parametrize('model', (*MODELS, WRITER))
def test_the_document_keeps_its_word_for_every_head(model, folder, tmp_path):
    """Requests made from the OpenAPI document, to a service of one model, so that it is asked."""
    program = Path(sys.executable).parent / 'schemathesis'
    if not program.exists():
        pytest.skip('schemathesis is not here')
    with listening(make_service(folder, [model])) as port:
        checks = 'not_a_server_error,status_code_conformance,content_type_conformance'
        found = subprocess.run(
            [
                program, 'run', f'http://127.0.0.1:{port}/openapi.json', '--checks',
                f'{checks},response_schema_conformance', '--max-examples=40', '--seed=1',
            ],
            cwd=tmp_path, capture_output=True, text=True, check=False, timeout=900,
        )  # fmt: skip
    assert found.returncode == 0, found.stdout[-5000:]
