"""The routes: what each takes and gives."""

import secrets
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Security
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.security import HTTPBearer
from prometheus_client import generate_latest

from albert_jax.service.schema import (
    Answer,
    EmbedRequest,
    FillMaskRequest,
    GenerateRequest,
    InspectRequest,
    PredictRequest,
)
from albert_jax.service.service import Service

PATHS = frozenset(
    {
        '/', '/healthz', '/readyz', '/metrics', '/openapi.json', '/v1/models', '/v1/predict',
        '/v1/fill-mask', '/v1/embed', '/v1/generate', '/v1/inspect',
    }
)  # fmt: skip


class Routes:
    """The handlers of all paths.

    Args:
      service: what answers.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._page = (Path(__file__).parent / 'page.html').read_text(encoding='utf-8')

    def add_to(self, app: FastAPI, *, has_key: bool) -> None:
        """Adds all paths to an application.

        Args:
          app: the application.
          has_key: whether requests to /v1 must bear a key.
        """
        # For the document alone: the middleware is where the key is compared.
        secured = [Security(HTTPBearer(auto_error=False))] if has_key else []
        for path, handler, summary in (
            ('/v1/predict', self.predict, "The head's own answer"),
            ('/v1/fill-mask', self.fill_mask, 'The likeliest pieces for every [MASK]'),
            ('/v1/embed', self.embed, 'A vector for each text'),
            ('/v1/generate', self.generate, 'A text for each source'),
        ):
            app.post(path, dependencies=secured, summary=summary, response_model=Answer)(handler)
        app.post('/v1/inspect', dependencies=secured, summary='Attention, and what each word adds')(
            self.inspect
        )
        app.get('/v1/models', dependencies=secured, summary='What there is to ask')(self.models)
        app.get('/healthz', summary='Whether the process lives')(self.healthz)
        app.get('/readyz', summary='Whether it answers, and is compiled')(self.readyz)
        app.get('/metrics', summary='Metrics for Prometheus', response_class=Response)(
            self.prometheus
        )
        app.get('/', include_in_schema=False)(self.root)

    async def predict(self, request: PredictRequest) -> JSONResponse:
        """Labels with probabilities, spans, tags or scores, as the checkpoint's task has them."""
        name, answers = await self._service.ask(request.model, 'predict', request.input)
        return _answer(name, request.input, answers)

    async def fill_mask(self, request: FillMaskRequest) -> JSONResponse:
        """For each mask a list of pieces with their probabilities, best first."""
        name, answers = await self._service.ask(request.model, 'fill-mask', request.input)
        top = [[mask[: request.top] for mask in masks] for masks in answers]
        return _answer(name, request.input, top)

    async def embed(self, request: EmbedRequest) -> JSONResponse:
        """The mean of the last layer over a text's pieces, or that of [CLS]."""
        name, answers = await self._service.ask(request.model, 'embed', request.input)
        vectors = [row[request.pooling] for row in answers]
        if request.normalize:
            vectors = [vector / max(float(np.linalg.norm(vector)), 1e-12) for vector in vectors]
        return _answer(name, request.input, [vector.tolist() for vector in vectors])

    async def generate(self, request: GenerateRequest) -> JSONResponse:
        """The text, its score, whether it has its end or was cut, and whether the source was cut.

        With `best`, all texts, where the checkpoint's own settings ask for several.
        """
        given = request.input if isinstance(request.input, list) else [request.input]
        sources = [{'text': text, 'max_new_tokens': request.max_new_tokens} for text in given]
        name, answers = await self._service.ask(request.model, 'generate', sources)
        return _answer(name, request.input, answers)

    async def inspect(self, request: InspectRequest) -> dict[str, Any]:
        """Attention and rollout as bytes (255 is all of it), and what each word contributes.

        Of a model from text to text the cross-attention between `text` and `text_pair`.
        """
        return await self._service.inspect(request)

    async def models(self) -> dict[str, Any]:
        """Every checkpoint with its abilities."""
        return {'models': [served.describe() for served in self._service.models.values()]}

    async def healthz(self) -> dict[str, str]:
        """Always ok."""
        return {'status': 'ok'}

    async def readyz(self) -> JSONResponse:
        """503 until every model answers; then how many of its programs are compiled.

        The status is compiling while texts may be padded to longer shapes than they need, then
        ready.
        """
        service = self._service
        if not service.is_ready:
            return JSONResponse({'error': 'The models are still being compiled.'}, 503)
        compiled, programs = service.num_compiled, service.num_programs
        status = 'ready' if compiled >= programs else 'compiling'
        return JSONResponse({'status': status, 'compiled': compiled, 'programs': programs})

    async def prometheus(self) -> Response:
        """In Prometheus's text format."""
        metrics = self._service.metrics
        metrics.compiled.set(self._service.num_compiled)
        metrics.programs.set(self._service.num_programs)
        metrics.waiting.set(self._service.num_waiting)
        return Response(generate_latest(metrics.registry), media_type='text/plain; version=0.0.4')

    async def root(self) -> HTMLResponse:
        """The page."""
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
            f"connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'"
        )
        headers = {'Content-Security-Policy': policy, 'X-Content-Type-Options': 'nosniff'}
        return HTMLResponse(self._page.replace('__NONCE__', nonce), headers=headers)


def _answer(model: str, given: Any, answers: list[Any]) -> JSONResponse:
    """A list for a list, one for one; as it is, for it need not be checked again."""
    output = answers if isinstance(given, list) else answers[0]
    return JSONResponse({'model': model, 'output': output})
