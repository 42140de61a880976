"""Paths as people write them: a leading ~ is a home folder, in every option of every command."""

import os
from pathlib import Path


def expand(path: str) -> str:
    """A path with the home folder in place of a leading `~` or `~USER`.

    Anything else, such as gs://BUCKET or tfds:NAME, is returned as it is; so is `~USER` where there
    is no such user.
    """
    if not path.startswith('~'):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError:
        return path


def local_path(path: str) -> Path:
    """As `expand`, for an option that is always a local file or folder."""
    return Path(expand(path))


def expand_after(separator: str, text: str) -> str:
    """As `expand` for a path alone or behind a name, as in `NAME=~/path` or `jsonl:~/path`."""
    name, found, path = text.partition(separator)
    if not found or not path.startswith('~') or '/' in name:
        return expand(text)
    return f'{name}{separator}{expand(path)}'


def user_cache() -> Path:
    """Where what can be made again is kept: below XDG_CACHE_HOME, or ~/.cache.

    As the XDG Base Directory Specification says, a path there that is not absolute is ignored.

    Raises:
      RuntimeError: if the user has no home directory.
    """
    base = Path(os.environ.get('XDG_CACHE_HOME', ''))
    return (base if base.is_absolute() else Path.home() / '.cache') / 'albert_jax'
