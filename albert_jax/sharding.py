"""The mesh and where every array lives: batches split over `data`, everything else on every chip.

ALBERT's weights are shared, so they fit on every chip; activations are what fills it.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from albert_jax.errors import UserError

BATCH = PartitionSpec('data')
REPLICATED = PartitionSpec()


def make_mesh(num_devices: int = 0) -> Mesh:
    """A mesh of one axis, `data`, over the first `num_devices` devices (0: all of them).

    Raises:
      UserError: if there are fewer devices.
    """
    devices = jax.devices()
    if num_devices > len(devices):
        raise UserError(
            f'num_devices is {num_devices}, but this machine has {len(devices)}; '
            f'give at most that, or 0 for all.'
        )
    devices = devices[: num_devices or len(devices)]
    # With jax's default, explicit axis types, an embedding of a sharded batch is refused.
    return Mesh(np.asarray(devices), ('data',), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """On every device, whole."""
    return NamedSharding(mesh, REPLICATED)


def put_batch(mesh: Mesh, local_batch: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The global batch from this process's rows of it, split over the devices."""
    sharding = NamedSharding(mesh, BATCH)
    return {
        name: jax.make_array_from_process_local_data(sharding, rows)
        for name, rows in local_batch.items()
    }
