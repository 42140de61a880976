"""From text to text: an encoder with a decoder of the same shared layer (ALBERTShare).

After arXiv 1907.12461. Parameter paths: `decoder/cross_attention/query/kernel`, and, where the
decoder has layers of its own, `decoder/layer/attention/query/kernel` as in the encoder. Embeddings
and masked-LM head are the encoder's.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from albert_jax.cli.errors import UserError
from albert_jax.model.albert import AnyArray, PretrainingModel, init_params
from albert_jax.model.config import AlbertConfig
from albert_jax.model.decoder_attention import DecoderAttention, KeyValues
from albert_jax.model.decoder_config import DecoderConfig
from albert_jax.model.decoder_layers import Cache, Decoder, DecoderLayer, Memory, layer_indices
from albert_jax.model.embeddings import Embeddings, MaskedLanguageHead
from albert_jax.model.modules import LayerNorm, Place
from albert_jax.model.outputs import EncoderOutput

# What a model needs of a pretrained one's parameters, beside `decoder`.
PRETRAINED_PARTS = ('embeddings', 'encoder', 'mlm')


class Seq2SeqOutput(NamedTuple):
    """The logits of every position's next piece, and where the decoder looked."""

    logits: Float[Array, 'batch target vocab']
    # Of the cross-attention, by block of the decoder; None unless asked for.
    cross_attention_probs: Float[Array, 'layers batch heads target source'] | None


@dataclasses.dataclass(frozen=True)
class Seq2SeqModel:
    """An encoder with its decoder, as functions of their parameters.

    The parameters have the parts `embeddings`, `encoder`, `mlm` and `decoder`. The target is
    embedded as a second segment, where the model knows segments.

    Args:
      config: of the encoder, and of the decoder's layer.
      decoder: how the decoder relates to it.

    Raises:
      UserError: if no decoder can be made of the encoder's layers.
    """

    config: AlbertConfig
    decoder: DecoderConfig

    def __post_init__(self) -> None:
        """Refuses encoders whose layers are not all of one kind."""
        config = self.config
        fields = (
            'num_loops', 'num_prelude_layers', 'num_coda_layers', 'depth_adapter_rank',
            'depth_norms', 'depth_embedding',
        )  # fmt: skip
        given = [f'{name}={getattr(config, name)}' for name in fields if getattr(config, name)]
        if given:
            raise UserError(
                f'A decoder has the layers of its encoder, and cannot have those of a model with '
                f'{" and ".join(given)}; start from a model without.'
            )

    def __call__(
        self,
        params: PyTree,
        source_ids: Int[AnyArray, 'batch source'],
        source_mask: Int[AnyArray, 'batch source'],
        target_ids: Int[AnyArray, 'batch target'],
        target_mask: Int[AnyArray, 'batch target'],
        *,
        example_ids: Int[AnyArray, 'batch'] | None = None,
        dropout_key: Key[Array, ''] | None = None,
        perturbation: Float[Array, 'batch source embedding'] | None = None,
        return_attentions: bool = False,
    ) -> Seq2SeqOutput:
        """The logits of the piece after each of the target's, which are given (teacher forcing).

        Args:
          params: of the model.
          source_ids: `[CLS]` text `[SEP]` and padding.
          source_mask: 1 for a token, 0 for padding.
          target_ids: `[CLS]`, the text that the decoder has written so far, and padding.
          target_mask: 1 for a token, 0 for padding.
          example_ids: choose each example's dropout masks; 0, 1, … if left out.
          dropout_key: None for no dropout.
          perturbation: added to the word embeddings of the source.
          return_attentions: also return the probabilities of the cross-attentions.

        Raises:
          ValueError: if a text is longer than `max_position_embeddings`.
        """
        target_ids, target_mask = jnp.asarray(target_ids), jnp.asarray(target_mask)
        if target_ids.shape[1] > self.config.max_position_embeddings:
            raise ValueError(
                f'The target has {target_ids.shape[1]} tokens; the model has '
                f'{self.config.max_position_embeddings} positions.'
            )
        examples = jnp.arange(len(target_ids)) if example_ids is None else jnp.asarray(example_ids)
        keys = (None,) * 3 if dropout_key is None else jax.random.split(dropout_key, 3)
        memory = self.encode(
            params,
            source_ids,
            source_mask,
            example_ids=examples,
            dropout_key=keys[0],
            perturbation=perturbation,
        )
        positions = jnp.arange(target_ids.shape[1])
        hidden = self._embed(params, target_ids, positions, examples, keys[1])
        is_seen = positions[:, None] >= positions[None]
        mask = is_seen[None] & (target_mask > 0)[:, None]
        hidden, probs = _apply(
            Decoder(self.config, self.decoder),
            self._decoder_params(params),
            hidden,
            memory,
            mask,
            examples,
            dropout_key is None,
            return_attentions,
            rngs=_rngs(keys[2]),
        )
        if probs is not None:
            probs = probs.reshape(-1, *probs.shape[2:])
        return Seq2SeqOutput(self._logits(params, hidden), probs)

    def encode(
        self,
        params: PyTree,
        source_ids: Int[AnyArray, 'batch source'],
        source_mask: Int[AnyArray, 'batch source'],
        *,
        example_ids: Int[AnyArray, 'batch'] | None = None,
        dropout_key: Key[Array, ''] | None = None,
        perturbation: Float[Array, 'batch source embedding'] | None = None,
    ) -> Memory:
        """The source as the decoder attends to it; arguments as of a call."""
        output = _apply(
            PretrainingModel(self.config),
            params,
            source_ids,
            source_mask,
            example_ids=example_ids,
            deterministic=dropout_key is None,
            rngs=_rngs(dropout_key),
            perturbation=perturbation,
            use_pooler=False,
            method=PretrainingModel.encode,
        )
        assert isinstance(output, EncoderOutput)
        num_cross = self.decoder.num_cross_attentions(self.config)
        cross_attention = DecoderAttention(self.config, num_cross)

        def key_values(index: Int[Array, '']) -> KeyValues:
            return _apply(
                cross_attention,
                params['decoder']['cross_attention'],
                output.last_hidden_state,
                Place(index),
                method=DecoderAttention.key_values,
            )

        stacked = jax.vmap(key_values)(jnp.arange(num_cross))
        num_inner = min(num_cross, self.config.inner_group_num)
        by_layer = jax.tree.map(lambda x: x.reshape(-1, num_inner, *x.shape[1:]), stacked)
        return Memory(by_layer, jnp.asarray(source_mask) > 0)

    def init_cache(self, memory: Memory, num_beams: int, length: int) -> Cache:
        """An empty cache for that many texts of each source, of at most `length` tokens."""
        config = self.config
        shape = (
            memory.mask.shape[0],
            config.num_attention_heads,
            length,
            num_beams,
            config.head_size,
        )
        num_blocks = self.decoder.num_layers(config) * config.inner_group_num
        empty = jnp.zeros(shape, config.compute_dtype)
        return (KeyValues(empty, empty),) * num_blocks

    def decode_step(
        self,
        params: PyTree,
        memory: Memory,
        token_ids: Int[Array, 'batch beams'],
        position: Int[Array, ''],
        mask: Bool[Array, 'batch beams length beams'],
        cache: Cache,
    ) -> tuple[Float[Array, 'batch beams vocab'], Cache]:
        """The logits of the piece after the given one, and the cache with that one in it.

        The beams of a source share its memory, and the cache is never moved from beam to beam: the
        mask says of which beams' tokens each text is made.

        Args:
          params: of the model.
          memory: of the sources.
          token_ids: the last piece of each beam's text, `[CLS]` at the start.
          position: its place in the text, 0 at the start.
          mask: `[row, beam, place, other beam]` is true where the other beam's token at the place
            is part of the beam's text; `position`, `beam`, `beam` must be true.
          cache: of the text before it.
        """
        config, decoder = self.config, self.decoder
        num_rows, num_beams = token_ids.shape
        positions, rows = jnp.full(num_beams, position), jnp.arange(num_rows)
        hidden = self._embed(params, token_ids, positions, rows, None)
        mask = mask.reshape(num_rows, num_beams, -1)
        decoder_params, indices = self._decoder_params(params), layer_indices(config, decoder)
        layer, num_inner = DecoderLayer(config, decoder), config.inner_group_num
        written: list[KeyValues] = []
        # A loop, so that each block's cache is an array of its own and written in place.
        for depth in range(decoder.num_layers(config)):
            hidden, (caches, _) = _apply(
                layer,
                decoder_params['layer'],
                hidden,
                *(index[depth] for index in indices),
                memory.of_layer(depth),
                memory.mask,
                mask,
                positions,
                rows,
                cache[depth * num_inner : (depth + 1) * num_inner],
            )
            written.extend(caches)
        if config.norm_placement == 'pre':
            normed = _apply(LayerNorm(config), decoder_params['layer_norm'], hidden)
            hidden = normed.astype(hidden.dtype)
        return self._logits(params, hidden), tuple(written)

    def _decoder_params(self, params: PyTree) -> dict[str, Any]:
        """The parameters as the modules have them, whoever they are shared with."""
        own = params['decoder']
        has_own_layer = self.decoder.decoder_sharing != 'encoder'
        layer = (own if has_own_layer else params['encoder'])['layer']
        rest = {'layer_norm': own['layer_norm']} if 'layer_norm' in own else {}
        return {'layer': {**layer, 'cross_attention': own['cross_attention']}, **rest}

    def _embed(
        self,
        params: PyTree,
        token_ids: Int[Array, 'batch length'],
        positions: Int[Array, 'length'],
        example_ids: Int[Array, 'batch'],
        dropout_key: Key[Array, ''] | None,
    ) -> Float[Array, 'batch length hidden']:
        segment = min(1, self.config.type_vocab_size - 1)
        return _apply(
            Embeddings(self.config),
            params['embeddings'],
            token_ids,
            jnp.full_like(token_ids, segment),
            example_ids,
            dropout_key is None,
            positions=positions,
            rngs=_rngs(dropout_key),
        )

    def _logits(
        self, params: PyTree, hidden: Float[Array, 'batch length hidden']
    ) -> Float[Array, 'batch length vocab']:
        decode = functools.partial(
            _apply, Embeddings(self.config), params['embeddings'], method=Embeddings.decode
        )
        return _apply(MaskedLanguageHead(self.config), params['mlm'], hidden, decode)


def _apply(module: nn.Module, params: PyTree, *args: Any, **options: Any) -> Any:
    return module.apply({'params': params}, *args, **options)


def _rngs(dropout_key: Key[Array, ''] | None) -> dict[str, Any] | None:
    return None if dropout_key is None else {'dropout': dropout_key}


def init_seq2seq(
    config: AlbertConfig,
    decoder: DecoderConfig,
    key: Key[Array, ''],
    pretrained: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The parameters of a model before its training.

    The kernels of the cross-attention have variance 1 / inputs, whatever `kernel_initializer` says:
    what it adds is of the size of its inputs, and gradients pass it in both directions from the
    first step on.

    Args:
      config: of the encoder.
      decoder: of the decoder.
      key: of the random numbers.
      pretrained: parameters to start from; parts that they lack are random.
    """
    start = pretrained or {}
    fresh = init_params(config, key)
    params = {part: start.get(part, fresh[part]) for part in PRETRAINED_PARTS}
    own = {'cross_attention': _init_cross_attention(config, decoder, jax.random.fold_in(key, 1))}
    if config.norm_placement == 'pre':
        is_random = decoder.decoder_sharing == 'random'
        own['layer_norm'] = (fresh if is_random else params)['encoder']['layer_norm']
    if decoder.decoder_sharing == 'copy':
        own['layer'] = {
            sublayer: _picked(config, decoder, sublayer, tree)
            for sublayer, tree in params['encoder']['layer'].items()
        }
    elif decoder.decoder_sharing == 'random':
        own['layer'] = _init_layer(config, decoder, jax.random.fold_in(key, 2))
    return {**params, 'decoder': own}


def _init_cross_attention(
    config: AlbertConfig, decoder: DecoderConfig, key: Key[Array, '']
) -> dict[str, Any]:
    module = DecoderAttention(
        dataclasses.replace(config, kernel_initializer='fan_in'),
        decoder.num_cross_attentions(config),
    )
    hidden = jnp.zeros((1, 1, config.hidden_size), config.compute_dtype)
    variables = module.init(key, hidden, method=_touch)
    return dict(variables['params'])


def _touch(module: DecoderAttention, hidden: Float[Array, '1 1 hidden']) -> None:
    """Uses all parameters once, so that Linen makes them."""
    place = Place(jnp.zeros([], jnp.int32))
    attended = module.key_values(hidden, place)
    module(hidden, attended, jnp.ones((1, 1, 1), bool), jnp.zeros(1, jnp.int32), place)


def _picked(
    config: AlbertConfig, decoder: DecoderConfig, sublayer: str, tree: PyTree
) -> dict[str, Any]:
    """The weights of a sublayer of the encoder, for the unique layers of the decoder."""
    layers = jnp.asarray(decoder.copied_layers(config, sublayer))
    is_stacked = (
        config.num_unique_attention_layers
        if sublayer == 'attention'
        else config.num_unique_ffn_layers
    ) > 1

    def pick(leaf: Array) -> Array:
        picked = (leaf if is_stacked else leaf[None])[layers]
        return picked if len(layers) > 1 else picked[0]

    return jax.tree.map(pick, tree)


def _init_layer(
    config: AlbertConfig, decoder: DecoderConfig, key: Key[Array, '']
) -> dict[str, Any]:
    """Random weights of a decoder's own layers."""
    num_layers = decoder.num_layers(config)
    shape = dataclasses.replace(
        config,
        num_hidden_layers=num_layers,
        num_hidden_groups=min(config.num_hidden_groups, num_layers),
    )
    return init_params(shape, key)['encoder']['layer']
