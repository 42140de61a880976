"""LAMB as ALBERT uses it and AdamW, as optax chains; what decays, what adapts; schedules.

LAMB is arXiv 1904.00962, algorithm 2, in the form of google-research/albert: gradients clipped by
their global norm, no bias correction, norms and biases outside both decay and trust ratio, and one
trust ratio a layer where layers are stacked in one array. `optax.lamb` differs in all four.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from albert_jax.model.config import AlbertConfig
from albert_jax.model.paths import path_name
from albert_jax.runs.optimizer import OptimizerSettings

# First match wins: (path, does it decay and adapt?). A path that nothing matches is an error.
_DECAY_RULES = ((r'(^|/)(bias|scale)$', False), (r'(^|/)(kernel|embedding)$', True))


def schedule(settings: OptimizerSettings, total_steps: int) -> optax.Schedule:
    """Learning rate by step: a linear warmup from 0, then what `settings.schedule` names.

    'google_linear' is google-research/albert's: its decay counts from step 0, so that the rate
    jumps down at the end of the warmup. All the others start their decay at the peak.

    Raises:
      UserError: if the warmup does not end before `total_steps`.
    """
    settings.check_warmup(total_steps)
    warmup, peak, end = settings.warmup_steps, settings.learning_rate, settings.end_learning_rate
    rest = total_steps - warmup
    match settings.schedule:
        case 'constant':
            decay = optax.constant_schedule(peak)
        case 'linear':
            decay = optax.linear_schedule(peak, end, rest)
        case 'google_linear':
            start = end + (peak - end) * (1 - warmup / total_steps)
            decay = optax.linear_schedule(start, end, rest)
        case 'polynomial':
            decay = optax.polynomial_schedule(peak, end, settings.power, rest)
        case 'cosine':
            decay = optax.cosine_decay_schedule(peak, rest, end / peak)
        case _:
            cycle = optax.cosine_decay_schedule(peak, -(-rest // settings.num_cycles), end / peak)
            steps = -(-rest // settings.num_cycles)
            decay = optax.join_schedules(
                [cycle] * settings.num_cycles,
                [steps * index for index in range(1, settings.num_cycles)],
            )
    if warmup == 0:
        return decay
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), decay], [warmup])


def make_optimizer(
    settings: OptimizerSettings, total_steps: int, config: AlbertConfig
) -> optax.GradientTransformation:
    """The chain that `settings` describe, for the parameters of a model of this `config`."""
    parts = []
    if settings.clip_norm:
        parts.append(optax.clip_by_global_norm(settings.clip_norm))
    parts.append(
        scale_by_moments(settings.beta1, settings.beta2, settings.eps, settings.bias_correction)
    )
    if settings.weight_decay:
        parts.append(optax.add_decayed_weights(settings.weight_decay, mask=decays))
    if settings.l1:
        parts.append(add_l1(settings.l1))
    if settings.name == 'lamb':
        parts.append(scale_by_trust_ratio(lambda path: is_stacked(path, config)))
    parts.append(optax.scale_by_learning_rate(schedule(settings, total_steps)))
    return optax.chain(*parts)


def decays(params: PyTree) -> PyTree:
    """Which parameters decay (and adapt, in LAMB): all but norms and biases.

    Raises:
      ValueError: if no rule matches a parameter's path.
    """

    def rule(path: tuple[Any, ...], _: object) -> bool:
        name = path_name(path)
        for pattern, decay in _DECAY_RULES:
            if re.search(pattern, name):
                return decay
        raise ValueError(f'No weight decay rule matches the parameter {name}.')

    return jax.tree_util.tree_map_with_path(rule, params)


def is_stacked(path: str, config: AlbertConfig) -> bool:
    """Whether the parameter has a leading axis of layers, each with a trust ratio of its own."""
    if re.search(r'(^|/)layer/attention/', path):
        return config.num_unique_attention_layers > 1
    if re.search(r'(^|/)layer/ffn/', path):
        return config.num_unique_ffn_layers > 1
    return False


class MomentsState(NamedTuple):
    """Adam's moments, in float32 like the parameters."""

    count: Int[Array, '']
    first: PyTree
    second: PyTree


def scale_by_moments(
    beta1: float, beta2: float, eps: float, bias_correction: bool
) -> optax.GradientTransformation:
    """Adam's update `m / (√v + eps)`; optax's own cannot do without the bias correction."""

    def init(params: PyTree) -> MomentsState:
        zeros = optax.tree.zeros_like(params)
        return MomentsState(jnp.zeros([], jnp.int32), zeros, optax.tree.zeros_like(params))

    def update(
        gradients: PyTree, state: MomentsState, params: PyTree = None
    ) -> tuple[PyTree, MomentsState]:
        del params
        first = optax.tree.update_moment(gradients, state.first, beta1, 1)
        second = optax.tree.update_moment(gradients, state.second, beta2, 2)
        count = jnp.asarray(optax.safe_increment(state.count))
        unbiased_first, unbiased_second = first, second
        if bias_correction:
            steps = count.astype(jnp.float32)
            unbiased_first = optax.tree.bias_correction(first, beta1, steps)
            unbiased_second = optax.tree.bias_correction(second, beta2, steps)
        updates = jax.tree.map(
            lambda m, v: m / (jnp.sqrt(v) + eps), unbiased_first, unbiased_second
        )
        return updates, MomentsState(count, first, second)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def add_l1(strength: float) -> optax.GradientTransformation:
    """Adds `strength · sign(p)` to the updates of the parameters that decay."""

    def update(updates: PyTree, params: PyTree) -> PyTree:
        return jax.tree.map(
            lambda u, p, decay: u + strength * jnp.sign(p) if decay else u,
            updates,
            params,
            decays(params),
        )

    return optax.stateless(update)


def scale_by_trust_ratio(is_stacked: Callable[[str], bool]) -> optax.GradientTransformation:
    """Scales each update by ‖p‖ / ‖update‖ (1 where either is zero), norms and biases apart.

    Args:
      is_stacked: whether the parameter of this path has a leading axis of layers; then each index
        of that axis has its own ratio.
    """

    def ratio_of(path: tuple[Any, ...], update: Array, param: Array, adapts: bool) -> Array:
        if not adapts:
            return update
        axes = tuple(range(int(is_stacked(path_name(path))), param.ndim))

        def norm(x: Array) -> Array:
            return jnp.sqrt(jnp.square(x).sum(axes, keepdims=True))

        param_norm, update_norm = norm(param), norm(update)
        is_usable = (param_norm > 0) & (update_norm > 0)
        return update * jnp.where(is_usable, param_norm / jnp.where(is_usable, update_norm, 1), 1)

    def update(updates: PyTree, params: PyTree) -> PyTree:
        return jax.tree_util.tree_map_with_path(ratio_of, updates, params, decays(params))

    return optax.stateless(update)
