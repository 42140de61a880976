"""The one exception that is meant for the person at the terminal."""


class UserError(ValueError):
    """A mistake in a config, flag, file, checkpoint or text.

    The message is one sentence that says what is wrong, where, and what would be right. Commands
    print it without a traceback and exit with status 2.
    """
