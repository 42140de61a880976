"""How far something is: a bar with ETA on a terminal, elsewhere a line now and then."""

import sys
import time
from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

_SECONDS_BETWEEN_LINES = 10


class Progress:
    """To be used as a context.

    Args:
      doing: before the bar.
      *columns: between the bar and the time that is left.
      line: (done, total, seconds) → a line, where there is no terminal.
      total: 0 where it is not known yet.
      is_on_stderr: standard output has the result.
    """

    def __init__(
        self,
        doing: str,
        *columns: ProgressColumn,
        line: Callable[[float, float, float], str],
        total: float = 0,
        is_on_stderr: bool = False,
    ) -> None:
        self.console = Console(stderr=is_on_stderr)
        self._bar = Bar(
            TextColumn(doing), BarColumn(), *columns, TimeRemainingColumn(),
            console=self.console, disable=not self.console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task(doing, total=total or None)
        self._line, self._done, self._total = line, 0.0, total
        self._started = self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, amount: float, total: float = 0, is_quiet: bool = False) -> None:
        """Counts what has been done.

        Args:
          amount: since the last call.
          total: where it has become known.
          is_quiet: without a line.
        """
        self._done += amount
        self._total = total or self._total
        self._bar.update(self._task, advance=amount, total=self._total or None)
        now = time.monotonic()
        if self.console.is_terminal or is_quiet or now - self._last_line <= _SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        file = sys.stderr if self.console.stderr else sys.stdout
        print(self._line(self._done, self._total, now - self._started), file=file, flush=True)
