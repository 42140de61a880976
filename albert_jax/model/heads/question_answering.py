"""Heads that find the answer to a question as a span of its passage."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from albert_jax.model.config import AlbertConfig
from albert_jax.model.dropout import Dropout
from albert_jax.model.heads.definition import HeadDefinition, Logits, Params, dense, init_dense
from albert_jax.model.losses import Batch, Sum, cross_entropy, soft_target_loss

# Beams of the end-conditioned head at evaluation (XLNet; docs/REFERENCE.md, 4).
NUM_STARTS, NUM_ENDS = 5, 5
_ANSWERABILITY_WEIGHT = 0.5


class QuestionAnswering(HeadDefinition):
    """Start and end of the answer, independent of each other: SQuAD 1.1."""

    is_token_level = True
    # Where an answer may be: 1 for the tokens of the passage.
    extra_inputs = ('can_answer',)

    def init(self, num_outputs: int, config: AlbertConfig, key: Key[Array, '']) -> dict[str, Any]:
        """Two outputs, whatever is asked for."""
        del num_outputs
        return init_dense('output', config.hidden_size, 2, config, key)

    def apply(
        self,
        params: Params,
        hidden: Float[Array, 'sequences length hidden'],
        pooled: Float[Array, 'sequences hidden'],
        batch: Batch,
        dropout: Dropout,
        is_training: bool,
    ) -> Logits:
        """`start` and `end` [batch, length]."""
        logits = _only_answers(dense(params, hidden), batch['can_answer'][:, :, None])
        return {'start': logits[:, :, 0], 'end': logits[:, :, 1]}

    def loss(self, logits: Logits, batch: Batch) -> Sum:
        """The mean of start's and end's cross entropy."""
        weights = batch['weights']
        start, end = (cross_entropy(logits[n], batch[n], weights) for n in ('start', 'end'))
        return Sum((start.sum + end.sum) / 2, weights.sum())

    def soft_target_loss(
        self, student: Logits, teacher: Logits, batch: Batch, temperature: float
    ) -> Sum:
        """The mean of start's and end's."""
        weights = batch['weights']
        start, end = (
            soft_target_loss(student[name], teacher[name], temperature, weights)
            for name in ('start', 'end')
        )
        return Sum((start.sum + end.sum) / 2, weights.sum())


class ConditionalQuestionAnswering(QuestionAnswering):
    """XLNet's: the end given the start, and answerability by its own logit; SQuAD 2.0."""

    def init(self, num_outputs: int, config: AlbertConfig, key: Key[Array, '']) -> dict[str, Any]:
        """One output for the start, the end and answerability, whatever is asked for."""
        del num_outputs
        hidden = config.hidden_size
        return {
            'start': init_dense('start', hidden, 1, config, key),
            'end': {
                'transform': init_dense('transform', 2 * hidden, hidden, config, key),
                'layer_norm': {'scale': jnp.ones(hidden), 'bias': jnp.zeros(hidden)},
                'output': init_dense('output', hidden, 1, config, key),
            },
            'answerable': {
                'transform': init_dense('answer', 2 * hidden, hidden, config, key),
                'output': init_dense('class', hidden, 1, config, key),
            },
        }

    def apply(
        self,
        params: Params,
        hidden: Float[Array, 'sequences length hidden'],
        pooled: Float[Array, 'sequences hidden'],
        batch: Batch,
        dropout: Dropout,
        is_training: bool,
    ) -> Logits:
        """In training `start`, `end` given the true start, and `impossible`; else a beam.

        The beam is `start_scores` and `start_positions` [batch, starts], `end_scores` and
        `end_positions` [batch, starts, ends].
        """
        can_answer = batch['can_answer']
        start_logits = _only_answers(dense(params['start'], hidden)[:, :, 0], can_answer)
        start_probs = jax.nn.softmax(start_logits)
        summary = jnp.einsum('bl,blh->bh', start_probs, hidden)
        features = jnp.concatenate([summary, hidden[:, 0]], -1)
        features = dropout(jnp.tanh(dense(params['answerable']['transform'], features)))
        impossible = dense(params['answerable']['output'], features)[:, 0]
        if is_training:
            end_logits = _end_logits(params['end'], hidden, batch['start'][:, None], can_answer)
            return {'start': start_logits, 'end': end_logits[:, 0], 'impossible': impossible}
        start_scores, starts = _top(start_logits, min(NUM_STARTS, hidden.shape[1]))
        end_logits = _end_logits(params['end'], hidden, starts, can_answer)
        end_scores, ends = _top(jax.nn.log_softmax(end_logits), min(NUM_ENDS, hidden.shape[1]))
        normaliser = jax.nn.logsumexp(start_logits, axis=1, keepdims=True)
        return {
            'start_scores': start_scores - normaliser,
            'start_positions': starts,
            'end_scores': end_scores,
            'end_positions': ends,
            'impossible': impossible,
        }

    def loss(self, logits: Logits, batch: Batch) -> Sum:
        """The mean of start's and end's, and half of answerability's."""
        spans = super().loss(logits, batch)
        is_impossible = batch['is_impossible'].astype(jnp.float32)
        losses = optax.sigmoid_binary_cross_entropy(logits['impossible'], is_impossible)
        total = spans.sum + _ANSWERABILITY_WEIGHT * (losses * batch['weights']).sum()
        return Sum(total, spans.weight)

    def soft_target_loss(
        self, student: Logits, teacher: Logits, batch: Batch, temperature: float
    ) -> Sum:
        """The mean of start's and end's, and half of answerability's."""
        spans = super().soft_target_loss(student, teacher, batch, temperature)
        # A sigmoid is a softmax over the logit and 0.
        student_pair, teacher_pair = (
            jnp.stack([jnp.zeros_like(logits), logits], -1)
            for logits in (student['impossible'], teacher['impossible'])
        )
        answerability = soft_target_loss(student_pair, teacher_pair, temperature, batch['weights'])
        return Sum(spans.sum + answerability.sum / 2, spans.weight)


def _only_answers(
    logits: Float[Array, '*shape'], can_answer: Int[Array, '*shape_or_1']
) -> Float[Array, '*shape']:
    return jnp.where(can_answer > 0, logits, -1e30)


def _top(
    scores: Float[Array, '*batch length'], count: int
) -> tuple[Float[Array, '*batch count'], Int[Array, '*batch count']]:
    """The highest scores and their positions, the first of equals first.

    One after the other, for a few: not every exporter knows a sort along an unknown length, nor
    `jax.lax.top_k`.
    """
    positions = jax.lax.broadcasted_iota(jnp.int32, scores.shape, scores.ndim - 1)
    best_scores, best_positions = [], []
    for _ in range(count):
        position = jnp.argmax(scores, -1, keepdims=True).astype(jnp.int32)
        best_scores.append(scores.max(-1, keepdims=True))
        best_positions.append(position)
        scores = jnp.where(positions == position, -jnp.inf, scores)
    return jnp.concatenate(best_scores, -1), jnp.concatenate(best_positions, -1)


def _end_logits(
    params: Params,
    hidden: Float[Array, 'batch length hidden'],
    starts: Int[Array, 'batch beam'],
    can_answer: Int[Array, 'batch length'],
) -> Float[Array, 'batch beam length']:
    """The logits of every end, given each of the starts."""
    at_start = jnp.take_along_axis(hidden, starts[:, :, None], axis=1)
    # The product with [hidden ; start] is a sum of two, and the first is the same for every start.
    width = hidden.shape[-1]
    kernel = params['transform']['kernel']
    of_tokens = jnp.dot(hidden, kernel[:width])[:, None]
    of_starts = dense({'kernel': kernel[width:], 'bias': params['transform']['bias']}, at_start)
    features = jnp.tanh(of_tokens + of_starts[:, :, None])
    norm = {name: value.reshape(1, 1, 1, -1) for name, value in params['layer_norm'].items()}
    centered = features - features.mean(-1, keepdims=True)
    variance = jnp.square(centered).mean(-1, keepdims=True)
    features = centered * jax.lax.rsqrt(variance + 1e-12) * norm['scale'] + norm['bias']
    logits = dense(params['output'], features)[..., 0]
    return _only_answers(logits, can_answer[:, None])
