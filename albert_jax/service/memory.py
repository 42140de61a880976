"""Settings of the C library's memory allocator."""

import ctypes


def keep_freed() -> None:
    """Keeps freed memory for the next batch; pages given back have to be faulted in (glibc).

    To be called before anything imports JAX, whose threads would have memory of their own.
    """
    trim_threshold, mmap_max, arena_max = -1, -4, -8
    try:
        mallopt = ctypes.CDLL('libc.so.6').mallopt
    except OSError:
        return
    for option, value in ((trim_threshold, 2**31 - 1), (mmap_max, 0), (arena_max, 1)):
        mallopt(option, value)
