"""A real server that is asked rightly and wrongly, and the command that starts it."""

import http.client
import json
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from albert_jax import serve
from albert_jax.cli import progress
from albert_jax.cli.errors import UserError
from albert_jax.interop.source import load
from albert_jax.model.albert import PretrainingModel
from albert_jax.pretraining.fill_mask import fill_mask
from albert_jax.service.startup import compile_progress, page_url
from albert_jax.tasks.answering import Answerer
from tests import tiny
from tests.running_service import CONFIG, TEXTS, Server, eventually, free_port


def test_answers_are_the_commands(server, checkpoints):
    answerer = Answerer(checkpoints / 'mood', num_devices=1, max_length=32)
    expected = answerer.answer(TEXTS, 'x')
    status, content = server.ask('/v1/predict', {'input': TEXTS})
    assert status == 200 and content['model'] == 'mood'
    for mine, theirs in zip(content['output'], expected, strict=True):
        assert set(mine) == {'prediction', 'probabilities'}
        assert mine['prediction'] == theirs['prediction']
        assert mine['probabilities'] == pytest.approx(theirs['probabilities'], abs=1e-5)
    single = server.ask('/v1/predict', {'input': TEXTS[1]})[1]['output']
    assert single['prediction'] == content['output'][1]['prediction']

    model = load(checkpoints / 'base')
    text = 'Returns a [MASK] of the [MASK].'
    status, content = server.ask('/v1/fill-mask', {'input': text, 'top': 3})
    assert status == 200
    for mine, theirs in zip(content['output'], fill_mask(model, text, 3), strict=True):
        assert [x['piece'] for x in mine] == [x.piece for x in theirs]
        chances = [x['probability'] for x in mine]
        assert chances == pytest.approx([x.probability for x in theirs], abs=1e-5)

    ids = [model.tokenizer.cls_id, *model.tokenizer.encode([TEXTS[2]])[0], model.tokenizer.sep_id]
    hidden = PretrainingModel(CONFIG).apply({'params': model.params}, np.array([ids]))
    hidden = np.asarray(hidden.last_hidden_state)[0]
    poolings = {'mean': hidden.mean(0), 'cls': hidden[0]}
    for pooling, vector in poolings.items():
        asked = {'input': TEXTS[2], 'model': 'base', 'pooling': pooling}
        found = server.ask('/v1/embed', asked)[1]['output']
        np.testing.assert_allclose(found, vector, atol=1e-5, rtol=0)
        found = server.ask('/v1/embed', asked | {'normalize': True})[1]['output']
        np.testing.assert_allclose(found, vector / np.linalg.norm(vector), atol=1e-5, rtol=0)


def test_many_at_once_share_batches_and_nothing_compiles(server):
    compiled = server.figure('albert_compiled_programs')
    alone = {text: server.ask('/v1/predict', {'input': text})[1]['output'] for text in TEXTS}
    before = [server.figure(f'albert_{name}_total') for name in ('rows', 'batches')]
    with ThreadPoolExecutor(32) as pool:
        asked = TEXTS * 40
        found = list(pool.map(lambda text: server.ask('/v1/predict', {'input': text}), asked))
    for text, (status, content) in zip(asked, found, strict=True):
        assert status == 200
        chances = content['output']['probabilities']
        assert chances == pytest.approx(alone[text]['probabilities'], abs=1e-5)
    rows, batches = (
        server.figure(f'albert_{name}_total') - there
        for name, there in zip(('rows', 'batches'), before, strict=True)
    )
    assert rows == 200 and batches < 150
    assert server.figure('albert_compiled_programs') == compiled > 20
    assert server.figure('albert_ready') == 1


def test_looking_inside(server):
    compiled = server.figure('albert_compiled_programs')
    asked = {'model': 'mood', 'text': TEXTS[2]}
    status, content = server.ask('/v1/inspect', asked)
    assert status == 200 and content['pieces'][0] == '[CLS]'
    length = len(content['pieces'])
    assert content['attention']['shape'] == [2, 2, length, length]
    assert content['rollout']['shape'] == [2, length, length]
    assert content['moved']['output'] in tiny.CLASSES.labels
    status, content = server.ask('/v1/inspect', {'model': 'base', 'text': 'a [MASK] of'})
    assert status == 200 and 'moved' in content, content
    assert server.ask('/v1/inspect', {'model': 'mood', 'text': 'word ' * 31})[0] == 422
    assert server.figure('albert_compiled_programs') == compiled


def test_characters_without_width_are_no_fault_of_the_service(server):
    for nothing in ('\u200b', '\ufeff', '\u0301', '\x01'):
        for text in (f'[MASK]{nothing}', f'{nothing}[MASK]'):
            status, content = server.ask('/v1/fill-mask', {'input': text})
            assert status == 200 and len(content['output']) == 1
            status, content = server.ask('/v1/inspect', {'model': 'base', 'text': text})
            assert (status, content.get('pieces')) == (200, ['[CLS]', '[MASK]', '[SEP]'])
        status, content = server.ask('/v1/inspect', {'model': 'base', 'text': nothing})
        assert (status, content['error'][:17]) == (422, 'The text is empty')
        assert server.ask('/v1/predict', {'input': nothing})[0] == 200
        assert server.ask('/v1/embed', {'input': nothing, 'model': 'base'})[0] == 200


MISTAKES = [
    ('/v1/predict', b'{', 400, 'not JSON'),
    ('/v1/predict', b'\xff\xfe', 400, 'not JSON'),
    ('/v1/predict', b'[' * 20_000, 400, 'not JSON'),
    ('/v1/predict', b'[]', 422, 'must be a JSON object'),
    ('/v1/predict', b'{}', 422, 'input is missing'),
    ('/v1/predict', {'input': 3}, 422, 'input must be a text, or an object of texts and numb'),
    ('/v1/predict', {'input': ['a', None]}, 422, 'input 1 must be a text, or an object of'),
    ('/v1/predict', {'input': 'a', 'mode': 'b'}, 422, "There is no field 'mode'; this takes in"),
    ('/v1/predict', {'input': 'a', 'model': 'x'}, 404, "model is 'x'; there is no such m"),
    ('/v1/predict', {'input': 'a', 'model': 'base'}, 404, 'base has /v1/embed, /v1/fill-m'),
    ('/v1/predict', {'input': {'words': 'a'}}, 422, 'lacks text'),
    ('/v1/predict', {'input': {'text': 'a', 'text_pair': 'b'}}, 422, "no field 'text_pair'; the"),
    ('/v1/predict', b'{"input": {"x": ' + b'[' * 600 + b']' * 600 + b'}}', 422, 'input must be'),
    ('/v1/predict/', {'input': 'a'}, 404, 'nothing at this path'),
    ('/v1/predict', {'input': ['a'] * 65}, 413, 'at most 64'),
    ('/v1/predict', {'input': 'a' * 20_001}, 413, 'at most 20000'),
    ('/v1/predict', {'input': 'a' * 1_100_000}, 413, 'larger than 1048576 bytes'),
    ('/v1/predict', b'{"input": "\\ud800"}', 422, 'surrogate'),
    ('/v1/fill-mask', {'input': 'no mask'}, 422, '0 [MASK]s'),
    ('/v1/fill-mask', {'input': '[MASK]' * 9}, 422, '9 [MASK]s'),
    ('/v1/fill-mask', {'input': '[MASK]', 'top': 0}, 422, 'top must be a whole number from 1'),
    ('/v1/embed', {'input': 'a'}, 422, 'model is missing: several can answer, so set it to one'),
    ('/v1/embed', {'input': 'a', 'normalize': 'yes'}, 422, 'normalize must be true or false'),
    ('/v1/embed', {'input': 'word ' * 99, 'model': 'base'}, 422, 'shorten it'),
    ('/v1/nothing', {'input': 'a'}, 404, 'nothing at this path'),
    ('/v1/predict', None, 405, 'another method'),
]


def test_mistakes_have_their_status_and_one_sentence(server):
    for path, given, expected, message in MISTAKES:
        content, body = (None, given) if isinstance(given, bytes) else (given, None)
        status, answer = server.ask(path, content, body)
        assert (status, set(answer)) == (expected, {'error'}), (path, str(given)[:50], answer)
        assert message in answer['error'] and answer['error'].endswith('.')
    status, answer = server.ask('/v1/predict', body=b'{"input": "a"}', headers={})
    assert status == 422 and 'application/json' in answer['error']
    assert server.ask('/v1/predict', {'input': []}) == (200, {'model': 'mood', 'output': []})
    assert server.ask('/healthz') == (200, {'status': 'ok'})


def test_who_is_slow_or_gone_holds_nobody_up(server):
    head = b'POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n'
    slow = socket.create_connection(('127.0.0.1', server.port), timeout=30)
    slow.sendall(head + b'Content-Length: 1000\r\n\r\n{"inp')
    gone = [socket.create_connection(('127.0.0.1', server.port)) for _ in range(50)]
    body = json.dumps({'input': TEXTS * 12}).encode()
    for connection in gone:
        connection.sendall(head + b'Content-Length: %d\r\n\r\n' % len(body) + body)
        connection.close()
    started = time.monotonic()
    assert server.ask('/v1/predict', {'input': 'still there'})[0] == 200
    assert time.monotonic() - started < 10
    assert slow.recv(100).startswith(b'HTTP/1.1 408')
    slow.close()
    idle = [socket.create_connection(('127.0.0.1', server.port)) for _ in range(300)]
    assert server.ask('/v1/predict', {'input': 'still there'})[0] == 200
    for connection in idle:
        connection.close()


def test_the_page_and_the_document_need_no_network(server):
    for path in ('/', '/docs'):
        status, page = server.ask(path)
        # The name of SVG's elements is no address.
        links = page.replace('http://www.w3.org/2000/svg', '')
        assert status == 200 and 'http' not in links and '__' not in page
    status, document = server.ask('/openapi.json')
    assert set(document['paths']) == {
        '/v1/predict', '/v1/fill-mask', '/v1/embed', '/v1/generate', '/v1/inspect', '/v1/models',
        '/healthz', '/readyz', '/metrics',
    }  # fmt: skip
    for name in ('PredictRequest', 'FillMaskRequest', 'EmbedRequest'):
        assert document['components']['schemas'][name]['properties']['input']['examples']
    described = server.ask('/v1/models')[1]['models']
    assert [x['name'] for x in described] == ['mood', 'base']
    assert described[0]['abilities'] == ['embed', 'predict'] and described[0]['layers'] == 2
    # Which model, how large, and what it reached.
    sizes = {'architecture': 'ALBERT', 'hidden_size': 16, 'max_length': 32, 'vocabulary': 1000}
    assert sizes.items() <= described[0].items() and described[0]['parameters'] > 10_000
    assert [x['evaluation'] for x in described] == [{'accuracy': 0.9127}, {}]
    assert 'Ready on http://127.0.0.1:' in server.log.read_text()


def test_what_is_cut_or_empty_is_told(server):
    long = 'the value ' * 30
    status, content = server.ask('/v1/predict', {'input': ['a value', long, '\u200b']})
    assert status == 200 and len(content['output']) == 3
    assert content['notes'] == [
        'input 1 was cut to the 32 pieces that the model reads at most.',
        'input 2 has no text, so the answer says nothing.',
    ]
    alone = server.ask('/v1/predict', {'input': long})[1]
    assert alone['notes'] == ['The input was cut to the 32 pieces that the model reads at most.']
    assert 'notes' not in server.ask('/v1/predict', {'input': 'a value'})[1]
    content = server.ask('/v1/embed', {'input': ['', 'a'], 'model': 'base'})[1]
    assert content['notes'] == ['input 0 has no text, so the answer says nothing.']
    (candidates,) = server.ask('/v1/fill-mask', {'input': 'a [MASK].'})[1]['output']
    assert all(x['text'] and '▁' not in x['text'] for x in candidates)


@pytest.mark.parametrize(
    ('host', 'url'),
    [
        ('127.0.0.1', 'http://127.0.0.1:80'),
        ('0.0.0.0', 'http://127.0.0.1:80'),
        ('::', 'http://[::1]:80'),
    ],
)
def test_the_address_of_the_page_can_be_opened(host, url):
    assert page_url(host, 80) == url


def test_the_log_holds_no_texts(server):
    secret = 'xyzzyplugh'
    server.ask('/v1/predict', {'input': secret})
    server.ask(f'/v1/{secret}', {'input': secret})
    server.ask('/v1/predict', body=secret.encode())
    log = server.log.read_text()
    assert 'POST /v1/predict 200' in log and 'POST other 404' in log
    assert secret not in log


def test_the_end_comes_after_what_was_taken(checkpoints, tmp_path):
    """Requests that are half here when the signal comes are answered, later ones are refused."""
    server = Server(checkpoints, tmp_path / 'log', ['mood'], '--max_length=16')
    try:
        eventually(server.is_ready, 600)
        body = json.dumps({'input': TEXTS}).encode()
        head = (
            b'POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n'
            b'Content-Length: %d\r\n\r\n' % len(body)
        )
        taken = [socket.create_connection(('127.0.0.1', server.port), 30) for _ in range(16)]
        for connection in taken:
            connection.sendall(head + body[:20])
        # The server has turned to all of them before it answers this.
        assert server.ask('/healthz')[0] == 200
        server.process.send_signal(signal.SIGTERM)

        def is_closed():
            try:
                socket.create_connection(('127.0.0.1', server.port)).close()
            except ConnectionRefusedError:
                return True
            return False

        eventually(is_closed, 600)
        for connection in taken:
            connection.sendall(body[20:])
        for connection in taken:
            reply = http.client.HTTPResponse(connection)
            reply.begin()
            assert reply.status == 200 and len(json.loads(reply.read())['output']) == len(TEXTS)
            connection.close()
        server.process.wait(timeout=600)
        assert 'Traceback' not in server.log.read_text()
    finally:
        server.process.kill()


# The command.
def test_compiling_tells_how_far_it_is(capsys, monkeypatch):
    times = iter([0.0, 4.0, 11.0, 12.0, 22.0])
    monkeypatch.setattr(progress.time, 'monotonic', lambda: next(times, 30.0))
    with compile_progress() as made:
        for _ in range(4):
            made.advance(1, 8)
    assert capsys.readouterr().out.splitlines() == [
        'compiled 2 of 8 programs, ETA 33 s', 'compiled 4 of 8 programs, ETA 22 s',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--checkpoint=nowhere'], 'nowhere'),
        (['--checkpoint=a\udce9=x'], 'the name of the model has half a surrogate pair'),
        (['--checkpoint=x', '--port=0'], '--port is 0'),
        (['--checkpoint=x', '--timeout=0'], '--timeout is 0.0; it must be a number above 0'),
        (['--checkpoint=x', '--timeout=inf'], '--timeout is inf'),
        (['--checkpoint=x', '--host=.x.com'], 'cannot be listened on'),
        (['--checkpoint=x', '--max_length=3'], '--max_length is 3'),
        (['--checkpoint=x', '--host=192.0.2.1'], 'cannot be listened on'),
        (['--checkpoint=x', '--api_key_file=nowhere'], 'cannot be read'),
    ],
)
def test_refused(flags, message):
    with pytest.raises(UserError, match=message):
        serve.main(flags)


def test_a_weak_key_and_two_of_one_name_are_refused(checkpoints, tmp_path):
    key = tmp_path / 'key'
    key.write_text('short')
    with pytest.raises(UserError, match='16 or more'):
        serve.main([f'--checkpoint={checkpoints / "mood"}', f'--api_key_file={key}'])
    twice = [f'--checkpoint={checkpoints / "mood"}'] * 2
    with pytest.raises(UserError, match='Two checkpoints are called mood'):
        serve.main([*twice, f'--port={free_port()}'])
