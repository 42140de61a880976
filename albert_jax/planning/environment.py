"""What JAX and libtpu read when they start, for compiling without a TPU. Imports neither."""

import os

from albert_jax.cli.libtpu import WITHOUT_CHIPS


def prepare_to_compile(is_fast: bool) -> None:
    """Sets what JAX and libtpu read when they start. To be called before anything imports JAX."""
    os.environ |= {
        'JAX_PLATFORMS': 'cpu',
        **WITHOUT_CHIPS,
        # A second process may be planning too.
        'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
    }
    # What it holds of TPU programs cannot be read back.
    os.environ.pop('JAX_COMPILATION_CACHE_DIR', None)
    if is_fast:
        os.environ['JAX_OPTIMIZATION_LEVEL'] = 'O0'
