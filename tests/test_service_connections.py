"""Connections of clients that write too slowly or never read."""

import asyncio
import contextlib
import json

import pytest
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl

from albert_jax.service import server as http_server


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
