"""The checker of types that jaxtyping's import hook applies to every function of the package."""

import functools
from collections.abc import Callable
from typing import Any, Self

from beartype import BeartypeConf, beartype

# An int where a float is asked for is right, as for static checkers.
_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """As beartype, but for two kinds of function.

    Beartype reads `Self` only where it decorates a whole class, which the hook does not do: such
    a type is not checked. And a section of a config checks its own fields, and raises a UserError
    that names the field: it has to come first.
    """
    hints = function.__annotations__
    for name, hint in hints.items():
        if hint is Self:
            hints[name] = Any
    checked = _beartype(function)
    if function.__name__ != '__init__':
        return checked

    @functools.wraps(function)
    def checked_init(self: object, *args: Any, **kwargs: Any) -> Any:
        # By name: the hook is at work before the class is there.
        if any(base.__name__ == 'Settings' for base in type(self).__mro__):
            return None
        return checked(self, *args, **kwargs)

    return checked_init
