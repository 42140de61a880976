"""The fewest microbatches that fit into a device's memory."""

from collections.abc import Callable
from typing import Any

import jax


def candidates(rows: int) -> list[int]:
    """Numbers of microbatches to try: divisors of a device's rows that about double."""
    found = [1]
    while found[-1] < rows:
        found.append(next(n for n in range(2 * found[-1], rows + 1) if rows % n == 0))
    return found


def is_out_of_memory(error: Exception) -> bool:
    """Whether the compiler found that a program does not fit."""
    return 'RESOURCE_EXHAUSTED' in str(error)


def fewest_that_fit(compile_with: Callable[[int], Any], rows: int) -> int | None:
    """The first number of microbatches that compiles, or None if none of them does.

    Args:
      compile_with: compiles the step in so many microbatches.
      rows: of the batch on each device.
    """
    for number in candidates(rows):
        try:
            compile_with(number)
        except jax.errors.JaxRuntimeError as error:
            if not is_out_of_memory(error):
                raise
        else:
            return number
    return None
