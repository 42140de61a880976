"""Batches of what waits: which requests go together, and what one that fails does."""

import asyncio
import itertools
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from albert_jax.service.batching import (
    SIZES,
    Batcher,
    Busy,
    Device,
    Row,
    choose,
    collate,
    pad_to,
)  # fmt: skip


@pytest.mark.parametrize(
    ('waiting', 'sizes', 'taken', 'size'),
    [
        ([16], SIZES, [0], 1),
        # The size up while its empty rows cost less than another batch, else the size down.
        ([32] * 3, SIZES, [0, 1, 2], 4),
        ([512] * 3, SIZES, [0, 1], 2),
        ([512] * 3, (8, 16), [0, 1, 2], 8),
        ([32] * 90, SIZES, list(range(32)), 32),
        ([16] * 31, SIZES, list(range(31)), 32),
        # A short row goes with longer ones rather than alone.
        ([16, 32, 32, 32], SIZES, [0, 1, 2, 3], 4),
        # But not with one so long that its padding costs more.
        ([4, 512], SIZES, [0], 1),
        # Whoever has waited longest is in it, though the rest would fill a batch.
        ([512, *[16] * 32], SIZES, [0], 1),
    ],
)
def test_a_batch_makes_the_most_of_what_waits(waiting, sizes, taken, size):
    rows, found = choose(waiting, sizes)
    length = max(waiting[place] for place in taken)
    assert (sorted(rows), found) == (taken, (length, size))


@pytest.mark.parametrize(
    ('waiting', 'compiled', 'taken', 'shape'),
    [
        # What is there must be long enough; else as if it were all there was.
        ([16], {(64, 1)}, [0], (64, 1)),
        ([16], {(16, 1), (64, 1)}, [0], (16, 1)),
        ([32] * 3, {(64, 1), (16, 4)}, [0], (64, 1)),
        ([32] * 3, {(64, 1), (64, 4)}, [0, 1, 2], (64, 4)),
        ([16, 64, 64], {(64, 1), (16, 1), (64, 2)}, [0], (16, 1)),
    ],
)
def test_what_is_not_compiled_yet_is_not_chosen(waiting, compiled, taken, shape):
    rows, found = choose(waiting, SIZES, compiled)
    assert (sorted(rows), found) == (taken, shape)


@given(
    st.lists(st.sampled_from([16, 32, 64]), min_size=1, max_size=40),
    st.sets(st.tuples(st.sampled_from([16, 32, 64]), st.sampled_from(SIZES))),
)
def test_what_waits_longest_goes_in_a_shape_that_is_there(waiting, compiled):
    compiled |= {(64, 1)}
    rows, shape = choose(waiting, SIZES, compiled)
    assert shape in compiled and rows[0] == 0 and len(rows) <= shape[1]
    assert all(waiting[place] <= shape[0] for place in rows) and len(set(rows)) == len(rows)
    every = set(itertools.product([16, 32, 64], SIZES))
    assert choose(waiting, SIZES, every) == choose(waiting, SIZES)


def row(value, length=4):
    return Row({'x': np.full((1, length), value)}, length)


def test_rows_are_filled_up():
    batch = collate([row(1), row(2, 6)], 4)
    assert batch['x'][:, 0].tolist() == [1, 2, 1, 1]
    assert batch['x'][:2].tolist() == [[1, 1, 1, 1, 0, 0], [2] * 6]


def test_only_what_is_as_long_as_a_row_is_stretched():
    """Here two sequences a row; a number a row, and places in it, are not pad_to."""

    def pair(value, length):
        sequences = np.full((2, length), value)
        return Row(
            {'x': sequences, 'label': np.array([value]), 'at': np.full((1, 3), value)}, length
        )

    batch = collate([pair(1, 2), pair(2, 4)], 3)
    assert batch['x'].tolist() == [[1, 1, 0, 0]] * 2 + [[2] * 4] * 2 + [[1, 1, 0, 0]] * 2
    assert batch['label'].tolist() == [1, 2, 1] and batch['at'].tolist() == [
        [1] * 3,
        [2] * 3,
        [1] * 3,
    ]
    longer, shorter = pad_to(pair(1, 2), 3), pad_to(pair(1, 4), 2)
    assert longer.arrays['x'].tolist() == [[1, 1, 0]] * 2 and longer.length == 3
    assert shorter.arrays['x'].tolist() == [[1, 1]] * 2 and shorter.arrays['at'].shape == (1, 3)


def batcher(start, **more):
    seen = []
    made = Batcher(start, Device(), more.pop('max_waiting', 100), lambda *x: seen.append(x), **more)
    return made, seen


class Later:
    """An output that is still being computed."""

    def __init__(self, values, is_done):
        self.values, self.is_done = values, is_done

    def __array__(self, dtype=None, copy=None):
        self.is_done.wait(10)
        return self.values


def test_the_next_batch_is_given_to_the_device_while_it_computes():
    started, starting, is_done = [], [0], threading.Event()

    def start(batch):
        starting[0] += 1
        time.sleep(0.02)
        # One after the other, so that all chips have them in the same order.
        assert starting[0] == 1
        starting[0] -= 1
        started.append(int(batch['x'][0, 0]))
        return {'y': Later(batch['x'].sum(1), is_done)}

    async def story():
        made, _ = batcher(start, sizes=(1,))
        asked = [asyncio.ensure_future(made([row(n)])) for n in range(5)]
        await asyncio.sleep(0.5)
        first = list(started)
        is_done.set()
        return first, made.num_waiting, await asyncio.gather(*asked)

    first, num_waiting, found = asyncio.run(story())
    # Two are under way, and no more: the rest may still be joined by others.
    assert sorted(first) == [0, 1] and num_waiting == 3
    assert [int(x[0]['y']) for x in found] == [0, 4, 8, 12, 16] and len(started) == 5


def test_what_waits_goes_together():
    shapes = []

    def run(batch):
        shapes.append(batch['x'].shape)
        return {'y': batch['x'].sum(1)}

    async def everyone():
        made, seen = batcher(run)
        asked = [made([row(n, 4 if n % 3 else 8)]) for n in range(9)]
        found = await asyncio.gather(*asked, made([row(20), row(21, 8)]))
        return found, seen

    found, seen = asyncio.run(everyone())
    for n in range(9):
        assert found[n][0]['y'] == n * (4 if n % 3 else 8)
    assert [int(x['y']) for x in found[9]] == [80, 168]
    # A batch costs more than these rows do, so all go in one.
    assert shapes == [(16, 8)] and sum(rows for rows, _ in seen) == 11


def test_rows_are_padded_to_the_shape_that_is_there():
    shapes = []

    def run(batch):
        shapes.append(batch['x'].shape)
        return {'y': batch['x'].sum(1)}

    async def story():
        made, _ = batcher(run, compiled=set())
        assert not made.is_ready
        made.add_compiled((16, 1))
        assert made.is_ready
        found = await made([row(1), row(2, 8)])
        made.add_compiled((8, 2))
        return [*found, *await made([row(3), row(4, 8)])]

    found = asyncio.run(story())
    assert [int(x['y']) for x in found] == [4, 16, 12, 32]
    assert shapes == [(1, 16), (1, 16), (2, 8)]


def test_a_batch_that_fails_fails_for_its_own_rows_alone():
    def run(batch):
        if batch['x'].shape[1] == 512:
            raise MemoryError
        return {'y': batch['x']}

    async def both():
        made, _ = batcher(run)
        return await asyncio.gather(made([row(1)]), made([row(1, 512)]), return_exceptions=True)

    good, bad = asyncio.run(both())
    assert isinstance(bad, MemoryError) and good[0]['y'].tolist() == [1] * 4


def test_a_full_queue_is_refused_and_whoever_gives_up_is_not_computed():
    computed = []
    release = threading.Event()

    def start(batch):
        computed.extend(batch['x'][:, 0].tolist())
        return {'y': Later(batch['x'], release)}

    async def story():
        made, _ = batcher(start, max_waiting=3, sizes=(1,))
        under_way = [asyncio.ensure_future(made([row(n)])) for n in (1, 2)]
        await asyncio.sleep(0.1)
        waiting = [asyncio.ensure_future(made([row(n)])) for n in (3, 4, 5)]
        await asyncio.sleep(0.1)
        with pytest.raises(Busy):
            await made([row(6)])
        waiting[1].cancel()
        await asyncio.sleep(0.05)
        release.set()
        await asyncio.gather(*under_way, waiting[0], waiting[2])
        return made.num_waiting

    assert asyncio.run(story()) == 0
    assert sorted(computed) == [1, 2, 3, 5]
