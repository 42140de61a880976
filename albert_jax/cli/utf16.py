"""UTF-16 without a byte-order mark, which is valid UTF-8 as well, with a NUL beside each letter."""

from albert_jax.cli.errors import UserError

# Bytes that show what the rest is.
NUM_BYTES = 2**13
# A text of one letter may have a NUL.
_FEWEST = 2


def check_is_not_utf16(content: bytes, origin: str) -> None:
    """Refuses bytes that look like UTF-16, of which every second one is NUL where it is English.

    Runs of NUL, as of fields that are filled up, do not look so.

    Args:
      content: a file from its start, or so many of its bytes.
      origin: what to call it in the message.

    Raises:
      UserError: if a third of the first bytes are NUL, nearly all of them in every second place.
    """
    content = content[:NUM_BYTES]
    first, second = content[::2].count(0), content[1::2].count(0)
    fewer, more = min(first, second), max(first, second)
    if more >= _FEWEST and 3 * more >= len(content) and 10 * fewer <= more:
        encoding = 'UTF-16BE' if first > second else 'UTF-16LE'
        raise UserError(
            f'{origin} looks like UTF-16 (every second byte is NUL); convert it to UTF-8, for '
            f'example with iconv -f {encoding} -t UTF-8.'
        )
