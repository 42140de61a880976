"""SIGTERM and Ctrl-C as a number that the loop looks at between steps."""

import signal
from types import FrameType
from typing import Any, Self


class StopSignal:
    """Takes SIGTERM and the first Ctrl-C; a second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._previous: dict[int, Any] = {}

    @property
    def is_set(self) -> bool:
        """Whether the process was told to stop."""
        return self.number is not None

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.number = number
        signal.signal(signal.SIGINT, signal.default_int_handler)
