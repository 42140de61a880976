"""JSON and texts from files, lines, standard input and requests: one meaning, or refused."""

import json
import re
from collections.abc import Iterable
from typing import Any

from albert_jax.cli.errors import UserError


def parse_json(text: str, where: str) -> Any:
    """The content of a JSON text.

    Args:
      text: to parse.
      where: what to call it in messages.

    Raises:
      UserError: if it is not JSON, or an object in it has a key twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except _RepeatedKeyError as error:
        raise UserError(
            f'{where}: a JSON object has the key {error.args[0]!r} twice; keep one of the two.'
        ) from None
    except ValueError as error:
        raise UserError(f'{where} is not JSON: {error}.') from error
    except RecursionError:
        raise UserError(f'{where} is JSON that is nested too deep.') from None


def check_text(text: str, where: str) -> str:
    """The text, if all of it can be written as UTF-8.

    JSON can spell half of a surrogate pair ("\\ud83d"), which is no character.

    Args:
      text: to check.
      where: what to call it in the message.

    Raises:
      UserError: if it has half a surrogate pair.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f'{where} has half a surrogate pair, \\u{ord(text[error.start]):04x}, which is no '
            f'character; write the text as UTF-8, or leave it out.'
        ) from None
    return text


def check_texts(texts: Iterable[str]) -> None:
    """Refuses texts that `check_text` refuses, by their number.

    Raises:
      UserError: if one has half a surrogate pair.
    """
    for number, text in enumerate(texts):
        check_text(text, f'Text {number}')


def is_json_object(line: str, names: Iterable[str]) -> bool:
    """Whether a line is meant as a JSON object, right or broken, and not as a text in braces.

    Args:
      line: a line of a file.
      names: keys that it may have; without quotation marks around them it is broken.
    """
    keys = '|'.join(re.escape(name) for name in names)
    return re.match(rf'\s*\{{\s*(["\']|\}}\s*$|({keys})\s*:)', line) is not None


class _RepeatedKeyError(Exception):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKeyError(next(key for key in keys if keys.count(key) > 1))
    return content
