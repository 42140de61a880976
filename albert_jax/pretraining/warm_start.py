"""Pretraining from another model's weights: its continuation, or a deeper net from a shallower."""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from albert_jax.cli.errors import UserError
from albert_jax.data import vocabulary_normalization
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.interop import source
from albert_jax.interop.native import expected_shapes
from albert_jax.model.albert import init_params
from albert_jax.model.config import AlbertConfig
from albert_jax.model.paths import flatten

# What decides how weights are used, and cannot be seen in their shapes.
_SAME = (
    'num_attention_heads',
    'hidden_act',
    'sharing',
    'position_encoding',
    'norm_placement',
    'is_gated',
    'layer_norm_eps',
)


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
    if isinstance(start.tokenizer, Tokenizer):
        vocabulary_normalization.note_difference(
            f'init_from={init_from}', start.tokenizer, 'the corpus', tokenizer
        )
    if added := getattr(start.tokenizer, 'added_tokens', ()):
        print(
            f'note: init_from={init_from} has {len(added)} added tokens, which the vocabulary of '
            f'the corpus has not; in its text they are cut, and the new model does not know them.',
            file=sys.stderr,
        )
    differing = [
        f'{name}={getattr(start.config, name)}, the model of this run {getattr(model, name)}'
        for name in _SAME
        if getattr(start.config, name) != getattr(model, name)
    ]
    in_turn = [_num_in_turn(config) for config in (start.config, model)]
    if not differing and in_turn[0] != in_turn[1]:
        # Groups of as many layers, one after the other, have arrays of the same shapes.
        differing = [
            f'{in_turn[0]} layers that it goes through in turn, the model of this run {in_turn[1]} '
            f'(model.num_loops, model.inner_group_num)'
        ]
    if differing:
        raise UserError(f'init_from={init_from} has {", and ".join(differing)}.')
    params = {part: tree for part, tree in start.params.items() if part != 'head'}
    wanted = expected_shapes(model)
    shapes = {path: leaf.shape for path, leaf in flatten(params).items()}
    for path in sorted({*shapes, *(p for p in wanted if p.partition('/')[0] in params)}):
        if shapes.get(path) != wanted.get(path):
            raise UserError(
                f'init_from={init_from}: {path} has the shape {shapes.get(path)}, this run needs '
                f'{wanted.get(path)}; give it the same sizes (only the depth may differ, and only '
                f'where layers are shared).'
            )
    # On the host: every process of a pod has the same.
    return jax.tree.map(np.asarray, params)


def _num_in_turn(config: AlbertConfig) -> int:
    """Layers of a group, or of a loop, that a text goes through before one is used again."""
    config = config.in_groups
    if config.num_loops is None:
        return config.inner_group_num
    return config.inner_group_num * (config.num_hidden_layers // config.num_loops)


def init_with(model: AlbertConfig, key: Key[Array, ''], start: dict[str, Any]) -> PyTree:
    """Fresh parameters with the given parts in their place."""
    fresh = dict(init_params(model, key))
    return {**fresh, **jax.tree.map(jnp.asarray, start)}
