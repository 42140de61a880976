"""Texts over HTTP, of a model from text to text, and where its decoder looked."""

import base64
import dataclasses

import numpy as np
import pytest

from albert_jax.interop import native
from albert_jax.interpretability.pair_inspector import PairInspector
from albert_jax.service import models
from albert_jax.service.batching import SIZES, Device, collate
from albert_jax.tasks.answering import Answerer
from tests import tiny
from tests.service_of_heads import LENGTH, PRETRAINED, WRITER, Client, make_service, write_models

SOURCES = [*tiny.SOURCES, ' '.join(['list'] * 60), '']


@pytest.fixture(scope='module')
def folder(vocabulary, tmp_path_factory):
    folder = tmp_path_factory.mktemp('writer')
    write_models(folder, vocabulary, [])
    return folder


@pytest.fixture(scope='module')
def client(folder):
    client = Client(make_service(folder, [WRITER, PRETRAINED]))
    yield client
    client.close()


@pytest.fixture(scope='module')
def predicted(folder):
    """By the command, whose batches are of one row."""
    answerer = Answerer(folder / WRITER, num_devices=1, batch_size=1)
    return [answer['prediction'] for answer in answerer.answer(SOURCES, 'x')]


@pytest.fixture(scope='module')
def has_end(folder):
    """If the model ends its text, of each source that is not cut."""
    inspector = PairInspector(native.read(folder / WRITER))
    return [inspector.encode(source).target_pieces[-1] == '[SEP]' for source in tiny.SOURCES]


def test_texts_are_those_of_predict(client, predicted, has_end):
    status, content = client.post('generate', {'input': SOURCES})
    assert status == 200 and content['model'] == WRITER
    assert [answer['text'] for answer in content['output']] == predicted
    assert predicted[-1] == ''
    is_finished = [answer['is_finished'] for answer in content['output']]
    assert is_finished == [*has_end, is_finished[-2], True] and set(has_end) == {True, False}
    is_cut = [answer['source_is_cut'] for answer in content['output']]
    assert is_cut == [False] * len(tiny.SOURCES) + [True, False]
    *scores, of_nothing = (answer['score'] for answer in content['output'])
    assert of_nothing is None and all(score < 0 for score in scores)
    # One text for one, whoever is beside it.
    alone = client.post('generate', {'input': SOURCES[1], 'model': WRITER})[1]['output']
    assert alone['score'] == pytest.approx(scores[1], abs=1e-5)
    assert alone | {'score': 0} == content['output'][1] | {'score': 0}


def test_a_limit_cuts_the_text(client, predicted, has_end):
    number = has_end.index(False)
    body = {'input': SOURCES[number], 'max_new_tokens': 3}
    output, wanted = client.post('generate', body)[1]['output'], predicted[number]
    assert wanted.startswith(output['text']) and len(output['text']) < len(wanted)
    assert not output['is_finished']
    longest = client.post('generate', body | {'max_new_tokens': 15})[1]['output']
    assert longest['text'] == wanted


@pytest.mark.parametrize(
    ('body', 'status', 'sentence'),
    [
        ({'max_new_tokens': 16}, 422, 'max_new_tokens is 16; this model writes at most 15.'),
        ({'max_new_tokens': 0}, 422, 'max_new_tokens must be a whole number, 1 or above.'),
        ({'max_new_tokens': '3'}, 422, 'max_new_tokens must be a whole number, 1 or above.'),
        ({'input': {'source': 'a'}}, 422, 'input must be a text.'),
        ({'input': 'a\ud83d'}, 422, 'input 0 has half a surrogate pair'),
        (
            {'model': PRETRAINED},
            404,
            f'model is {PRETRAINED!r}, which does not have /v1/generate: ',
        ),
        ({'num_beams': 3}, 422, "There is no field 'num_beams'; this takes input, max_new_"),
    ],
    ids=ascii,
)
def test_what_cannot_be_written_is_refused(body, status, sentence, client):
    found = client.post('generate', {'input': 'a'} | body)
    assert found[0] == status and found[1]['error'].startswith(sentence)


def test_a_model_with_a_decoder_writes_and_does_nothing_else(client):
    for ability in ('predict', 'fill-mask', 'embed'):
        status, content = client.post(ability, {'input': 'a [MASK]', 'model': WRITER})
        said = f'model is {WRITER!r}, which does not have /v1/{ability}: '
        assert status == 404 and content['error'].startswith(said), content


def test_the_cross_attention_between_two_texts(client, folder):
    body = {'model': WRITER, 'text': SOURCES[0], 'text_pair': 'the value'}
    status, content = client.post('inspect', body)
    assert status == 200
    inspector = PairInspector(native.read(folder / WRITER))
    pair = inspector.encode(SOURCES[0], 'the value')
    assert content['source'] == list(pair.source_pieces)
    assert content['target'] == list(pair.target_pieces)
    packed = content['cross_attention']
    found = np.frombuffer(base64.b64decode(packed['bytes']), np.uint8).reshape(packed['shape'])
    np.testing.assert_allclose(found / 255, inspector.cross_attention(pair), atol=0.003)
    without = client.post('inspect', {'model': WRITER, 'text': 'a'})
    assert without == (
        422, {'error': 'text_pair is missing: give the text that the model wrote for text.'}
    )  # fmt: skip
    status, content = client.post('inspect', body | {'text_pair': 'list ' * 40})
    assert status == 422 and content['error'].endswith(f'{LENGTH} can be looked at; shorten it.')


def test_several_texts_of_a_source_and_all_that_is_compiled_beforehand(vocabulary, tmp_path):
    """The checkpoint's own settings say how texts are written; every shape is known."""
    several = {'num_beams': 3, 'num_return_sequences': 2}
    model = tiny.text_to_text(vocabulary, decoding=several)
    small = dataclasses.replace(model.config, max_position_embeddings=16)
    table = model.params['embeddings']['position']
    table['embedding'] = table['embedding'][:16]
    tiny.write(dataclasses.replace(model, config=small), tmp_path / 'beams')
    served = models.load([str(tmp_path / 'beams')], Device(), 1024, 0, lambda *_: None)['beams']
    assert served.describe()['max_new_tokens'] == 15 and served.describe()['head'] is None
    served.batchers['generate'].sizes = served.batchers['generate'].sizes[:1]
    assert max(SIZES) > 8
    compilations = served.compilations()
    names = [compilation.name for compilation in compilations]
    assert names == ['beams: generate, 8 × 16', 'beams: inspect, 16']
    for compilation in compilations:
        compilation.run()
    count = served.num_compiled
    assert count == 2
    ability = served.abilities['generate']
    sources = SOURCES[-5:]
    given = [{'text': text, 'max_new_tokens': None} for text in sources]
    encoded = ability.encode(given)
    outputs = ability.start(collate(encoded.rows, 8))
    rows = [{name: np.asarray(x)[n] for name, x in outputs.items()} for n in range(len(given))]
    answers = encoded.answers(rows)
    wanted = Answerer(tmp_path / 'beams', num_devices=1, batch_size=1).answer(sources, 'x')
    for number, (answer, right) in enumerate(zip(answers, wanted, strict=True)):
        assert answer['text'] == right['prediction']
        if not sources[number]:
            assert 'best' not in answer
            continue
        assert [best['text'] for best in answer['best']] == [x['text'] for x in right['best']]
        assert answer['score'] == answer['best'][0]['score'] >= answer['best'][1]['score']
    served.inspect('a value', 'the list')
    assert served.num_compiled == count
