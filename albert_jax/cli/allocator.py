"""How glibc gives memory back, for a process that runs one program many times on a CPU."""

import ctypes
import os
import sys
from pathlib import Path

from albert_jax.cli.host import has_accelerator

# From malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory(devices: Path = Path('/dev')) -> None:
    """Makes malloc keep what is freed. To be called before JAX has a device.

    XLA allocates the activations of a training step anew in every step. By default glibc maps so
    large a block from the system and unmaps it at the end, and the system clears and maps all its
    pages again when they are touched: a sixth of a step of `mini`. Nothing changes without glibc,
    beside an accelerator, nor what a person has set (GLIBC_TUNABLES, MALLOC_ARENA_MAX and others).

    Args:
      devices: the folder of device files.
    """
    is_set = any(name == 'GLIBC_TUNABLES' or name.startswith('MALLOC_') for name in os.environ)
    if is_set or has_accelerator(devices) or not sys.platform.startswith('linux'):
        return
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is None:
        return
    # All blocks from one heap, those of threads too, which is never cut at its end.
    for parameter, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_ARENA_MAX, 1)):
        mallopt(parameter, value)
