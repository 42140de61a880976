"""Labels that are numbers, as regressions have them."""

import math

import numpy as np

from albert_jax.cli.errors import UserError

_LARGEST = float(np.finfo(np.float32).max)


def parse_number(text: str, where: str) -> float:
    """A label as a number that float32, in which labels are stored, can hold.

    Args:
      text: of the label.
      where: what to call its row in messages.

    Raises:
      UserError: if it is not a number, or too large.
    """
    value = number_of(text)
    is_word = not any(letter.isdigit() for letter in text)
    if value is None or math.isnan(value) or (math.isinf(value) and is_word):
        raise UserError(f'{where}: the label {text!r} is not a number.')
    if abs(value) > _LARGEST:
        raise UserError(
            f'{where}: the label {text!r} is beyond {_LARGEST:.3g}, the largest number of float32, '
            f'in which labels are stored; divide all labels by the same number.'
        )
    return value


def number_of(text: str) -> float | None:
    """The number that a text of a file is, as Python has it; None if it is none.

    1_000 is a number in programs only.
    """
    try:
        return None if '_' in text else float(text)
    except ValueError:
        return None
