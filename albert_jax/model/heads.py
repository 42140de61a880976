"""What a fine-tuned model puts on the encoder: pure functions of `params['head']`.

Every head gives a dict of float32 logits, and its losses are sums over examples.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from albert_jax.model.config import AlbertConfig
from albert_jax.model.dropout import drop
from albert_jax.model.losses import Batch, Sum, cross_entropy

Params = Mapping[str, Any]
Logits = dict[str, Array]
# (features, key) → features; the identity where nothing is dropped.
Dropout = Callable[[Array], Array]

# The first four are also Hugging Face's.
HEAD_KINDS = (
    'sequence_classification',
    'token_classification',
    'question_answering',
    'multiple_choice',
    # The end conditioned on the start, and answerability (XLNet): SQuAD 2.0.
    'conditional_question_answering',
)


@dataclasses.dataclass(frozen=True)
class Head:
    """What a fine-tuned model answers; its weights are under `head` in the parameters."""

    # One of HEAD_KINDS.
    kind: str
    # Names of the outputs, in order.
    labels: tuple[str, ...]


# The heads that read the pooled output.
POOLED = ('sequence_classification', 'multiple_choice')
# Beams of the end-conditioned head at evaluation (XLNet; REFERENCE, 4).
NUM_STARTS, NUM_ENDS = 5, 5
_ANSWERABILITY_WEIGHT = 0.5


def init_head(kind: str, num_outputs: int, config: AlbertConfig, key: Key[Array, '']) -> Any:
    """Fresh parameters: truncated normal weights, zero biases, unit norms.

    Args:
      kind: one of `HEAD_KINDS`.
      num_outputs: classes, tags, or 1 for a regression; fixed by the kind for the others.
      config: of the encoder.
      key: of the weights.
    """
    hidden = config.hidden_size

    def dense(name: str, inputs: int, outputs: int) -> dict[str, Array]:
        name_key = jax.random.fold_in(key, sum(name.encode()))
        normal = jax.nn.initializers.truncated_normal(config.initializer_range)
        return {'kernel': normal(name_key, (inputs, outputs)), 'bias': jnp.zeros(outputs)}

    if kind == 'conditional_question_answering':
        return {
            'start': dense('start', hidden, 1),
            'end': {
                'transform': dense('transform', 2 * hidden, hidden),
                'layer_norm': {'scale': jnp.ones(hidden), 'bias': jnp.zeros(hidden)},
                'output': dense('output', hidden, 1),
            },
            'answerable': {
                'transform': dense('answer', 2 * hidden, hidden),
                'output': dense('class', hidden, 1),
            },
        }
    outputs = {'question_answering': 2, 'multiple_choice': 1}.get(kind, num_outputs)
    return dense('output', hidden, outputs)


def _dense(params: Params, inputs: Float[Array, '*batch inputs']) -> Float[Array, '*batch outputs']:
    outputs = jnp.dot(inputs.astype(jnp.float32), params['kernel'])
    return outputs + params['bias'].reshape((1,) * (outputs.ndim - 1) + (-1,))


def apply_head(
    kind: str,
    params: Params,
    hidden: Float[Array, 'sequences length hidden'],
    pooled: Float[Array, 'sequences hidden'],
    batch: Batch,
    dropout: Dropout,
    is_training: bool,
) -> Logits:
    """The head's logits.

    Args:
      kind: one of `HEAD_KINDS`.
      params: of the head.
      hidden: last layer of the encoder.
      pooled: pooled output of the encoder.
      batch: the conditional head reads `can_answer`, and `start` in training.
      dropout: of the classifier's inputs.
      is_training: the conditional head is then given the true start and not a beam.
    """
    hidden = hidden.astype(jnp.float32)
    if kind == 'token_classification':
        return {'logits': _dense(params, dropout(hidden))}
    if kind == 'question_answering':
        logits = _only_answers(_dense(params, hidden), batch['can_answer'][:, :, None])
        return {'start': logits[:, :, 0], 'end': logits[:, :, 1]}
    if kind == 'conditional_question_answering':
        return _conditional(params, hidden, batch, dropout, is_training)
    logits = _dense(params, dropout(pooled))
    if kind == 'multiple_choice':
        return {'logits': logits.reshape(batch['labels'].shape[0], -1)}
    return {'logits': logits}


def _only_answers(
    logits: Float[Array, '*shape'], can_answer: Int[Array, '*shape_or_1']
) -> Float[Array, '*shape']:
    return jnp.where(can_answer > 0, logits, -1e30)


def _conditional(
    params: Params, hidden: Array, batch: Batch, dropout: Dropout, is_training: bool
) -> Logits:
    """XLNet's head: the end is conditioned on the start, and answerability has its own logit."""
    can_answer = batch['can_answer']
    start_logits = _only_answers(_dense(params['start'], hidden)[:, :, 0], can_answer)
    start_probs = jax.nn.softmax(start_logits)
    summary = jnp.einsum('bl,blh->bh', start_probs, hidden)
    features = jnp.concatenate([summary, hidden[:, 0]], -1)
    features = dropout(jnp.tanh(_dense(params['answerable']['transform'], features)))
    impossible = _dense(params['answerable']['output'], features)[:, 0]
    if is_training:
        starts = batch['start'][:, None]
    else:
        top, starts = _top(start_logits, min(NUM_STARTS, hidden.shape[1]))
    end_logits = _ends_given_starts(params['end'], hidden, starts, can_answer)
    if is_training:
        return {'start': start_logits, 'end': end_logits[:, 0], 'impossible': impossible}
    end_top, ends = _top(jax.nn.log_softmax(end_logits), min(NUM_ENDS, hidden.shape[1]))
    normaliser = jax.nn.logsumexp(start_logits, axis=1, keepdims=True)
    return {
        'start_scores': top - normaliser,
        'start_positions': starts,
        'end_scores': end_top,
        'end_positions': ends,
        'impossible': impossible,
    }


def _top(
    scores: Float[Array, '*batch length'], count: int
) -> tuple[Float[Array, '*batch count'], Int[Array, '*batch count']]:
    """The highest scores and their places, the first of equals first.

    One after the other, for a few: not every exporter knows a sort along an unknown length, nor
    `jax.lax.top_k`.
    """
    places = jax.lax.broadcasted_iota(jnp.int32, scores.shape, scores.ndim - 1)
    found = []
    for _ in range(count):
        place = jnp.argmax(scores, -1, keepdims=True).astype(jnp.int32)
        found.append((scores.max(-1, keepdims=True), place))
        scores = jnp.where(places == place, -jnp.inf, scores)
    best, at = zip(*found, strict=True)
    return jnp.concatenate(best, -1), jnp.concatenate(at, -1)


def _ends_given_starts(
    params: Params,
    hidden: Float[Array, 'batch length hidden'],
    starts: Int[Array, 'batch beam'],
    can_answer: Int[Array, 'batch length'],
) -> Float[Array, 'batch beam length']:
    at_start = jnp.take_along_axis(hidden, starts[:, :, None], axis=1)
    # The product with [hidden ; start] is a sum of two, and the first is the same for every start.
    width = hidden.shape[-1]
    kernel = params['transform']['kernel']
    of_tokens = jnp.dot(hidden, kernel[:width])[:, None]
    of_starts = _dense({'kernel': kernel[width:], 'bias': params['transform']['bias']}, at_start)
    features = jnp.tanh(of_tokens + of_starts[:, :, None])
    norm = {name: value.reshape(1, 1, 1, -1) for name, value in params['layer_norm'].items()}
    centered = features - features.mean(-1, keepdims=True)
    variance = jnp.square(centered).mean(-1, keepdims=True)
    features = centered * jax.lax.rsqrt(variance + 1e-12) * norm['scale'] + norm['bias']
    logits = _dense(params['output'], features)[..., 0]
    return _only_answers(logits, can_answer[:, None])


def head_loss(kind: str, logits: Logits, batch: Batch) -> Sum:
    """The summed loss of the examples and the sum of their weights.

    Cross entropy, squared error for float labels, and for questions the mean of start's and end's
    cross entropy plus, in the conditional head, half of answerability's.
    """
    weights = batch['weights']
    if kind == 'token_classification':
        labels = batch['token_labels']
        token_weights = jnp.where(labels >= 0, weights[:, None], 0)
        return cross_entropy(logits['logits'], jnp.maximum(labels, 0), token_weights)
    if kind in ('question_answering', 'conditional_question_answering'):
        spans = [cross_entropy(logits[name], batch[name], weights) for name in ('start', 'end')]
        loss = (spans[0].sum + spans[1].sum) / 2
        if kind == 'conditional_question_answering':
            is_impossible = batch['is_impossible'].astype(jnp.float32)
            losses = optax.sigmoid_binary_cross_entropy(logits['impossible'], is_impossible)
            loss = loss + _ANSWERABILITY_WEIGHT * (losses * weights).sum()
        return Sum(loss, weights.sum())
    labels = batch['labels']
    if jnp.issubdtype(labels.dtype, jnp.floating):
        losses = jnp.square(logits['logits'][:, 0] - labels)
        return Sum((losses * weights).sum(), weights.sum())
    return cross_entropy(logits['logits'], labels, weights)


def loss_weight(kind: str, batch: Batch) -> Float[Array, '']:
    """The weight that `head_loss` gives with the same batch, known before any logits."""
    if kind == 'token_classification':
        return jnp.where(batch['token_labels'] >= 0, batch['weights'][:, None], 0).sum()
    return batch['weights'].sum()


def dropout_of(
    rate: float, key: Key[Array, ''] | None, example_ids: Int[Array, 'batch']
) -> Dropout:
    """The classifier's dropout; the identity without a key."""
    if key is None or rate == 0:
        return lambda features: features
    return lambda features: drop(features, rate, key, example_ids)
