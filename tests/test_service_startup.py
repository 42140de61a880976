"""The order in which a service compiles, and what it answers before everything is."""

import asyncio

import pytest
from starlette.exceptions import HTTPException

from albert_jax.service import models
from albert_jax.service.batching import Device
from albert_jax.service.metrics import Metrics
from albert_jax.service.routes import Routes
from albert_jax.service.schema import InspectRequest
from albert_jax.service.service import Limits, Service
from albert_jax.training import programs
from tests.programs_folder import kept_programs

SHORT, LONG = 'returns an index', 'returns an index of the list ' * 3


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    with kept_programs(tmp_path_factory.mktemp('programs')) as folder:
        yield folder


def load(checkpoints):
    paths = [str(checkpoints / name) for name in ('mood', 'base')]
    served = models.load(paths, Device(), 64, 24, lambda *_: None)
    for model in served.values():
        model.inspector.lengths = (24,)
        for batcher in model.batchers.values():
            batcher.sizes = batcher.sizes[:1]
    return served


def ask(service, *asked):
    """The answer, or the status of a refusal."""
    try:
        return asyncio.run(service.ask(*asked))[1]
    except HTTPException as error:
        return error.status_code


def test_it_answers_from_its_first_shapes_on(checkpoints, folder, monkeypatch):
    service = Service(Limits(seconds=60), Metrics())
    routes, seen = Routes(service), []

    def readyz():
        reply = asyncio.run(routes.readyz())
        return reply.status_code, reply.body

    assert ask(service, 'mood', 'predict', SHORT) == 503 and readyz()[0] == 503
    found = {}

    def report(compilation):
        name = compilation.name
        seen.append((name, service.is_ready, service.num_compiled))
        if 'mood: predict, 8 × 24' in name:
            # A text that is short is padded, and one that is long fits.
            found['first'] = [ask(service, 'mood', 'predict', x) for x in (SHORT, LONG)]
        elif not service.is_ready:
            assert readyz()[0] == 503
        if len(seen) == 5:
            assert readyz() == (200, b'{"status":"compiling","compiled":%d,"programs":%d}'
                                % (service.num_compiled, service.num_programs))  # fmt: skip
        if len(seen) == 1:
            asked = InspectRequest(model='mood', text=SHORT)
            with pytest.raises(HTTPException, match='still being compiled'):
                asyncio.run(service.inspect(asked))

    service.compile(load(checkpoints), report)
    names = [name for name, *_ in seen]
    # First the longest shape of each ability, then what is to be looked at, then the rest.
    assert sorted(names[:4]) == [
        'base: embed, 8 × 24', 'base: fill-mask, 8 × 24', 'mood: embed, 8 × 24',
        'mood: predict, 8 × 24',
    ]  # fmt: skip
    assert sorted(names[4:6]) == ['base: inspect, 24', 'mood: inspect, 24']
    assert sorted(names[6:]) == [
        'base: embed, 8 × 16', 'base: fill-mask, 8 × 16', 'mood: embed, 8 × 16',
        'mood: predict, 8 × 16',
    ]  # fmt: skip
    assert [is_ready for _, is_ready, _ in seen] == [False] * 3 + [True] * 7
    assert service.num_compiled == service.num_programs == 8 + 2 * 3
    assert readyz() == (200, b'{"status":"ready","compiled":14,"programs":14}')
    # Both models have the same encoder, so that one program of each shape embeds for both.
    assert len(list(folder.iterdir())) == 12

    # In its own shape, the short text has the same answer.
    final = [ask(service, 'mood', 'predict', x) for x in (SHORT, LONG)]
    assert service.num_compiled == 14
    for (first,), (last,) in zip(found['first'], final, strict=True):
        assert first['prediction'] == last['prediction']
        assert first['probabilities'] == pytest.approx(last['probabilities'], abs=1e-5)

    # The second start reads all of them, and its answers are the same to the bit.
    monkeypatch.setattr(programs, '_write', None)
    again = Service(Limits(seconds=60), Metrics())
    again.compile(load(checkpoints), lambda _: None)
    assert again.num_compiled == 14
    assert [ask(again, 'mood', 'predict', x) for x in (SHORT, LONG)] == final
    asked = InspectRequest(model='base', text='a [MASK] of')
    assert asyncio.run(again.inspect(asked)) == asyncio.run(service.inspect(asked))
    assert again.num_compiled == 14
