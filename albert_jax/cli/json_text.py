"""JSON and texts from files, lines, standard input and requests: one meaning, or refused."""

import collections
import json
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from albert_jax.cli.errors import UserError

# Before an object, where nobody sees them: byte-order marks and spaces without width.
_INVISIBLE = r'[\s\u200b\u200e\u200f\u2060\ufeff]*'
# Without a shape, though Unicode counts them among letters, marks and symbols: fillers, selectors
# of a variation (as behind an emoji), and the Braille pattern without dots.
_IGNORABLE = re.compile(
    '[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]'
)
# Of an object: a text in quotation marks, before a colon.
_KEY = r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')\s*:"""


def parse_json(text: str, where: str, keys: Collection[str] | None = None) -> Any:
    """The content of a JSON text.

    Args:
      text: to parse.
      where: what to call it in messages.
      keys: those that are read, which no object may have twice; None for all.

    Raises:
      UserError: if it is not JSON, or an object in it has such a key twice.
    """
    objects = _Objects()
    content = _parsed(text, where, objects)
    repeated = [key for key in objects.repeated if keys is None or key in keys]
    if repeated:
        raise UserError(
            f'{where}: a JSON object has the key {repeated[0]!r} twice; keep one of the two.'
        )
    return content


def parse_row(text: str, where: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The JSON object of a line, and the keys that it has more than once.

    Args:
      text: to parse.
      where: what to call it in messages.

    Raises:
      UserError: if it is not a JSON object.
    """
    objects = _Objects()
    content = _parsed(text, where, objects)
    if not isinstance(content, dict):
        raise UserError(f'{where} is not a JSON object.')
    return content, objects.repeated_in_last


def parse_object(text: str, where: str) -> dict[str, Any]:
    """The JSON object of a file that others wrote: a key that is there twice says the same twice.

    Args:
      text: to parse.
      where: what to call it in messages.

    Raises:
      UserError: if it is not a JSON object, or an object in it has a key with two values.
    """
    objects = _Objects()
    content = _parsed(text, where, objects)
    if not isinstance(content, dict):
        raise UserError(f'{where} is not a JSON object.')
    if objects.contradicted:
        raise UserError(
            f'{where}: a JSON object has the key {objects.contradicted[0]!r} twice, with different '
            f'values; keep one of the two.'
        )
    return content


def _parsed(text: str, where: str, objects: '_Objects') -> Any:
    try:
        return json.loads(text, object_pairs_hook=objects)
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


def check_lines(lines: Sequence[str], origin: str) -> None:
    """Refuses lines that begin with JSON of several lines, or with a list of objects.

    Args:
      lines: without their line ends.
      origin: what to call them in the message.

    Raises:
      UserError: if they do: one object a line is what can be read.
    """
    text = '\n'.join(lines).lstrip()
    if not text.startswith(('{', '[')):
        return
    try:
        content, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return
    is_list = isinstance(content, list)
    if not content:
        return
    if '\n' in text[:end] or (is_list and any(isinstance(item, dict) for item in content)):
        what = 'a JSON list' if is_list else 'a JSON object over several lines'
        raise UserError(f'{origin} begins with {what}; give one object a line, as `jq -c` writes.')


def is_visible(text: str) -> bool:
    """Whether a text, such as a label, has more than white space and characters without a shape."""
    return any(has_shape(x) and not x.isspace() for x in text)


def has_shape(character: str) -> bool:
    """Whether a character is more than a control, a joiner, a variation or a filler."""
    is_control = unicodedata.category(character) in ('Cc', 'Cf')
    return not is_control and _IGNORABLE.match(character) is None


def is_json_object(line: str, names: Iterable[str]) -> bool:
    """Whether a line is meant as a JSON object, right or broken, and not as a text in braces.

    It is where it begins with a key: a text in quotation marks and a colon, or one of `names`.

    Args:
      line: a line of a file.
      names: keys that it may have.
    """
    keys = '|'.join(re.escape(name) for name in names)
    start = rf'\}}\s*$|["\']?({keys})["\']?\s*:|["\']({keys})["\']|{_KEY}'
    return re.match(rf'{_INVISIBLE}\{{\s*({start})', line) is not None


def is_object_with_keys(line: str) -> bool:
    """Whether all of a line is a JSON object that is not empty."""
    if not line.lstrip().startswith('{'):
        return False
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and bool(content)


class _Objects:
    """Makes the objects of a JSON text, inner ones first, and tells which keys are repeated."""

    def __init__(self) -> None:
        # In any object, and in the one that was made last: the outermost.
        self.repeated: list[str] = []
        self.repeated_in_last: tuple[str, ...] = ()
        # In any object, with different values.
        self.contradicted: list[str] = []

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        self.repeated_in_last = ()
        if len(content) < len(pairs):
            counts = collections.Counter(key for key, _ in pairs)
            self.repeated_in_last = tuple(key for key, count in counts.items() if count > 1)
            self.repeated += self.repeated_in_last
            self.contradicted += [key for key, value in pairs if value != content[key]]
        return content
