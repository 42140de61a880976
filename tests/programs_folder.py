"""A folder of kept programs for tests, in place of JAX's own cache."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

from albert_jax.training import programs


@contextlib.contextmanager
def kept_programs(parent: Path) -> Iterator[Path]:
    """Keeps programs in a folder of `parent`, and then again what JAX's cache keeps."""
    before = jax.config.jax_compilation_cache_dir  # pyright: ignore
    jax.config.update('jax_compilation_cache_dir', str(parent))
    programs.keep_programs_whole()
    assert programs._store.folder is not None
    try:
        yield programs._store.folder
    finally:
        programs._store.folder = None
        jax.config.update('jax_compilation_cache_dir', before)
        jax.config.update('jax_enable_compilation_cache', True)
        compilation_cache.reset_cache()
