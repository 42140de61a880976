"""The attention of a decoder: to its own text so far, and to the encoded source.

Its parameters are named and shaped as those of the encoder's attention, so that a decoder can use
the encoder's own.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int, Key

from albert_jax.model import attention, matmul, rope
from albert_jax.model.dropout import drop
from albert_jax.model.modules import Dense, Dropout, LayerNorm, Place, Weights


class KeyValues(NamedTuple):
    """What an attention attends to."""

    # Both [batch, heads, keys, head], after any axes of layers; a cache of the text so far is
    # [batch, heads, length, beams, head].
    keys: Array
    values: Array


class DecoderAttention(Weights):
    """Multi-head attention with its output map, residual, and a norm before or after."""

    def setup(self) -> None:
        config = self.config
        dense = functools.partial(Dense, config, self.num_unique, features=config.hidden_size)
        self.query, self.key, self.value, self.output = dense(), dense(), dense(), dense()
        self.layer_norm = LayerNorm(config, self.num_unique)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def inputs(
        self, hidden: Float[Array, 'batch length hidden'], place: Place | None = None
    ) -> Float[Array, 'batch length hidden']:
        """What queries are made of: the hidden states, normed where the norm stands before."""
        if self.config.norm_placement == 'post':
            return hidden
        return self.layer_norm(hidden, place).astype(self.dtype)

    def key_values(
        self,
        inputs: Float[Array, 'batch keys hidden'],
        place: Place | None = None,
        positions: Int[Array, 'keys'] | None = None,
    ) -> KeyValues:
        """Keys and values of the given tokens.

        Args:
          inputs: the tokens.
          place: of the unique layer.
          positions: where they stand in the text, for rotary positions; None for keys that are not
            rotated: distances between tokens of two texts mean nothing.
        """
        keys = self._rotated(self.key(inputs, place), positions)
        return KeyValues(self._split_heads(keys), self._split_heads(self.value(inputs, place)))

    def __call__(
        self,
        hidden: Float[Array, 'batch queries hidden'],
        attended: KeyValues,
        mask: Bool[Array, 'batch #queries keys'],
        example_ids: Int[Array, 'batch'],
        place: Place | None = None,
        positions: Int[Array, 'queries'] | None = None,
        deterministic: bool = True,
        return_attentions: bool = False,
    ) -> tuple[
        Float[Array, 'batch queries hidden'], Float[Array, 'batch heads queries keys'] | None
    ]:
        """The hidden states after the sublayer, and the probabilities if asked for."""
        query = self._rotated(self.query(self.inputs(hidden, place), place), positions)
        query = self._split_heads(query)
        rate, key = self.config.attention_probs_dropout_prob, None
        if rate and not deterministic:
            key = self.make_rng('dropout')
        context = _attend(query, attended, mask, example_ids, key, rate, self.dtype)
        probs = (
            _probabilities(query, attended.keys, mask, self.dtype) if return_attentions else None
        )
        context = checkpoint_name(context.swapaxes(1, 2), attention.OUTPUT_NAME)
        output = self.output(context.reshape(hidden.shape), place)
        output = hidden + self.dropout(output, example_ids, deterministic)
        if self.config.norm_placement == 'post':
            output = self.layer_norm(output, place).astype(self.dtype)
        return output, probs

    def _rotated(self, vectors: Array, positions: Array | None) -> Array:
        if positions is None or self.config.position_encoding != 'rope':
            return vectors
        return rope.rotate(vectors, self.config.num_attention_heads, positions)

    def _split_heads(
        self, vectors: Float[Array, 'batch length hidden']
    ) -> Float[Array, 'batch heads length head']:
        batch, length, _ = vectors.shape
        heads, size = self.config.num_attention_heads, self.config.head_size
        return vectors.reshape(batch, length, heads, size).swapaxes(1, 2)


@functools.partial(jax.checkpoint, static_argnums=(5, 6), prevent_cse=False)
def _attend(
    query: Float[Array, 'batch heads queries head'],
    attended: KeyValues,
    mask: Bool[Array, 'batch #queries keys'],
    example_ids: Int[Array, 'batch'],
    dropout_key: Key[Array, ''] | None,
    dropout_rate: float,
    dtype: jnp.dtype,
) -> Float[Array, 'batch heads queries head']:
    # As in `attention.attend`, the backward pass computes the probabilities again.
    probs = _probabilities(query, attended.keys, mask, dtype)
    if dropout_key is not None:
        probs = drop(probs, dropout_rate, dropout_key, example_ids)
    return matmul.matmul(probs, attended.values, dtype).astype(dtype)


def _probabilities(
    query: Float[Array, 'batch heads queries head'],
    keys: Float[Array, 'batch heads keys head'],
    mask: Bool[Array, 'batch #queries keys'],
    dtype: jnp.dtype,
) -> Float[Array, 'batch heads queries keys']:
    """softmax(q kᵀ / √head) over the keys whose mask is true, in float32."""
    scores = matmul.matmul_transposed(query * query.shape[-1] ** -0.5, keys, dtype)
    return jax.nn.softmax(jnp.where(mask[:, None], scores, jnp.finfo(jnp.float32).min))
