"""What callers in Python give: texts, fields and counts, refused where they are something else."""

import operator
from collections.abc import Iterable, Mapping
from typing import Any

from albert_jax.cli.errors import UserError
from albert_jax.cli.json_text import check_text


def listed(texts: Any, name: str) -> list[Any]:
    """The texts of whatever goes through them, be it once.

    Args:
      texts: a list of texts, or anything in its place.
      name: what to call it in messages.

    Raises:
      UserError: if it is one text, a mapping, a table, or nothing to go through.
    """
    if isinstance(texts, str | Mapping):
        raise UserError(f'{name} is one text; give a list of texts, as in [text].')
    # A table of pandas would go through the names of its columns.
    if getattr(texts, 'ndim', 1) != 1:
        raise UserError(
            f'{name} has {texts.ndim} dimensions; give a list of texts, such as one column.'
        )
    if isinstance(texts, bytes | bytearray) or not isinstance(texts, Iterable):
        raise UserError(f'{name} is of type {type(texts).__name__}; give a list of texts.')
    return list(texts)


def checked_count(number: Any, name: str) -> int:
    """The number as an int, if it is a whole one from 1 on.

    Args:
      number: to check.
      name: what to call it in messages.

    Raises:
      UserError: if it is not.
    """
    try:
        if isinstance(number, bool):
            raise TypeError
        count = operator.index(number)
    except TypeError:
        raise UserError(
            f'{name} is {number!r}, of type {type(number).__name__}; it must be an int.'
        ) from None
    if count < 1:
        raise UserError(f'{name} is {count}; it must be 1 or above.')
    return count


def text_or_fields(given: Any, where: str) -> str | dict[str, Any]:
    """What `Answerer.example` takes of a text, a mapping, or a row of a table of pandas.

    Args:
      given: a text, or the fields of a task.
      where: what to call it in messages.

    Raises:
      UserError: if it is neither.
    """
    if isinstance(given, str):
        return given
    # A row is no Mapping, though dict takes it for one.
    if isinstance(given, Mapping) or hasattr(given, 'keys'):
        return dict(given)
    raise UserError(
        f"{where} is of type {type(given).__name__}; it must be a str, or a mapping of the task's "
        f'fields.'
    )


def check_is_text(text: Any, where: str) -> None:
    """Refuses what is no text, or no whole one.

    Args:
      text: to check.
      where: what to call it in messages.

    Raises:
      UserError: if it is not a str, or has half a surrogate pair.
    """
    if not isinstance(text, str):
        raise UserError(f'{where} is of type {type(text).__name__}; it must be a str.')
    check_text(text, where)
