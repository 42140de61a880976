"""What fine-tuning minimises, plainly or against an adversary on the embeddings."""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from albert_jax.cli.errors import UserError
from albert_jax.model.config import AlbertConfig
from albert_jax.model.finetuned import FinetunedModel
from albert_jax.model.heads import Head
from albert_jax.model.losses import Batch, Sum
from albert_jax.model.paths import path_name
from albert_jax.runs.task import FinetuningSettings
from albert_jax.tasks.freelb import FreeLB
from albert_jax.training.objectives import (
    AuxiliaryLoss,
    ModelOutputs,
    Objective,
    with_auxiliary_weights,
)


def fine_tuning(
    config: AlbertConfig,
    head: Head,
    head_dropout: float,
    settings: FinetuningSettings,
    special_ids: tuple[int, ...],
    auxiliary: AuxiliaryLoss | None = None,
) -> Objective:
    """The head's loss, as `loss` among the metrics under the name `task_loss`.

    Args:
      config: of the model.
      head: what it answers.
      head_dropout: of the classifier's input.
      settings: adversary and replacement of tokens.
      special_ids: pieces that are never replaced.
      auxiliary: adds losses of its own.

    Raises:
      UserError: if an adversary and an auxiliary loss are asked for at once.
    """
    if auxiliary is not None and settings.adversarial_steps:
        raise UserError(
            f'finetuning.adversarial_steps is {settings.adversarial_steps}, but a teacher is not '
            f'asked about perturbed embeddings; set it to 0.'
        )
    model = FinetunedModel(config, head, head_dropout)
    loss = TaskLoss(config, settings, special_ids, model, auxiliary)
    return Objective(with_auxiliary_weights({'task_loss': 1.0}, auxiliary), loss.totals, loss.sums)


@dataclasses.dataclass(frozen=True)
class RobustLoss(abc.ABC):
    """A loss of a text, plain, with some of its tokens replaced, or against an adversary.

    Args:
      config: of the encoder.
      settings: adversary and replacement of tokens.
      special_ids: pieces that are never replaced.
    """

    config: AlbertConfig
    settings: FinetuningSettings
    special_ids: tuple[int, ...]

    @abc.abstractmethod
    def totals(self, batch: Batch) -> dict[str, Array]:
        """The weight of each loss, known before any of them."""

    @abc.abstractmethod
    def losses(
        self,
        params: PyTree,
        batch: Batch,
        dropout_key: Key[Array, ''] | None,
        perturbation: Float[Array, 'batch length embedding'] | None = None,
    ) -> dict[str, Sum]:
        """The losses, of which `task_loss` is what an adversary raises.

        Args:
          params: of the model.
          batch: with `input_ids` and `attention_mask`, and what else the loss reads.
          dropout_key: None for no dropout.
          perturbation: added to the word embeddings of the input.
        """

    def sums(
        self, params: PyTree, batch: Batch, dropout_key: Key[Array, ''] | None
    ) -> dict[str, Sum]:
        """The losses; without a key there is no dropout, replacement or adversary."""
        settings = self.settings
        if dropout_key is None:
            return self.losses(params, batch, None)
        if settings.replaced_fraction:
            batch = {**batch, 'input_ids': self._replace_tokens(batch, dropout_key)}
        if settings.adversarial_steps:
            freelb = FreeLB(self._perturbed_loss, self.config.embedding_size, settings)
            return {'task_loss': freelb(params, batch, dropout_key)}
        return self.losses(params, batch, dropout_key)

    def _perturbed_loss(
        self,
        params: PyTree,
        batch: Batch,
        dropout_key: Key[Array, ''],
        perturbation: Float[Array, 'batch length embedding'],
    ) -> Sum:
        return self.losses(params, batch, dropout_key, perturbation)['task_loss']

    def _replace_tokens(self, batch: Batch, key: Key[Array, '']) -> Int[Array, 'batch length']:
        """The ids with a share of the ordinary tokens replaced by random ones."""
        ids = batch['input_ids']
        numbers = batch.get('example_ids', jnp.arange(ids.shape[0]))
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, 2), numbers)
        return jax.vmap(self._replace_in_sequence)(keys, ids)

    def _replace_in_sequence(
        self, key: Key[Array, ''], ids: Int[Array, 'length']
    ) -> Int[Array, 'length']:
        choice_key, token_key = jax.random.split(key)
        first_ordinary = max(self.special_ids) + 1
        is_special: Bool[Array, 'length'] = jnp.isin(ids, jnp.array(self.special_ids))
        is_chosen = jax.random.bernoulli(choice_key, self.settings.replaced_fraction, ids.shape)
        others = jax.random.randint(token_key, ids.shape, first_ordinary, self.config.vocab_size)
        return jnp.where(is_chosen & ~is_special, others.astype(ids.dtype), ids)


@dataclasses.dataclass(frozen=True)
class TaskLoss(RobustLoss):
    """The losses of a fine-tuning: the head's, and those of an auxiliary loss.

    Args:
      model: what is fine-tuned.
      auxiliary: adds losses of its own.
    """

    model: FinetunedModel
    auxiliary: AuxiliaryLoss | None

    def totals(self, batch: Batch) -> dict[str, Array]:
        """The weight of each loss, known before any of them."""
        weights = {'task_loss': self.model.head.definition.loss_weight(batch)}
        return weights if self.auxiliary is None else weights | self.auxiliary.totals(batch)

    def losses(
        self,
        params: PyTree,
        batch: Batch,
        dropout_key: Key[Array, ''] | None,
        perturbation: Float[Array, 'batch length embedding'] | None = None,
    ) -> dict[str, Sum]:
        """The head's loss, and those of the auxiliary loss."""
        auxiliary = self.auxiliary
        outputs = self.model(
            params,
            batch,
            is_training=True,
            dropout_key=dropout_key,
            perturbation=perturbation,
            return_hidden_states=auxiliary is not None and auxiliary.needs_hidden_states,
        )
        losses = {'task_loss': self.model.head.definition.loss(outputs.logits, batch)}
        if auxiliary is not None:
            shown = ModelOutputs(outputs.logits, outputs.hidden_states)
            losses |= auxiliary.sums(params, batch, shown)
        return losses


def scale_learning_rates(
    settings: FinetuningSettings, config: AlbertConfig
) -> optax.GradientTransformation:
    """Scales the updates of the head, and of each layer by its depth.

    Raises:
      UserError: if layers are to learn differently that share their weights.
    """
    if settings.layer_decay != 1 and config.sharing != 'none':
        raise UserError(
            f'finetuning.layer_decay is {settings.layer_decay}, but layers share weights '
            f'(model.sharing is {config.sharing}): set it to 1.'
        )
    scale = functools.partial(_scaled_update, settings, config)
    return optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(scale, updates))


def _scaled_update(
    settings: FinetuningSettings, config: AlbertConfig, path: tuple[Any, ...], update: Array
) -> Array:
    name = path_name(path)
    if name.startswith(('head/', 'decoder/')):
        return update * settings.head_learning_rate_factor
    depth = config.num_hidden_layers
    if name.startswith('embeddings/'):
        return update * settings.layer_decay**depth
    if name.startswith('encoder/layer/') and settings.layer_decay != 1:
        layers = jnp.arange(depth).repeat(config.inner_group_num)
        factors = settings.layer_decay ** (depth - 1 - layers.astype(jnp.float32))
        return update * factors.reshape(-1, *(1,) * (update.ndim - 1))
    return update


def with_fresh_head(head: Head, config: AlbertConfig) -> Callable[[Array, PyTree], PyTree]:
    """(key, parameters) → the parameters with a fresh head, unless they have one."""
    return functools.partial(_add_head, head, config)


def _add_head(head: Head, config: AlbertConfig, key: Key[Array, ''], params: PyTree) -> PyTree:
    return params if 'head' in params else {**params, 'head': head.init(config, key)}
