"""The service: batches of what waits, one real server that is asked rightly and wrongly."""

import asyncio
import contextlib
import dataclasses
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl

from albert_jax import serve
from albert_jax.cli import progress
from albert_jax.cli.errors import UserError
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.interop import native
from albert_jax.interop.native import Pretrained
from albert_jax.interop.source import load
from albert_jax.model import heads
from albert_jax.model.albert import PretrainingModel, init_params
from albert_jax.model.heads import Head
from albert_jax.pretraining.fill_mask import fill_mask
from albert_jax.service import server as http_server
from albert_jax.service.abilities import Embed, FillMask, Predict
from albert_jax.service.app import make_app
from albert_jax.service.batching import (
    SIZES,
    Batcher,
    Busy,
    Device,
    Row,
    choose,
    collate,
    pad_to,
)  # fmt: skip
from albert_jax.service.metrics import Metrics
from albert_jax.service.middleware import Middleware
from albert_jax.service.models import rounded
from albert_jax.service.service import Limits, Service
from albert_jax.service.startup import compile_progress
from albert_jax.tasks.answering import Answerer
from albert_jax.training.sharding import make_mesh
from tests.conftest import ROOT
from tests.test_finetune import CLASSES, CONFIG, random_tree

TEXTS = [
    'returns', 'an index of the list', 'raises an exception when the value is not found',
    'the names of all the modules that were imported so far, and where they are',
    ' '.join(['a longer text'] * 9),
]  # fmt: skip


# Batches.


@pytest.mark.parametrize(
    ('waiting', 'sizes', 'taken', 'size'),
    [
        ([16], SIZES, [0], 1),
        # The size up while its empty rows cost less than another batch, else the size down.
        ([32] * 3, SIZES, [0, 1, 2], 4),
        ([512] * 3, SIZES, [0, 1], 2),
        ([512] * 3, (8, 16), [0, 1, 2], 8),
        ([32] * 90, SIZES, list(range(32)), 32),
        ([16] * 31, SIZES, list(range(31)), 32),
        # A short row goes with longer ones rather than alone.
        ([16, 32, 32, 32], SIZES, [0, 1, 2, 3], 4),
        # But not with one so long that its padding costs more.
        ([4, 512], SIZES, [0], 1),
        # Whoever has waited longest is in it, though the rest would fill a batch.
        ([512, *[16] * 32], SIZES, [0], 1),
    ],
)
def test_a_batch_makes_the_most_of_what_waits(waiting, sizes, taken, size):
    places, found = choose(waiting, sizes)
    assert (sorted(places), found) == (taken, size)


def row(value, length=4):
    return Row({'x': np.full((1, length), value)}, length)


def test_rows_are_filled_up():
    batch = collate([row(1), row(2, 6)], 4)
    assert batch['x'][:, 0].tolist() == [1, 2, 1, 1]
    assert batch['x'][:2].tolist() == [[1, 1, 1, 1, 0, 0], [2] * 6]


def test_only_what_is_as_long_as_a_row_is_stretched():
    """Here two sequences a row; a number a row, and places in it, are not pad_to."""

    def pair(value, length):
        sequences = np.full((2, length), value)
        return Row(
            {'x': sequences, 'label': np.array([value]), 'at': np.full((1, 3), value)}, length
        )

    batch = collate([pair(1, 2), pair(2, 4)], 3)
    assert batch['x'].tolist() == [[1, 1, 0, 0]] * 2 + [[2] * 4] * 2 + [[1, 1, 0, 0]] * 2
    assert batch['label'].tolist() == [1, 2, 1] and batch['at'].tolist() == [
        [1] * 3,
        [2] * 3,
        [1] * 3,
    ]
    longer, shorter = pad_to(pair(1, 2), 3), pad_to(pair(1, 4), 2)
    assert longer.arrays['x'].tolist() == [[1, 1, 0]] * 2 and longer.length == 3
    assert shorter.arrays['x'].tolist() == [[1, 1]] * 2 and shorter.arrays['at'].shape == (1, 3)


def batcher(start, **more):
    seen = []
    made = Batcher(start, Device(), more.pop('max_waiting', 100), lambda *x: seen.append(x), **more)
    return made, seen


class Later:
    """An output that is still being computed."""

    def __init__(self, values, is_done):
        self.values, self.is_done = values, is_done

    def __array__(self, dtype=None, copy=None):
        self.is_done.wait(10)
        return self.values


def test_the_next_batch_is_given_to_the_device_while_it_computes():
    started, starting, is_done = [], [0], threading.Event()

    def start(batch):
        starting[0] += 1
        time.sleep(0.02)
        # One after the other, so that all chips have them in the same order.
        assert starting[0] == 1
        starting[0] -= 1
        started.append(int(batch['x'][0, 0]))
        return {'y': Later(batch['x'].sum(1), is_done)}

    async def story():
        made, _ = batcher(start, sizes=(1,))
        asked = [asyncio.ensure_future(made([row(n)])) for n in range(5)]
        await asyncio.sleep(0.5)
        first = list(started)
        is_done.set()
        return first, made.num_waiting, await asyncio.gather(*asked)

    first, num_waiting, found = asyncio.run(story())
    # Two are under way, and no more: the rest may still be joined by others.
    assert sorted(first) == [0, 1] and num_waiting == 3
    assert [int(x[0]['y']) for x in found] == [0, 4, 8, 12, 16] and len(started) == 5


def test_what_waits_goes_together():
    shapes = []

    def run(batch):
        shapes.append(batch['x'].shape)
        return {'y': batch['x'].sum(1)}

    async def everyone():
        made, seen = batcher(run)
        asked = [made([row(n, 4 if n % 3 else 8)]) for n in range(9)]
        found = await asyncio.gather(*asked, made([row(20), row(21, 8)]))
        return found, seen

    found, seen = asyncio.run(everyone())
    for n in range(9):
        assert found[n][0]['y'] == n * (4 if n % 3 else 8)
    assert [int(x['y']) for x in found[9]] == [80, 168]
    # A batch costs more than these rows do, so all go in one.
    assert shapes == [(16, 8)] and sum(rows for rows, _ in seen) == 11


def test_a_batch_that_fails_fails_for_its_own_rows_alone():
    def run(batch):
        if batch['x'].shape[1] == 512:
            raise MemoryError
        return {'y': batch['x']}

    async def both():
        made, _ = batcher(run)
        return await asyncio.gather(made([row(1)]), made([row(1, 512)]), return_exceptions=True)

    good, bad = asyncio.run(both())
    assert isinstance(bad, MemoryError) and good[0]['y'].tolist() == [1] * 4


def test_a_full_queue_is_refused_and_whoever_gives_up_is_not_computed():
    computed = []
    release = threading.Event()

    def start(batch):
        computed.extend(batch['x'][:, 0].tolist())
        return {'y': Later(batch['x'], release)}

    async def story():
        made, _ = batcher(start, max_waiting=3, sizes=(1,))
        under_way = [asyncio.ensure_future(made([row(n)])) for n in (1, 2)]
        await asyncio.sleep(0.1)
        waiting = [asyncio.ensure_future(made([row(n)])) for n in (3, 4, 5)]
        await asyncio.sleep(0.1)
        with pytest.raises(Busy):
            await made([row(6)])
        waiting[1].cancel()
        await asyncio.sleep(0.05)
        release.set()
        await asyncio.gather(*under_way, waiting[0], waiting[2])
        return made.num_waiting

    assert asyncio.run(story()) == 0
    assert sorted(computed) == [1, 2, 3, 5]


# The gate, with applications of its own.


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

    assert asyncio.run(story()) < 0.5
    # Empty objects are no mistake; their number is one, for models that are there.
    assert sent[0]['status'] == (503 if kind == 'empty objects' else 422)


# Connections.


@contextlib.asynccontextmanager
async def listening(app, state=None):
    """The port of an application behind the service's own connections, which `state` lists."""
    config = uvicorn.Config(app, http=http_server._Impatient, ws='none', lifespan='off')
    config.load()
    state = state or uvicorn.server.ServerState()
    made = await asyncio.get_running_loop().create_server(
        lambda: http_server._Impatient(config, state, {}), '127.0.0.1', 0
    )
    yield made.sockets[0].getsockname()[1]
    made.close()


def answering(content):
    async def app(scope, receive, send):
        while (await receive()).get('more_body'):
            pass
        headers = [(b'content-length', str(len(content)).encode())]
        await send({'type': 'http.response.start', 'status': 200, 'headers': headers})
        await send({'type': 'http.response.body', 'body': content})

    return app


@pytest.mark.parametrize(
    ('sent', 'replied'),
    [
        # Nothing, half a head, a head that comes too slowly, and bytes that begin none.
        ([b''], b''),
        ([b'POST / HTTP/1.1\r\nHost: x\r\n'], b''),
        ([b'GET / HTTP/1.1\r\n', *[b'A: b\r\n'] * 9], b''),
        ([b'\r\n'] * 9, b''),
        ([b'GET / HTTP/1.1\r\nHost: x\r\nA: ' + b'b' * 70_000], b'HTTP/1.1 400'),
        ([b'\0\r\n\r\n'], b'HTTP/1.1 400'),
        # After an answer, too, and with the request before.
        ([b'GET / HTTP/1.1\r\nHost: x\r\n\r\n', b'GET', b' / HTT'], b'HTTP/1.1 200'),
        ([b'GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTT'], b'HTTP/1.1 200'),
        # A body may take its time, and so may the next request.
        ([b'GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n', *[b'x'] * 9], b'HTTP/1.1 2'),
    ],
)  # fmt: skip
def test_a_head_must_come_whole_and_in_time(sent, replied, monkeypatch):
    monkeypatch.setattr(http_server, '_PATIENCE', 0.3)

    async def story():
        found = b''
        async with listening(answering(b'')) as port:
            reader, writer = await asyncio.open_connection('127.0.0.1', port)
            try:
                for part in sent:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0.1)
                async with asyncio.timeout(2):
                    while part := await reader.read(1000):
                        found += part
            except TimeoutError:
                return found, True
            except ConnectionError:
                pass
            finally:
                writer.close()
        return found, False

    found, is_kept = asyncio.run(story())
    assert found.startswith(replied) and bool(found) == bool(replied)
    assert is_kept == (sent[-1] == b'x')
    if b'400' in replied:
        assert set(json.loads(found.partition(b'\r\n\r\n')[2])) == {'error'}


class Timers:
    """A loop whose time passes when a test says so."""

    def __init__(self):
        self.due = []

    def call_later(self, delay, callback, *arguments):
        handle = asyncio.TimerHandle(0, callback, arguments, self)
        self.due.append((delay, handle))
        return handle

    def pass_time(self):
        """Until all that is waited for now is due."""
        due, self.due = self.due, []
        for delay, handle in due:
            assert delay == http_server._PATIENCE
            if not handle.cancelled():
                handle._callback(*handle._args)

    def get_debug(self):
        return False

    def _timer_handle_cancelled(self, handle):
        pass


class Transport:
    """A connection whose client has yet to take `size` bytes."""

    def __init__(self, size):
        self.size, self.is_aborted = size, False

    def get_write_buffer_size(self):
        return self.size

    def abort(self):
        self.is_aborted = True


def test_who_takes_no_answer_is_left_and_who_takes_it_slowly_is_not():
    timers, transport = Timers(), Transport(100)
    config = uvicorn.Config(answering(b''), ws='none', lifespan='off')
    config.load()
    connection = http_server._Impatient(config, uvicorn.server.ServerState(), {}, timers)
    connection.transport = transport
    connection.flow = FlowControl(transport)
    connection.pause_writing()
    for transport.size in (99, 50, 49):
        timers.pass_time()
        assert not transport.is_aborted
    # All is taken: nothing is waited for.
    connection.resume_writing()
    timers.pass_time()
    assert not transport.is_aborted
    connection.pause_writing()
    timers.pass_time()
    assert transport.is_aborted


def test_a_connection_whose_answer_nobody_takes_is_closed(monkeypatch):
    monkeypatch.setattr(http_server, '_PATIENCE', 0.05)
    # More than the system itself takes from one side and keeps for the other.
    content = b'x' * 20_000_000

    async def story():
        state = uvicorn.server.ServerState()
        async with listening(answering(content), state) as port:
            reader, writer = await asyncio.open_connection('127.0.0.1', port, limit=1)
            writer.write(b'GET / HTTP/1.1\r\nHost: x\r\n\r\n')
            while not state.total_requests or state.connections:
                await asyncio.sleep(0.01)
            size = 0
            with contextlib.suppress(ConnectionError):
                while part := await reader.read(65_536):
                    size += len(part)
            writer.close()
            return size

    assert asyncio.run(asyncio.wait_for(story(), 120)) < len(content)


# Every head.

PASSAGE = 'returns an index of the list when the value is found in it ' * 6
QUESTIONS = [
    {'question': 'what', 'passage': PASSAGE}, {'question': 'a', 'passage': 'b c'},
    # Shorter than the beam of the conditional head.
    {'question': '', 'passage': 'a'}, {'question': 'a', 'passage': ''},
]  # fmt: skip
CHOICE = {'question': 'a _ b', 'passage': PASSAGE, 'options': ['w', 'x', 'y', 'z']}
SHORT_CHOICE = {**CHOICE, 'passage': 'b c'}
HEADS = {
    'question_answering': (2, QUESTIONS),
    'conditional_question_answering': (2, QUESTIONS),
    'multiple_choice': (1, [CHOICE, SHORT_CHOICE]),
    'token_classification': (3, ['returns an index', 'value']),
    'sequence_classification': (1, ['returns an index', PASSAGE]),
}


@pytest.mark.parametrize('sharing', ['all', 'attention', 'ffn', 'none'])
def test_rounded_kernels_change_nothing(sharing):
    """Every product would round them; those of several layers travel as bits."""
    config = dataclasses.replace(CONFIG, sharing=sharing, compute_dtype='bfloat16')
    model = Pretrained(config, dict(init_params(config, jax.random.key(0))), None)
    small = rounded(model)
    kinds = {str(leaf.dtype) for leaf in jax.tree.leaves(small.params)}
    assert kinds == {'float32', 'bfloat16'} | ({'uint16'} if sharing != 'all' else set())
    ids = np.arange(24, dtype=np.int32).reshape(2, 12) + 5
    apply = jax.jit(PretrainingModel(config).apply)
    wanted, found = apply({'params': model.params}, ids), apply({'params': small.params}, ids)
    for mine, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize('kind', HEADS)
def test_the_answers_of_every_head(kind, checkpoints):
    num_outputs, given = HEADS[kind]
    base = native.read(checkpoints / 'base')
    kept = {name: base.params[name] for name in ('embeddings', 'encoder', 'pooler')}
    head = random_tree(heads.HEADS[kind].init(num_outputs, CONFIG, jax.random.key(2)), 3)
    labels = {'token_classification': ('A', 'B', 'C'), 'sequence_classification': ('score',)}
    its_head = Head(kind, labels.get(kind, ()))
    model = Pretrained(CONFIG, kept | {'head': head}, base.tokenizer, its_head)
    answerer = Answerer(model, num_devices=1, max_length=32)
    ability = Predict(answerer)
    encoded, example = ability.encode(given), ability.example(32)

    def shapes(row):
        return {n: (len(x), x.shape[1:] == (row.length,), x.dtype) for n, x in row.arrays.items()}

    # What comes is of the shapes that were compiled.
    assert all(shapes(row) == shapes(example) for row in encoded.rows)
    found = [jax.device_get(ability.start(collate([row], 1))) for row in encoded.rows]
    answers = encoded.answers([{name: x[0] for name, x in row.items()} for row in found])
    # Nor does it matter how long the others of its batch are.
    beside = jax.device_get(ability.start(collate([*encoded.rows, example], len(encoded.rows) + 1)))
    mixed = [{name: x[n] for name, x in beside.items()} for n in range(len(encoded.rows))]
    for mine, other in zip(answers, encoded.answers(mixed), strict=True):
        assert mine['prediction'] == pytest.approx(other['prediction'], abs=1e-5)
    examples = [answerer.example(value, 'x', str(n)) for n, value in enumerate(given)]
    for mine, theirs in zip(answers, answerer.evaluate(examples)[1], strict=True):
        if kind == 'sequence_classification':
            assert mine['prediction'] == pytest.approx(theirs['prediction'], abs=1e-5)
        else:
            assert mine['prediction'] == theirs['prediction']


# A real server.


@pytest.fixture(scope='module')
def checkpoints(vocabulary, tmp_path_factory):
    """A classifier and a pretrained model, with random weights."""
    folder = tmp_path_factory.mktemp('served')
    shapes = jax.eval_shape(
        lambda: PretrainingModel(CONFIG).init(jax.random.key(0), np.zeros((1, 2), np.int32))
    )['params']
    whole = random_tree(shapes)
    head = heads.HEADS['sequence_classification'].init(2, CONFIG, jax.random.key(1))
    kept = {name: whole[name] for name in ('embeddings', 'encoder', 'pooler')}
    tokenizer = Tokenizer(vocabulary)
    for name, params, its_head in (
        ('mood', kept | {'head': random_tree(head)}, CLASSES), ('base', whole, None),
    ):  # fmt: skip
        (folder / name).mkdir()
        native.write(Pretrained(CONFIG, params, tokenizer, its_head), folder / name)
    return folder


def eventually(is_true, seconds):
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.2)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


class Server:
    """The command in a process of its own."""

    def __init__(self, checkpoints, log, names, *flags):
        self.port, self.log = free_port(), log
        with log.open('w') as stream:
            self.process = subprocess.Popen(
                [
                    sys.executable, '-m', 'albert_jax.serve', f'--port={self.port}', '--verbose',
                    *(f'--checkpoint={checkpoints / name}' for name in names), *flags,
                ],
                cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def ask(self, path, content=None, body=None, headers=None, method=None):
        connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=60)
        if content is not None:
            body = json.dumps(content).encode()
        method = method or ('GET' if body is None else 'POST')
        headers = {'Content-Type': 'application/json'} if headers is None else headers
        connection.request(method, path, body, headers)
        reply = connection.getresponse()
        text = reply.read()
        connection.close()
        is_json = reply.headers['Content-Type'] == 'application/json'
        return reply.status, json.loads(text) if is_json else text.decode()

    def is_ready(self):
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.ask('/readyz')[0] == 200
        except OSError:
            return False

    def figure(self, name):
        lines = self.ask('/metrics')[1].splitlines()
        return sum(float(x.rpartition(' ')[2]) for x in lines if x.startswith(name))


@pytest.fixture(scope='module')
def server(checkpoints, tmp_path_factory):
    log = tmp_path_factory.mktemp('log') / 'serve.log'
    made = Server(checkpoints, log, ['mood', 'base'], '--max_length=32', '--timeout=5')
    eventually(made.is_ready, 240)
    yield made
    made.process.kill()
    made.process.wait()


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
    ways = {'mean': hidden.mean(0), 'cls': hidden[0]}
    for pooling, vector in ways.items():
        asked = {'input': TEXTS[2], 'model': 'base', 'pooling': pooling}
        found = server.ask('/v1/embed', asked)[1]['output']
        np.testing.assert_allclose(found, vector, atol=1e-5, rtol=0)
        found = server.ask('/v1/embed', asked | {'normalize': True})[1]['output']
        np.testing.assert_allclose(found, vector / np.linalg.norm(vector), atol=1e-5, rtol=0)


@pytest.mark.parametrize('kind', [FillMask, Embed])
def test_who_is_beside_changes_no_mask_and_no_vector(kind, checkpoints):
    ability = kind(native.read(checkpoints / 'base'), make_mesh(1))
    texts = ['[MASK] value', f'a [MASK] {TEXTS[3]}', f'{TEXTS[4]} [MASK]']
    rows = ability.encode(texts).rows
    assert len({row.length for row in rows}) == 3
    mixed = ability.start(collate(rows, 4))
    for number, row in enumerate(rows):
        alone = ability.start(collate([row], 1))
        for name, found in alone.items():
            np.testing.assert_allclose(mixed[name][number], found[0], atol=1e-5, rtol=0)


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
    assert content['moved']['output'] in CLASSES.labels
    status, content = server.ask('/v1/inspect', {'model': 'base', 'text': 'a [MASK] of'})
    assert status == 200 and 'moved' in content, content
    assert server.ask('/v1/inspect', {'model': 'mood', 'text': 'word ' * 31})[0] == 422
    assert server.figure('albert_compiled_programs') == compiled


MISTAKES = [
    ('/v1/predict', b'{', 400, 'not JSON'),
    ('/v1/predict', b'\xff\xfe', 400, 'not JSON'),
    ('/v1/predict', b'[' * 20_000, 400, 'not JSON'),
    ('/v1/predict', b'[]', 422, 'must be a JSON object'),
    ('/v1/predict', b'{}', 422, 'input is missing'),
    ('/v1/predict', {'input': 3}, 422, 'input is not as it must be'),
    ('/v1/predict', {'input': [None]}, 422, 'input is not as it must be'),
    ('/v1/predict', {'input': 'a', 'mode': 'b'}, 422, 'nobody knows; this takes input, model'),
    ('/v1/predict', {'input': 'a', 'model': 'x'}, 404, 'no such model; there are mood, base'),
    ('/v1/predict', {'input': 'a', 'model': 'base'}, 404, 'No model here can do predict'),
    ('/v1/predict', {'input': {'words': 'a'}}, 422, 'lacks text'),
    ('/v1/predict', b'{"input": {"x": ' + b'[' * 600 + b']' * 600 + b'}}', 422, 'not as it must'),
    ('/v1/predict/', {'input': 'a'}, 404, 'nothing at this path'),
    ('/v1/predict', {'input': ['a'] * 65}, 413, 'at most 64'),
    ('/v1/predict', {'input': 'a' * 20_001}, 413, 'at most 20000'),
    ('/v1/predict', {'input': 'a' * 1_100_000}, 413, 'larger than 1048576 bytes'),
    ('/v1/predict', b'{"input": "\\ud800"}', 422, 'surrogate'),
    ('/v1/fill-mask', {'input': 'no mask'}, 422, '0 [MASK]s'),
    ('/v1/fill-mask', {'input': '[MASK]' * 9}, 422, '9 [MASK]s'),
    ('/v1/fill-mask', {'input': '[MASK]', 'top': 0}, 422, 'top is not as it must be'),
    ('/v1/embed', {'input': 'a'}, 422, 'set model to one of mood, base'),
    ('/v1/embed', {'input': 'a', 'normalize': 'yes'}, 422, 'normalize is not as it must be'),
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
    status, page = server.ask('/')
    assert status == 200 and 'http' not in page and '__NONCE__' not in page
    status, document = server.ask('/openapi.json')
    assert set(document['paths']) == {
        '/v1/predict', '/v1/fill-mask', '/v1/embed', '/v1/inspect', '/v1/models', '/healthz',
        '/readyz', '/metrics',
    }  # fmt: skip
    for name in ('PredictRequest', 'FillMaskRequest', 'EmbedRequest'):
        assert document['components']['schemas'][name]['properties']['input']['examples']
    described = server.ask('/v1/models')[1]['models']
    assert [x['name'] for x in described] == ['mood', 'base']
    assert described[0]['abilities'] == ['embed', 'predict'] and described[0]['layers'] == 2


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
        eventually(server.is_ready, 240)
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

        eventually(is_closed, 30)
        for connection in taken:
            connection.sendall(body[20:])
        for connection in taken:
            reply = http.client.HTTPResponse(connection)
            reply.begin()
            assert reply.status == 200 and len(json.loads(reply.read())['output']) == len(TEXTS)
            connection.close()
        server.process.wait(timeout=30)
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
        'compiled 2 of 8 shapes, ETA 33 s', 'compiled 4 of 8 shapes, ETA 22 s',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--checkpoint=nowhere'], 'nowhere'),
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
