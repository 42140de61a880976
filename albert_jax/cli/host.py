"""What this machine has for computing. Imports no JAX, which would start it."""

from pathlib import Path


def has_tpu(devices: Path = Path('/dev')) -> bool:
    """Whether there is a TPU.

    Args:
      devices: the folder of device files.
    """
    return any(devices.glob('accel*')) or any(devices.glob('vfio/*'))


def has_accelerator(devices: Path = Path('/dev')) -> bool:
    """Whether there is a TPU or an NVIDIA GPU.

    Args:
      devices: the folder of device files.
    """
    return has_tpu(devices) or (devices / 'nvidia0').exists()
