"""The pure train and evaluation steps.

The weights are gathered once a step; a batch's gradients are summed over microbatches on each
device and over devices once; and every loss is divided by its weight in the global batch. So 8
devices, 4 microbatches and one big batch give the same update. The optimizer runs on the shards,
with global norms.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import Mesh
from jaxtyping import Array, Bool, PyTree

from albert_jax.model.losses import Batch, Sum, add
from albert_jax.training import objectives
from albert_jax.training.objectives import Objective
from albert_jax.training.sharding import (
    AXES,
    BATCH,
    REPLICATED,
    gather,
    reduce,
    replicated,
    shardings,
    specs,
)

# A number on the devices; its abstract shape, or its copy on the host.
Scalar = Any
# A field of a batch: 1 in the rows of a process that was told to stop. So all processes learn of it
# at the same step, without a message of its own.
IS_STOPPING = 'is_stopping'
# Metrics that the step adds to those of the objective.
STEP_METRICS = ('loss', 'grad_norm')


@struct.dataclass
class TrainState:
    """All that a training is, apart from its data: what a checkpoint holds."""

    step: Scalar
    params: PyTree
    opt_state: PyTree
    # Sums over the steps since the last line of the log. They are part of the state, so that a run
    # that was stopped between two lines writes the same lines as one that was not.
    metric_sums: dict[str, Sum]
    # Steps left out because of a loss or gradient that was not finite: in all, and lately.
    num_skipped: Scalar
    num_skipped_in_a_row: Scalar


@struct.dataclass
class Status:
    """What the loop reads of a step, late, when the state has already been given away."""

    metric_sums: dict[str, Sum]
    # How many rows came from processes that were told to stop.
    num_stopping: Scalar
    num_skipped: Scalar
    num_skipped_in_a_row: Scalar
    # Its loss and the norms of its gradient and update: a step where one is not finite is skipped.
    norms: Any


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """The jitted step with its random key, an argument: runs of all seeds are one program."""

    jitted: Any
    key: np.ndarray | Array
    # Weights that the objective reads and nothing changes: a teacher's.
    frozen: PyTree

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Status]:
        """The state after the batch, and how it went."""
        return self.jitted(state, self.frozen, batch, self.key)

    def on(self, mesh: Mesh) -> 'TrainStep':
        """The step with its key on the devices, so that no call sends it there again."""
        return dataclasses.replace(self, key=jax.device_put(self.key, replicated(mesh)))

    def lower(self, state: Any, batch: Any) -> Any:
        """As of any jitted function."""
        return self.jitted.lower(state, self.frozen, batch, self.key)


def state_shardings(state: TrainState, mesh: Mesh) -> TrainState:
    """Where each array of a state, or of its shapes, lives."""
    everywhere = replicated(mesh)
    return TrainState(
        step=everywhere,
        params=shardings(state.params, mesh),
        opt_state=shardings(state.opt_state, mesh),
        metric_sums=jax.tree.map(lambda _: everywhere, state.metric_sums),
        num_skipped=everywhere,
        num_skipped_in_a_row=everywhere,
    )


def init_state(
    init_params: Callable[[Array], PyTree],
    optimizer: optax.GradientTransformation,
    objective: Objective,
    example_batch: PyTree,
    seed: int,
    frozen: Mapping[str, PyTree] | None = None,
) -> TrainState:
    """The state before the first step. To be run under `jit` or `eval_shape`.

    Args:
      init_params: key → parameters.
      optimizer: whose state to make.
      objective: whose metrics to count.
      example_batch: a batch, or its shapes.
      seed: of the parameters.
      frozen: weights beside the parameters, or their shapes.
    """
    params = init_params(jax.random.key(seed))
    shapes = jax.eval_shape(
        lambda batch, frozen: objective.sums({**params, **frozen}, batch, None),
        example_batch,
        frozen or {},
    )
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    metric_sums = zeros | {name: _zero_sum() for name in STEP_METRICS}
    count = jnp.zeros([], jnp.int32)
    return TrainState(count, params, optimizer.init(params), metric_sums, count, count)


def _zero_sum() -> Sum:
    return Sum(jnp.zeros([]), jnp.zeros([]))


def make_train_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    num_microbatches: int,
    log_every: int,
    seed: int,
    compute_dtype: str = 'float32',
    frozen: Mapping[str, PyTree] | None = None,
) -> TrainStep:
    """The jitted step: (state, batch) → (state, status). The state is donated.

    A step whose loss or gradient is not finite changes nothing but its two counters.

    Args:
      objective: what to minimise.
      optimizer: makes updates of gradients.
      mesh: the batch is split over both its axes, the state as `state_shardings` says.
      num_microbatches: parts that each device takes its rows in, one after the other.
      log_every: steps that the sums of metrics span.
      seed: of the dropout masks.
      compute_dtype: that kernels are gathered in, which is that of the model's products.
      frozen: weights that the objective finds beside the parameters and that stay as they are,
        placed as `shardings` says, or their shapes.
    """
    gradients = _sharded_gradients(objective, mesh, num_microbatches, jnp.dtype(compute_dtype))

    def train_step(
        state: TrainState, frozen: PyTree, batch: Batch, key: Array
    ) -> tuple[TrainState, Status]:
        dropout_key = jax.random.fold_in(jax.random.wrap_key_data(key), state.step)
        num_examples = next(iter(batch.values())).shape[0]
        batch = {**batch, 'example_ids': jnp.arange(num_examples)}
        num_stopping = batch.pop(IS_STOPPING, jnp.zeros(1, jnp.int32)).sum()
        grads, loss, sums = gradients(state.params, frozen, batch, dropout_key)
        grad_norm = optax.tree.norm(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        # An update can overflow where the gradient did not.
        norms = jnp.stack([loss, grad_norm, optax.tree.norm(updates)])
        is_finite = jnp.isfinite(norms).all()
        params = optax.apply_updates(state.params, updates)
        one = jnp.ones([])
        sums = sums | {'loss': Sum(loss, one), 'grad_norm': Sum(grad_norm, one)}
        # The sums are those since the last line of the log.
        is_first = state.step % log_every == 0
        metric_sums = jax.tree.map(lambda x: jnp.where(is_first, 0, x), state.metric_sums)
        state = TrainState(
            step=state.step + 1,
            params=_choose(is_finite, params, state.params),
            opt_state=_choose(is_finite, opt_state, state.opt_state),
            metric_sums=_choose(is_finite, add(metric_sums, sums), metric_sums),
            num_skipped=state.num_skipped + jnp.where(is_finite, 0, 1),
            num_skipped_in_a_row=jnp.where(is_finite, 0, state.num_skipped_in_a_row + 1),
        )
        return state, Status(
            state.metric_sums, num_stopping, state.num_skipped, state.num_skipped_in_a_row, norms
        )

    def sharded_train_step(
        state: TrainState, frozen: PyTree, batch: Batch, key: Array
    ) -> tuple[TrainState, Status]:
        state, status = train_step(state, frozen, batch, key)
        return jax.lax.with_sharding_constraint(state, state_shardings(state, mesh)), status

    key = np.asarray(jax.random.key_data(jax.random.key(seed)))
    return TrainStep(jax.jit(sharded_train_step, donate_argnums=0), key, dict(frozen or {}))


def _choose(condition: Bool[Array, ''], new: PyTree, old: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def _sharded_gradients(
    objective: Objective, mesh: Mesh, num_microbatches: int, dtype: jnp.dtype
) -> Callable[[PyTree, PyTree, Batch, Array], tuple[PyTree, Array, dict[str, Sum]]]:
    def local_sums(params: PyTree, frozen: PyTree, batch: Batch, totals: Any, key: Array) -> Any:
        def loss_and_sums(params: PyTree) -> tuple[Array, dict[str, Sum]]:
            sums = objective.sums({**params, **frozen}, batch, key)
            return objectives.total_loss(objective, sums, totals), sums

        (loss, sums), grads = jax.value_and_grad(loss_and_sums, has_aux=True)(params)
        return grads, loss, sums

    def accumulated(params: PyTree, frozen: PyTree, batch: Batch, totals: Any, key: Array) -> Any:
        if num_microbatches == 1:
            return local_sums(params, frozen, batch, totals, key)
        microbatches = jax.tree.map(
            lambda rows: rows.reshape(num_microbatches, -1, *rows.shape[1:]), batch
        )

        def accumulate(carry: Any, microbatch: Batch) -> tuple[Any, None]:
            part = local_sums(params, frozen, microbatch, totals, key)
            return jax.tree.map(jnp.add, carry, part), None

        first = jax.tree.map(lambda rows: rows[0], microbatches)
        shapes = jax.eval_shape(lambda: local_sums(params, frozen, first, totals, key))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return jax.lax.scan(accumulate, zeros, microbatches)[0]

    def gradients(params: PyTree, frozen: PyTree, batch: Batch, key: Array) -> Any:
        params_specs, frozen_specs = specs(params, mesh), specs(frozen, mesh)

        def on_each_device(shards: PyTree, frozen: PyTree, batch: Batch, key: Array) -> Any:
            totals = jax.lax.psum(objective.totals(batch), AXES)
            full_params = gather(shards, params_specs, dtype)
            full_frozen = gather(frozen, frozen_specs, dtype)
            grads, loss, sums = accumulated(full_params, full_frozen, batch, totals, key)
            return reduce(grads, params_specs), *jax.lax.psum((loss, sums), AXES)

        # Without the check of varying axes, gradients stay local until the one reduction.
        return jax.shard_map(
            on_each_device,
            mesh=mesh,
            in_specs=(params_specs, frozen_specs, BATCH, REPLICATED),
            out_specs=(params_specs, REPLICATED, REPLICATED),
            check_vma=False,
        )(params, frozen, batch, key)

    return gradients


def make_eval_step(objective: Objective, mesh: Mesh) -> Callable[[PyTree, Batch], dict[str, Sum]]:
    """The jitted evaluation: (full params, batch) → sums without dropout. Nothing is donated."""

    def on_each_device(params: PyTree, batch: Batch) -> dict[str, Sum]:
        return jax.lax.psum(objective.sums(params, batch, None), AXES)

    return jax.jit(
        jax.shard_map(
            on_each_device,
            mesh=mesh,
            in_specs=(REPLICATED, BATCH),
            out_specs=REPLICATED,
            check_vma=False,
        )
    )
