"""The body of a request: JSON in which nothing is said twice and differently."""

import gc
import json
import typing
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute

from albert_jax.service.schema import clipped


class BodyRoute(APIRoute):
    """A route whose bodies are read as here."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of the route, given a request that reads its body so."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(_Request(request.scope, request.receive))

        return handle


class _Request(Request):
    async def json(self) -> Any:
        """The content of the body.

        Raises:
          HTTPException: if an object in it has a key twice, with different values.
        """
        body = await self.body()
        text = body.decode(json.detect_encoding(body), 'surrogatepass')
        # The pairs of a large object would be gone through by the collector as they become more:
        # 80,000 took 0.3 s and more, and 0.06 s without it.
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            return _DECODER.decode(text)
        finally:
            if was_enabled:
                gc.enable()


# Called for each object: the tests' checker of types would make a large body take a second.
@typing.no_type_check
def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        for key, value in pairs:
            # `dict` has the last.
            if content[key] != value:
                raise HTTPException(
                    422,
                    f'The body has the key {clipped(key)} twice in an object, with different '
                    f'values; keep one of the two.',
                )
    return content


# Made once: a small body is read in less time than a decoder is made.
_DECODER = json.JSONDecoder(object_pairs_hook=_object)
