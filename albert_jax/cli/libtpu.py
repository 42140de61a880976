"""Settings of libtpu, which JAX asks for chips wherever it is installed. Imports neither."""

import os
from pathlib import Path

from albert_jax.cli.host import has_tpu

# Without a machine's metadata to ask, libtpu complains of all that is not here.
WITHOUT_CHIPS = {
    'TPU_SKIP_MDS_QUERY': '1',
    'TPU_WORKER_HOSTNAMES': 'localhost',
    # Any will do.
    'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
    'TPU_STDERR_LOG_LEVEL': '3',
    'TPU_MIN_LOG_LEVEL': '3',
}


def silence_without_chips(devices: Path = Path('/dev')) -> None:
    """Keeps libtpu silent on a machine without a TPU. To be called before anything imports JAX.

    Nothing changes on a machine with one, nor what a person has set.

    Args:
      devices: the folder of device files.
    """
    if not has_tpu(devices) and 'JAX_FORCE_TPU_INIT' not in os.environ:
        for name, value in WITHOUT_CHIPS.items():
            os.environ.setdefault(name, value)
