"""Standard output that takes any text, whatever its encoding."""

import codecs
import io
import json
import sys

_ESCAPES = 'albert_jax.json_escapes'
# With these a text that cannot be encoded ends the command, after all of its work.
_FAILING = ('strict', 'surrogateescape')


def escape_what_cannot_be_written() -> None:
    r"""Makes standard output and error write \u65e5 for a character that their encoding lacks.

    Within JSON that is the character itself.
    """
    codecs.register_error(_ESCAPES, _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in _FAILING:
            stream.reconfigure(errors=_ESCAPES)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """As `backslashreplace`, but as JSON spells it: with \\u and four digits, or two of these."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end
