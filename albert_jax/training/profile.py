"""A trace of a few steps, for TensorBoard's profiler."""

from pathlib import Path
from typing import Self

import jax

# The first step compiles, and the second still waits for it.
_NUM_LEFT_OUT = 2


class Profile:
    """Records steps after the first ones of a process.

    Args:
      folder: TensorBoard's.
      first_step: of the process.
      num_steps: to record; 0 for none.
    """

    def __init__(self, folder: Path, first_step: int, num_steps: int) -> None:
        self._folder = folder
        self._start = first_step + _NUM_LEFT_OUT
        self._end = self._start + num_steps
        self._is_running = False

    def before(self, step: int) -> None:
        """Starts or ends the trace. To be called before each step."""
        if self._is_running and step >= self._end:
            self._stop()
        elif not self._is_running and self._start <= step < self._end:
            jax.profiler.start_trace(str(self._folder))
            self._is_running = True

    def _stop(self) -> None:
        self._is_running = False
        jax.profiler.stop_trace()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_running:
            self._stop()
