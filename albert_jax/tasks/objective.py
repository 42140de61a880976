"""What fine-tuning minimises, plainly or against an adversary on the embeddings."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from albert_jax.cli.errors import UserError
from albert_jax.model.albert import PretrainingModel
from albert_jax.model.config import AlbertConfig
from albert_jax.model.heads import POOLED, Head, apply_head, dropout_of, head_loss, loss_weight
from albert_jax.model.losses import Batch, Sum
from albert_jax.model.paths import path_name
from albert_jax.runs.task import FinetuningSettings
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
    robust: FinetuningSettings,
    special_ids: tuple[int, ...],
    auxiliary: AuxiliaryLoss | None = None,
) -> Objective:
    """The head's loss, as `loss` among the metrics under the name `task_loss`.

    Args:
      config: of the model.
      head: what it answers.
      head_dropout: of the classifier's input.
      robust: adversary and replacement of tokens.
      special_ids: pieces that are never replaced.
      auxiliary: adds losses of its own.

    Raises:
      UserError: if an adversary and a auxiliary are asked for at once.
    """
    if auxiliary is not None and robust.adversarial_steps:
        raise UserError(
            f'finetuning.adversarial_steps is {robust.adversarial_steps}, but a teacher is not '
            f'asked about perturbed embeddings; set it to 0.'
        )
    model = PretrainingModel(config)

    def loss_of(
        params: PyTree, batch: Batch, key: Key[Array, ''] | None, perturbation: Array | None
    ) -> dict[str, Sum]:
        ids = batch.get('example_ids', jnp.arange(batch['input_ids'].shape[0]))
        encoded: Any = model.apply(
            {'params': params},
            batch['input_ids'],
            batch['attention_mask'],
            batch['token_type_ids'],
            example_ids=ids,
            deterministic=key is None,
            rngs=None if key is None else {'dropout': key},
            perturbation=perturbation,
            return_hidden_states=auxiliary is not None and auxiliary.needs_hidden_states,
            use_pooler=head.kind in POOLED,
            method='encode',
        )
        hidden, pooled, embedded, (layers, _) = encoded
        head_key = None if key is None else jax.random.fold_in(key, 1)
        dropout = dropout_of(head_dropout, head_key, ids)
        logits = apply_head(head.kind, params['head'], hidden, pooled, batch, dropout, True)
        found = {'task_loss': head_loss(head.kind, logits, batch)}
        if auxiliary is not None:
            states = None if layers is None else jnp.concatenate([embedded[None], layers])
            found |= auxiliary.sums(params, batch, ModelOutputs(logits, states))
        return found

    def sums(params: PyTree, batch: Batch, key: Key[Array, ''] | None) -> dict[str, Sum]:
        if key is not None and robust.replaced_fraction:
            batch = {**batch, 'input_ids': _replaced(batch, key)}
        if key is not None and robust.adversarial_steps:
            return {'task_loss': adversarial(params, batch, key)}
        return loss_of(params, batch, key, None)

    def _replaced(batch: Batch, key: Key[Array, '']) -> Int[Array, 'batch length']:
        ids = batch['input_ids']
        numbers = batch.get('example_ids', jnp.arange(ids.shape[0]))
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, 2), numbers)

        def replace(row_key: Array, row: Array) -> Array:
            which, what = jax.random.split(row_key)
            is_special = jnp.isin(row, jnp.array(special_ids))
            is_chosen = jax.random.bernoulli(which, robust.replaced_fraction, row.shape)
            others = jax.random.randint(what, row.shape, max(special_ids) + 1, config.vocab_size)
            return jnp.where(is_chosen & ~is_special, others.astype(row.dtype), row)

        return jax.vmap(replace)(keys, ids)

    def adversarial_loss(params: PyTree, batch: Batch, key: Array) -> tuple[Sum, PyTree]:
        """The mean loss over the ascent, and its gradient for the parameters.

        FreeLB: each forward and backward pass serves the parameters and the next perturbation.
        """
        steps = robust.adversarial_steps
        delta = _start(batch, key, config.embedding_size, robust.adversarial_start)
        total: Sum | None = None
        gradients: PyTree = None
        for _ in range(steps):

            def loss(params: PyTree, delta: Array) -> tuple[Array, Sum]:
                found = loss_of(params, batch, key, delta)['task_loss']
                return found.sum, found

            (grads, ascent), found = jax.grad(loss, (0, 1), has_aux=True)(params, delta)
            total = found if total is None else Sum(total.sum + found.sum, found.weight)
            gradients = grads if gradients is None else jax.tree.map(jnp.add, gradients, grads)
            delta = _ascend(delta, ascent, robust)
        assert total is not None
        mean = Sum(total.sum / steps, total.weight)
        return mean, jax.tree.map(lambda g: g / steps, gradients)

    @jax.custom_vjp
    def adversarial(params: PyTree, batch: Batch, key: Array) -> Sum:
        return adversarial_loss(params, batch, key)[0]

    def forward(params: PyTree, batch: Batch, key: Array) -> tuple[Sum, PyTree]:
        return adversarial_loss(params, batch, key)

    def backward(gradients: PyTree, cotangent: Sum) -> tuple[PyTree, None, None]:
        return jax.tree.map(lambda g: g * cotangent.sum, gradients), None, None

    adversarial.defvjp(forward, backward)

    def totals(batch: Batch) -> dict[str, Array]:
        weights = {'task_loss': loss_weight(head.kind, batch)}
        return weights if auxiliary is None else weights | auxiliary.totals(batch)

    return Objective(with_auxiliary_weights({'task_loss': 1.0}, auxiliary), totals, sums)


def _start(
    batch: Batch, key: Key[Array, ''], width: int, norm: float
) -> Float[Array, 'batch length embedding']:
    """Uniform noise on the tokens, of about the given norm for each sequence."""
    mask = batch['attention_mask'].astype(jnp.float32)
    numbers = batch.get('example_ids', jnp.arange(mask.shape[0]))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, 3), numbers)
    shape = (mask.shape[1], width)
    noise = jax.vmap(lambda k: jax.random.uniform(k, shape, minval=-1, maxval=1))(keys)
    size = jnp.sqrt(mask.sum(1) * width)[:, None, None]
    return noise * mask[:, :, None] * norm / size


def _ascend(delta: Array, gradient: Array, robust: FinetuningSettings) -> Array:
    def norms(x: Array) -> Array:
        return jnp.sqrt(jnp.square(x).sum((1, 2), keepdims=True))

    step = gradient / jnp.maximum(norms(gradient), 1e-12)
    delta = jax.lax.stop_gradient(delta + robust.adversarial_learning_rate * step)
    if robust.adversarial_max_norm:
        limit = robust.adversarial_max_norm / jnp.maximum(norms(delta), 1e-12)
        delta = delta * jnp.minimum(limit, 1)
    return delta


def scale_learning_rates(
    robust: FinetuningSettings, config: AlbertConfig
) -> optax.GradientTransformation:
    """Scales the updates of the head, and of each layer by its depth.

    Raises:
      UserError: if layers are to learn differently that share their weights.
    """
    if robust.layer_decay != 1 and config.sharing != 'none':
        raise UserError(
            f'finetuning.layer_decay is {robust.layer_decay}, but layers share weights '
            f'(model.sharing is {config.sharing}): set it to 1.'
        )

    def scale(path: tuple[Any, ...], update: Array) -> Array:
        name = path_name(path)
        if name.startswith('head/'):
            return update * robust.head_learning_rate_factor
        depth = config.num_hidden_layers
        if name.startswith('embeddings/'):
            return update * robust.layer_decay**depth
        if name.startswith('encoder/') and robust.layer_decay != 1:
            layers = jnp.arange(depth).repeat(config.inner_group_num)
            factors = robust.layer_decay ** (depth - 1 - layers.astype(jnp.float32))
            return update * factors.reshape(-1, *(1,) * (update.ndim - 1))
        return update

    return optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(scale, updates))


def start_from(
    head: Head, config: AlbertConfig, init_head: Callable[..., PyTree]
) -> Callable[[Array, PyTree], PyTree]:
    """(key, parameters) → the parameters with a fresh head, unless they have one."""

    def init(key: Array, params: PyTree) -> PyTree:
        if 'head' in params:
            return params
        outputs = max(len(head.labels), 1)
        return {**params, 'head': init_head(head.kind, outputs, config, key)}

    return init
