"""The routes, and what they take and give."""

import asyncio
import dataclasses
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.security import HTTPBearer
from prometheus_client import generate_latest
from starlette.exceptions import HTTPException

from albert_jax.cli.errors import UserError
from albert_jax.service.abilities import Ability, Encoded
from albert_jax.service.batching import Busy
from albert_jax.service.metrics import Metrics
from albert_jax.service.middleware import Middleware
from albert_jax.service.models import Served
from albert_jax.service.schema import (
    REFUSALS,
    Answer,
    EmbedRequest,
    FillMaskRequest,
    InspectRequest,
    PredictRequest,
    error_response,
)  # fmt: skip

PATHS = frozenset(
    {
        '/', '/healthz', '/readyz', '/metrics', '/openapi.json', '/v1/models', '/v1/predict',
        '/v1/fill-mask', '/v1/embed', '/v1/inspect',
    }
)  # fmt: skip


# Requests whose texts are being cut into pieces.
_MOST_ENCODING = 256
# Texts that are cut at once: the way to another thread and back would take longer.
_FEW_TEXTS, _FEW_CHARACTERS = 8, 1000


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a request may ask for.

    Args:
      body: bytes.
      texts: in one request.
      characters: of one text.
      waiting: rows of all requests, for each model and ability.
      seconds: until an answer, and for the body to arrive.
    """

    body: int = 1 << 20
    texts: int = 64
    characters: int = 20_000
    waiting: int = 1024
    seconds: float = 30.0


class Service:
    """The models behind the routes.

    Args:
      limits: of requests.
      metrics: what is counted.
    """

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self.limits, self.metrics = limits, metrics
        self.models: Mapping[str, Served] = {}
        self.is_ready = False
        # Attributions take many passes; they wait for each other and hold up nobody else.
        self._inspecting = asyncio.Lock()
        self._inspector: Executor = ThreadPoolExecutor(1, 'inspect')
        self._encoders: Executor = ThreadPoolExecutor(2, 'encode')
        self._num_encoding = 0

    def compile(self, models: Mapping[str, Served], tell: Callable[[str, int], None]) -> None:
        """Takes the models and compiles everything, then is ready.

        Args:
          models: by name.
          tell: told of every shape that has been compiled: its name, and how many there are in all.
        """
        self.models = models
        shapes = [shape for served in models.values() for shape in served.shapes()]
        for what, compile_it in shapes:
            compile_it()
            tell(what, len(shapes))
        self.is_ready = True
        self.metrics.is_ready.set(1)

    @property
    def num_compiled(self) -> int:
        """How many programs have been compiled."""
        return sum(served.num_compiled for served in self.models.values())

    @property
    def num_waiting(self) -> int:
        """Rows that no batch has taken yet, of all models."""
        batchers = [b for served in self.models.values() for b in served.batchers.values()]
        return sum(batcher.num_waiting for batcher in batchers)

    def chosen(self, name: str | None, ability: str) -> Served:
        """The model of a request.

        Raises:
          HTTPException: if the service is not ready, or no model or several would do.
        """
        if not self.is_ready:
            raise HTTPException(503, 'The models are still being compiled.', {'Retry-After': '5'})
        if name is not None and name not in self.models:
            raise HTTPException(404, f'There is no such model; there are {_listed(self.models)}.')
        able = [
            key
            for key, served in self.models.items()
            if ability in served.abilities and name in (None, key)
        ]
        if not able:
            raise HTTPException(404, f'No model here can do {ability}; see /v1/models.')
        if len(able) > 1:
            raise HTTPException(422, f'Several models can; set model to one of {_listed(able)}.')
        return self.models[able[0]]

    async def ask(self, name: str | None, ability: str, given: Any) -> tuple[str, list[Any]]:
        """The answers of a model for one text or several.

        Raises:
          HTTPException: with the status that a mistake has.
        """
        served = self.chosen(name, ability)
        texts = given if isinstance(given, list) else [given]
        self._check(texts)
        if not texts:
            return served.name, []
        return served.name, await self._in_time(self._ask(served, ability, texts))

    async def _ask(self, served: Served, ability: str, texts: Sequence[Any]) -> list[Any]:
        is_short = (
            len(texts) <= _FEW_TEXTS
            and sum(len(part) for text in texts for part in _texts_in(text)) <= _FEW_CHARACTERS
        )
        encoded = await self._encoded(served.abilities[ability], texts, is_short)
        if len(encoded.rows) > self.limits.waiting:
            raise HTTPException(
                413,
                f'The inputs make {len(encoded.rows)} rows; at most {self.limits.waiting} are '
                f'taken at once.',
            )
        outputs = await served.batchers[ability](encoded.rows)
        if is_short and len(encoded.rows) <= _FEW_TEXTS:
            return encoded.answers(outputs)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._encoders, encoded.answers, outputs)

    async def _encoded(self, ability: Ability, texts: Sequence[Any], is_short: bool) -> Encoded:
        """The rows of texts.

        Raises:
          Busy: if too many others are being encoded.
          HTTPException: if they are not what the ability wants.
        """
        try:
            if is_short:
                return ability.encode(texts)
            if self._num_encoding >= _MOST_ENCODING:
                raise Busy
            loop = asyncio.get_running_loop()
            self._num_encoding += 1
            try:
                return await loop.run_in_executor(self._encoders, ability.encode, texts)
            finally:
                self._num_encoding -= 1
        except UserError as error:
            raise HTTPException(422, str(error)) from error

    async def inspect(self, request: InspectRequest) -> dict[str, Any]:
        """What a model does inside with a text.

        Raises:
          HTTPException: with the status that a mistake has.
        """
        served = self.chosen(request.model, 'embed')
        self._check_texts([request.text, request.text_pair or ''])
        return {'model': served.name} | await self._in_time(self._inspect(served, request))

    async def _inspect(self, served: Served, request: InspectRequest) -> dict[str, Any]:
        async with self._inspecting:
            loop = asyncio.get_running_loop()
            try:
                return await loop.run_in_executor(
                    self._inspector, served.inspect, request.text, request.text_pair or None
                )
            except UserError as error:
                raise HTTPException(422, str(error)) from error

    async def _in_time(self, answer: Any) -> Any:
        try:
            async with asyncio.timeout(self.limits.seconds):
                return await answer
        except Busy as error:
            raise HTTPException(
                503, 'Too many texts are waiting; try again.', {'Retry-After': '1'}
            ) from error
        except TimeoutError as error:
            seconds = self.limits.seconds
            raise HTTPException(504, f'There was no answer in {seconds:g} s.') from error

    def _check(self, texts: Sequence[Any]) -> None:
        if len(texts) > self.limits.texts:
            raise HTTPException(
                413, f'There are {len(texts)} inputs; at most {self.limits.texts} are taken.'
            )
        self._check_texts(texts)

    def _check_texts(self, texts: Sequence[Any]) -> None:
        for number, value in enumerate(texts):
            for part in _texts_in(value):
                if len(part) > self.limits.characters:
                    raise HTTPException(
                        413,
                        f'input {number} has {len(part)} characters; at most '
                        f'{self.limits.characters} are taken.',
                    )
                try:
                    part.encode()
                except UnicodeEncodeError as error:
                    raise HTTPException(
                        422, f'input {number} has half a surrogate pair.'
                    ) from error


def _listed(names: Any) -> str:
    return ', '.join(names)


def _texts_in(value: Any) -> list[str]:
    """All strings of an example."""
    if isinstance(value, str):
        return [value]
    parts = [x for part in value.values() for x in (part if isinstance(part, list) else [part])]
    return [part for part in parts if isinstance(part, str)]


def make_app(
    service: Service, start: Callable[[], None], stop: Callable[[], None], api_key: str = ''
) -> Any:
    """The ASGI application.

    Args:
      service: what answers.
      start: called when the server is about to listen; must not block.
      stop: called when the last request has been answered.
      api_key: of /v1; empty for none.
    """
    limits, metrics = service.limits, service.metrics

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        start()
        yield
        stop()

    # For the document alone: the gate is where the key is compared.
    secured = [Security(HTTPBearer(auto_error=False))] if api_key else []
    app = FastAPI(
        title='albert_jax',
        description='Answers of trained ALBERT and BERT models.',
        version='1',
        lifespan=lifespan,
        # They would load scripts from the network.
        docs_url=None,
        redoc_url=None,
        # They would point to whatever host a client names.
        redirect_slashes=False,
        responses=REFUSALS,
    )

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        sentences = {404: 'There is nothing at this path.', 405: 'This path has another method.',
                     400: 'The body is not JSON in UTF-8.'}  # fmt: skip
        plain = ('Not Found', 'Method Not Allowed', 'There was an error parsing the body')
        sentence = sentences[error.status_code] if error.detail in plain else error.detail
        return JSONResponse({'error': sentence}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> JSONResponse:
        del error  # the gate logs its kind and place
        return JSONResponse({'error': 'Something went wrong here; the log says where.'}, 500)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        status, sentence = error_response(error)
        return JSONResponse({'error': sentence}, status)

    @app.post(
        '/v1/predict', dependencies=secured, summary="The head's own answer", response_model=Answer
    )
    async def predict(request: PredictRequest) -> JSONResponse:
        """Labels with probabilities, spans, tags or scores, as the checkpoint's task has them."""
        name, found = await service.ask(request.model, 'predict', request.input)
        return _answer(name, request.input, found)

    @app.post(
        '/v1/fill-mask',
        dependencies=secured,
        summary='The likeliest pieces for every [MASK]',
        response_model=Answer,
    )
    async def fill_mask(request: FillMaskRequest) -> JSONResponse:
        """For each mask a list of pieces with their probabilities, best first."""
        name, found = await service.ask(request.model, 'fill-mask', request.input)
        cut = [[mask[: request.top] for mask in masks] for masks in found]
        return _answer(name, request.input, cut)

    @app.post(
        '/v1/embed', dependencies=secured, summary='A vector for each text', response_model=Answer
    )
    async def embed(request: EmbedRequest) -> JSONResponse:
        """The mean of the last layer over a text's pieces, or that of [CLS]."""
        name, found = await service.ask(request.model, 'embed', request.input)
        vectors = [row[request.pooling] for row in found]
        if request.normalize:
            vectors = [vector / max(float(np.linalg.norm(vector)), 1e-12) for vector in vectors]
        return _answer(name, request.input, [vector.tolist() for vector in vectors])

    @app.post('/v1/inspect', dependencies=secured, summary='What a model does inside with a text')
    async def inspect(request: InspectRequest) -> dict[str, Any]:
        """Attention and rollout as bytes (255 is all of it), and which words moved the answer."""
        return await service.inspect(request)

    @app.get('/v1/models', dependencies=secured, summary='What there is to ask')
    async def models() -> dict[str, Any]:
        """Every checkpoint with its abilities."""
        return {'models': [served.describe() for served in service.models.values()]}

    @app.get('/healthz', summary='Whether the process lives')
    async def healthz() -> dict[str, str]:
        """Always ok."""
        return {'status': 'ok'}

    @app.get('/readyz', summary='Whether everything is compiled')
    async def readyz() -> JSONResponse:
        """503 until it is."""
        if service.is_ready:
            return JSONResponse({'status': 'ready'})
        return JSONResponse({'error': 'The models are still being compiled.'}, 503)

    @app.get('/metrics', summary='Metrics for Prometheus', response_class=Response)
    async def prometheus() -> Response:
        """In Prometheus's text format."""
        metrics.compiled.set(service.num_compiled)
        metrics.waiting.set(service.num_waiting)
        return Response(generate_latest(metrics.registry), media_type='text/plain; version=0.0.4')

    page = (Path(__file__).parent / 'page.html').read_text(encoding='utf-8')

    @app.get('/', include_in_schema=False)
    async def root() -> HTMLResponse:
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
            f"connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'"
        )
        headers = {'Content-Security-Policy': policy, 'X-Content-Type-Options': 'nosniff'}
        return HTMLResponse(page.replace('__NONCE__', nonce), headers=headers)

    return Middleware(app, metrics, api_key, limits.body, limits.seconds, PATHS)


def _answer(model: str, given: Any, found: list[Any]) -> JSONResponse:
    """A list for a list, one for one; as it is, for it need not be checked again."""
    output = found if isinstance(given, list) else found[0]
    return JSONResponse({'model': model, 'output': output})
