"""The routes: what each takes and gives."""

import secrets
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Security
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.security import HTTPBearer
from prometheus_client import generate_latest

from albert_jax.interpretability.page import fill, shared_parts
from albert_jax.service.schema import (
    Answer,
    EmbedRequest,
    FillMaskRequest,
    GenerateRequest,
    InspectRequest,
    PredictRequest,
)
from albert_jax.service.service import Answers, Service

PATHS = frozenset(
    {
        '/', '/docs', '/healthz', '/readyz', '/metrics', '/openapi.json', '/v1/models',
        '/v1/predict', '/v1/fill-mask', '/v1/embed', '/v1/generate', '/v1/inspect',
    }
)  # fmt: skip


class Routes:
    """The handlers of all paths.

    Args:
      service: what answers.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        folder = Path(__file__).parent
        page = (folder / 'page.html').read_text(encoding='utf-8')
        self._page = fill(page, shared_parts())
        self._docs = (folder / 'docs.html').read_text(encoding='utf-8')

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
        app.get('/docs', include_in_schema=False)(self.docs)

    async def predict(self, request: PredictRequest) -> JSONResponse:
        """Labels with probabilities, spans, tags or scores, as the checkpoint's task has them."""
        return _answer(
            request.input, await self._service.ask(request.model, 'predict', request.input)
        )

    async def fill_mask(self, request: FillMaskRequest) -> JSONResponse:
        """For each mask a list of pieces with their probabilities, best first."""
        answers = await self._service.ask(request.model, 'fill-mask', request.input)
        top = [[mask[: request.top] for mask in masks] for masks in answers.outputs]
        return _answer(request.input, answers._replace(outputs=top))

    async def embed(self, request: EmbedRequest) -> JSONResponse:
        """The mean of the last layer over a text's pieces, or that of [CLS]."""
        answers = await self._service.ask(request.model, 'embed', request.input)
        vectors = [row[request.pooling] for row in answers.outputs]
        if request.normalize:
            vectors = [vector / max(float(np.linalg.norm(vector)), 1e-12) for vector in vectors]
        outputs = [vector.tolist() for vector in vectors]
        return _answer(request.input, answers._replace(outputs=outputs))

    async def generate(self, request: GenerateRequest) -> JSONResponse:
        """The text, its score, whether it has its end or was cut, and whether the source was cut.

        With `best`, all texts, where the checkpoint's own settings ask for several.
        """
        given = request.input if isinstance(request.input, list) else [request.input]
        sources = [{'text': text, 'max_new_tokens': request.max_new_tokens} for text in given]
        answers = await self._service.ask(request.model, 'generate', sources)
        return _answer(request.input, answers)

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
        """The page to try a model."""
        return self._html(self._page)

    async def docs(self) -> HTMLResponse:
        """The document of the API as a page, with which to try it."""
        return self._html(self._docs)

    @staticmethod
    def _html(page: str) -> HTMLResponse:
        """A page that runs its own script and fetches from this service, and nothing else."""
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
            f"connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'"
        )
        headers = {'Content-Security-Policy': policy, 'X-Content-Type-Options': 'nosniff'}
        return HTMLResponse(fill(page, {'NONCE': nonce}), headers=headers)


def _answer(given: Any, answers: Answers) -> JSONResponse:
    """A list for a list, one for one; as it is, for it need not be checked again."""
    output = answers.outputs if isinstance(given, list) else answers.outputs[0]
    content = {'model': answers.model, 'output': output}
    if answers.notes:
        content['notes'] = [
            f'input {number} {what}.' if isinstance(given, list) else f'The input {what}.'
            for number, what in answers.notes.items()
        ]
    return JSONResponse(content)
