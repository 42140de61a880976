"""Texts that wait go through the model together, in shapes that were compiled beforehand."""

import asyncio
import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor

import numpy as np

# Rows of a batch; a model compiles each of them for each length.
SIZES = (1, 2, 4, 8, 16, 32)
# Tokens that cost about as much as one more batch; so much may be empty in one.
_MOST_EMPTY = 128

Arrays = Mapping[str, np.ndarray]


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


def size_for(count: int, length: int, sizes: Sequence[int]) -> int:
    """How many rows to compute for so many of a length that wait.

    The next size up, unless its empty rows would cost more than another batch; then the next down.
    """
    above = next((size for size in sizes if size >= count), sizes[-1])
    below = max((size for size in sizes if size <= count), default=sizes[0])
    return above if (above - count) * length <= _MOST_EMPTY else below


def together(rows: Sequence[Row], size: int) -> dict[str, np.ndarray]:
    """A batch of some rows of one length, filled up to a size with the first."""
    filled = [*rows, *[rows[0]] * (size - len(rows))]
    return {name: np.concatenate([row.arrays[name] for row in filled]) for name in filled[0].arrays}


class Batcher:
    """Collects the rows of all requests and runs those of like length at once.

    What has waited longest goes first, with all others of its length. While the device computes,
    more come in. To be used from one event loop.

    Args:
      run: (batch) → outputs with a row for each of the batch's; called in the executor.
      executor: with one thread, which all models share, as they share the device.
      max_waiting: rows; above it `Busy` is raised.
      observe: told of every batch: rows, and places computed.
      sizes: of batches.
    """

    def __init__(
        self,
        run: Callable[[dict[str, np.ndarray]], Arrays],
        executor: Executor,
        max_waiting: int,
        observe: Callable[[int, int], None],
        sizes: Sequence[int] = SIZES,
    ) -> None:
        self._run, self._executor, self._observe = run, executor, observe
        self._max_waiting, self.sizes = max_waiting, tuple(sizes)
        self._waiting: collections.deque[tuple[Row, asyncio.Future[Arrays]]] = collections.deque()
        self._task: asyncio.Task[None] | None = None

    @property
    def num_waiting(self) -> int:
        """Rows that no batch has taken yet."""
        return len(self._waiting)

    async def __call__(self, rows: Sequence[Row]) -> list[Arrays]:
        """The outputs of some rows, in their order. A caller that gives up leaves the queue.

        Raises:
          Busy: if they would be too many.
        """
        if len(self._waiting) + len(rows) > self._max_waiting:
            raise Busy
        loop = asyncio.get_running_loop()
        places = [(row, loop.create_future()) for row in rows]
        self._waiting.extend(places)
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._work())
        try:
            return [await future for _, future in places]
        finally:
            for _, future in places:
                future.cancel()

    async def _work(self) -> None:
        """Batches until nothing waits."""
        loop = asyncio.get_running_loop()
        # Those that arrive in the same turn of the loop go together.
        await asyncio.sleep(0)
        while taken := self._take():
            rows = [row for row, _ in taken]
            size = next(size for size in self.sizes if size >= len(rows))
            try:
                outputs = await loop.run_in_executor(
                    self._executor, lambda rows=rows, size=size: self._run(together(rows, size))
                )
            except Exception as error:
                for _, future in taken:
                    if not future.done():
                        future.set_exception(error)
                continue
            self._observe(len(rows), size)
            for number, (_, future) in enumerate(taken):
                if not future.done():
                    future.set_result({name: x[number] for name, x in outputs.items()})

    def _take(self) -> list[tuple[Row, asyncio.Future[Arrays]]]:
        """What has waited longest, and others of its length, as many as a batch is to have."""
        self._waiting = collections.deque(x for x in self._waiting if not x[1].done())
        if not self._waiting:
            return []
        length = self._waiting[0][0].length
        alike = [x for x in self._waiting if x[0].length == length]
        taken = alike[: size_for(len(alike), length, self.sizes)]
        chosen = {id(future) for _, future in taken}
        self._waiting = collections.deque(x for x in self._waiting if id(x[1]) not in chosen)
        return taken
