"""The one exception that is meant for the person at the terminal."""


class UserError(ValueError):
    """A mistake in a config, flag, file, checkpoint or text.

    The message is one sentence that says what is wrong, where, and what would be right. Commands
    print it without a traceback and exit with status 2.
    """


def first_line(error: BaseException, limit: int = 200) -> str:
    """What an error says in its first line, or its type where it says nothing.

    Args:
      error: of any library.
      limit: characters.
    """
    lines = str(error).strip().splitlines()
    return lines[0][:limit] if lines else type(error).__name__
