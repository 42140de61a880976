"""Losses and accuracies as (sum, weight) pairs, divided once, globally.

Microbatches, shards and a shorter last batch then add up to the same number as one big batch.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

Batch = Mapping[str, Array]

# A total weight below this is taken as this, so that an empty batch gives 0 and not NaN
# (google-research/albert divides by Σw + 1e-5).
_SMALLEST_WEIGHT = 1e-5
# Logits of outputs that are masked out are lower than this.
_IMPOSSIBLE = -1e29


def divide(total: ArrayLike, weight: ArrayLike) -> Array:
    """The one rule by which a sum becomes a mean: 0 where there was nothing to average."""
    return jnp.asarray(total) / jnp.maximum(weight, _SMALLEST_WEIGHT)


class Sum(NamedTuple):
    """A weighted sum over examples, and the sum of the weights."""

    sum: Array
    weight: Array

    def mean(self) -> Float[Array, '']:
        """The weighted mean; 0 where there was nothing to average."""
        return divide(self.sum, self.weight)


def add(left: dict[str, Sum], right: dict[str, Sum]) -> dict[str, Sum]:
    """Adds sums and weights, name by name."""
    return jax.tree.map(jnp.add, left, right)


def means(sums: Mapping[str, Sum]) -> dict[str, float]:
    """The mean of each metric, on the host; a metric of weight 0 has none and is left out."""
    sums = jax.device_get(dict(sums))
    return {
        name: float(pair.sum) / float(pair.weight) for name, pair in sums.items() if pair.weight > 0
    }


def cross_entropy(
    logits: Float[Array, '*batch classes'],
    labels: Int[Array, '*batch'],
    weights: Float[Array, '*batch'],
) -> Sum:
    """Weighted sum of −log p(label) in nats, and the sum of the weights."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)
    return Sum((losses * weights).sum(), weights.sum())


def binary_cross_entropy(
    logits: Float[Array, 'batch labels'],
    targets: Float[Array, 'batch labels'],
    weights: Float[Array, 'batch'],
) -> Sum:
    """Weighted sum of −log p in nats of independent yes-no answers, a mean over the labels."""
    losses = optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), targets).mean(-1)
    return Sum((losses * weights).sum(), weights.sum())


def accuracy(
    logits: Float[Array, '*batch classes'],
    labels: Int[Array, '*batch'],
    weights: Float[Array, '*batch'],
) -> Sum:
    """Weighted count of labels that no logit exceeds, and the sum of the weights."""
    # Several times faster than argmax on CPU.
    label_logits = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    is_right = (label_logits >= logits.max(-1)).astype(weights.dtype)
    return Sum((is_right * weights).sum(), weights.sum())


def soft_target_loss(
    student: Float[Array, '*batch classes'],
    teacher: Float[Array, '*batch classes'],
    temperature: float,
    weights: Float[Array, '*batch'],
) -> Sum:
    """τ² KL(softmax(teacher/τ) ‖ softmax(student/τ)) in nats, section 2 of arXiv 1503.02531."""
    target = jax.nn.log_softmax(teacher.astype(jnp.float32) / temperature)
    predicted = jax.nn.log_softmax(student.astype(jnp.float32) / temperature)
    # What the teacher gives no probability at all adds nothing, whatever the student says.
    terms = jnp.where(
        target > _IMPOSSIBLE / temperature, jnp.exp(target) * (target - predicted), 0.0
    )
    return Sum(temperature**2 * (terms.sum(-1) * weights).sum(), weights.sum())


def soft_binary_target_loss(
    student: Float[Array, 'batch labels'],
    teacher: Float[Array, 'batch labels'],
    temperature: float,
    weights: Float[Array, 'batch'],
) -> Sum:
    """`soft_target_loss` of independent yes-no answers, a mean over the labels."""
    target = teacher.astype(jnp.float32) / temperature
    predicted = student.astype(jnp.float32) / temperature
    yes = jax.nn.sigmoid(target)
    terms = yes * (jax.nn.log_sigmoid(target) - jax.nn.log_sigmoid(predicted)) + (1 - yes) * (
        jax.nn.log_sigmoid(-target) - jax.nn.log_sigmoid(-predicted)
    )
    return Sum(temperature**2 * (terms.mean(-1) * weights).sum(), weights.sum())
