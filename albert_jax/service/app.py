"""The ASGI application: routes, the errors of requests, and the middleware before them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from albert_jax.service.body import BodyRoute
from albert_jax.service.middleware import Middleware
from albert_jax.service.routes import PATHS, Routes
from albert_jax.service.schema import REFUSALS, error_response
from albert_jax.service.service import Service

# What Starlette and FastAPI say of these, and what is said in its place.
_PLAIN = ('Not Found', 'Method Not Allowed', 'There was an error parsing the body')
_SENTENCES = {
    400: 'The body is not JSON in UTF-8.',
    404: 'There is nothing at this path.',
    405: 'This path has another method.',
}


def make_app(
    service: Service, start: Callable[[], None], stop: Callable[[], None], api_key: str = ''
) -> Middleware:
    """The ASGI application.

    Args:
      service: what answers.
      start: called when the server is about to listen; must not block.
      stop: called when the last request has been answered.
      api_key: of /v1; empty for none.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        start()
        yield
        stop()

    app = FastAPI(
        title='albert_jax',
        description='Answers of trained ALBERT and BERT models.',
        version='1',
        lifespan=lifespan,
        # They would load scripts from the network; Routes has a page of its own at /docs.
        docs_url=None,
        redoc_url=None,
        # They would point to whatever host a client names.
        redirect_slashes=False,
        responses=REFUSALS,
        exception_handlers={
            HTTPException: _refuse,
            RequestValidationError: _refuse_invalid,
            Exception: _tell_of_fault,
        },
    )
    app.router.route_class = BodyRoute
    Routes(service).add_to(app, has_key=bool(api_key))
    limits = service.limits
    return Middleware(app, service.metrics, api_key, limits.body, limits.seconds, PATHS)


async def _refuse(_: Request, error: HTTPException) -> JSONResponse:
    sentence = _SENTENCES[error.status_code] if error.detail in _PLAIN else error.detail
    return JSONResponse({'error': sentence}, error.status_code, error.headers)


async def _refuse_invalid(_: Request, error: RequestValidationError) -> JSONResponse:
    status, sentence = error_response(error)
    return JSONResponse({'error': sentence}, status)


async def _tell_of_fault(_: Request, error: Exception) -> JSONResponse:
    del error  # the middleware logs its kind and place
    return JSONResponse({'error': 'Something went wrong here; the log says where.'}, 500)
