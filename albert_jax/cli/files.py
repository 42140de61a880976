"""Files and directories that appear complete or not at all: written aside, then renamed."""

import contextlib
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from albert_jax.cli.errors import UserError, reason

# Longest wait for threads that still write into a directory that is being removed.
_REMOVAL_SECONDS = 10


def incomplete(directory: Path) -> Path:
    """The name that a directory has until it is complete."""
    return directory.with_name(f'{directory.name}.incomplete')


def check_is_free(path: Path) -> None:
    """Refuses to write where something would be lost.

    Raises:
      UserError: if the path exists and is not an empty directory.
    """
    try:
        is_free = not path.exists() or not any(path.iterdir())
    except NotADirectoryError:
        is_free = False
    except OSError as error:
        raise UserError(f'{path} cannot be written: {reason(error)}.') from error
    if not is_free:
        content = 'a directory that is not empty' if path.is_dir() else 'a file'
        raise UserError(
            f'{path} exists already ({content}); choose another destination or remove it.'
        )


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Gives a path to write to, which is renamed to `path` at the end, or removed on an error.

    A file that is there already is replaced. Processes that write the same file, on machines that
    share a bucket too, do not disturb each other.
    """
    partial = path.with_name(f'{path.name}.{socket.gethostname()}.{os.getpid()}.incomplete')
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def new_directory(path: Path, is_private: bool = False) -> Iterator[Path]:
    """Gives an empty directory, which is renamed to `path` at the end, or removed on an error.

    Args:
      path: not there, or an empty directory. Missing parents are made.
      is_private: it has a name of this process alone; else the `incomplete` name, under which what
        a killed process has left is removed first.
    """
    partial = incomplete(path)
    if is_private:
        partial = path.with_name(f'.{path.name}.{os.getpid()}.incomplete')
    try:
        remove(partial)
        partial.mkdir(parents=True)
        yield partial
        partial.replace(path)
    except BaseException:
        remove(partial)
        raise


def remove(directory: Path) -> None:
    """Removes a directory, if there is one, in which failed writes may still be making files.

    The first of Orbax's writes to fail ends its saving; the others continue in their threads, and
    make the directories that they miss.
    """
    end = time.monotonic() + _REMOVAL_SECONDS
    while directory.is_dir() and time.monotonic() < end:
        shutil.rmtree(directory, ignore_errors=True)
        time.sleep(0.2)
