"""Writing a text for each source: greedy, beam search, sampling, as one compiled program each.

The program loops on the device, with a cache of the keys and values of the text so far. What a
source gets does not depend on the batch around it. Only shapes and the method are compiled in:
limits, penalties, temperatures and seeds are arguments.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from albert_jax.cli.errors import UserError
from albert_jax.model import beam_search, sampling
from albert_jax.model.decoder import Seq2SeqModel
from albert_jax.model.decoder_layers import Cache, Memory
from albert_jax.model.decoding_settings import DecodingSettings

# Caches are made for these numbers of tokens, or for as many as the model has positions.
_SHORTEST_CACHE = 16


@dataclasses.dataclass(frozen=True)
class SpecialIds:
    """The pieces that a decoder treats specially.

    Args:
      start: what its text starts from.
      end: what ends it.
      pad: what stands after the end.
      forbidden: pieces that it never writes.
    """

    start: int
    end: int
    pad: int
    forbidden: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class StaticSettings:
    """What of the settings is compiled in."""

    # Texts side by side: beams, or samples.
    num_rows: int
    num_return_sequences: int
    is_sampled: bool
    is_filtered: bool
    cache_length: int


class DynamicSettings(NamedTuple):
    """What of the settings are arguments of the program."""

    length_penalty: Any
    temperature: Any
    top_k: Any
    top_p: Any
    seed: Any


class Generated(NamedTuple):
    """The texts of each source, the best first; samples in the order in which they were drawn."""

    # Without the start; `end`, if it was reached, and then `pad`.
    token_ids: Int[Array, 'batch texts length']
    # log p / pieces ** length_penalty, the end counted; −∞ where the search found no such text.
    scores: Float[Array, 'batch texts']
    # Whether it has its end, and was not cut at the limit.
    is_finished: Bool[Array, 'batch texts']


def cache_length(max_new_tokens: int, model: Seq2SeqModel) -> int:
    """For how many tokens to make caches: a power of 2, or as many as there are positions."""
    length = _SHORTEST_CACHE
    while length < max_new_tokens:
        length *= 2
    return min(length, model.config.max_position_embeddings)


def generate(
    model: Seq2SeqModel,
    params: PyTree,
    source_ids: Int[Array | np.ndarray, 'batch source'],
    source_mask: Int[Array | np.ndarray, 'batch source'],
    settings: DecodingSettings,
    special: SpecialIds,
    max_new_tokens: int | Int[Array | np.ndarray, 'batch'],
    example_ids: Int[Array | np.ndarray, 'batch'] | None = None,
) -> Generated:
    """The texts that the model writes for the sources; compiled once for each shape and method.

    Args:
      model: of the parameters.
      params: its parameters.
      source_ids: `[CLS]` text `[SEP]` and padding.
      source_mask: 1 for a token, 0 for padding.
      settings: how it writes.
      special: of the vocabulary.
      max_new_tokens: where a text is cut, for all sources or for each.
      example_ids: numbers that choose each source's samples; 0, 1, … if left out.

    Raises:
      UserError: if the settings or limits are impossible with this model.
    """
    limits = np.broadcast_to(np.asarray(max_new_tokens, np.int32), len(source_ids))
    if example_ids is None:
        example_ids = np.arange(len(source_ids), dtype=np.int32)
    static, dynamic = plan(model, settings, int(limits.max(initial=1)), int(limits.min(initial=1)))
    sources = source_ids, source_mask, example_ids, limits
    return _generate(model, special, static, params, *sources, dynamic)


def plan(
    model: Seq2SeqModel, settings: DecodingSettings, longest: int, shortest: int = 1
) -> tuple[StaticSettings, DynamicSettings]:
    """What `decode` needs of the settings: what is compiled in, and what are arguments.

    Args:
      model: that writes.
      settings: how.
      longest: the largest limit of new tokens.
      shortest: the least.

    Raises:
      UserError: if the settings or limits are impossible with this model.
    """
    positions, vocabulary = model.config.max_position_embeddings, model.config.vocab_size
    if not 1 <= shortest <= longest <= positions:
        wrong = shortest if shortest < 1 else longest
        raise UserError(
            f'A text of at most {wrong} new tokens is asked for; the model writes 1 to '
            f'{positions}, which are its positions.'
        )
    if settings.num_beams > vocabulary:
        raise UserError(
            f'decoding.num_beams is {settings.num_beams}; it must be at most the {vocabulary} '
            f'pieces of the vocabulary.'
        )
    static = StaticSettings(
        settings.num_rows,
        settings.num_return_sequences,
        settings.temperature > 0,
        settings.top_k > 0 or settings.top_p < 1,
        cache_length(longest, model),
    )
    dynamic = DynamicSettings(
        np.float32(settings.length_penalty),
        np.float32(settings.temperature),
        np.int32(settings.top_k),
        np.float32(settings.top_p),
        np.uint32(settings.seed),
    )
    return static, dynamic


def decode(
    model: Seq2SeqModel,
    special: SpecialIds,
    static: StaticSettings,
    params: PyTree,
    source_ids: Int[Array, 'batch source'],
    source_mask: Int[Array, 'batch source'],
    example_ids: Int[Array, 'batch'],
    limits: Int[Array, 'batch'],
    dynamic: DynamicSettings,
) -> Generated:
    """`generate`, to be compiled: a pure function of its arrays, its first three arguments static.

    Args:
      model: of the parameters.
      special: of the vocabulary.
      static: by `plan`.
      params: of the model.
      source_ids: `[CLS]` text `[SEP]` and padding.
      source_mask: 1 for a token, 0 for padding.
      example_ids: numbers that choose each source's samples.
      limits: of new tokens, each at most `static.cache_length`.
      dynamic: by `plan`.
    """
    memory = model.encode(params, source_ids, source_mask)
    step = functools.partial(_step, model, special, params, memory)
    cache = model.init_cache(memory, static.num_rows, static.cache_length)
    if static.num_rows > 1 and not static.is_sampled:
        token_ids, scores, is_finished = beam_search.search(
            step, special.start, special.end, special.pad, cache, limits, dynamic.length_penalty
        )
    else:
        token_ids, scores, is_finished = _write(
            step, special, static, cache, example_ids, limits, dynamic
        )
    count = static.num_return_sequences
    return Generated(token_ids[:, :count], scores[:, :count], is_finished[:, :count])


_generate = jax.jit(decode, static_argnums=(0, 1, 2))


def num_compiled() -> int:
    """How many programs `generate` has compiled."""
    return _generate._cache_size()  # pyright: ignore[reportAttributeAccessIssue, reportFunctionMemberAccess]


def _step(
    model: Seq2SeqModel,
    special: SpecialIds,
    params: PyTree,
    memory: Memory,
    token_ids: Int[Array, 'batch rows'],
    position: Int[Array, ''],
    mask: Bool[Array, 'batch rows length rows'],
    cache: Cache,
) -> tuple[Float[Array, 'batch rows vocab'], Cache]:
    """`model.decode_step`, with −∞ for the pieces that must not be written."""
    logits, cache = model.decode_step(params, memory, token_ids, position, mask, cache)
    if special.forbidden:
        # Not by setting them one by one, which copies all logits: this is part of adding the bias.
        is_forbidden = np.zeros(logits.shape[-1], bool)
        is_forbidden[list(special.forbidden)] = True
        logits = jnp.where(is_forbidden[None, None], -jnp.inf, logits)
    return logits, cache


class _State(NamedTuple):
    """Texts that are written independently of one another."""

    position: Array
    last_ids: Int[Array, 'batch rows']
    token_ids: Int[Array, 'batch rows length']
    log_probs: Float[Array, 'batch rows']
    num_tokens: Int[Array, 'batch rows']
    is_finished: Bool[Array, 'batch rows']
    cache: Cache


def _write(
    step: beam_search.Step,
    special: SpecialIds,
    static: StaticSettings,
    cache: Cache,
    example_ids: Int[Array, 'batch'],
    limits: Int[Array, 'batch'],
    dynamic: DynamicSettings,
) -> tuple[Array, Array, Array]:
    """Greedy texts or samples, with scores, and whether they have their ends."""
    shape = limits.shape[0], static.num_rows
    key = jax.random.key(dynamic.seed)
    own = jnp.eye(static.num_rows, dtype=bool)[None, :, None, :]

    def is_open(state: _State) -> Bool[Array, 'batch rows']:
        return ~state.is_finished & (state.position < limits)[:, None]

    def write(state: _State) -> _State:
        places = jnp.arange(static.cache_length)
        mask = own & (places <= state.position)[None, None, :, None]
        mask = jnp.broadcast_to(mask, (*shape, static.cache_length, static.num_rows))
        logits, cache = step(state.last_ids, state.position, mask, state.cache)
        if static.is_sampled:
            uniform = sampling.uniforms(key, example_ids, state.position, static.num_rows)
            chosen = _sample(logits, uniform, static, dynamic)
        else:
            chosen = jnp.argmax(logits, -1)
        log_probs = _log_prob(logits, chosen)
        now = is_open(state)
        chosen = jnp.where(now, chosen, special.pad).astype(jnp.int32)
        return _State(
            state.position + 1,
            chosen,
            jax.lax.dynamic_update_slice_in_dim(
                state.token_ids, chosen[..., None], state.position, axis=2
            ),
            state.log_probs + jnp.where(now, log_probs, 0),
            state.num_tokens + now.astype(jnp.int32),
            state.is_finished | (now & (chosen == special.end)),
            cache,
        )

    zeros = jnp.zeros(shape, jnp.int32)
    state = _State(
        jnp.zeros([], jnp.int32),
        jnp.full(shape, special.start, jnp.int32),
        jnp.full((*shape, static.cache_length), special.pad, jnp.int32),
        jnp.zeros(shape),
        zeros,
        zeros > 0,
        cache,
    )
    state = jax.lax.while_loop(lambda state: is_open(state).any(), write, state)
    scores = state.log_probs / state.num_tokens.astype(jnp.float32) ** dynamic.length_penalty
    return state.token_ids, scores, state.is_finished


def _sample(
    logits: Float[Array, 'batch rows vocab'],
    uniform: Float[Array, 'batch rows'],
    static: StaticSettings,
    dynamic: DynamicSettings,
) -> Int[Array, 'batch rows']:
    flat = logits.reshape(-1, logits.shape[-1]) / dynamic.temperature
    if static.is_filtered:
        flat = sampling.keep_likeliest(flat, dynamic.top_k, dynamic.top_p)
    return sampling.sample(flat, uniform.reshape(-1)).reshape(uniform.shape)


def _log_prob(
    logits: Float[Array, 'batch rows vocab'], chosen: Int[Array, 'batch rows']
) -> Float[Array, 'batch rows']:
    of_chosen = jnp.take_along_axis(logits, chosen[..., None], -1)[..., 0]
    return of_chosen - jax.nn.logsumexp(logits, -1)
