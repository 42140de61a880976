"""The HTTP server: uvicorn, with a limit on how long a request's head may take to arrive."""

import asyncio
import json
import math
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

# Seconds until a new connection, or one that has begun to ask, must have sent a whole head.
_PATIENCE = 30.0
# Between two requests; longer than the 600 s for which Google's load balancers keep a connection.
_KEEP_ALIVE = 620


class _Impatient(H11Protocol):
    """Closes connections that say nothing, say it too slowly, or take no answer."""

    _deadline: asyncio.TimerHandle | None = None
    _taking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._stop_watching()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait_for_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # Half a head may have come with the request before.
        if self.conn.trailing_data[0]:
            self._wait_for_head()

    def handle_events(self) -> None:
        cycle = self.cycle
        super().handle_events()
        if self.cycle is not cycle:
            self._stop_waiting()

    def _wait_for_head(self) -> None:
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if not is_answering and self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(_PATIENCE, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self._stop_watching()
        super().resume_writing()

    def _watch(self, num_bytes: int) -> None:
        """Gives up if a client has not taken any of so many bytes after some time."""
        self._stop_watching()
        self._taking = self.loop.call_later(_PATIENCE, self._check_taken, num_bytes)

    def _check_taken(self, num_bytes: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left < num_bytes:
            self._watch(left)
        else:
            self.transport.abort()

    def _stop_watching(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None

    def timeout_keep_alive_handler(self) -> None:
        # What is left of the last answer would be waited for, for ever.
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        del msg
        content = json.dumps({'error': 'This is not HTTP, or its head is too large.'}).encode()
        headers = [
            (b'content-type', b'application/json'),
            (b'content-length', str(len(content)).encode()),
            (b'connection', b'close'),
        ]
        events = (
            h11.Response(status_code=400, headers=headers, reason=b'Bad Request'),
            h11.Data(data=content),
            h11.EndOfMessage(),
        )
        for event in events:
            self.transport.write(self.conn.send(event) or b'')
        self.transport.close()


def run(app: Any, host: str, port: int, seconds: float) -> None:
    """Serves until SIGTERM or Ctrl-C, then finishes what it has taken.

    Args:
      app: ASGI application.
      host: address to listen on.
      port: to listen on.
      seconds: for what is under way at the end.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=_Impatient,
        ws='none',
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
        # A body and then an answer may take so long each.
        timeout_graceful_shutdown=2 * math.ceil(seconds) + 1,
    )
    uvicorn.Server(config).run()
