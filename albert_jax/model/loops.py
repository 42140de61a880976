"""A model at another depth than it was trained at: its layers gone through more or fewer times."""

import dataclasses
import re
from typing import Any

import jax
from jaxtyping import PyTree

from albert_jax.cli.errors import UserError
from albert_jax.model.config import AlbertConfig
from albert_jax.model.paths import path_name

# What each depth has of its own where the model's config says so.
_OF_DEPTHS = re.compile(r'/(adapter_down|adapter_up|depth/embedding|residual/scale)$')
_NORMS = re.compile(r'/(bias|scale)$')


def with_num_loops(
    config: AlbertConfig, params: PyTree, num_loops: int
) -> tuple[AlbertConfig, PyTree]:
    """The model that goes through its shared layers so many times, prelude and coda as before.

    Fewer times are an early exit, more a deeper model of the same weights.

    Args:
      config: of the model.
      params: of the model.
      num_loops: how often its layers are used in turn.

    Returns:
      Its config and its parameters, without those of depths that it does not reach.

    Raises:
      UserError: if it has no such layers, or the depths that are asked for have no weights.
    """
    if num_loops < 1:
        raise UserError(f'num_loops is {num_loops}; it must be 1 or above.')
    if config.sharing != 'all' or (config.num_loops is None and config.num_hidden_groups > 1):
        raise UserError(
            f'num_loops is {num_loops}, but the model has no layers that it goes through in turn '
            f'(model.sharing is {config.sharing}, num_hidden_groups {config.num_hidden_groups}).'
        )
    if config.num_loops is None:
        other = dataclasses.replace(config, num_hidden_layers=num_loops)
    else:
        num_layers = config.num_hidden_layers // config.num_loops * num_loops
        other = dataclasses.replace(config, num_hidden_layers=num_layers, num_loops=num_loops)
    has_own = bool(config.depth_adapter_rank or config.depth_norms or config.depth_embedding)
    if not has_own or other.num_depths == config.num_depths:
        return other, params
    if other.num_depths > config.num_depths:
        raise UserError(
            f'num_loops is {num_loops}, but the model has weights of its own at each of '
            f'{config.num_depths} depths, and none at those that follow; use fewer loops.'
        )
    return other, _first_depths(config, params, other.num_depths)


def _first_depths(config: AlbertConfig, params: PyTree, num_depths: int) -> PyTree:
    def kept(path: tuple[Any, ...], leaf: Any) -> Any:
        name = path_name(path)
        is_norm = config.depth_norms and _NORMS.search(name)
        if name.startswith('encoder/layer/') and (is_norm or _OF_DEPTHS.search(name)):
            return leaf[:num_depths]
        return leaf

    return jax.tree_util.tree_map_with_path(kept, params)
