"""Pretraining from another model's weights: going on, or a deeper net from a shallower one."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from albert_jax.cli.errors import UserError
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.interop import source
from albert_jax.model.albert import init_params
from albert_jax.model.config import AlbertConfig
from albert_jax.model.paths import path_name

# What decides how weights are used, and cannot be seen in their shapes.
_SAME = ('num_attention_heads', 'hidden_act', 'sharing')


def start_params(init_from: str, model: AlbertConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """The weights to start from; parts that the source lacks, such as a head, are left out.

    With shared layers the parameters do not depend on the depth, so that a net may start from a
    shallower one (appendix A.1 of the paper).

    Args:
      init_from: anything that `albert_jax.load` takes.
      model: that is going to be trained.
      tokenizer: of the corpus.

    Raises:
      UserError: if the source cannot be read, or is of another shape or vocabulary.
    """
    start = source.read(init_from)
    if start.tokenizer is not None and start.tokenizer.sha256 != tokenizer.sha256:
        raise UserError(
            f'init_from={init_from} has another vocabulary than the corpus; prepare the corpus '
            f'with --vocabulary=FILE of that one.'
        )
    for name in _SAME:
        if getattr(start.config, name) != getattr(model, name):
            raise UserError(
                f'init_from={init_from} has {name}={getattr(start.config, name)}, the model of '
                f'this run {getattr(model, name)}.'
            )
    params = {part: tree for part, tree in start.params.items() if part != 'head'}
    key = jax.eval_shape(lambda: jax.random.key(0))
    wanted = jax.eval_shape(lambda k: init_params(model, k), key)
    expected = {part: wanted[part] for part in params}
    found, shapes = (
        {path_name(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (params, expected)
    )
    for path in sorted({*found, *shapes}):
        if found.get(path) != shapes.get(path):
            raise UserError(
                f'init_from={init_from}: {path} has the shape {found.get(path)}, this run needs '
                f'{shapes.get(path)}; give it the same sizes (only the depth may differ, and only '
                f'where layers are shared).'
            )
    # On the host: every process of a pod has the same.
    return jax.tree.map(np.asarray, params)


def init_with(model: AlbertConfig, key: Key[Array, ''], start: dict[str, Any]) -> PyTree:
    """Fresh parameters with the given parts in their place."""
    fresh = dict(init_params(model, key))
    return {**fresh, **jax.tree.map(jnp.asarray, start)}
