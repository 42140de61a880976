"""A service of a model of every kind of head, in this process, with few shapes to compile."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from albert_jax.data.predicate import NO_ROLE
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.interop.native import Pretrained
from albert_jax.model.heads import Head
from albert_jax.service import models
from albert_jax.service.app import make_app
from albert_jax.service.batching import Device
from albert_jax.service.metrics import Metrics
from albert_jax.service.middleware import Middleware
from albert_jax.service.service import Limits, Service
from albert_jax.tasks.registry import TASKS
from tests import tiny
from tests.running_service import free_port

CONFIG = tiny.config(num_hidden_layers=1, **tiny.MODERN)
# By name: kind and labels, and fields of the task.
HEADS: dict[str, tuple[Head, dict[str, Any]]] = {
    'single': (tiny.CLASSES, {'name': 'classification'}),
    'pairs': (tiny.CLASSES, {'name': 'classification', 'text_pair': 'other'}),
    'several': (Head('multi_label_classification', ('A', 'B', 'C')), {'name': 'multilabel'}),
    'regression': (Head('sequence_classification', ('score',)), {'name': 'regression'}),
    'choice': (Head('multiple_choice', ()), {'name': 'race'}),
    'tagging': (Head('token_classification', ('A', 'B', 'C')), {'name': 'tags'}),
    'roles': (Head('token_classification', (NO_ROLE, 'A0', 'A1')), {'name': 'roles'}),
    'questions': (Head('question_answering', ()), {'name': 'squad1'}),
    'unanswerable': (Head('conditional_question_answering', ()), {'name': 'squad2'}),
}
PRETRAINED = 'base'
WRITER = 'writer'
LENGTH = 32


def write_models(folder: Path, vocabulary: bytes, names: Sequence[str] = tuple(HEADS)) -> None:
    """A checkpoint for each head, a pretrained one and one with a decoder, of random weights.

    Args:
      folder: that they are written to.
      vocabulary: of all.
      names: of the heads.
    """
    tokenizer = Tokenizer(vocabulary)
    params = tiny.random_params(CONFIG)
    tiny.write(Pretrained(CONFIG, params, tokenizer), folder / PRETRAINED)
    task = {'name': 'generation', 'max_length': LENGTH, 'max_target_length': 16}
    tiny.write(tiny.text_to_text(vocabulary, task=task), folder / WRITER)
    encoder = {name: params[name] for name in ('embeddings', 'encoder', 'pooler')}
    for name, (head, task) in ((name, HEADS[name]) for name in names):
        assert task['name'] in TASKS
        weights = tiny.random_tree(head.init(CONFIG, jax.random.key(1)))
        model = Pretrained(
            CONFIG, encoder | {'head': weights}, tokenizer, head,
            run={'task': {'max_length': LENGTH, 'max_query_length': 8, 'stride': 8} | task},
        )  # fmt: skip
        tiny.write(model, folder / name)


def make_service(folder: Path, names: Sequence[str] = (PRETRAINED, *HEADS, WRITER)) -> Middleware:
    """The application of all models, ready; each compiles one shape when it is first asked."""
    paths = [str(folder / name) for name in names]
    served = models.load(paths, Device(), 1024, LENGTH, lambda *_: None)
    for model in served.values():
        model.inspector.lengths = (LENGTH,)
        for name, ability in model.abilities.items():
            ability.lengths = (LENGTH,)  # pyright: ignore
            model.batchers[name].sizes = model.batchers[name].sizes[:1]
    service = Service(Limits(seconds=120), Metrics())
    service.models = served
    return make_app(service, lambda: None, lambda: None)


@contextlib.contextmanager
def listening(app: Middleware) -> Iterator[int]:
    """Serves an application in a thread; gives the port."""
    import uvicorn

    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level='error'))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.05)
        yield port
    finally:
        server.should_exit = True
        thread.join()


class Client:
    """Asks an application without a socket, in one event loop."""

    def __init__(self, app: Middleware) -> None:
        self._app, self._loop = app, asyncio.new_event_loop()

    def post(self, ability: str, body: bytes | dict[str, Any]) -> tuple[int, Any]:
        """Status and content, which must be JSON as any reader takes it."""
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        sent: list[Any] = []
        messages = [{'type': 'http.request', 'body': body, 'more_body': False}]

        async def receive() -> Any:
            return messages.pop() if messages else await asyncio.sleep(600)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            'type': 'http', 'method': 'POST', 'path': f'/v1/{ability}', 'query_string': b'',
            'headers': [(b'content-type', b'application/json')],
        }  # fmt: skip
        self._loop.run_until_complete(self._app(scope, receive, send))
        text = b''.join(message.get('body', b'') for message in sent[1:])
        return sent[0]['status'], json.loads(text, parse_constant=lambda name: 1 / 0)

    def close(self) -> None:
        self._loop.close()
