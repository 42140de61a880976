"""The one exception that is meant for the person at the terminal, and reasons out of others."""

import re
from collections.abc import Sequence


class UserError(ValueError):
    """A mistake in a config, flag, file, checkpoint or text.

    The message is one sentence that says what is wrong, where, and what would be right. Commands
    print it without a traceback and exit with status 2.
    """

    @property
    def parts(self) -> Sequence['UserError']:
        """Each mistake alone, where there are several."""
        return (self,)


class UserErrors(UserError):
    """Several mistakes that were found together, a sentence each.

    Args:
      errors: two or more.
    """

    def __init__(self, errors: Sequence[UserError]) -> None:
        super().__init__(' '.join(map(str, errors)))
        self._parts = tuple(part for error in errors for part in error.parts)

    @property
    def parts(self) -> Sequence[UserError]:
        """Each mistake alone."""
        return self._parts


def is_about(error: UserError, address: str) -> bool:
    """Whether a mistake names the field at an address, as in `loop.num_steps`."""
    return re.search(rf'(?<![\w.]){re.escape(address)}(?!\w|\.\w)', str(error)) is not None


def raise_all(errors: Sequence[UserError]) -> None:
    """Raises what was found, if anything was.

    Args:
      errors: all mistakes; none to go on.

    Raises:
      UserError: the one, or all of them together.
    """
    if errors:
        raise errors[0] if len(errors) == 1 else UserErrors(errors)


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
