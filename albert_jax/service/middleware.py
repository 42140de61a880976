"""What stands before every route: key, limits of size and time, metrics, a line of log.

No text of a request or an answer is ever logged.
"""

import asyncio
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from albert_jax.service.metrics import Metrics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOGGER = logging.getLogger('albert_jax.service')


class _ClientGone(Exception):
    """The client has closed the connection."""


class Middleware:
    """ASGI middleware.

    Args:
      app: what is behind it.
      metrics: counted here.
      api_key: that requests to /v1 have to bear; empty for none.
      max_body: bytes.
      timeout: seconds for the body to arrive, and again for the answer.
      paths: that are counted by name; all others are one.
    """

    def __init__(
        self,
        app: App,
        metrics: Metrics,
        api_key: str,
        max_body: int,
        timeout: float,
        paths: frozenset[str],
    ) -> None:
        self._app, self._metrics, self._key = app, metrics, api_key.encode()
        self._max_body, self._timeout, self._paths = max_body, timeout, paths
        self._max_read = 8 * max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope['type'] != 'http':
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 0

        async def counted(message: Message) -> None:
            nonlocal status
            if message['type'] == 'http.response.start':
                status = message['status']
            await send(message)

        path = scope['path'] if scope['path'] in self._paths else 'other'
        try:
            await self._answer(scope, receive, counted)
        except _ClientGone:
            # By nginx's custom: the client closed the request.
            status = 499
        except Exception as error:
            # The message of an exception may hold a text; its kind and place do not.
            trace = error.__traceback__
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            place = trace and f'{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}'
            LOGGER.error('%s in %s', type(error).__name__, place)
            if not status:
                await refuse(counted, 500, 'Something went wrong here; the log says where.')
        seconds = time.monotonic() - started
        self._metrics.requests.labels(path, str(status)).inc()
        self._metrics.seconds.labels(path).observe(seconds)
        LOGGER.info('%s %s %d %.1f ms', scope['method'], path, status, 1000 * seconds)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope['headers'])
        is_known = True
        if self._key and scope['path'].startswith('/v1/'):
            given = headers.get(b'authorization', b'')
            # In constant time, so that the key cannot be guessed letter by letter.
            is_known = hmac.compare_digest(given, b'Bearer ' + self._key)
        length = headers.get(b'content-length', b'0')
        body: bytes | None = None
        if not length.isdigit() or int(length) <= self._max_read:
            try:
                async with asyncio.timeout(self._timeout):
                    body = await self._body(receive, self._max_body if is_known else 0)
            except TimeoutError:
                await refuse(
                    send, 408, f'The request was not complete after {self._timeout:g} s.',
                    (b'connection', b'close'),
                )  # fmt: skip
                return
        if not is_known:
            await refuse(
                send, 401, 'Give the API key as Authorization: Bearer KEY.',
                (b'www-authenticate', b'Bearer'), (b'connection', b'close'),
            )  # fmt: skip
            return
        if body is None:
            await refuse(
                send, 413, f'The body is larger than {self._max_body} bytes.',
                (b'connection', b'close'),
            )  # fmt: skip
            return
        await self._run_app(scope, receive, send, body)

    async def _body(self, receive: Receive, max_bytes: int) -> bytes | None:
        """The body; None if it has more bytes than are to be kept.

        What is a little too large is read to its end: a client that is still writing when the
        connection is closed would not see why.
        """
        parts: list[bytes] = []
        size, is_more = 0, True
        while is_more:
            message = await receive()
            if message['type'] == 'http.disconnect':
                raise _ClientGone
            part = message.get('body', b'')
            size += len(part)
            if size <= max_bytes:
                parts.append(part)
            elif size > self._max_read:
                return None
            is_more = message.get('more_body', False)
        return b''.join(parts) if size <= max_bytes else None

    async def _run_app(self, scope: Scope, receive: Receive, send: Send, body: bytes) -> None:
        """Runs the app on the body; a client that goes away takes its request with it."""
        is_read = False

        async def replay() -> Message:
            nonlocal is_read
            if is_read:
                return await receive()
            is_read = True
            return {'type': 'http.request', 'body': body, 'more_body': False}

        answer = asyncio.ensure_future(self._app(scope, replay, send))
        gone = asyncio.ensure_future(_disconnect(receive))
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise _ClientGone
            await answer
        finally:
            answer.cancel()
            gone.cancel()


async def _disconnect(receive: Receive) -> None:
    while (await receive())['type'] != 'http.disconnect':
        pass


async def refuse(send: Send, status: int, sentence: str, *headers: tuple[bytes, bytes]) -> None:
    """Sends a status and one sentence as JSON."""
    content = json.dumps({'error': sentence}).encode()
    fixed = [
        (b'content-type', b'application/json'),
        (b'content-length', str(len(content)).encode()),
    ]
    await send({'type': 'http.response.start', 'status': status, 'headers': [*fixed, *headers]})
    await send({'type': 'http.response.body', 'body': content})
