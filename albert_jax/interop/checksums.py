"""A number for each array of a tree, to notice what storage does not."""

import hashlib
import json
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, PyTree

from albert_jax.model.paths import flatten


def _digest(array: Array) -> Array:
    """A number that changes with any bit of an array and with their order.

    Storage does not notice a flipped bit in an uncompressed array. Whole numbers add up to the
    same on any mesh.
    """
    bits = jax.lax.bitcast_convert_type(array, jnp.dtype(f'uint{8 * array.dtype.itemsize}'))
    bits = bits.astype(jnp.uint32)
    # The index in memory, without a reshape: that would bring all shards to one device.
    indices = jnp.zeros(bits.shape, jnp.uint32)
    for axis in range(bits.ndim):
        size = jnp.uint32(bits.shape[axis])
        indices = indices * size + jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
    return (bits * (indices * jnp.uint32(0x9E3779B9) | 1)).sum(dtype=jnp.uint32)


def _digest_all(arrays: list[Array]) -> list[Array]:
    return [_digest(array) for array in arrays]


def _digest_in_memory(array: Array | np.ndarray) -> int:
    """As _digest, of an array that is in this process's memory: without a program to compile."""
    flat = np.asarray(array).reshape(-1)
    bits = flat.view(f'uint{8 * flat.dtype.itemsize}').astype(np.uint32)
    indices = np.arange(len(bits), dtype=np.uint32)
    return int((bits * (indices * np.uint32(0x9E3779B9) | np.uint32(1))).sum(dtype=np.uint32))


def is_in_memory(array: Array | np.ndarray) -> bool:
    """Whether NumPy reads an array where it is."""
    if isinstance(array, np.ndarray):
        return True
    is_on_cpu = all(device.platform == 'cpu' for device in array.devices())
    return is_on_cpu and array.is_fully_addressable


def digests(tree: PyTree) -> dict[str, int]:
    """The digest of each array, by its path."""
    named = flatten(tree)
    if all(map(is_in_memory, named.values())):
        return {path: _digest_in_memory(array) for path, array in named.items()}
    leaves = list(named.values())
    sharding = getattr(leaves[0], 'sharding', None)
    everywhere = NamedSharding(sharding.mesh, P()) if isinstance(sharding, NamedSharding) else None
    numbers = jax.device_get(jax.jit(_digest_all, out_shardings=everywhere)(leaves))
    return {path: int(number) for path, number in zip(named, numbers, strict=True)}


def check_digests(tree: PyTree, expected: Mapping[str, int]) -> None:
    """Compares the digests of a tree with those of the tree that was saved.

    Raises:
      ValueError: if an array is not what was saved.
    """
    for path, number in digests(tree).items():
        if expected.get(path) != number:
            raise ValueError(f'{path} is not what was saved')


def digest_of_all(tree: PyTree) -> str:
    """One name for all arrays together."""
    return hashlib.sha256(json.dumps(digests(tree), sort_keys=True).encode()).hexdigest()
