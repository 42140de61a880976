"""The two sublayers in Linen: self-attention and feed-forward (section 3.1 of the paper)."""

import functools
from typing import Any

import jax
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from albert_jax.model import attention, fused_attention, remat, rope, unflattened
from albert_jax.model.config import AlbertConfig
from albert_jax.model.elementwise import activate, activate_gated
from albert_jax.model.modules import (
    Dense,
    DenseWeights,
    Dropout,
    LayerNorm,
    Place,
    ResidualScale,
    Weights,
)


class Attention(Weights):
    """Multi-head self-attention, its output map, residual, and a norm before or after."""

    return_attentions: bool = False
    is_right_padded: bool | None = None

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, 'batch length hidden'],
        attention_mask: Int[Array, 'batch length'],
        place: Place,
        example_ids: Int[Array, 'batch'],
        deterministic: bool,
    ) -> tuple[
        Float[Array, 'batch length hidden'], Float[Array, 'batch heads length length'] | None
    ]:
        config = self.config
        weights = config, self.num_unique, self.num_depths
        dense = functools.partial(Dense, *weights, features=config.hidden_size)
        norm = LayerNorm(*weights, name='layer_norm')
        is_pre_norm = config.norm_placement == 'pre'
        inputs = norm(hidden, place).astype(self.dtype) if is_pre_norm else hidden
        rate, dropout = config.attention_probs_dropout_prob, None
        if rate and not deterministic:
            dropout = attention.Dropout(rate, self.make_rng('dropout'), example_ids)
        num_heads, probs = config.num_attention_heads, None
        implementation = choose_attention(
            config, hidden.shape[1], deterministic, self.is_right_padded
        )
        if implementation == 'fused' and not self.return_attentions:
            context = self._attend_fused(inputs, attention_mask, place, dropout)
        else:
            query, key, value = (
                dense(name=name)(inputs, place) for name in ('query', 'key', 'value')
            )
            if config.position_encoding == 'rope':
                query, key = rope.rotate(query, num_heads), rope.rotate(key, num_heads)
            query, key, value = (_split_heads(x, num_heads) for x in (query, key, value))
            if self.return_attentions:
                implementation = 'einsum' if implementation == 'fused' else implementation
                probs = attention.probabilities(query, key, attention_mask, self.dtype)
            context = attention.attend(
                query, key, value, attention_mask, self.dtype, dropout, implementation
            ).swapaxes(1, 2)
        context = checkpoint_name(context, attention.OUTPUT_NAME)
        output = dense(name='output')(context.reshape(hidden.shape), place)
        output = Dropout(config.hidden_dropout_prob, name='dropout')(
            output, example_ids, deterministic
        )
        if config.depth_norms and self.is_shared:
            output = ResidualScale(*weights, name='residual')(output, place)
        output = hidden + output
        return output if is_pre_norm else norm(output, place).astype(self.dtype), probs

    def _attend_fused(
        self,
        inputs: Float[Array, 'batch length hidden'],
        attention_mask: Int[Array, 'batch length'],
        place: Place,
        dropout: attention.Dropout | None,
    ) -> Float[Array, 'batch length hidden']:
        """Attention after one product for queries, keys and values, in the kernel's order."""
        config, num_heads = self.config, self.config.num_attention_heads
        own = config, self.num_unique, self.num_depths
        weights = [
            DenseWeights(*own, features=config.hidden_size, name=name)(config.hidden_size, place)
            for name in ('query', 'key', 'value')
        ]
        kernel, bias = (
            fused_attention.interleave(parts, num_heads) for parts in zip(*weights, strict=True)
        )
        projected = unflattened.dense(inputs, kernel, self.dtype)
        row = bias.reshape(1, 1, -1)
        if config.position_encoding == 'rope':
            projected = (projected + row).astype(self.dtype)
            are_rotated = fused_attention.are_queries_or_keys(num_heads, config.head_size)
            projected = rope.rotate(projected, 3 * num_heads, are_rotated=are_rotated)
            bias = None
        else:
            projected = (projected + jax.lax.stop_gradient(row)).astype(self.dtype)
        projected = checkpoint_name(projected, remat.DENSE_OUTPUT_NAME)
        return fused_attention.attend(projected, attention_mask, num_heads, bias, dropout)


def choose_attention(
    config: AlbertConfig, length: Any, deterministic: bool, is_right_padded: bool | None
) -> str:
    """The implementation of attention that a model takes on the platform it is compiled for.

    Args:
      config: of the model.
      length: tokens of a sequence, or the symbol of a dimension that an export leaves open.
      deterministic: without dropout.
      is_right_padded: as in `attention.choose`.

    Raises:
      UserError: if the config asks for one that it cannot have.
    """
    return attention.choose(
        config.attention,
        attention.backend(),
        length,
        config.attention_probs_dropout_prob > 0 and not deterministic,
        fused_attention.problem(length, config.num_attention_heads, config.head_size),
        config.cudnn_problem,
        is_right_padded,
    )


def _split_heads(
    hidden: Float[Array, 'batch length hidden'], num_heads: int
) -> Float[Array, 'batch heads length head']:
    """Heads before tokens: XLA for CPU is slow where a product has them after the tokens."""
    batch, length, width = hidden.shape
    return hidden.reshape(batch, length, num_heads, width // num_heads).swapaxes(1, 2)


class FeedForward(Weights):
    """The dense maps with the activation between them, residual, and a norm before or after."""

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, 'batch length hidden'],
        place: Place,
        example_ids: Int[Array, 'batch'],
        deterministic: bool,
    ) -> Float[Array, 'batch length hidden']:
        config = self.config
        weights = config, self.num_unique, self.num_depths
        dense = functools.partial(Dense, *weights)
        norm = LayerNorm(*weights, name='layer_norm')
        is_pre_norm = config.norm_placement == 'pre'
        inputs = norm(hidden, place).astype(self.dtype) if is_pre_norm else hidden
        inner = dense(features=config.ffn_size, name='intermediate')(inputs, place)
        if config.is_gated:
            gate = dense(features=config.ffn_size, name='gate')(inputs, place)
            inner = activate_gated(gate, inner, config.hidden_act)
        else:
            inner = activate(inner, config.hidden_act)
        output = dense(features=config.hidden_size, name='output')(inner, place)
        output = Dropout(config.hidden_dropout_prob, name='dropout')(
            output, example_ids, deterministic
        )
        if config.depth_norms and self.is_shared:
            output = ResidualScale(*weights, name='residual')(output, place)
        output = hidden + output
        return output if is_pre_norm else norm(output, place).astype(self.dtype)
