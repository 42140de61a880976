"""Texts that wait go through the model together, in shapes that were compiled beforehand."""

import asyncio
import collections
import dataclasses
import itertools
import math
import threading
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

# Rows of a batch; a model compiles each of them for each length.
SIZES = (1, 2, 4, 8, 16, 32)
# Tokens that cost about as much as a batch does besides them.
_BATCH_COST = 128
_USUAL_ROWS = 16
# Rows of the queue that are looked at for a batch: choosing takes time too.
_MAX_CONSIDERED = 256
# Batches under way at once: while the device computes one, it is given the next.
_NUM_AT_ONCE = 2

Arrays = Mapping[str, np.ndarray]
# (length, size) of a batch.
Shape = tuple[int, int]
# (batch) → outputs with a row for each of the batch's, which may still be under way.
Start = Callable[[dict[str, np.ndarray]], Mapping[str, Any]]


class Busy(Exception):
    """Too many texts are waiting already."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One example as the model takes it.

    Args:
      arrays: its part of every array of a batch.
      length: that it is padded to, one of the model's lengths.
    """

    arrays: Arrays
    length: int


def choose(
    waiting: Sequence[int], sizes: Sequence[int], compiled: Set[Shape] | None = None
) -> tuple[list[int], Shape]:
    """Which rows to compute next, and in a batch of which shape.

    The first, because it has waited longest, and of the others those with which all that waits
    costs least: this batch, and what is left behind at its own length in batches of a usual size.
    So a short row goes with longer ones where that is cheaper than a batch of its own.

    Args:
      waiting: lengths of the rows that wait, in the order of their arrival.
      sizes: that a batch may have, ascending.
      compiled: the shapes that there are, of which one must be long enough for every row; None for
        each of the sizes at each length.

    Returns:
      Indices into `waiting`, the first being 0, and the shape.
    """
    best: tuple[float, list[int], Shape] = (math.inf, [0], (waiting[0], sizes[0]))
    lengths = {each for each in waiting if each >= waiting[0]}
    for length, of_length in itertools.groupby(_shapes(lengths, sizes, compiled), lambda x: x[0]):
        others = [place for place in range(1, len(waiting)) if waiting[place] <= length]
        # The longest first, and among those whoever waits longest.
        others.sort(key=lambda place: -waiting[place])
        for shape in of_length:
            taken = [0, *others[: shape[1] - 1]]
            chosen = set(taken)
            left = [each for place, each in enumerate(waiting) if place not in chosen]
            cost = math.prod(shape) + _BATCH_COST + _cost_of(left, sizes[0])
            if cost <= best[0]:
                best = (cost, taken, shape)
    return best[1], best[2]


def _shapes(lengths: Set[int], sizes: Sequence[int], compiled: Set[Shape] | None) -> list[Shape]:
    """The shapes that are worth a thought, ascending: of each size the shortest for each length."""
    if compiled is None:
        return sorted(itertools.product(lengths, sizes))
    found = set()
    for length, size in itertools.product(lengths, sizes):
        enough = [shape for shape in compiled if shape[1] == size and shape[0] >= length]
        found |= {min(enough)} if enough else set()
    return sorted(found)


def _cost_of(left: Sequence[int], least: int) -> float:
    """Of rows in later batches, about: their tokens, or those of the smallest batch."""
    if not left:
        return 0.0
    num_batches = max(1.0, len(left) / max(_USUAL_ROWS, least))
    return max(sum(left), least * max(left)) + num_batches * _BATCH_COST


def collate(rows: Sequence[Row], size: int, length: int = 0) -> dict[str, np.ndarray]:
    """A batch of some rows, filled up to a size with the first.

    What is added to a shorter row is 0, which no answer depends on.

    Args:
      rows: at least one.
      size: of the batch.
      length: of the batch; 0 for that of the longest row.
    """
    length = length or max(row.length for row in rows)
    filled = [*rows, *[rows[0]] * (size - len(rows))]
    batch = {}
    for name, first in rows[0].arrays.items():
        shape = _shape(first, rows[0].length, length)
        batch[name] = np.zeros((size, *shape), first.dtype)
        for place, row in zip(batch[name], filled, strict=True):
            array = row.arrays[name]
            # Of several sequences, each is as long as the row.
            place[tuple(map(slice, array.shape))] = array
        batch[name] = batch[name].reshape(size * shape[0], *shape[1:])
    return batch


def pad_to(row: Row, length: int) -> Row:
    """A row at another length."""
    arrays = {}
    for name, array in row.arrays.items():
        shape = _shape(array, row.length, length)
        arrays[name] = np.zeros(shape, array.dtype)
        both = tuple(slice(min(pair)) for pair in zip(shape, array.shape, strict=True))
        arrays[name][both] = array[both]
    return Row(arrays, length)


def _shape(array: np.ndarray, before: int, after: int) -> tuple[int, ...]:
    """Of a row's array at another length, if it is as long as the row."""
    if array.ndim < 2 or array.shape[1] != before:
        return array.shape
    return array.shape[0], after, *array.shape[2:]


class Device:
    """Computes batches of all models, some at once, so that it never waits for the next one."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(_NUM_AT_ONCE, 'device')
        self._order = threading.Lock()

    async def __call__(self, start: Start, rows: Sequence[Row], shape: Shape) -> Arrays:
        """The outputs of some rows as one batch."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._compute, start, rows, shape)

    def _compute(self, start: Start, rows: Sequence[Row], shape: Shape) -> Arrays:
        length, size = shape
        batch = collate(rows, size, length)
        # All chips must be given the programs in the same order, or two would wait for each other.
        with self._order:
            outputs = start(batch)
        return jax.device_get(outputs)


class Batcher:
    """Collects the rows of all requests and runs them together as `choose` says.

    While the device computes, more come in. To be used from one event loop.

    Args:
      start: called for every batch, in a thread of the device's.
      device: which all models share.
      max_waiting: rows; above it `Busy` is raised.
      observe: told of every batch: rows, and its size.
      sizes: of batches.
      compiled: the shapes that there are; more may come. None for all.
    """

    def __init__(
        self,
        start: Start,
        device: Device,
        max_waiting: int,
        observe: Callable[[int, int], None],
        sizes: Sequence[int] = SIZES,
        compiled: Set[Shape] | None = None,
    ) -> None:
        self._start, self._device, self._observe = start, device, observe
        self._max_waiting, self.sizes = max_waiting, tuple(sizes)
        self.compiled = compiled
        self._waiting: collections.deque[tuple[Row, asyncio.Future[Arrays]]] = collections.deque()
        self._workers: list[asyncio.Task[None]] = []

    @property
    def num_waiting(self) -> int:
        """Rows that no batch has taken yet."""
        return len(self._waiting)

    @property
    def is_ready(self) -> bool:
        """Whether there is a shape for every row."""
        return self.compiled is None or bool(self.compiled)

    def add_compiled(self, shape: Shape) -> None:
        """Says that there is one more shape, from any thread; the first must be the longest."""
        # A set of its own: the event loop may be going through the one before.
        self.compiled = {*(self.compiled or ()), shape}

    async def __call__(self, rows: Sequence[Row]) -> list[Arrays]:
        """The outputs of some rows, in their order. A caller that gives up leaves the queue.

        Raises:
          Busy: if they would be too many.
        """
        if len(self._waiting) + len(rows) > self._max_waiting:
            raise Busy
        loop = asyncio.get_running_loop()
        queued = [(row, loop.create_future()) for row in rows]
        self._waiting.extend(queued)
        self._spawn_worker()
        try:
            return [await future for _, future in queued]
        finally:
            for _, future in queued:
                future.cancel()

    def _spawn_worker(self) -> None:
        """One more worker, if the device takes one more batch."""
        self._workers = [worker for worker in self._workers if not worker.done()]
        if len(self._workers) < _NUM_AT_ONCE:
            self._workers.append(asyncio.get_running_loop().create_task(self._work()))

    async def _work(self) -> None:
        """Batches until nothing waits."""
        # Those that arrive in the same turn of the loop go together.
        await asyncio.sleep(0)
        while batch := self._take():
            taken, shape = batch
            if self._waiting:
                self._spawn_worker()
            rows = [row for row, _ in taken]
            try:
                outputs = await self._device(self._start, rows, shape)
                self._observe(len(rows), shape[1])
                for number, (_, future) in enumerate(taken):
                    if not future.done():
                        future.set_result({name: x[number] for name, x in outputs.items()})
            except Exception as error:
                for _, future in taken:
                    if not future.done():
                        future.set_exception(error)

    def _take(self) -> tuple[list[tuple[Row, asyncio.Future[Arrays]]], Shape] | None:
        """The rows of the next batch and its shape; None where nothing waits."""
        waiting = [x for x in self._waiting if not x[1].done()]
        self._waiting = collections.deque(waiting)
        if not waiting:
            return None
        considered = [row.length for row, _ in waiting[:_MAX_CONSIDERED]]
        indices, shape = choose(considered, self.sizes, self.compiled)
        chosen = set(indices)
        self._waiting = collections.deque(x for n, x in enumerate(waiting) if n not in chosen)
        return [waiting[index] for index in indices], shape
