"""The HTTP server: uvicorn, with a limit on how long a request's head may take to arrive."""

import asyncio
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

# Seconds that a connection may be open without a whole head of a request.
_PATIENCE = 30.0


class _Impatient(H11Protocol):
    """Closes connections that say nothing, or say it too slowly."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        cycle = self.cycle
        super().handle_events()
        if self.cycle is not cycle:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            self._wait_for_head()

    def _wait_for_head(self) -> None:
        self._stop_waiting()
        self._deadline = self.loop.call_later(_PATIENCE, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


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
        timeout_keep_alive=int(_PATIENCE),
        timeout_graceful_shutdown=int(seconds) + 1,
    )
    uvicorn.Server(config).run()
