"""Limits, the API key and faults, without a server: what the middleware refuses."""

import asyncio
import gc
import json
import time

import pytest

from albert_jax.service.app import make_app
from albert_jax.service.metrics import Metrics
from albert_jax.service.middleware import Middleware
from albert_jax.service.service import Limits, Service


def passed(app, headers=(), parts=(b'{}',), **settings):
    """Status and body of one request through a gate, which is told by messages."""
    settings = {'api_key': '', 'max_body': 100, 'timeout': 0.2, **settings}
    metrics = Metrics()
    sent = []

    async def story():
        messages = [
            {'type': 'http.request', 'body': part, 'more_body': n < len(parts) - 1}
            for n, part in enumerate(parts)
        ]

        async def receive():
            if messages and messages[0]['body'] is not None:
                return messages.pop(0)
            return await asyncio.sleep(5)

        async def send(message):
            sent.append(message)

        scope = {'type': 'http', 'method': 'POST', 'path': '/v1/predict', 'headers': headers}
        await Middleware(app, metrics, paths=frozenset({'/v1/predict'}), **settings)(
            scope, receive, send
        )

    asyncio.run(story())
    counted = metrics.registry.get_sample_value(
        'albert_requests_total', {'path': '/v1/predict', 'status': str(sent[0]['status'])}
    )
    assert counted == 1
    return sent[0]['status'], json.loads(sent[1]['body'])


async def echo(scope, receive, send):
    body = (await receive())['body']
    await send({'type': 'http.response.start', 'status': 200, 'headers': []})
    await send({'type': 'http.response.body', 'body': body})


async def broken(scope, receive, send):
    raise ValueError('the secret text')


def test_the_gate(caplog):
    assert passed(echo, parts=[b'{"a"', b': 1}']) == (200, {'a': 1})
    assert passed(echo, headers=[(b'content-length', b'801')])[0] == 413
    assert passed(echo, parts=[b'"' + b'x' * 60, b'x' * 60])[0] == 413
    assert passed(echo, parts=[b'x' * 60] * 14 + [None])[0] == 413
    assert passed(echo, parts=[b'{', None])[0] == 408
    status, content = passed(broken)
    assert status == 500 and set(content) == {'error'}
    assert 'ValueError in' in caplog.text and 'secret' not in caplog.text


def test_the_key_is_wanted_whole():
    key = 'k' * 20
    assert passed(echo, [(b'authorization', b'Bearer ' + key.encode())], api_key=key)[0] == 200
    for given in ([], [(b'authorization', b'Bearer kkk')], [(b'authorization', key.encode())]):
        # The body is read all the same: who is still writing would not see why.
        for parts in ([b'{}'], [b'x' * 60] * 2):
            status, content = passed(echo, given, parts, api_key=key)
            assert status == 401 and content['error'].startswith('Give the API key')


@pytest.mark.parametrize('key', ['', 'k' * 20])
def test_the_document_tells_of_the_key(key):
    app = make_app(Service(Limits(), Metrics()), lambda: None, lambda: None, key)._app
    document = app.openapi()
    for path, methods in document['paths'].items():
        for described in methods.values():
            wanted = [{'HTTPBearer': []}] if key and path.startswith('/v1/') else None
            assert described.get('security') == wanted, path


def test_a_fault_is_a_sentence_and_its_text_stays_out_of_the_log(monkeypatch, caplog):
    async def broken(*_):
        raise ValueError('the secret text')

    service = Service(Limits(), Metrics())
    monkeypatch.setattr(service, 'ask', broken)
    app = make_app(service, lambda: None, lambda: None)
    sent = []

    async def story():
        body = [{'type': 'http.request', 'body': b'{"input": "secret"}', 'more_body': False}]

        async def receive():
            return body.pop() if body else await asyncio.sleep(5)

        async def send(message):
            sent.append(message)

        scope = {
            'type': 'http', 'method': 'POST', 'path': '/v1/predict', 'query_string': b'',
            'headers': [(b'content-type', b'application/json')],
        }  # fmt: skip
        await app(scope, receive, send)

    asyncio.run(story())
    assert sent[0]['status'] == 500
    assert json.loads(sent[1]['body'])['error'].startswith('Something went wrong here')
    assert 'ValueError in' in caplog.text and 'secret' not in caplog.text


BODIES = {
    'numbers': ('predict', b'{"input": [' + b'1,' * 500_000 + b'1]}'),
    'numbers for texts': ('embed', b'{"input": [' + b'1,' * 500_000 + b'1]}'),
    'empty objects': ('predict', b'{"input": [' + b'{},' * 100_000 + b'{}]}'),
    'an object of wrong fields': (
        'predict', b'{"input": {' + b','.join(b'"%d": {}' % n for n in range(80_000)) + b'}}',
    ),
    'options of numbers': ('predict', b'{"input": {"options": [' + b'1,' * 400_000 + b'1]}}'),
    'fields that nobody knows': (
        'predict', b'{"input": "a",' + b','.join(b'"%d": 1' % n for n in range(90_000)) + b'}',
    ),
}  # fmt: skip


@pytest.mark.parametrize('kind', BODIES)
def test_a_large_wrong_body_holds_nobody_up(kind):
    """Within the limit of a body there is room for half a million mistakes."""
    ability, body = BODIES[kind]
    app = make_app(Service(Limits(), Metrics()), lambda: None, lambda: None)
    messages, sent = [{'type': 'http.request', 'body': body, 'more_body': False}], []

    async def story():
        async def receive():
            return messages.pop() if messages else await asyncio.sleep(60)

        async def send(message):
            sent.append(message)

        scope = {
            'type': 'http', 'method': 'POST', 'path': f'/v1/{ability}', 'query_string': b'',
            'headers': [(b'content-type', b'application/json')],
        }  # fmt: skip
        started = time.process_time()
        await app(scope, receive, send)
        return time.process_time() - started

    # The collector would go through what the other tests have left, too.
    gc.freeze()
    try:
        assert asyncio.run(story()) < 0.5
    finally:
        gc.unfreeze()
    # Empty objects are no mistake; their number is one, for models that are there.
    assert sent[0]['status'] == (503 if kind == 'empty objects' else 422)
