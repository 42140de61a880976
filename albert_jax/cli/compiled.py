"""Where compiled programs are kept, so that a command is quick the second time. Imports no JAX."""

import contextlib
import os
import sys
import time
import warnings
from pathlib import Path

from albert_jax.cli.paths import user_cache

# Of all programs together; the ones that were not used for the longest time go first.
_MAX_BYTES = 1 << 30
# Compiling again what took less takes no longer than reading it.
_MIN_COMPILE_SECONDS = 0.1
_DAY_SECONDS = 24 * 3600


def keep_programs() -> None:
    """Makes JAX keep what it compiles in the user's cache.

    What a person has set for JAX stays: another folder (JAX_COMPILATION_CACHE_DIR), another
    threshold, no cache at all (JAX_ENABLE_COMPILATION_CACHE=false). Where the folder cannot be
    written, nothing is kept, and everything is compiled as before.
    """
    # Of an entry that a full disk or a killed process has left: it is compiled anew.
    warnings.filterwarnings('ignore', 'Error (read|writ)ing persistent compilation cache entry')
    os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', str(_MIN_COMPILE_SECONDS))
    if 'JAX_COMPILATION_CACHE_DIR' in os.environ:
        return
    folder = _writable_folder()
    if folder is None:
        return
    # JAX reads its environment once.
    jax = sys.modules.get('jax')
    if jax is None:
        os.environ['JAX_COMPILATION_CACHE_DIR'] = str(folder)
    elif jax.config.jax_compilation_cache_dir is None:
        jax.config.update('jax_compilation_cache_dir', str(folder))
        jax.config.update('jax_persistent_cache_min_compile_time_secs', _MIN_COMPILE_SECONDS)


def _writable_folder() -> Path | None:
    """The folder, which is made where it is missing; None where there can be none."""
    try:
        folder = user_cache() / 'compiled'
        # Whoever may write there could have a user run anything.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_once_a_day(folder)
    except (OSError, RuntimeError):
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None


def _remove_once_a_day(folder: Path) -> None:
    """Keeps the folder small enough; going through thousands of files takes a moment."""
    last_time = folder / 'looked-through'
    if not last_time.exists() or time.time() - last_time.stat().st_mtime > _DAY_SECONDS:
        last_time.touch()
        remove_oldest(folder, _MAX_BYTES)


def remove_oldest(folder: Path, max_bytes: int) -> None:
    """Removes the files that were not used for the longest time until the rest is small enough.

    Args:
      folder: with its folders.
      max_bytes: of all files together.
    """
    found = []
    for path in folder.rglob('*'):
        # Another process may be removing it.
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            if path.is_file():
                found.append((max(status.st_atime, status.st_mtime), status.st_size, path))
    num_bytes = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if num_bytes <= max_bytes:
            break
        path.unlink(missing_ok=True)
        num_bytes -= size
