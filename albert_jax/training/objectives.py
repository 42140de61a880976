"""What a training minimises: the objective of any training, and that of pretraining."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from albert_jax.model.albert import PretrainingModel
from albert_jax.model.config import AlbertConfig
from albert_jax.model.losses import Batch, Sum, accuracy, cross_entropy, divide


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


class ModelOutputs(NamedTuple):
    """What a model in training made of a batch, for an auxiliary loss."""

    logits: Mapping[str, Array]
    # The projected embeddings and then every layer's output; None unless the loss needs them.
    hidden_states: Float[Array, 'layers_and_one batch length hidden'] | None


@runtime_checkable
class AuxiliaryLoss(Protocol):
    """Adds losses to an objective that compare the model with another, such as a teacher."""

    @property
    def label_weight(self) -> float:
        """Factor of the labels' own losses."""
        ...

    @property
    def needs_hidden_states(self) -> bool:
        """Whether the model has to show the output of every layer."""
        ...

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Factor of each loss that is added."""
        ...

    def totals(self, batch: Batch) -> dict[str, Array]:
        """As in an Objective."""
        ...

    def sums(self, params: PyTree, batch: Batch, outputs: ModelOutputs) -> dict[str, Sum]:
        """As in an Objective, of what the model has made of the batch."""
        ...


@runtime_checkable
class AuxiliaryTraining(Protocol):
    """What another model adds to a training: losses, weights, initial parameters."""

    @property
    def loss(self) -> AuxiliaryLoss:
        """The losses that it adds."""
        ...

    @property
    def frozen(self) -> Mapping[str, Any]:
        """Its weights, which the loss finds beside the parameters."""
        ...

    @property
    def resume_fingerprint(self) -> Mapping[str, Any]:
        """What must be the same for the training to resume: section → field → value."""
        ...

    def extend_init(self, init: Callable[..., PyTree]) -> Callable[..., PyTree]:
        """An initialisation (key, …) → parameters that also makes what only this training needs."""
        ...


def with_auxiliary_weights(
    loss_weights: Mapping[str, float], auxiliary: AuxiliaryLoss | None
) -> dict[str, float]:
    """The factors of the labels' losses, and those of the auxiliary loss."""
    if auxiliary is None:
        return dict(loss_weights)
    own = {name: weight * auxiliary.label_weight for name, weight in loss_weights.items()}
    return own | dict(auxiliary.loss_weights)


def pretraining(
    config: AlbertConfig,
    sentence_loss: str = 'sop',
    mlm_weight: float = 1.0,
    sentence_weight: float = 1.0,
    auxiliary: AuxiliaryLoss | None = None,
) -> Objective:
    """Masked-LM plus a sentence loss (sections 3.1 and 4.6 of the paper), added unweighted there.

    Args:
      config: the model.
      sentence_loss: 'sop' or 'nsp' (they differ in the data only), or 'none'.
      mlm_weight: factor of the masked-LM loss.
      sentence_weight: factor of the sentence loss.
      auxiliary: adds losses, if there is one.
    """
    model = PretrainingModel(config)
    loss_weights = {'mlm_loss': mlm_weight}
    if sentence_loss != 'none':
        loss_weights[f'{sentence_loss}_loss'] = sentence_weight

    def totals(batch: Batch) -> dict[str, Array]:
        weights = {'mlm_loss': batch['masked_weights'].sum()}
        if sentence_loss != 'none':
            weights[f'{sentence_loss}_loss'] = batch['sentence_weights'].sum()
        return weights if auxiliary is None else weights | auxiliary.totals(batch)

    def sums(params: PyTree, batch: Batch, dropout_key: Key[Array, ''] | None) -> dict[str, Sum]:
        output: Any = model.apply(
            {'params': params},
            batch['input_ids'],
            batch['attention_mask'],
            batch['token_type_ids'],
            batch['masked_positions'],
            example_ids=batch.get('example_ids'),
            deterministic=dropout_key is None,
            rngs=None if dropout_key is None else {'dropout': dropout_key},
            return_hidden_states=auxiliary is not None and auxiliary.needs_hidden_states,
            is_right_padded=True,
        )
        masked = output.mlm_logits, batch['masked_ids'], batch['masked_weights']
        metrics = {'mlm_loss': cross_entropy(*masked), 'mlm_accuracy': accuracy(*masked)}
        if sentence_loss != 'none':
            sentence = output.sop_logits, batch['sentence_labels'], batch['sentence_weights']
            metrics[f'{sentence_loss}_loss'] = cross_entropy(*sentence)
            metrics[f'{sentence_loss}_accuracy'] = accuracy(*sentence)
        if auxiliary is not None:
            outputs = ModelOutputs({'mlm': output.mlm_logits}, output.hidden_states)
            metrics |= auxiliary.sums(params, batch, outputs)
        return metrics

    return Objective(with_auxiliary_weights(loss_weights, auxiliary), totals, sums)


def total_loss(
    objective: Objective, sums: Mapping[str, Sum], totals: Mapping[str, Array]
) -> Float[Array, '']:
    """The share of the global loss that `sums` contributes."""
    return jnp.stack(
        [
            divide(factor * sums[name].sum, totals[name])
            for name, factor in objective.loss_weights.items()
        ]
    ).sum()
