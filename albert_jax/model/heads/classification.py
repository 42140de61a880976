"""Heads that classify: a text, every token of it, or one of several choices."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from albert_jax.model.config import AlbertConfig
from albert_jax.model.dropout import Dropout
from albert_jax.model.heads.definition import HeadDefinition, Logits, Params, dense, init_dense
from albert_jax.model.losses import (
    Batch,
    Sum,
    binary_cross_entropy,
    cross_entropy,
    soft_binary_target_loss,
    soft_target_loss,
)


class SequenceClassification(HeadDefinition):
    """A class for a text or a pair, from the pooled output; a number where labels are floats."""

    uses_pooler = True
    has_labels = True
    is_text_classifier = True

    def init(self, num_outputs: int, config: AlbertConfig, key: Key[Array, '']) -> dict[str, Any]:
        """One output for each label."""
        return init_dense('output', config.hidden_size, num_outputs, config, key)

    def apply(
        self,
        params: Params,
        hidden: Float[Array, 'sequences length hidden'],
        pooled: Float[Array, 'sequences hidden'],
        batch: Batch,
        dropout: Dropout,
        is_training: bool,
    ) -> Logits:
        """`logits` [batch, labels]."""
        return {'logits': dense(params, dropout(pooled))}

    def loss(self, logits: Logits, batch: Batch) -> Sum:
        """Cross entropy; squared error for float labels."""
        labels, weights = batch['labels'], batch['weights']
        if _is_regression(batch):
            losses = jnp.square(logits['logits'][:, 0] - labels)
            return Sum((losses * weights).sum(), weights.sum())
        return cross_entropy(logits['logits'], labels, weights)

    def soft_target_loss(
        self, student: Logits, teacher: Logits, batch: Batch, temperature: float
    ) -> Sum:
        """KL of the softened classes; the squared difference for float labels."""
        weights = batch['weights']
        if _is_regression(batch):
            losses = jnp.square(student['logits'][:, 0] - teacher['logits'][:, 0])
            return Sum((losses * weights).sum(), weights.sum())
        return soft_target_loss(student['logits'], teacher['logits'], temperature, weights)


class MultiLabelClassification(SequenceClassification):
    """A yes or no for each label of a text or a pair: a sigmoid of each output."""

    activation = 'sigmoid'

    def loss(self, logits: Logits, batch: Batch) -> Sum:
        """Binary cross entropy, a mean over the labels; `labels` are 0 or 1, [batch, labels]."""
        return binary_cross_entropy(logits['logits'], batch['labels'], batch['weights'])

    def soft_target_loss(
        self, student: Logits, teacher: Logits, batch: Batch, temperature: float
    ) -> Sum:
        """KL of the softened yes and no of each label, a mean over the labels."""
        return soft_binary_target_loss(
            student['logits'], teacher['logits'], temperature, batch['weights']
        )


class MultipleChoice(SequenceClassification):
    """One score for each of the sequences of an example, compared with one another."""

    has_labels = False
    is_text_classifier = False
    num_choices = 4

    def init(self, num_outputs: int, config: AlbertConfig, key: Key[Array, '']) -> dict[str, Any]:
        """One output, whatever is asked for."""
        del num_outputs
        return super().init(1, config, key)

    def apply(
        self,
        params: Params,
        hidden: Float[Array, 'sequences length hidden'],
        pooled: Float[Array, 'sequences hidden'],
        batch: Batch,
        dropout: Dropout,
        is_training: bool,
    ) -> Logits:
        """`logits` [batch, choices]; the batch is as long as its `labels`."""
        scores = dense(params, dropout(pooled))
        return {'logits': scores.reshape(batch['labels'].shape[0], -1)}


class TokenClassification(HeadDefinition):
    """A class for each token; a label of −1 is none."""

    has_labels = True
    is_token_level = True

    def init(self, num_outputs: int, config: AlbertConfig, key: Key[Array, '']) -> dict[str, Any]:
        """One output for each label."""
        return init_dense('output', config.hidden_size, num_outputs, config, key)

    def apply(
        self,
        params: Params,
        hidden: Float[Array, 'sequences length hidden'],
        pooled: Float[Array, 'sequences hidden'],
        batch: Batch,
        dropout: Dropout,
        is_training: bool,
    ) -> Logits:
        """`logits` [batch, length, labels]."""
        return {'logits': dense(params, dropout(hidden))}

    def loss(self, logits: Logits, batch: Batch) -> Sum:
        """Cross entropy of the labelled tokens."""
        labels = batch['token_labels']
        token_weights = jnp.where(labels >= 0, batch['weights'][:, None], 0)
        return cross_entropy(logits['logits'], jnp.maximum(labels, 0), token_weights)

    def soft_target_loss(
        self, student: Logits, teacher: Logits, batch: Batch, temperature: float
    ) -> Sum:
        """KL of the softened classes of the labelled tokens."""
        token_weights = jnp.where(batch['token_labels'] >= 0, batch['weights'][:, None], 0.0)
        return soft_target_loss(student['logits'], teacher['logits'], temperature, token_weights)

    def loss_weight(self, batch: Batch) -> Float[Array, '']:
        """The weights of the labelled tokens."""
        return jnp.where(batch['token_labels'] >= 0, batch['weights'][:, None], 0).sum()

    def predictions(self, logits: Logits) -> Logits:
        """The likeliest `tags` [batch, length]: a number a token in place of all its logits."""
        return {'tags': logits['logits'].argmax(-1).astype(jnp.int32)}


def _is_regression(batch: Batch) -> bool:
    return 'labels' in batch and jnp.issubdtype(batch['labels'].dtype, jnp.floating)
