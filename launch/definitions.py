"""What a person's Python file defines: a sweep or a search, by FILE:NAME."""

from pathlib import Path
from typing import TypeVar

from albert_jax.cli.errors import UserError, UserErrors
from albert_jax.cli.paths import expand
from albert_jax.cli.python_file import error_in_file, load_python_file

DefinitionT = TypeVar('DefinitionT')


def read_definition(argument: str, flag: str, kind: type[DefinitionT]) -> DefinitionT:
    """What `get_KIND(name)` of `FILE.py:NAME` gives, `get_sweep` of a Sweep.

    Args:
      argument: FILE.py:NAME, or FILE.py for the function's own default.
      flag: whose value it is.
      kind: Sweep or Search.

    Raises:
      UserError: if the file, the name or something in it is wrong.
    """
    path, colon, name = expand(argument).partition(':')
    if not Path(path).is_file():
        raise UserError(f'{flag}={argument}: there is no file {path}.')
    what = kind.__name__.lower()
    try:
        get = getattr(load_python_file(path, what), f'get_{what}', None)
        if get is None:
            raise UserError(f'the file has no function get_{what}(name).')
        found = get(name) if colon else get()
    except UserError as error:
        parts = [UserError(f'{flag}={argument}: {part}') for part in error.parts]
        raise UserErrors(parts) from error
    except Exception as error:  # a person's own file can raise anything
        raise UserError(f'{flag}={argument}: {error_in_file(error, path)}') from error
    if not isinstance(found, kind):
        raise UserError(
            f'{flag}={argument}: get_{what} gives {type(found).__name__}, not a {kind.__name__}.'
        )
    return found
