"""The one exception that is meant for the person at the terminal, and reasons out of others."""


class UserError(ValueError):
    """A mistake in a config, flag, file, checkpoint or text.

    The message is one sentence that says what is wrong, where, and what would be right. Commands
    print it without a traceback and exit with status 2.
    """


def first_line(error: BaseException, limit: int = 200) -> str:
    """The first line of an error's message, or the name of its type if it has none.

    Args:
      error: of any library.
      limit: longest result, in characters.
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0][:limit]


def reason(error: BaseException) -> str:
    """What the operating system says of an error, or else the first line of its message."""
    return getattr(error, 'strerror', None) or first_line(error)
