"""FreeLB (arXiv 1909.11764): the loss against an adversary on the word embeddings."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from albert_jax.model.losses import Batch, Sum
from albert_jax.runs.task import FinetuningSettings

Perturbation = Float[Array, 'batch length embedding']


@dataclasses.dataclass(frozen=True)
class FreeLB:
    """The mean loss over an ascent of the perturbation.

    Args:
      loss: (parameters, batch, dropout key, perturbation) → the loss.
      embedding_size: width of the word embeddings.
      settings: of the ascent.
    """

    loss: Callable[[PyTree, Batch, Key[Array, ''], Perturbation], Sum]
    embedding_size: int
    settings: FinetuningSettings

    def __call__(self, params: PyTree, batch: Batch, key: Key[Array, '']) -> Sum:
        """The mean loss; its gradient is the mean of the ascent's.

        Args:
          params: of the model.
          batch: what it is given.
          key: of the first perturbation and of dropout, which is the same at every step.
        """
        return _mean_loss(self, params, batch, key)

    def loss_and_gradients(
        self, params: PyTree, batch: Batch, key: Key[Array, '']
    ) -> tuple[Sum, PyTree]:
        """The mean loss, and its gradients for the parameters.

        Each forward and backward pass serves the parameters and the next perturbation.
        """
        settings = self.settings
        delta = _first_perturbation(batch, key, self.embedding_size, settings.adversarial_start)
        total: Sum | None = None
        gradients: PyTree = None
        slope = jax.grad(self._scalar_loss, (0, 1), has_aux=True)
        for _ in range(settings.adversarial_steps):
            (step_gradients, ascent), loss = slope(params, delta, batch, key)
            if total is None:
                total, gradients = loss, step_gradients
            else:
                total = Sum(total.sum + loss.sum, loss.weight)
                gradients = jax.tree.map(jnp.add, gradients, step_gradients)
            delta = _ascend(delta, ascent, settings)
        assert total is not None
        steps = settings.adversarial_steps
        return Sum(total.sum / steps, total.weight), jax.tree.map(lambda g: g / steps, gradients)

    def _scalar_loss(
        self, params: PyTree, delta: Perturbation, batch: Batch, key: Key[Array, '']
    ) -> tuple[Float[Array, ''], Sum]:
        loss = self.loss(params, batch, key, delta)
        return loss.sum, loss


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _mean_loss(freelb: FreeLB, params: PyTree, batch: Batch, key: Key[Array, '']) -> Sum:
    return freelb.loss_and_gradients(params, batch, key)[0]


def _mean_loss_forward(
    freelb: FreeLB, params: PyTree, batch: Batch, key: Key[Array, '']
) -> tuple[Sum, PyTree]:
    return freelb.loss_and_gradients(params, batch, key)


def _mean_loss_backward(
    freelb: FreeLB, gradients: PyTree, cotangent: Sum
) -> tuple[PyTree, None, None]:
    del freelb
    return jax.tree.map(lambda g: g * cotangent.sum, gradients), None, None


_mean_loss.defvjp(_mean_loss_forward, _mean_loss_backward)


def _first_perturbation(batch: Batch, key: Key[Array, ''], width: int, norm: float) -> Perturbation:
    """Uniform noise on the tokens, of about the given norm for each sequence."""
    mask = batch['attention_mask'].astype(jnp.float32)
    numbers = batch.get('example_ids', jnp.arange(mask.shape[0]))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, 3), numbers)
    shape = (mask.shape[1], width)
    noise = jax.vmap(lambda k: jax.random.uniform(k, shape, minval=-1, maxval=1))(keys)
    size = jnp.sqrt(mask.sum(1) * width)[:, None, None]
    return noise * mask[:, :, None] * norm / size


def _ascend(
    delta: Perturbation, gradient: Perturbation, settings: FinetuningSettings
) -> Perturbation:
    """A step up the gradient, back within the largest norm if there is one."""
    step = gradient / jnp.maximum(_norms(gradient), 1e-12)
    delta = jax.lax.stop_gradient(delta + settings.adversarial_learning_rate * step)
    if settings.adversarial_max_norm:
        limit = settings.adversarial_max_norm / jnp.maximum(_norms(delta), 1e-12)
        delta = delta * jnp.minimum(limit, 1)
    return delta


def _norms(x: Perturbation) -> Float[Array, 'batch 1 1']:
    return jnp.sqrt(jnp.square(x).sum((1, 2), keepdims=True))
