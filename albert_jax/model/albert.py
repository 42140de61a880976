"""ALBERT in Linen: embeddings, the shared layer under `nn.scan`, pooler and pretraining heads.

Section 3.1 of the paper; order of operations and initialisation as in google-research/albert.
Parameter paths read like the paper: `encoder/layer/attention/query/kernel`. A sublayer of which
there is more than one copy (groups, inner groups, no sharing) has a leading axis of copies.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int, Key

from albert_jax.model import attention, matmul
from albert_jax.model.config import AlbertConfig
from albert_jax.model.dropout import drop
from albert_jax.model.rounding import from_bits

AnyArray = Array | np.ndarray
# Which copy of its weights a module uses; None where there is one.
Index = Int[Array, ''] | None

# What the remat policies save.
_DENSE_OUTPUT = 'dense_output'


def _gelu_erf(x: Float[Array, '*shape']) -> Float[Array, '*shape']:
    # jax.nn.gelu takes 1 + erf(x) as erfc(-x), which XLA computes more slowly.
    return 0.5 * x * (1.0 + jax.lax.erf(x * 0.5**0.5))


_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    'gelu_tanh': lambda x: jax.nn.gelu(x, approximate=True),
    'gelu_erf': _gelu_erf,
    'relu': jax.nn.relu,
}


@struct.dataclass
class PretrainingOutput:
    """What the model computes; float32, shapes in jaxtyping's notation."""

    last_hidden_state: Float[Array, 'batch length hidden']
    pooled_output: Float[Array, 'batch hidden']
    mlm_logits: Float[Array, 'batch positions vocab']
    sop_logits: Float[Array, 'batch 2']
    # The projected embeddings and then every layer's output; None unless asked for.
    hidden_states: Float[Array, 'layers_and_one batch length hidden'] | None = None
    # None unless asked for; with inner groups, every inner block of every layer in turn.
    attention_probs: Float[Array, 'layers batch heads length length'] | None = None


@struct.dataclass
class EncoderOutput:
    """What the encoder and the pooler compute."""

    # In the compute dtype.
    last_hidden_state: Float[Array, 'batch length hidden']
    # float32; zeros without the pooler.
    pooled_output: Float[Array, 'batch hidden']
    # The projected embeddings and then every layer's output, in the compute dtype; None unless
    # asked for.
    hidden_states: Float[Array, 'layers_and_one batch length hidden'] | None = None
    # None unless asked for; with inner groups, every inner block of every layer in turn.
    attention_probs: Float[Array, 'layers batch heads length length'] | None = None


# Elementwise maps are always computed again in the backward pass, from what a product has left:
# that is cheaper than to write their parts to memory and read them back.
_recomputed = functools.partial(jax.checkpoint, static_argnums=1, prevent_cse=False)


@_recomputed
def _activated(inputs: Float[Array, '*rows'], name: str) -> Float[Array, '*rows']:
    return _ACTIVATIONS[name](inputs.astype(jnp.float32))


@_recomputed
def _normalised(inputs: Float[Array, '... width'], eps: float) -> Float[Array, '... width']:
    inputs = inputs.astype(jnp.float32)
    centered = inputs - inputs.mean(-1, keepdims=True)
    variance = jnp.square(centered).mean(-1, keepdims=True)
    return centered * jax.lax.rsqrt(variance + eps)


class _Weights(nn.Module):
    """Base of modules whose parameters may come in several copies, chosen by `index`.

    Copies in bfloat16 may come as their bits (`rounding.round_kernels`).
    """

    config: AlbertConfig
    num_unique: int = 1

    def weight(
        self, name: str, init: Callable[..., Array], shape: tuple[int, ...], index: Index
    ) -> Array:
        if self.num_unique == 1:
            return self.param(name, init, shape)
        chosen = self.param(name, init, (self.num_unique, *shape))[index]
        return from_bits(chosen)

    def vector(self, name: str, init: Callable[..., Array], like: Array, index: Index) -> Array:
        """A weight for the last axis of `like`, with axes of 1 before it."""
        weight = self.weight(name, init, like.shape[-1:], index)
        return weight.reshape((1,) * (like.ndim - 1) + weight.shape)

    @property
    def dtype(self) -> jnp.dtype:
        return jnp.dtype(self.config.compute_dtype)

    @property
    def normal(self) -> Callable[..., Array]:
        return nn.initializers.truncated_normal(self.config.initializer_range)


class Dense(_Weights):
    """A matrix product with bias, in the compute dtype."""

    features: int = 0

    @nn.compact
    def __call__(
        self, inputs: Float[Array, '... inputs'], index: Index = None
    ) -> Float[Array, '... features']:
        kernel = self.weight('kernel', self.normal, (inputs.shape[-1], self.features), index)
        outputs = matmul.dense(inputs, kernel, self.dtype)
        outputs = outputs + self.vector('bias', nn.initializers.zeros, outputs, index)
        return checkpoint_name(outputs.astype(self.dtype), _DENSE_OUTPUT)


class LayerNorm(_Weights):
    """Layer normalisation over the last axis, in float32 whatever comes in."""

    @nn.compact
    def __call__(
        self, inputs: Float[Array, '... width'], index: Index = None
    ) -> Float[Array, '... width']:
        scale = self.vector('scale', nn.initializers.ones, inputs, index)
        bias = self.vector('bias', nn.initializers.zeros, inputs, index)
        return _normalised(inputs, self.config.layer_norm_eps) * scale + bias


class Dropout(nn.Module):
    """`drop` as a module."""

    rate: float

    @nn.compact
    def __call__(
        self,
        inputs: Float[Array, 'batch *rest'],
        example_ids: Int[Array, 'batch'],
        deterministic: bool,
    ) -> Float[Array, 'batch *rest']:
        if deterministic or self.rate == 0.0:
            return inputs
        return drop(inputs, self.rate, self.make_rng('dropout'), example_ids)


class Embeddings(_Weights):
    """Word, position and segment embeddings of width E, normed, then projected to H."""

    def setup(self) -> None:
        config = self.config

        def table(num_embeddings: int) -> nn.Embed:
            return nn.Embed(num_embeddings, config.embedding_size, embedding_init=self.normal)

        self.word = table(config.vocab_size)
        self.position = table(config.max_position_embeddings)
        self.token_type = table(config.type_vocab_size)
        self.layer_norm = LayerNorm(config)
        self.dropout = Dropout(config.hidden_dropout_prob)
        if config.use_embedding_projection:
            self.projection = Dense(config, features=config.hidden_size)

    def __call__(
        self,
        input_ids: Int[Array, 'batch length'],
        token_type_ids: Int[Array, 'batch length'],
        example_ids: Int[Array, 'batch'],
        deterministic: bool,
        perturbation: Float[Array, 'batch length embedding'] | None = None,
    ) -> Float[Array, 'batch length hidden']:
        positions = jnp.arange(input_ids.shape[1])
        # Looked up in float32, so that the table's gradient is summed in float32 too.
        words = self.word(input_ids)
        if perturbation is not None:
            words = words + perturbation
        embedded = words + self.position(positions)[None]
        embedded = self.layer_norm(embedded + self.token_type(token_type_ids))
        embedded = self.dropout(embedded, example_ids, deterministic)
        if self.config.use_embedding_projection:
            embedded = self.projection(embedded)
        return embedded.astype(self.dtype)

    def decode(
        self, hidden: Float[Array, 'batch positions embedding']
    ) -> Float[Array, 'batch positions vocab']:
        """Scores of every piece: the product with the (tied) word table."""
        batch, positions, width = hidden.shape
        rows = hidden.reshape(batch * positions, width)
        logits = matmul.matmul_transposed(rows, self.word.embedding, self.dtype)
        return logits.reshape(batch, positions, self.config.vocab_size)


class Attention(_Weights):
    """Multi-head self-attention, its output map, residual and norm."""

    return_attentions: bool = False

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, 'batch length hidden'],
        attention_mask: Int[Array, 'batch length'],
        index: Index,
        example_ids: Int[Array, 'batch'],
        deterministic: bool,
    ) -> tuple[
        Float[Array, 'batch length hidden'], Float[Array, 'batch heads length length'] | None
    ]:
        config = self.config
        batch, length, _ = hidden.shape

        def heads(name: str) -> Float[Array, 'batch heads length head']:
            dense = Dense(config, self.num_unique, features=config.hidden_size, name=name)
            shape = (batch, length, config.num_attention_heads, config.head_size)
            # Heads before tokens: XLA for CPU is slow where a product has them the other way round.
            return dense(hidden, index).reshape(shape).swapaxes(1, 2)

        rate, dropout = config.attention_probs_dropout_prob, None
        if rate and not deterministic:
            dropout = attention.Dropout(rate, self.make_rng('dropout'), example_ids)
        query, key, value = heads('query'), heads('key'), heads('value')
        chosen = attention.choose(
            config.attention, attention.backend(), length, dropout is not None
        )
        context = attention.attend(query, key, value, attention_mask, self.dtype, dropout, chosen)
        probs = None
        if self.return_attentions:
            probs = attention.probabilities(query, key, attention_mask, self.dtype)
        context = checkpoint_name(context.swapaxes(1, 2), attention.OUTPUT_NAME)
        output = Dense(config, self.num_unique, features=config.hidden_size, name='output')(
            context.reshape(hidden.shape), index
        )
        output = Dropout(config.hidden_dropout_prob, name='dropout')(
            output, example_ids, deterministic
        )
        norm = LayerNorm(config, self.num_unique, name='layer_norm')
        return norm(hidden + output, index).astype(self.dtype), probs


class FeedForward(_Weights):
    """The two dense maps with the activation between them, residual and norm."""

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, 'batch length hidden'],
        index: Index,
        example_ids: Int[Array, 'batch'],
        deterministic: bool,
    ) -> Float[Array, 'batch length hidden']:
        config, copies = self.config, self.num_unique
        inner = Dense(config, copies, features=config.intermediate_size, name='intermediate')
        outer = Dense(config, copies, features=config.hidden_size, name='output')
        output = outer(_activated(inner(hidden, index), config.hidden_act), index)
        output = Dropout(config.hidden_dropout_prob, name='dropout')(
            output, example_ids, deterministic
        )
        norm = LayerNorm(config, copies, name='layer_norm')
        return norm(hidden + output, index).astype(self.dtype)


class Layer(nn.Module):
    """One layer of the encoder: `inner_group_num` blocks of attention and feed-forward.

    As a body of `nn.scan` it takes the copies that this layer uses and gives the layer's output,
    once more if `return_hidden_states`, and its attention probabilities if `return_attentions`.
    """

    config: AlbertConfig
    deterministic: bool = True
    return_attentions: bool = False
    return_hidden_states: bool = False

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, 'batch length hidden'],
        attention_copies: Int[Array, 'inner'],
        ffn_copies: Int[Array, 'inner'],
        attention_mask: Int[Array, 'batch length'],
        example_ids: Int[Array, 'batch'],
    ) -> tuple[Float[Array, 'batch length hidden'], Any]:
        config = self.config
        attend = Attention(
            config,
            config.num_unique_attention_layers,
            return_attentions=self.return_attentions,
            name='attention',
        )
        feed_forward = FeedForward(config, config.num_unique_ffn_layers, name='ffn')
        all_probs = []
        for inner in range(config.inner_group_num):
            hidden, probs = attend(
                hidden, attention_mask, attention_copies[inner], example_ids, self.deterministic
            )
            hidden = feed_forward(hidden, ffn_copies[inner], example_ids, self.deterministic)
            all_probs.append(probs)
        kept = hidden if self.return_hidden_states else None
        return hidden, (kept, jnp.stack(all_probs) if self.return_attentions else None)


def _rematerialised(config: AlbertConfig) -> type[nn.Module]:
    if config.remat == 'none':
        return Layer
    policies = {
        'full': jax.checkpoint_policies.nothing_saveable,
        'attention': jax.checkpoint_policies.save_only_these_names(attention.OUTPUT_NAME),
        'dense': jax.checkpoint_policies.save_only_these_names(
            attention.OUTPUT_NAME, _DENSE_OUTPUT
        ),
    }
    # Inside scan there is no common subexpression to protect from.
    return nn.remat(Layer, policy=policies[config.remat], prevent_cse=False)


class Encoder(nn.Module):
    """All layers, as one `nn.scan` over a layer whose parameters are the same at every depth.

    `variable_broadcast` keeps the weights tied; `variable_axes` would give each layer its own.
    """

    config: AlbertConfig

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, 'batch length hidden'],
        attention_mask: Int[Array, 'batch length'],
        example_ids: Int[Array, 'batch'],
        deterministic: bool,
        return_attentions: bool,
        return_hidden_states: bool = False,
    ) -> tuple[Float[Array, 'batch length hidden'], Any]:
        config = self.config
        layers = nn.scan(
            _rematerialised(config),
            variable_broadcast='params',
            split_rngs={'params': False, 'dropout': True},
            in_axes=(0, 0, nn.broadcast, nn.broadcast),  # pyright: ignore[reportArgumentType]
            length=config.num_hidden_layers,
        )(config, deterministic, return_attentions, return_hidden_states, name='layer')
        return layers(
            hidden,
            jnp.asarray(config.unique_layer_indices(config.num_unique_attention_layers)),
            jnp.asarray(config.unique_layer_indices(config.num_unique_ffn_layers)),
            attention_mask,
            example_ids,
        )


class PretrainingModel(nn.Module):
    """ALBERT with its pooler and both pretraining heads (sections 3.1 and 4.2 of the paper)."""

    config: AlbertConfig

    def setup(self) -> None:
        config = self.config
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.pooler = Dense(config, features=config.hidden_size)
        self.mlm = MaskedLanguageHead(config)
        self.sentence = Dense(config, features=2)

    def __call__(
        self,
        input_ids: Int[AnyArray, 'batch length'],
        attention_mask: Int[AnyArray, 'batch length'] | None = None,
        token_type_ids: Int[AnyArray, 'batch length'] | None = None,
        masked_positions: Int[AnyArray, 'batch positions'] | None = None,
        *,
        example_ids: Int[AnyArray, 'batch'] | None = None,
        deterministic: bool = True,
        return_attentions: bool = False,
        return_hidden_states: bool = False,
    ) -> PretrainingOutput:
        """Runs the model.

        Args:
          input_ids: piece ids, each below `vocab_size`.
          attention_mask: 1 for a token, 0 for padding; all 1 if left out.
          token_type_ids: 0 in the first segment, 1 in the second; all 0 if left out.
          masked_positions: where to compute `mlm_logits`; everywhere if left out.
          example_ids: numbers that choose each example's dropout masks; 0, 1, … if left out.
          deterministic: without dropout. With it, pass `rngs={'dropout': key}`.
          return_attentions: also return every layer's hidden states and attention probabilities.
          return_hidden_states: also return every layer's hidden states.

        Raises:
          ValueError: if the sequence is longer than the position table.
        """
        encoded = self.encode(
            input_ids,
            attention_mask,
            token_type_ids,
            example_ids=example_ids,
            deterministic=deterministic,
            return_attentions=return_attentions,
            return_hidden_states=return_attentions or return_hidden_states,
        )
        hidden, hidden_states = encoded.last_hidden_state, encoded.hidden_states
        gathered = hidden
        if masked_positions is not None:
            positions = jnp.asarray(masked_positions)[:, :, None]
            gathered = jnp.take_along_axis(hidden, positions, axis=1)
        if hidden_states is not None:
            hidden_states = hidden_states.astype(jnp.float32)
        return PretrainingOutput(
            last_hidden_state=hidden.astype(jnp.float32),
            pooled_output=encoded.pooled_output,
            mlm_logits=self.mlm(gathered, self.embeddings.decode),
            sop_logits=self.sentence(encoded.pooled_output).astype(jnp.float32),
            hidden_states=hidden_states,
            attention_probs=encoded.attention_probs,
        )

    def encode(
        self,
        input_ids: Int[AnyArray, 'batch length'],
        attention_mask: Int[AnyArray, 'batch length'] | None = None,
        token_type_ids: Int[AnyArray, 'batch length'] | None = None,
        *,
        example_ids: Int[AnyArray, 'batch'] | None = None,
        deterministic: bool = True,
        return_attentions: bool = False,
        return_hidden_states: bool = False,
        perturbation: Float[Array, 'batch length embedding'] | None = None,
        use_pooler: bool = True,
    ) -> EncoderOutput:
        """The encoder and the pooler alone: what a fine-tuned model needs.

        Args:
          input_ids: as in `__call__`, and so are all the others.
          attention_mask: as in `__call__`.
          token_type_ids: as in `__call__`.
          example_ids: as in `__call__`.
          deterministic: as in `__call__`.
          return_attentions: also return every layer's attention probabilities.
          return_hidden_states: also return the projected embeddings and every layer's output.
          perturbation: added to the word embeddings, for adversarial training.
          use_pooler: without it the pooled output is zeros, and its weights need not be there.

        Raises:
          ValueError: if the sequence is longer than the position table.
        """
        input_ids = jnp.asarray(input_ids)
        batch, length = input_ids.shape
        if length > self.config.max_position_embeddings:
            raise ValueError(
                f'The sequence has {length} tokens; the model has '
                f'{self.config.max_position_embeddings} positions.'
            )
        mask = jnp.ones_like(input_ids) if attention_mask is None else jnp.asarray(attention_mask)
        types = jnp.zeros_like(input_ids) if token_type_ids is None else jnp.asarray(token_type_ids)
        examples = jnp.arange(batch) if example_ids is None else jnp.asarray(example_ids)
        embedded = self.embeddings(input_ids, types, examples, deterministic, perturbation)
        hidden, (layer_outputs, layer_probs) = self.encoder(
            embedded, mask, examples, deterministic, return_attentions, return_hidden_states
        )
        if use_pooler:
            pooled = jnp.tanh(self.pooler(hidden[:, 0]).astype(jnp.float32))
        else:
            pooled = jnp.zeros((batch, self.config.hidden_size))
        hidden_states = attention_probs = None
        if layer_outputs is not None:
            hidden_states = jnp.concatenate([embedded[None], layer_outputs])
        if layer_probs is not None:
            attention_probs = layer_probs.reshape(-1, *layer_probs.shape[2:])
        return EncoderOutput(hidden, pooled, hidden_states, attention_probs)


class MaskedLanguageHead(_Weights):
    """Dense H → E, activation, norm, and the tied word table with a bias."""

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, 'batch positions hidden'],
        decode: Callable[[Array], Float[Array, 'batch positions vocab']],
    ) -> Float[Array, 'batch positions vocab']:
        config = self.config
        transformed = Dense(config, features=config.embedding_size, name='transform')(hidden)
        transformed = _activated(transformed, config.hidden_act)
        transformed = LayerNorm(config, name='layer_norm')(transformed)
        logits = decode(transformed)
        return logits + self.vector('bias', nn.initializers.zeros, logits, None)


def init_params(config: AlbertConfig, key: Key[Array, '']) -> dict[str, Any]:
    """Fresh float32 parameters: truncated normal weights, zero biases, unit norms."""
    # Two tokens are too few for the kernel, which has no parameters anyway.
    config = dataclasses.replace(config, attention='einsum')
    example = jnp.zeros((1, 2), jnp.int32)
    return dict(PretrainingModel(config).init({'params': key}, example)['params'])
