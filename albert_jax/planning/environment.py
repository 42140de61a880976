"""What JAX and libtpu read when they start, for compiling without a TPU. Imports neither."""

import os


def prepare_to_compile(is_fast: bool) -> None:
    """Sets what JAX and libtpu read when they start. To be called before anything imports JAX."""
    os.environ |= {
        'JAX_PLATFORMS': 'cpu',
        'TPU_SKIP_MDS_QUERY': '1',
        'TPU_WORKER_HOSTNAMES': 'localhost',
        # Any will do: without one libtpu complains that it cannot ask a machine's metadata.
        'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
        # A second process may be planning too.
        'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
        'TPU_STDERR_LOG_LEVEL': '3',
        'TPU_MIN_LOG_LEVEL': '3',
    }
    # What it holds of TPU programs cannot be read back.
    os.environ.pop('JAX_COMPILATION_CACHE_DIR', None)
    if is_fast:
        os.environ['JAX_OPTIMIZATION_LEVEL'] = 'O0'
