"""Names of parameters, and functions of a parameter tree by name or size."""

from collections.abc import Mapping
from typing import Any

import jax
from jaxtyping import PyTree


def path_name(path: tuple[Any, ...]) -> str:
    """The name of a leaf from its JAX key path, as in `encoder/layer/attention/query/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator='/')


def is_product_kernel(path: str) -> bool:
    """Whether a parameter is rounded to the compute dtype in every product that it takes part in.

    These are the kernels of the model itself: they may be sent and kept in the compute dtype. The
    products of a task's head are in float32.
    """
    return path.endswith('kernel') and 'head' not in path.split('/')


def flatten(tree: PyTree) -> dict[str, Any]:
    """The leaves of a tree by their names, in JAX's order."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def num_params(tree: PyTree) -> int:
    """The number of scalars in a tree of arrays, or of their shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def select(params: Mapping[str, Any], parts: tuple[str, ...]) -> dict[str, Any]:
    """The named top-level parts of a parameter tree, in the given order, without those it lacks."""
    return {part: params[part] for part in parts if part in params}
