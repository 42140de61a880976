"""ALBERT in Linen: the shared layer under `nn.scan`, pooler and pretraining heads.

Section 3.1 of the paper; order of operations and initialisation as in google-research/albert.
Parameter paths read like the paper: `encoder/layer/attention/query/kernel`. Where there is more
than one unique attention or feed-forward layer (groups, inner groups, no sharing), its parameters
have a leading axis of unique layers.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int, Key

from albert_jax.model import cudnn, remat
from albert_jax.model.config import AlbertConfig
from albert_jax.model.embeddings import Embeddings, MaskedLanguageHead
from albert_jax.model.modules import Dense, DepthEmbedding, LayerNorm, Place
from albert_jax.model.outputs import EncoderOutput, PretrainingOutput
from albert_jax.model.sublayers import Attention, FeedForward, choose_attention

AnyArray = Array | np.ndarray


class Layer(nn.Module):
    """One layer of the encoder: `inner_group_num` blocks of attention and feed-forward.

    As the body of `nn.scan` it takes the indices of the unique attention and feed-forward layers
    that this layer uses, and the depths of its blocks. It returns the carry, which is the layer's
    output, and what the scan stacks: the output once more if `return_hidden_states`, and the
    attention probabilities of each block if `return_attentions`.
    """

    config: AlbertConfig
    deterministic: bool = True
    return_attentions: bool = False
    return_hidden_states: bool = False
    is_right_padded: bool | None = None

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, 'batch length hidden'],
        attention_indices: Int[Array, 'inner'],
        ffn_indices: Int[Array, 'inner'],
        depths: Int[Array, 'inner'],
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
            config.num_depths if config.shares('attention') else 0,
            return_attentions=self.return_attentions,
            is_right_padded=self.is_right_padded,
            name='attention',
        )
        feed_forward = FeedForward(
            config,
            config.num_unique_ffn_layers,
            config.num_depths if config.shares('ffn') else 0,
            name='ffn',
        )
        embed_depth = DepthEmbedding(config, num_depths=config.num_depths, name='depth')
        all_probs = []
        for inner in range(config.inner_group_num):
            attention_place = Place(attention_indices[inner], depths[inner])
            ffn_place = Place(ffn_indices[inner], depths[inner])
            if config.depth_embedding:
                hidden = embed_depth(hidden, attention_place)
            hidden, probs = attend(
                hidden, attention_mask, attention_place, example_ids, self.deterministic
            )
            hidden = feed_forward(hidden, ffn_place, example_ids, self.deterministic)
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

    A prelude and a coda are scans of their own before and after it. It returns the last layer's
    output, normed where the norms stand before the sublayers, and those of all layers, as each
    layer gives them, and the attention probabilities of all blocks, None where not asked for.
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
        is_right_padded: bool | None = None,
    ) -> tuple[
        Float[Array, 'batch length hidden'],
        tuple[
            Float[Array, 'layers batch length hidden'] | None,
            Float[Array, 'blocks batch heads length length'] | None,
        ],
    ]:
        config = self.config
        length = hidden.shape[1]
        if choose_attention(config, length, deterministic, is_right_padded) == 'cudnn':
            hidden = cudnn.spoil_wrong_rows(hidden, attention_mask)
        all_states, all_probs = [], []
        for name, part in _stacks(config):
            layer = _scanned_layer(part)(
                part,
                deterministic,
                return_attentions,
                return_hidden_states,
                is_right_padded,
                name=name,
            )
            hidden, (states, probs) = layer(
                hidden,
                jnp.asarray(part.unique_layer_indices(part.num_unique_attention_layers)),
                jnp.asarray(part.unique_layer_indices(part.num_unique_ffn_layers)),
                jnp.arange(part.num_depths).reshape(-1, part.inner_group_num),
                attention_mask,
                example_ids,
            )
            all_states.append(states)
            if probs is not None:
                all_probs.append(probs.reshape(-1, *probs.shape[2:]))
        if config.norm_placement == 'pre':
            hidden = LayerNorm(config, name='layer_norm')(hidden).astype(hidden.dtype)
        states = jnp.concatenate(all_states) if return_hidden_states else None
        return hidden, (states, jnp.concatenate(all_probs) if return_attentions else None)


def _stacks(config: AlbertConfig) -> list[tuple[str, AlbertConfig]]:
    """The parts of an encoder in order, with their names: a config of each."""
    prelude, coda = config.num_prelude_layers, config.num_coda_layers
    return [
        *([('prelude', config.unshared(prelude))] if prelude else []),
        ('layer', config.core),
        *([('coda', config.unshared(coda))] if coda else []),
    ]


def _scanned_layer(config: AlbertConfig) -> Callable[..., nn.Module]:
    """All layers of a config. Broadcast variables are tied; `variable_axes` would untie them."""
    each, same = 0, nn.broadcast
    return nn.scan(
        _layer_class(config),
        variable_broadcast='params',
        split_rngs={'params': False, 'dropout': True},
        in_axes=(each, each, each, same, same),  # pyright: ignore[reportArgumentType]
        length=config.num_hidden_layers,
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
        is_right_padded: bool = False,
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
          is_right_padded: says that each row of a mask under `jit` is ones and then zeros, which
            cuDNN's kernel needs; a row that is not becomes NaN. Outside of `jit` the mask is read.

        Raises:
          ValueError: if the sequence is longer than `max_position_embeddings`.
          UserError: if the config asks for a kernel that cannot do this.
        """
        encoded = self.encode(
            input_ids,
            attention_mask,
            token_type_ids,
            example_ids=example_ids,
            deterministic=deterministic,
            return_attentions=return_attentions,
            return_hidden_states=return_attentions or return_hidden_states,
            is_right_padded=is_right_padded,
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
        is_right_padded: bool = False,
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
          is_right_padded: says that each row of a mask under `jit` is ones and then zeros, which
            cuDNN's kernel needs; a row that is not becomes NaN. Outside of `jit` the mask is read.

        Raises:
          ValueError: if the sequence is longer than `max_position_embeddings`.
          UserError: if the config asks for a kernel that cannot do this.
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
            embedded,
            mask,
            examples,
            deterministic,
            return_attentions,
            return_hidden_states,
            cudnn.is_right_padded(attention_mask, is_right_padded),
        )
        if use_pooler:
            pooled = jnp.tanh(self.pooler(hidden[:, 0]).astype(jnp.float32))
        else:
            pooled = jnp.zeros((batch, self.config.hidden_size))
        hidden_states = None
        if layer_outputs is not None:
            hidden_states = jnp.concatenate([embedded[None], layer_outputs])
        return EncoderOutput(hidden, pooled, hidden_states, layer_probs)


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
