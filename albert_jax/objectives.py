"""Losses and accuracies, every one a (sum, weight) pair that is divided once, globally.

Microbatches, shards and ragged last batches then add up to the same number as one big batch.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from albert_jax.config import AlbertConfig
from albert_jax.model import PretrainingModel

Batch = Mapping[str, Array]


class Sum(NamedTuple):
    """A sum over examples and the weight that it is to be divided by."""

    sum: Array
    weight: Array

    def mean(self) -> Float[Array, '']:
        """The weighted mean; zero where there was nothing to average."""
        return self.sum / jnp.maximum(self.weight, 1e-5)


@dataclasses.dataclass(frozen=True)
class Objective:
    """What a training minimises, apart from how: the loop knows no more of a task than this.

    The loss is `Σ weight · sum / total` over `loss_weights`, where `total` is the weight over the
    whole global batch. It is known from the batch alone, before any gradient.
    """

    # Factor of each loss in the total; the keys are names in what `totals` and `sums` return.
    loss_weights: Mapping[str, float]
    # (batch) → the weight of each loss.
    totals: Callable[[Batch], dict[str, Array]]
    # (params, batch, dropout key or None) → losses and other metrics.
    sums: Callable[[Any, Batch, Key[Array, ''] | None], dict[str, Sum]]


class Seen(NamedTuple):
    """What a model in training made of a batch, for whoever guides it."""

    logits: Mapping[str, Array]
    # The projected embeddings and then every layer's output; None unless the guide wants them.
    hidden_states: Float[Array, 'layers_and_one batch length hidden'] | None


@runtime_checkable
class Guide(Protocol):
    """Adds losses that compare the model with another: `distillation.Guide`."""

    @property
    def label_weight(self) -> float:
        """Factor of the labels' own losses."""
        ...

    @property
    def wants_hidden_states(self) -> bool:
        """Whether the model has to show the output of every layer."""
        ...

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Factor of each loss that is added."""
        ...

    def totals(self, batch: Batch) -> dict[str, Array]:
        """As in an Objective."""
        ...

    def sums(self, params: Any, batch: Batch, seen: Seen) -> dict[str, Sum]:
        """As in an Objective, of what the model has made of the batch."""
        ...


def guided_weights(loss_weights: Mapping[str, float], guide: Guide | None) -> dict[str, float]:
    """The factors of the labels' losses, and those of the guide's."""
    if guide is None:
        return dict(loss_weights)
    own = {name: weight * guide.label_weight for name, weight in loss_weights.items()}
    return own | dict(guide.loss_weights)


def cross_entropy(
    logits: Float[Array, '*batch classes'],
    labels: Int[Array, '*batch'],
    weights: Float[Array, '*batch'],
) -> Sum:
    """Weighted sum of −log p(label) in nats, and the sum of the weights."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)
    return Sum((losses * weights).sum(), weights.sum())


def accuracy(
    logits: Float[Array, '*batch classes'],
    labels: Int[Array, '*batch'],
    weights: Float[Array, '*batch'],
) -> Sum:
    """Weighted count of labels that no score exceeds, and the sum of the weights."""
    # Several times faster than argmax on CPU.
    of_label = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    is_right = (of_label >= logits.max(-1)).astype(weights.dtype)
    return Sum((is_right * weights).sum(), weights.sum())


def pretraining(
    config: AlbertConfig,
    sentence_loss: str = 'sop',
    mlm_weight: float = 1.0,
    sentence_weight: float = 1.0,
    guide: Guide | None = None,
) -> Objective:
    """Masked-LM plus a sentence loss (sections 3.1 and 4.6 of the paper), added unweighted there.

    Args:
      config: the model.
      sentence_loss: 'sop' or 'nsp' (they differ in the data only), or 'none'.
      mlm_weight: factor of the masked-LM loss.
      sentence_weight: factor of the sentence loss.
      guide: adds losses of its own.
    """
    model = PretrainingModel(config)
    loss_weights = {'mlm_loss': mlm_weight}
    if sentence_loss != 'none':
        loss_weights[f'{sentence_loss}_loss'] = sentence_weight

    def totals(batch: Batch) -> dict[str, Array]:
        weights = {'mlm_loss': batch['masked_weights'].sum()}
        if sentence_loss != 'none':
            weights[f'{sentence_loss}_loss'] = batch['sentence_weights'].sum()
        return weights if guide is None else weights | guide.totals(batch)

    def sums(params: Any, batch: Batch, dropout_key: Key[Array, ''] | None) -> dict[str, Sum]:
        output: Any = model.apply(
            {'params': params},
            batch['input_ids'],
            batch['attention_mask'],
            batch['token_type_ids'],
            batch['masked_positions'],
            example_ids=batch.get('example_ids'),
            deterministic=dropout_key is None,
            rngs=None if dropout_key is None else {'dropout': dropout_key},
            with_hidden_states=guide is not None and guide.wants_hidden_states,
        )
        masked = output.mlm_logits, batch['masked_ids'], batch['masked_weights']
        metrics = {'mlm_loss': cross_entropy(*masked), 'mlm_accuracy': accuracy(*masked)}
        if sentence_loss != 'none':
            sentence = output.sop_logits, batch['sentence_labels'], batch['sentence_weights']
            metrics[f'{sentence_loss}_loss'] = cross_entropy(*sentence)
            metrics[f'{sentence_loss}_accuracy'] = accuracy(*sentence)
        if guide is not None:
            seen = Seen({'mlm': output.mlm_logits}, output.hidden_states)
            metrics |= guide.sums(params, batch, seen)
        return metrics

    return Objective(guided_weights(loss_weights, guide), totals, sums)


def total_loss(
    objective: Objective, sums: Mapping[str, Sum], totals: Mapping[str, Array]
) -> Float[Array, '']:
    """The share of the global loss that `sums` contributes."""
    return jnp.stack(
        [
            factor * sums[name].sum / jnp.maximum(totals[name], 1e-5)
            for name, factor in objective.loss_weights.items()
        ]
    ).sum()


def add(left: dict[str, Sum], right: dict[str, Sum]) -> dict[str, Sum]:
    """Adds sums and weights name by name."""
    return jax.tree.map(jnp.add, left, right)
