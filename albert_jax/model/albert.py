"""ALBERT in Linen: embeddings, the shared layer under `nn.scan`, pooler and pretraining heads.

Section 3.1 of the paper; order of operations and initialisation as in google-research/albert.
Parameter paths read like the paper: `encoder/layer/attention/query/kernel`. Where there is more
than one unique attention or feed-forward layer (groups, inner groups, no sharing), its parameters
have a leading axis of unique layers.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int, Key

from albert_jax.model import (
    attention,
    fused_attention,
    matmul,
    one_pass_norm,
    remat,
    rope,
    unflattened,
)
from albert_jax.model.config import AlbertConfig
from albert_jax.model.dropout import drop
from albert_jax.model.elementwise import activate, activate_gated, normalize
from albert_jax.model.outputs import EncoderOutput, PretrainingOutput
from albert_jax.model.rounding import from_bits

AnyArray = Array | np.ndarray
# Which unique layer's parameters a module uses; None where there is one.
Index = Int[Array, ''] | None


class _Weights(nn.Module):
    """Base of modules that hold the parameters of `num_unique` layers, and use those of one.

    Parameters in bfloat16 may come as their bits (`rounding.round_kernels`).
    """

    config: AlbertConfig
    num_unique: int = 1

    def weight(
        self, name: str, init: Callable[..., Array], shape: tuple[int, ...], index: Index
    ) -> Array:
        """The parameter of the unique layer that `index` names, of the given shape."""
        if self.num_unique == 1:
            return self.param(name, init, shape)
        return from_bits(self.param(name, init, (self.num_unique, *shape))[index])

    def vector(self, name: str, init: Callable[..., Array], like: Array, index: Index) -> Array:
        """A parameter as long as the last axis of `like`, with axes of 1 before it."""
        weight = self.weight(name, init, like.shape[-1:], index)
        return weight.reshape((1,) * (like.ndim - 1) + weight.shape)

    @property
    def dtype(self) -> jnp.dtype:
        """The compute dtype."""
        return jnp.dtype(self.config.compute_dtype)

    @property
    def kernel_init(self) -> Callable[..., Array]:
        """The initializer of every kernel."""
        if self.config.kernel_initializer == 'fan_in':
            # The axis of unique layers is none of the inputs.
            return nn.initializers.lecun_normal(batch_axis=() if self.num_unique == 1 else (0,))
        return nn.initializers.truncated_normal(self.config.initializer_range)


class DenseWeights(_Weights):
    """The kernel and the bias of a dense map to `features`."""

    features: int = 0

    @nn.compact
    def __call__(
        self, num_inputs: int, index: Index = None
    ) -> tuple[Float[Array, 'inputs features'], Float[Array, 'features']]:
        kernel = self.weight('kernel', self.kernel_init, (num_inputs, self.features), index)
        return kernel, self.weight('bias', nn.initializers.zeros, (self.features,), index)


class Dense(_Weights):
    """A dense map of the last axis to `features`, with bias; in and out in the compute dtype."""

    features: int = 0

    @nn.compact
    def __call__(
        self, inputs: Float[Array, '... inputs'], index: Index = None
    ) -> Float[Array, '... features']:
        kernel = self.weight('kernel', self.kernel_init, (inputs.shape[-1], self.features), index)
        outputs = _dense(inputs, kernel, self.dtype)
        outputs = outputs + self.vector('bias', nn.initializers.zeros, outputs, index)
        return checkpoint_name(outputs.astype(self.dtype), remat.DENSE_OUTPUT_NAME)


def _dense(
    inputs: Float[Array, '... inputs'], kernel: Float[Array, 'inputs features'], dtype: jnp.dtype
) -> Float[Array, '... features']:
    module = unflattened if attention.backend() == 'tpu' else matmul
    return module.dense(inputs, kernel, dtype)


class LayerNorm(_Weights):
    """Layer normalisation over the last axis, in float32 whatever comes in."""

    @nn.compact
    def __call__(
        self, inputs: Float[Array, '... width'], index: Index = None
    ) -> Float[Array, '... width']:
        scale = self.vector('scale', nn.initializers.ones, inputs, index)
        bias = self.vector('bias', nn.initializers.zeros, inputs, index)
        if attention.backend() == 'tpu':
            return one_pass_norm.layer_norm(inputs, scale, bias, self.config.layer_norm_eps)
        return normalize(inputs, self.config.layer_norm_eps) * scale + bias


class Dropout(nn.Module):
    """Dropout whose mask depends on each example's number, and not on the batch around it."""

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
    """Word, position and segment embeddings of width E, normed, then projected to H.

    Where positions are rotations of queries and keys, there is no table of them.
    """

    def setup(self) -> None:
        config = self.config
        table = functools.partial(
            nn.Embed,
            features=config.embedding_size,
            embedding_init=nn.initializers.truncated_normal(
                config.embedding_initializer_range or config.initializer_range
            ),
        )
        self.word = table(config.vocab_size)
        if config.position_encoding == 'learned':
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
        word_embeddings = self.word(input_ids)
        if perturbation is not None:
            word_embeddings = word_embeddings + perturbation
        embedded = word_embeddings
        if self.config.position_encoding == 'learned':
            embedded = embedded + self.position(positions)[None]
        embedded = self.layer_norm(embedded + self.token_type(token_type_ids))
        embedded = self.dropout(embedded, example_ids, deterministic)
        if self.config.use_embedding_projection:
            embedded = self.projection(embedded)
        return embedded.astype(self.dtype)

    def decode(
        self, hidden: Float[Array, 'batch positions embedding']
    ) -> Float[Array, 'batch positions vocab']:
        """Logits of every piece of the vocabulary: the product with the (tied) word table."""
        batch, positions, width = hidden.shape
        rows = hidden.reshape(batch * positions, width)
        logits = matmul.matmul_transposed(rows, self.word.embedding, self.dtype)
        return logits.reshape(batch, positions, self.config.vocab_size)


class Attention(_Weights):
    """Multi-head self-attention, its output map, residual, and a norm before or after."""

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
        dense = functools.partial(Dense, config, self.num_unique, features=config.hidden_size)
        norm = LayerNorm(config, self.num_unique, name='layer_norm')
        is_pre_norm = config.norm_placement == 'pre'
        inputs = norm(hidden, index).astype(self.dtype) if is_pre_norm else hidden
        rate, dropout = config.attention_probs_dropout_prob, None
        if rate and not deterministic:
            dropout = attention.Dropout(rate, self.make_rng('dropout'), example_ids)
        num_heads, probs = config.num_attention_heads, None
        implementation = attention.choose(
            config.attention,
            attention.backend(),
            hidden.shape[1],
            dropout is not None,
            fused_attention.problem(hidden.shape[1], num_heads, config.head_size),
        )
        if implementation == 'fused' and not self.return_attentions:
            context = self._attend_fused(inputs, attention_mask, index, dropout)
        else:
            query, key, value = (
                dense(name=name)(inputs, index) for name in ('query', 'key', 'value')
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
        output = dense(name='output')(context.reshape(hidden.shape), index)
        output = Dropout(config.hidden_dropout_prob, name='dropout')(
            output, example_ids, deterministic
        )
        output = hidden + output
        return output if is_pre_norm else norm(output, index).astype(self.dtype), probs

    def _attend_fused(
        self,
        inputs: Float[Array, 'batch length hidden'],
        attention_mask: Int[Array, 'batch length'],
        index: Index,
        dropout: attention.Dropout | None,
    ) -> Float[Array, 'batch length hidden']:
        """Attention after one product for queries, keys and values, in the kernel's order."""
        config, num_heads = self.config, self.config.num_attention_heads
        weights = [
            DenseWeights(config, self.num_unique, config.hidden_size, name=name)(
                config.hidden_size, index
            )
            for name in ('query', 'key', 'value')
        ]
        kernel, bias = (
            fused_attention.interleave(parts, num_heads) for parts in zip(*weights, strict=True)
        )
        projected = _dense(inputs, kernel, self.dtype)
        row = bias.reshape(1, 1, -1)
        if config.position_encoding == 'rope':
            projected = (projected + row).astype(self.dtype)
            are_rotated = fused_attention.are_queries_or_keys(num_heads, config.head_size)
            projected = rope.rotate(projected, 3 * num_heads, are_rotated)
            bias = None
        else:
            projected = (projected + jax.lax.stop_gradient(row)).astype(self.dtype)
        projected = checkpoint_name(projected, remat.DENSE_OUTPUT_NAME)
        return fused_attention.attend(projected, attention_mask, num_heads, bias, dropout)


def _split_heads(
    hidden: Float[Array, 'batch length hidden'], num_heads: int
) -> Float[Array, 'batch heads length head']:
    """Heads before tokens: XLA for CPU is slow where a product has them after the tokens."""
    batch, length, width = hidden.shape
    return hidden.reshape(batch, length, num_heads, width // num_heads).swapaxes(1, 2)


class FeedForward(_Weights):
    """The dense maps with the activation between them, residual, and a norm before or after."""

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, 'batch length hidden'],
        index: Index,
        example_ids: Int[Array, 'batch'],
        deterministic: bool,
    ) -> Float[Array, 'batch length hidden']:
        config = self.config
        dense = functools.partial(Dense, config, self.num_unique)
        norm = LayerNorm(config, self.num_unique, name='layer_norm')
        is_pre_norm = config.norm_placement == 'pre'
        inputs = norm(hidden, index).astype(self.dtype) if is_pre_norm else hidden
        inner = dense(features=config.ffn_size, name='intermediate')(inputs, index)
        if config.is_gated:
            gate = dense(features=config.ffn_size, name='gate')(inputs, index)
            inner = activate_gated(gate, inner, config.hidden_act)
        else:
            inner = activate(inner, config.hidden_act)
        output = dense(features=config.hidden_size, name='output')(inner, index)
        output = Dropout(config.hidden_dropout_prob, name='dropout')(
            output, example_ids, deterministic
        )
        output = hidden + output
        return output if is_pre_norm else norm(output, index).astype(self.dtype)


class Layer(nn.Module):
    """One layer of the encoder: `inner_group_num` blocks of attention and feed-forward.

    As the body of `nn.scan` it takes the indices of the unique attention and feed-forward layers
    that this layer uses. It returns the carry, which is the layer's output, and what the scan
    stacks: the output once more if `return_hidden_states`, and the attention probabilities of each
    block if `return_attentions`.
    """

    config: AlbertConfig
    deterministic: bool = True
    return_attentions: bool = False
    return_hidden_states: bool = False

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, 'batch length hidden'],
        attention_indices: Int[Array, 'inner'],
        ffn_indices: Int[Array, 'inner'],
        attention_mask: Int[Array, 'batch length'],
        example_ids: Int[Array, 'batch'],
    ) -> tuple[
        Float[Array, 'batch length hidden'],
        tuple[
            Float[Array, 'batch length hidden'] | None,
            Float[Array, 'inner batch heads length length'] | None,
        ],
    ]:
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
                hidden, attention_mask, attention_indices[inner], example_ids, self.deterministic
            )
            hidden = feed_forward(hidden, ffn_indices[inner], example_ids, self.deterministic)
            all_probs.append(probs)
        stacked_hidden = hidden if self.return_hidden_states else None
        stacked_probs = jnp.stack(all_probs) if self.return_attentions else None
        return hidden, (stacked_hidden, stacked_probs)


def _layer_class(config: AlbertConfig) -> type[nn.Module]:
    policy = remat.policy(config.remat)
    # Inside scan there is no common subexpression to protect from.
    return Layer if policy is None else nn.remat(Layer, policy=policy, prevent_cse=False)


class Encoder(nn.Module):
    """All layers, as one `nn.scan` over a layer whose parameters are the same at every depth.

    `variable_broadcast` keeps the weights tied; `variable_axes` would give each layer its own. It
    returns the last layer's output, normed where the norms stand before the sublayers, and those of
    all layers, as each layer gives them, and the attention probabilities of all blocks, None where
    not asked for.
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
    ) -> tuple[
        Float[Array, 'batch length hidden'],
        tuple[
            Float[Array, 'layers batch length hidden'] | None,
            Float[Array, 'layers inner batch heads length length'] | None,
        ],
    ]:
        config = self.config
        layers = nn.scan(
            _layer_class(config),
            variable_broadcast='params',
            split_rngs={'params': False, 'dropout': True},
            in_axes=(0, 0, nn.broadcast, nn.broadcast),  # pyright: ignore[reportArgumentType]
            length=config.num_hidden_layers,
        )(config, deterministic, return_attentions, return_hidden_states, name='layer')
        hidden, of_all_layers = layers(
            hidden,
            jnp.asarray(config.unique_layer_indices(config.num_unique_attention_layers)),
            jnp.asarray(config.unique_layer_indices(config.num_unique_ffn_layers)),
            attention_mask,
            example_ids,
        )
        if config.norm_placement == 'pre':
            hidden = LayerNorm(config, name='layer_norm')(hidden).astype(hidden.dtype)
        return hidden, of_all_layers


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
          ValueError: if the sequence is longer than `max_position_embeddings`.
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
          input_ids: piece ids, each below `vocab_size`.
          attention_mask: 1 for a token, 0 for padding; all 1 if left out.
          token_type_ids: 0 in the first segment, 1 in the second; all 0 if left out.
          example_ids: numbers that choose each example's dropout masks; 0, 1, … if left out.
          deterministic: without dropout. With it, pass `rngs={'dropout': key}`.
          return_attentions: also return every layer's attention probabilities.
          return_hidden_states: also return the projected embeddings and every layer's output.
          perturbation: added to the word embeddings, for adversarial training.
          use_pooler: without it the pooled output is zeros, and its weights need not be there.

        Raises:
          ValueError: if the sequence is longer than `max_position_embeddings`.
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
        transformed = activate(transformed, config.hidden_act)
        transformed = LayerNorm(config, name='layer_norm')(transformed)
        logits = decode(transformed)
        return logits + self.vector('bias', nn.initializers.zeros, logits, None)


def init_params(config: AlbertConfig, key: Key[Array, '']) -> dict[str, Any]:
    """Random float32 parameters: truncated normal weights, zero biases, unit norms.

    Args:
      config: the model.
      key: of the random numbers.

    Returns:
      The top-level parts `embeddings`, `encoder`, `pooler`, `mlm` and `sentence`.
    """
    # Two tokens are too few for the splash kernel, which has no parameters anyway.
    config = dataclasses.replace(config, attention='einsum')
    example = jnp.zeros((1, 2), jnp.int32)
    return dict(PretrainingModel(config).init({'params': key}, example)['params'])
