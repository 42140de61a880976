"""The layers of a decoder in Linen.

A layer is the encoder's with a causal mask, and a cross-attention between its two sublayers.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from albert_jax.model import remat
from albert_jax.model.config import AlbertConfig
from albert_jax.model.decoder_attention import DecoderAttention, KeyValues
from albert_jax.model.decoder_config import DecoderConfig
from albert_jax.model.modules import LayerNorm, Place
from albert_jax.model.sublayers import FeedForward


class Memory(NamedTuple):
    """The source as the decoder attends to it, made once for a text."""

    # With one cross-attention for all layers [1, 1, batch, heads, source, head], else [layers,
    # inner blocks, batch, heads, source, head].
    key_values: KeyValues
    # True for a token, false for padding.
    mask: Bool[Array, 'batch source']

    def of_layer(self, layer: int) -> KeyValues:
        """What a layer's cross-attentions attend to, `[1 or inner blocks, batch, …]`."""
        return jax.tree.map(lambda x: x[min(layer, len(x) - 1)], self.key_values)


# The keys and values of the text so far, of each block, [batch, heads, length, beams, head].
Cache = tuple[KeyValues, ...]


class DecoderLayer(nn.Module):
    """One layer: `inner_group_num` blocks of self-attention, cross-attention and feed-forward.

    As the body of `nn.scan` it takes the indices of the unique sublayers that it uses, and returns
    the carry, which is its output, and the caches and the probabilities of the cross-attentions.
    """

    config: AlbertConfig
    decoder: DecoderConfig
    deterministic: bool = True
    return_attentions: bool = False

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, 'batch queries hidden'],
        attention_indices: Int[Array, 'inner'],
        ffn_indices: Int[Array, 'inner'],
        cross_indices: Int[Array, 'inner'],
        memory: KeyValues,
        memory_mask: Bool[Array, 'batch source'],
        mask: Bool[Array, 'batch queries keys'],
        positions: Int[Array, 'queries'],
        example_ids: Int[Array, 'batch'],
        caches: Cache | None = None,
    ) -> tuple[Float[Array, 'batch queries hidden'], tuple[Cache | None, Array | None]]:
        """The layer's output, its caches, and the probabilities of its cross-attentions.

        Args:
          hidden: of the target's tokens; with a cache, of one token of each beam.
          attention_indices: of the unique self-attentions.
          ffn_indices: of the unique feed-forwards.
          cross_indices: of the unique cross-attentions.
          memory: a layer of `Memory.key_values`.
          memory_mask: of the source.
          mask: which of the target's tokens each one sees; with a cache, `length · beams` of them.
          positions: of the tokens in the target; with a cache all are the same.
          example_ids: choose the dropout masks.
          caches: of each block, into which the tokens' keys and values are written.
        """
        config, decoder, is_deterministic = self.config, self.decoder, self.deterministic
        num_unique = functools.partial(decoder.num_unique_layers, config)
        attend = DecoderAttention(config, num_unique('attention'), name='attention')
        cross_attend = DecoderAttention(
            config, decoder.num_cross_attentions(config), name='cross_attention'
        )
        feed_forward = FeedForward(config, num_unique('ffn'), name='ffn')
        written, all_probs = [], []
        for inner in range(config.inner_group_num):
            place = Place(attention_indices[inner])
            attended = attend.key_values(attend.inputs(hidden, place), place, positions)
            if caches is not None:
                cache = _write(caches[inner], attended, positions[0])
                written.append(cache)
                attended = KeyValues(*(x.reshape(*x.shape[:2], -1, x.shape[-1]) for x in cache))
            hidden, _ = attend(
                hidden, attended, mask, example_ids, place, positions, is_deterministic
            )
            # One cross-attention has one memory for all blocks.
            block = inner % memory.keys.shape[0]
            hidden, probs = cross_attend(
                hidden,
                KeyValues(memory.keys[block], memory.values[block]),
                memory_mask[:, None],
                example_ids,
                Place(cross_indices[inner]),
                None,
                is_deterministic,
                self.return_attentions,
            )
            all_probs.append(probs)
            hidden = feed_forward(hidden, Place(ffn_indices[inner]), example_ids, is_deterministic)
        probs = jnp.stack(all_probs) if self.return_attentions else None
        return hidden, (None if caches is None else tuple(written), probs)


def _write(cache: KeyValues, new: KeyValues, position: Int[Array, '']) -> KeyValues:
    """The cache with the keys and values of one token of each beam at the position."""
    return KeyValues(
        *(
            jax.lax.dynamic_update_slice_in_dim(old, rows[:, :, None], position, axis=2)
            for old, rows in zip(cache, new, strict=True)
        )
    )


class Decoder(nn.Module):
    """All layers as one `nn.scan`, and the norm after the last where the norms stand before."""

    config: AlbertConfig
    decoder: DecoderConfig

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, 'batch target hidden'],
        memory: Memory,
        mask: Bool[Array, 'batch target target'],
        example_ids: Int[Array, 'batch'],
        deterministic: bool,
        return_attentions: bool,
    ) -> tuple[Float[Array, 'batch target hidden'], Array | None]:
        config, decoder = self.config, self.decoder
        policy, layer = remat.policy(config.remat), DecoderLayer
        if policy is not None:
            # Inside scan there is no common subexpression to protect from.
            layer = nn.remat(DecoderLayer, policy=policy, prevent_cse=False)
        every, same = 0, nn.broadcast
        # One memory is the same for all layers.
        is_shared = decoder.cross_attention == 'shared'
        axes = (every, every, every, same if is_shared else every, *(same,) * 4)
        layers = nn.scan(
            layer,
            variable_broadcast='params',
            split_rngs={'params': False, 'dropout': True},
            in_axes=axes,  # pyright: ignore[reportArgumentType]
            length=decoder.num_layers(config),
        )(config, decoder, deterministic, return_attentions, name='layer')
        hidden, (_, probs) = layers(
            hidden,
            *layer_indices(config, decoder),
            memory.of_layer(0) if is_shared else memory.key_values,
            memory.mask,
            mask,
            jnp.arange(hidden.shape[1]),
            example_ids,
        )
        if config.norm_placement == 'pre':
            hidden = LayerNorm(config, name='layer_norm')(hidden).astype(hidden.dtype)
        return hidden, probs


def layer_indices(
    config: AlbertConfig, decoder: DecoderConfig
) -> tuple[Int[Array, 'layers inner'], Int[Array, 'layers inner'], Int[Array, 'layers inner']]:
    """The unique self-attention, feed-forward and cross-attention that each block uses."""
    shape = decoder.num_layers(config), config.inner_group_num
    cross = jnp.arange(shape[0] * shape[1]).reshape(shape) % decoder.num_cross_attentions(config)
    return (
        jnp.asarray(decoder.unique_layer_indices(config, 'attention')),
        jnp.asarray(decoder.unique_layer_indices(config, 'ffn')),
        cross,
    )
