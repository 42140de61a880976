"""Beam search, with a length penalty and the n best texts.

A beam's text may end with every step; of the texts that have ended, the best are kept, as many as
there are beams. A source is done when it has so many and no text that goes on has a better score.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from albert_jax.model.decoder_layers import Cache

# (last pieces, position, mask, cache) → (logits, cache), as of `Seq2SeqModel.decode_step`.
Step = Callable[[Array, Array, Array, Cache], tuple[Array, Cache]]
# The log-probability of a text that is not there; finite, so that sums of it are no NaN.
_NONE = -1e9


class _Beams(NamedTuple):
    """The texts that go on, the likeliest first."""

    token_ids: Int[Array, 'batch beams length']
    log_probs: Float[Array, 'batch beams']
    # Which beam wrote each place of the text into the cache.
    writers: Int[Array, 'batch beams length']


class _Ended(NamedTuple):
    """The best texts that have ended."""

    token_ids: Int[Array, 'batch beams length']
    scores: Float[Array, 'batch beams']
    # Whether by their end, and not at the limit.
    is_finished: Bool[Array, 'batch beams']


class _State(NamedTuple):
    position: Array
    last_ids: Int[Array, 'batch beams']
    beams: _Beams
    ended: _Ended
    is_done: Bool[Array, 'batch']
    cache: Cache


def search(
    step: Step,
    start_id: int,
    end_id: int,
    pad_id: int,
    cache: Cache,
    limits: Int[Array, 'batch'],
    length_penalty: Float[Array, ''],
) -> tuple[
    Int[Array, 'batch beams length'], Float[Array, 'batch beams'], Bool[Array, 'batch beams']
]:
    """The best texts of each source.

    Args:
      step: of the model.
      start_id: what all texts start from.
      end_id: what ends a text.
      pad_id: what stands after the end.
      cache: empty, for as many beams as there shall be.
      limits: pieces after which the texts of a source end.
      length_penalty: α of the score log p / pieces^α.

    Returns:
      The pieces of the texts, the best first; their scores, −∞ where there is no such text; and
      whether they have their ends, and were not cut at the limit.
    """
    batch, _, length, num_beams, _ = cache[0].keys.shape
    places = jnp.arange(length)

    def extend(state: _State) -> _State:
        position, beams = state.position, state.beams
        own = jnp.arange(num_beams)[None, :, None]
        writers = jnp.where(places[None, None] == position, own, beams.writers)
        is_past = (places <= position)[None, None, :, None]
        mask = is_past & (writers[..., None] == jnp.arange(num_beams)[None, None, None])
        logits, cache = step(state.last_ids, position, mask, state.cache)
        candidates = _candidates(beams._replace(writers=writers), logits, position)
        is_last = position + 1 >= limits
        is_end = candidates.token_ids[..., position] == end_id
        penalty = (position + 1).astype(jnp.float32) ** length_penalty
        ended = _merge(state.ended, candidates, is_end, is_last, penalty, state.is_done)
        live = candidates.log_probs + jnp.where(is_end, _NONE, 0)
        log_probs, best = jax.lax.top_k(live, num_beams)
        beams = _take(candidates, best)._replace(log_probs=log_probs)
        # The worst of them is −∞ as long as there are too few.
        is_better = _exists(log_probs[:, 0]) & (log_probs[:, 0] / penalty > ended.scores[:, -1])
        return _State(
            position + 1,
            beams.token_ids[..., position],
            beams,
            ended,
            state.is_done | is_last | ~is_better,
            cache,
        )

    # At the start all beams are alike, and only the first counts.
    first = jnp.where(jnp.arange(num_beams) == 0, 0.0, _NONE)
    blank = jnp.full((batch, num_beams, length), pad_id, jnp.int32)
    state = _State(
        jnp.zeros([], jnp.int32),
        jnp.full((batch, num_beams), start_id, jnp.int32),
        _Beams(blank, jnp.broadcast_to(first, (batch, num_beams)), jnp.zeros_like(blank)),
        _Ended(blank, jnp.full((batch, num_beams), -jnp.inf), jnp.zeros((batch, num_beams), bool)),
        jnp.zeros(batch, bool),
        cache,
    )
    ended = jax.lax.while_loop(lambda state: ~state.is_done.all(), extend, state).ended
    return ended.token_ids, ended.scores, ended.is_finished


def _exists(log_probs: Float[Array, '*shape']) -> Bool[Array, '*shape']:
    return log_probs > _NONE / 2


def _candidates(
    beams: _Beams, logits: Float[Array, 'batch beams vocab'], position: Int[Array, '']
) -> _Beams:
    """The likeliest texts one piece longer: twice as many as beams, half of which may end."""
    batch, num_beams, vocab = logits.shape
    # Of each beam first: then no probability is computed of a piece that is not chosen.
    of_each, pieces = jax.lax.top_k(logits, min(2 * num_beams, vocab))
    normalizers = jax.nn.logsumexp(logits, -1)
    log_probs = (beams.log_probs - normalizers)[..., None] + of_each
    count = min(2 * num_beams, num_beams * vocab)
    best, chosen = jax.lax.top_k(log_probs.reshape(batch, -1), count)
    extended = _take(beams, chosen // of_each.shape[-1])
    last = jnp.take_along_axis(pieces.reshape(batch, -1), chosen, axis=1)
    token_ids = extended.token_ids.at[..., position].set(last)
    return extended._replace(token_ids=token_ids, log_probs=jnp.maximum(best, _NONE))


def _merge(
    ended: _Ended,
    candidates: _Beams,
    is_end: Bool[Array, 'batch candidates'],
    is_last: Bool[Array, 'batch'],
    penalty: Float[Array, ''],
    is_done: Bool[Array, 'batch'],
) -> _Ended:
    """The best of the texts that have ended and of the candidates that do; done sources stay.

    A candidate ends if it is among the likeliest, as many as beams, of those one piece longer.
    """
    num_beams = ended.scores.shape[1]
    is_likely = (jnp.arange(is_end.shape[1]) < num_beams)[None]
    ends = (is_end | is_last[:, None]) & is_likely & _exists(candidates.log_probs)
    scores = jnp.where(ends & ~is_done[:, None], candidates.log_probs / penalty, -jnp.inf)
    everything = _Ended(
        *(
            jnp.concatenate(pair, axis=1)
            for pair in zip(ended, (candidates.token_ids, scores, is_end), strict=True)
        )
    )
    _, best = jax.lax.top_k(everything.scores, num_beams)
    return _take(everything, best)


def _take(texts: Any, rows: Int[Array, 'batch chosen']) -> Any:
    """The chosen texts of each source."""
    return jax.tree.map(
        lambda x: jnp.take_along_axis(x, rows.reshape(*rows.shape, *(1,) * (x.ndim - 2)), axis=1),
        texts,
    )
