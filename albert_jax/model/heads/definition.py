"""What every kind of head defines: pure functions of `params['head']`.

A head gives a dict of float32 logits, and its losses are sums over examples.
"""

import abc
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from albert_jax.model.config import AlbertConfig
from albert_jax.model.dropout import Dropout
from albert_jax.model.losses import Batch, Sum

Params = Mapping[str, Any]
Logits = Mapping[str, Array]


class HeadDefinition(abc.ABC):
    """A kind of head. All that the package knows of the kind is asked of this class."""

    # Whether it reads the pooled output; the pooler is not computed otherwise.
    uses_pooler: bool = False
    # Whether its outputs are named by labels; their number is fixed by the kind otherwise.
    has_labels: bool = False
    # Whether its logits are one row for one text, [batch, labels]: what integrated gradients can
    # explain.
    is_text_classifier: bool = False
    # Whether its logits belong to tokens, so that teacher and student need the same vocabulary.
    is_token_level: bool = False
    # Sequences that make an example; their logits are compared with one another.
    num_choices: int = 1
    # What makes probabilities of the logits: softmax over the last axis, or sigmoid of each.
    activation: str = 'softmax'
    # Arrays [batch, length] that it reads besides the encoder's inputs.
    extra_inputs: tuple[str, ...] = ()

    @abc.abstractmethod
    def init(self, num_outputs: int, config: AlbertConfig, key: Key[Array, '']) -> dict[str, Any]:
        """Fresh parameters: truncated normal weights, zero biases, unit norms.

        Args:
          num_outputs: classes, tags, or 1 for a regression; ignored where the kind fixes it.
          config: of the encoder.
          key: of the weights.
        """

    @abc.abstractmethod
    def apply(
        self,
        params: Params,
        hidden: Float[Array, 'sequences length hidden'],
        pooled: Float[Array, 'sequences hidden'],
        batch: Batch,
        dropout: Dropout,
        is_training: bool,
    ) -> Logits:
        """The head's logits.

        Args:
          params: of the head.
          hidden: last layer of the encoder, in float32.
          pooled: pooled output of the encoder.
          batch: what else the head reads: its `extra_inputs`, and targets in training.
          dropout: of the classifier's inputs.
          is_training: the targets may be read, and the logits are those that the loss wants.
        """

    @abc.abstractmethod
    def loss(self, logits: Logits, batch: Batch) -> Sum:
        """The summed loss of the examples, and the sum of their weights."""

    @abc.abstractmethod
    def soft_target_loss(
        self, student: Logits, teacher: Logits, batch: Batch, temperature: float
    ) -> Sum:
        """`losses.soft_target_loss` of the logits, combined and weighted as in `loss`.

        Args:
          student: its logits in training.
          teacher: the teacher's.
          batch: with `weights`, and the targets.
          temperature: τ.
        """

    def loss_weight(self, batch: Batch) -> Float[Array, '']:
        """The weight that `loss` gives with the same batch, known before any logits."""
        return batch['weights'].sum()

    def predictions(self, logits: Logits) -> Logits:
        """What prediction takes off the device; the logits unless they are large."""
        return logits


def init_dense(
    name: str, num_inputs: int, num_outputs: int, config: AlbertConfig, key: Key[Array, '']
) -> dict[str, Array]:
    """Kernel and bias of a dense map; `name` makes its key."""
    name_key = jax.random.fold_in(key, sum(name.encode()))
    normal = jax.nn.initializers.truncated_normal(config.initializer_range)
    return {'kernel': normal(name_key, (num_inputs, num_outputs)), 'bias': jnp.zeros(num_outputs)}


def dense(params: Params, inputs: Float[Array, '*batch inputs']) -> Float[Array, '*batch outputs']:
    """`inputs @ kernel + bias` in float32."""
    outputs = jnp.dot(inputs.astype(jnp.float32), params['kernel'])
    return outputs + params['bias'].reshape((1,) * (outputs.ndim - 1) + (-1,))
