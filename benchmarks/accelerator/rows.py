"""How a worker tells what it has found: a line of JSON for each result."""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

MARK = 'ROW '


def tell(**row: Any) -> None:
    """Prints a result for the program that started this process."""
    print(MARK + json.dumps(row), flush=True)


def parse(line: str) -> dict[str, Any] | None:
    """The result that a line of a worker tells; None for any other line."""
    if not line.startswith(MARK):
        return None
    try:
        return json.loads(line[len(MARK) :])
    except json.JSONDecodeError:  # the line of a worker that was ended
        return None


def guarded(what: dict[str, Any], measure: Callable[[], None]) -> None:
    """Runs a measurement; an error is a result too.

    Args:
      what: names the measurement.
      measure: tells its results.
    """
    try:
        measure()
    except Exception as error:  # whatever a library raises, the next measurement goes on
        message = (str(error).strip() or type(error).__name__).splitlines()[0]
        tell(**what, error=f'{type(error).__name__}: {message[:300]}')


def seconds_of(run: Callable[[], Any], budget: float, fewest: int = 3) -> float:
    """Seconds of one call, from as many as go into the budget.

    Args:
      run: starts the work and waits for it.
      budget: seconds in all.
      fewest: calls that are made whatever they take.
    """
    run()
    started, count = time.monotonic(), 0
    while count < fewest or time.monotonic() - started < budget:
        run()
        count += 1
    return (time.monotonic() - started) / count


def log(text: str) -> None:
    """Prints a line for people, apart from results."""
    print(text, file=sys.stderr, flush=True)
