"""The models behind the routes: limits, queues, and the answers for the texts of a request."""

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from starlette.exceptions import HTTPException

from albert_jax.cli.errors import UserError
from albert_jax.cli.json_text import check_text
from albert_jax.service.abilities import Ability, Encoded
from albert_jax.service.batching import Batcher, Busy
from albert_jax.service.metrics import Metrics
from albert_jax.service.models import Compilation, Served
from albert_jax.service.schema import InspectRequest, clipped

_Answer = TypeVar('_Answer')

# Requests whose texts are being tokenised in other threads, at most.
_MAX_ENCODING = 256
# Texts that are tokenised in the event loop: handing them to another thread would take longer.
_MAX_SHORT_TEXTS, _MAX_SHORT_CHARACTERS = 8, 1000


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


class Answers(NamedTuple):
    """What a model answers for some texts."""

    model: str
    outputs: list[Any]
    # As of Encoded.
    notes: Mapping[int, str]


class Service:
    """The models behind the routes.

    Args:
      limits: of requests.
      metrics: what is counted.
    """

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self.limits, self.metrics = limits, metrics
        self.models: Mapping[str, Served] = {}
        # How many programs there will be.
        self.num_programs = 0
        # The models whose inspection is not compiled yet.
        self._without_inspection: set[str] = set()
        # Attributions take many passes; they wait for each other and hold up nobody else.
        self._inspecting = asyncio.Lock()
        self._inspector: Executor = ThreadPoolExecutor(1, 'inspect')
        self._encoders: Executor = ThreadPoolExecutor(2, 'encode')
        self._num_encoding = 0

    def compile(self, models: Mapping[str, Served], report: Callable[[Compilation], None]) -> None:
        """Takes the models and compiles everything, first what lets every ability answer.

        Args:
          models: by name.
          report: called after each.
        """
        wanted = [x for served in models.values() for x in served.compilations()]
        self.num_programs = sum(compilation.num_programs for compilation in wanted)
        self._without_inspection = set(models)
        for batcher in _batchers(models):
            batcher.compiled = frozenset()
        self.models = models
        for compilation in sorted(wanted, key=lambda x: x.order):
            compilation.run()
            self._without_inspection -= {
                name for name, served in models.items() if served.inspector.is_compiled
            }
            self.metrics.is_ready.set(self.is_ready)
            report(compilation)
        for batcher in _batchers(models):
            batcher.compiled = None

    @property
    def is_ready(self) -> bool:
        """Whether every ability of every model answers, though shapes may still be compiled."""
        return bool(self.models) and all(batcher.is_ready for batcher in _batchers(self.models))

    @property
    def num_compiled(self) -> int:
        """How many programs have been compiled."""
        return sum(served.num_compiled for served in self.models.values())

    @property
    def num_waiting(self) -> int:
        """Rows that no batch has taken yet, of all models."""
        return sum(batcher.num_waiting for batcher in _batchers(self.models))

    def choose_model(self, name: str | None, ability: str) -> Served:
        """The model of a request.

        Raises:
          HTTPException: if the service is not ready, or no model or several would do.
        """
        if not self.models:
            raise _not_compiled()
        if name is not None and name not in self.models:
            raise HTTPException(
                404,
                f'model is {clipped(name)}; there is no such model, there are '
                f'{_listed(self.models)}.',
            )
        asked = {key: served for key, served in self.models.items() if name in (None, key)}
        able = [key for key, served in asked.items() if served.can(ability)]
        if not able:
            # What each does, by the names of the paths.
            others = '; '.join(
                f'{key} has {_listed(f"/v1/{other}" for other in sorted(served.abilities))}'
                for key, served in asked.items()
            )
            whose = 'No model here' if name is None else f'model is {clipped(name)}, which'
            verb = 'has' if name is None else 'does not have'
            raise HTTPException(404, f'{whose} {verb} /v1/{ability}: {others}.')
        if len(able) > 1:
            raise HTTPException(
                422,
                f'model is missing: several can answer, so set it to one of {_listed(able)}.',
            )
        served = self.models[able[0]]
        if ability in served.batchers and not served.batchers[ability].is_ready:
            raise _not_compiled()
        return served

    async def ask(self, name: str | None, ability: str, given: Any) -> Answers:
        """The answers of a model for one text or several.

        Args:
          name: of the model; None where only one can answer.
          ability: of the model.
          given: one text or example, or a list of them.

        Raises:
          HTTPException: with the status that a mistake has.
        """
        served = self.choose_model(name, ability)
        texts = given if isinstance(given, list) else [given]
        self._check(texts)
        if not texts:
            return Answers(served.name, [], {})
        return await self._in_time(self._ask(served, ability, texts))

    async def _ask(self, served: Served, ability: str, texts: Sequence[Any]) -> Answers:
        is_short = (
            len(texts) <= _MAX_SHORT_TEXTS
            and sum(len(part) for text in texts for part in _texts_in(text))
            <= _MAX_SHORT_CHARACTERS
        )
        encoded = await self._encoded(served.abilities[ability], texts, is_short)
        if len(encoded.rows) > self.limits.waiting:
            raise HTTPException(
                413,
                f'The inputs make {len(encoded.rows)} rows; at most {self.limits.waiting} are '
                f'taken at once.',
            )
        outputs = await served.batchers[ability](encoded.rows)
        if is_short and len(encoded.rows) <= _MAX_SHORT_TEXTS:
            answers = encoded.answers(outputs)
        else:
            loop = asyncio.get_running_loop()
            answers = await loop.run_in_executor(self._encoders, encoded.answers, outputs)
        return Answers(served.name, answers, encoded.notes)

    async def _encoded(self, ability: Ability, texts: Sequence[Any], is_short: bool) -> Encoded:
        """The rows of texts.

        Raises:
          Busy: if too many others are being encoded.
          HTTPException: if they are not what the ability wants.
        """
        try:
            if is_short:
                return ability.encode(texts)
            if self._num_encoding >= _MAX_ENCODING:
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
        """Attention of a model for a text, and the contributions of its words.

        Raises:
          HTTPException: with the status that a mistake has.
        """
        served = self.choose_model(request.model, 'inspect')
        if served.name in self._without_inspection:
            raise _not_compiled('What inspects a text is')
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

    async def _in_time(self, answer: Coroutine[Any, Any, _Answer]) -> _Answer:
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
                    check_text(part, f'input {number}')
                except UserError as error:
                    raise HTTPException(422, str(error)) from error


def _batchers(models: Mapping[str, Served]) -> list[Batcher]:
    return [batcher for served in models.values() for batcher in served.batchers.values()]


def _not_compiled(what: str = 'The models are') -> HTTPException:
    return HTTPException(503, f'{what} still being compiled; try again.', {'Retry-After': '5'})


def _listed(names: Iterable[str]) -> str:
    return ', '.join(names)


def _texts_in(value: Any) -> list[str]:
    """All strings of an example."""
    if isinstance(value, str):
        return [value]
    parts = [x for part in value.values() for x in (part if isinstance(part, list) else [part])]
    return [part for part in parts if isinstance(part, str)]
