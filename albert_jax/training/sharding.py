"""The mesh, and where every array lives.

The mesh has two axes. A batch is split over both. Parameters and optimizer state are split over
`fsdp` and repeated over `data`. ALBERT's weights are shared between layers and fit on every chip
while a step runs, so a step gathers them once, and scatters their gradients once: ZeRO stage 1,
arXiv 1910.02054. What that saves is optimizer state and its arithmetic; activations fill the chip.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from albert_jax.cli.errors import UserError
from albert_jax.model.paths import is_product_kernel, path_name

AXES = ('data', 'fsdp')
BATCH = PartitionSpec(AXES)
REPLICATED = PartitionSpec()

# First match wins: (path, axes to split, the first one that divides). Axes count from the end: a
# sublayer with several unique layers has one more before them. A path that nothing matches is an
# error.
_RULES: tuple[tuple[str, tuple[int, ...]], ...] = (
    (r'(^|/)(bias|scale|count|ns_coeffs)$', ()),
    (r'(^|/)embedding$', (-2, -1)),
    (r'(^|/)(kernel|adapter_up)$', (-1, -2)),
    # Inputs before the rank.
    (r'(^|/)adapter_down$', (-2, -1)),
)
# State of this size, parameters and two moments, is worth splitting.
_LARGE_STATE_BYTES = 2**30
# More would leave shards too small to be worth a message each.
_MAX_FSDP = 16


def make_mesh(
    num_devices: int = 0, num_fsdp: int = 1, devices: Sequence[Any] | None = None
) -> Mesh:
    """A mesh of `num_devices` (0: all) devices, `num_fsdp` of which share each copy of the state.

    Devices of one process are neighbours, so that its rows of the global batch are too.

    Args:
      num_devices: over all processes.
      num_fsdp: must divide it.
      devices: to choose among; JAX's if left out.

    Raises:
      UserError: if there are fewer devices, or they do not divide.
    """
    devices = sorted(devices or jax.devices(), key=lambda device: (device.process_index, device.id))
    if num_devices > len(devices):
        raise UserError(
            f'num_devices is {num_devices}, but this machine has {len(devices)}; '
            f'give at most that, or 0 for all.'
        )
    devices = devices[: num_devices or len(devices)]
    if len(devices) % num_fsdp:
        raise UserError(
            f'loop.num_fsdp is {num_fsdp}, but the mesh has {len(devices)} devices; it must be a '
            f'divisor of them, or 0 to let the size of the model choose.'
        )
    grid = np.asarray(devices).reshape(-1, num_fsdp)
    # With jax's default, explicit axis types, an embedding of a sharded batch is refused.
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * 2)


def choose_fsdp(num_params: int, num_devices: int) -> int:
    """Over how many devices to split a state of float32 parameters and two moments.

    One where it is small; else the most that divide the devices, up to a slice of 16.
    """
    if 12 * num_params < _LARGE_STATE_BYTES:
        return 1
    sizes = range(min(num_devices, _MAX_FSDP), 0, -1)
    return next(size for size in sizes if num_devices % size == 0)


def replicated(mesh: Mesh) -> NamedSharding:
    """A full copy on every device."""
    return NamedSharding(mesh, REPLICATED)


def spec_of(path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """Where a parameter, or its moment in the optimizer, is split.

    Raises:
      ValueError: if no rule matches the path.
    """
    num_fsdp = mesh.shape['fsdp']
    for pattern, axes in _RULES:
        if re.search(pattern, path):
            for axis in axes:
                if num_fsdp > 1 and shape[axis] % num_fsdp == 0:
                    parts: list[str | None] = [None] * len(shape)
                    parts[axis] = 'fsdp'
                    return PartitionSpec(*parts)
            return REPLICATED
    raise ValueError(f'No sharding rule matches the array {path}.')


def specs(tree: PyTree, mesh: Mesh) -> PyTree:
    """`spec_of` for a tree of arrays, or of their shapes."""
    return jax.tree_util.tree_map_with_path(
        lambda path, x: spec_of(path_name(path), x.shape, mesh), tree
    )


def shardings(tree: PyTree, mesh: Mesh) -> PyTree:
    """`specs` as shardings."""
    return jax.tree.map(
        lambda spec: NamedSharding(mesh, spec),
        specs(tree, mesh),
        is_leaf=lambda x: isinstance(x, PartitionSpec),
    )


def with_shardings(shapes: PyTree, tree_shardings: PyTree) -> PyTree:
    """Shapes and types with the shardings of a tree alike: what compilation and Orbax ask for."""
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shapes,
        tree_shardings,
    )


def split_axis(spec: PartitionSpec) -> int | None:
    """The axis that is split over `fsdp`, if one is."""
    return next((axis for axis, name in enumerate(spec) if name == 'fsdp'), None)


def gather(tree: PyTree, tree_specs: PyTree, dtype: jnp.dtype) -> PyTree:
    """The full arrays of a tree from the shards on each device. To be called inside `shard_map`.

    The model's kernels travel in `dtype`, which is what they are rounded to in every product; all
    else, heads of tasks too, and what is returned, is float32.
    """

    def full(path: tuple[Any, ...], shard: Array, spec: PartitionSpec) -> Array:
        axis = split_axis(spec)
        if axis is None:
            return shard
        if is_product_kernel(path_name(path)):
            shard = shard.astype(dtype)
        return jax.lax.all_gather(shard, 'fsdp', axis=axis, tiled=True).astype(jnp.float32)

    return jax.tree_util.tree_map_with_path(full, tree, tree_specs)


def reduce(tree: PyTree, tree_specs: PyTree) -> PyTree:
    """The sum over all devices, split again. To be called inside `shard_map`."""

    def total(x: Array, spec: PartitionSpec) -> Array:
        axis = split_axis(spec)
        if axis is None:
            return jax.lax.psum(x, AXES)
        shard = jax.lax.psum_scatter(x, 'fsdp', scatter_dimension=axis, tiled=True)
        return jax.lax.psum(shard, 'data')

    return jax.tree.map(total, tree, tree_specs)


def replicator(mesh: Mesh) -> Callable[[PyTree], PyTree]:
    """A function that puts a full copy of a tree on every device."""
    return jax.jit(lambda tree: tree, out_shardings=replicated(mesh))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows split over all devices."""
    return NamedSharding(mesh, BATCH)


def put_batch(mesh: Mesh, local_batch: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The global batch from this process's rows of it, split over the devices."""
    sharding = batch_sharding(mesh)
    if jax.process_count() == 1:
        return jax.device_put(dict(local_batch), sharding)
    # This is the transfer that is asked for, though JAX does not count it as such.
    with jax.transfer_guard_host_to_device('allow'):
        return {
            name: jax.make_array_from_process_local_data(sharding, rows)
            for name, rows in local_batch.items()
        }
