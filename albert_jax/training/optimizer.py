"""LAMB as ALBERT uses it, AdamW and Muon, as optax chains; what decays, what adapts; schedules.

LAMB is arXiv 1904.00962, algorithm 2, in the form of google-research/albert: gradients clipped by
their global norm, no bias correction, norms and biases outside both decay and trust ratio, and one
trust ratio a layer where layers are stacked in one array. `optax.lamb` differs in all four.

Muon (K. Jordan, 2024; arXiv 2502.16982) is optax.contrib's: momentum of Nesterov's kind, made
orthogonal by five steps of a Newton-Schulz iteration, times √max(1, columns / rows). It updates the
kernels between hidden layers, each layer by itself where layers are stacked; AdamW updates the
embedding tables, heads, norms and biases.
"""

import functools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Int, PyTree
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from albert_jax.model.config import AlbertConfig
from albert_jax.model.flops import adapter_flops, newton_schulz_flops
from albert_jax.model.paths import path_name
from albert_jax.runs.optimizer import OptimizerSettings

# First match wins: (path, does it decay and adapt?). A path that nothing matches is an error.
_DECAY_RULES = (
    (r'(^|/)(bias|scale)$', False),
    (r'(^|/)(kernel|embedding|adapter_down|adapter_up)$', True),
)
# What Muon updates: the kernels that take hidden activations to hidden activations.
_MUON_KERNELS = re.compile(r'^(encoder/.*|decoder/.*|embeddings/projection|pooler)/kernel$')
_NUM_NEWTON_SCHULZ_STEPS = 5


def schedule(settings: OptimizerSettings, total_steps: int) -> optax.Schedule:
    """Learning rate by step: a linear warmup from 0, then what `settings.schedule` names.

    'google_linear' is google-research/albert's: its decay counts from step 0, so that the rate
    jumps down at the end of the warmup. All the others start their decay at the peak. 'wsd' stays
    there up to the last `num_decay_steps`, in which it falls as 1 − √t: the cooldown that was best
    in arXiv 2405.18392 and is ModernBERT's (arXiv 2412.13663).

    Raises:
      UserError: if the warmup or the decay do not fit into `total_steps`.
    """
    settings.check_num_steps(total_steps)
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
        case 'wsd':
            stable = optax.constant_schedule(peak)
            num_stable = rest - settings.num_decay_steps
            decay = optax.join_schedules([stable, _cooldown(settings)], [num_stable])
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


def _cooldown(settings: OptimizerSettings) -> optax.Schedule:
    """The last steps of 'wsd', counted from the first of them."""
    num_steps = max(settings.num_decay_steps, 1)

    def rate(count: ArrayLike) -> Array:
        done = jnp.clip(jnp.asarray(count) / num_steps, 0.0, 1.0)
        fall = settings.learning_rate - settings.end_learning_rate
        return settings.learning_rate - fall * jnp.sqrt(done)

    return rate


def make_optimizer(
    settings: OptimizerSettings, total_steps: int, config: AlbertConfig
) -> optax.GradientTransformation:
    """The chain that `settings` describe, for the parameters of a model of this `config`."""
    rate = schedule(settings, total_steps)
    rules = _moments_rules(settings, rate, config)
    if settings.name == 'muon':
        adamw = optax.chain(*rules)
        rules = [optax.partition({'muon': _muon(settings, rate), 'adamw': adamw}, _muon_or_adamw)]
    if settings.clip_norm:
        rules = [optax.clip_by_global_norm(settings.clip_norm), *rules]
    return optax.chain(*rules)


def _moments_rules(
    settings: OptimizerSettings, rate: optax.Schedule, config: AlbertConfig
) -> list[optax.GradientTransformation]:
    """LAMB or AdamW, without clipping."""
    moments = settings.beta1, settings.beta2, settings.eps, settings.bias_correction
    rules = [scale_by_moments(*moments), *_decay_rules(settings.weight_decay, settings.l1)]
    if settings.name == 'lamb':
        rules.append(scale_by_trust_ratio(functools.partial(is_stacked, config)))
    return [*rules, optax.scale_by_learning_rate(rate)]


def _decay_rules(weight_decay: float, l1: float) -> list[optax.GradientTransformation]:
    rules: list[optax.GradientTransformation] = []
    if weight_decay:
        rules.append(optax.add_decayed_weights(weight_decay, mask=decays))
    if l1:
        rules.append(add_l1(l1))
    return rules


def _muon(settings: OptimizerSettings, rate: optax.Schedule) -> optax.GradientTransformation:
    """Muon's rule, for its kernels alone."""
    relative_rate = settings.muon_learning_rate / settings.learning_rate
    return optax.chain(
        scale_by_muon(
            beta=settings.muon_momentum,
            ns_steps=_NUM_NEWTON_SCHULZ_STEPS,
            weight_dimension_numbers=_per_layer,
        ),
        optax.stateless(_scale_by_shape),
        *_decay_rules(settings.muon_weight_decay, settings.l1),
        optax.scale_by_learning_rate(lambda count: relative_rate * rate(count)),
    )


def _per_layer(kernels: PyTree) -> PyTree:
    """The last two axes of each kernel are a matrix's; one before them counts layers."""
    return jax.tree.map(lambda _: MuonDimensionNumbers(reduction_axis=-2, output_axis=-1), kernels)


def _scale_by_shape(updates: PyTree, params: PyTree) -> PyTree:
    """Scales updates so that they change a layer's outputs alike, whatever its shape."""
    del params

    def scaled(update: Array) -> Array:
        rows, columns = update.shape[-2:]
        return update * max(1.0, columns / rows) ** 0.5

    return jax.tree.map(scaled, updates)


def _muon_or_adamw(params: PyTree) -> PyTree:
    """The rule of each parameter, by name."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: 'muon' if _MUON_KERNELS.search(path_name(path)) else 'adamw', params
    )


def update_flops(settings: OptimizerSettings, shapes: Mapping[str, tuple[int, ...]]) -> float:
    """FLOPs of the matrix products of one step that do not grow with the batch.

    Muon's, and those that make the kernels of every depth; 0 for models and rules that have none.

    Args:
      settings: of the optimizer.
      shapes: of the parameters, by path.
    """
    making = adapter_flops(shapes)
    if settings.name != 'muon':
        return making
    return making + sum(
        math.prod(shape[:-2]) * newton_schulz_flops(shape[-2], shape[-1], _NUM_NEWTON_SCHULZ_STEPS)
        for path, shape in shapes.items()
        if _MUON_KERNELS.search(path)
    )


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


def is_stacked(config: AlbertConfig, path: str, num_axes: int) -> bool:
    """Whether a parameter that adapts has an axis of layers, each with a trust ratio of its own.

    Args:
      config: of the encoder. How many layers a decoder has of its own is not said there; those
        of a prelude and a coda are told from one another where there are several.
      path: of the parameter.
      num_axes: that it has.
    """
    if path.startswith(('decoder/', 'encoder/prelude/', 'encoder/coda/')):
        return num_axes > 2
    if re.search(r'/adapter_(down|up)$|(^|/)layer/depth/embedding$', path):
        return True
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


def scale_by_trust_ratio(is_stacked: Callable[[str, int], bool]) -> optax.GradientTransformation:
    """Scales each update by ‖p‖ / ‖update‖ (1 where either is zero), norms and biases apart.

    Args:
      is_stacked: whether the parameter of this path, with so many axes, has a leading axis of
        layers; then each index of that axis has its own ratio.
    """

    def ratio_of(path: tuple[Any, ...], update: Array, param: Array, adapts: bool) -> Array:
        if not adapts:
            return update
        axes = tuple(range(int(is_stacked(path_name(path), param.ndim)), param.ndim))

        def norm(x: Array) -> Array:
            return jnp.sqrt(jnp.square(x).sum(axes, keepdims=True))

        param_norm, update_norm = norm(param), norm(update)
        is_usable = (param_norm > 0) & (update_norm > 0)
        return update * jnp.where(is_usable, param_norm / jnp.where(is_usable, update_norm, 1), 1)

    def update(updates: PyTree, params: PyTree) -> PyTree:
        return jax.tree_util.tree_map_with_path(ratio_of, updates, params, decays(params))

    return optax.stateless(update)
