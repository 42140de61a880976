"""The HTTP server: uvicorn, with a limit on how long a request's head may take to arrive."""

import asyncio
import math
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Seconds until a new connection, or one that has begun to ask, must have sent a whole head.
_PATIENCE = 30.0
# Between two requests; longer than the 600 s for which Google's load balancers keep a connection.
_KEEP_ALIVE = 620


# Bytes of a head; the parser itself would take any number.
_MOST_HEAD = 1 << 16


class _Impatient(HttpToolsProtocol):
    """Closes connections that say nothing, say it too slowly, or come to no end of their head."""

    _deadline: asyncio.TimerHandle | None = None
    _head_size = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        is_head = self.cycle is None or self.cycle.response_complete
        if not is_head or self.transport.is_closing():
            return
        if self._deadline is None:
            self._wait_for_head()
        self._head_size += len(data)
        if self._head_size > _MOST_HEAD:
            self.send_400_response('The head of the request is too large.')

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    def _wait_for_head(self) -> None:
        self._deadline = self.loop.call_later(_PATIENCE, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._head_size = 0


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
