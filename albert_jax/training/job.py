"""What the loop trains, and how a training ends: all that the loop knows of any task."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import optax
from jax.sharding import Mesh
from jaxtyping import PyTree

from albert_jax.data.batch import HostBatch
from albert_jax.interop.metadata import CheckpointMetadata
from albert_jax.training.objectives import Objective
from albert_jax.training.telemetry import Work


@runtime_checkable
class Evaluate(Protocol):
    """The held-out metrics of some parameters, or None where the run was told to stop first.

    A metric that has no value is left out or NaN.
    """

    def __call__(
        self, params: PyTree, mesh: Mesh, is_stopped: Callable[[], bool], step: int
    ) -> dict[str, float] | None:
        """Evaluates the parameters of a step, of which every device has a full copy."""
        ...


@dataclasses.dataclass(frozen=True)
class HeldOutBatches:
    """An evaluation by the objective's own means over batches.

    Args:
      batch: rows of the n-th held-out batch.
      num_batches: how many are taken.
    """

    batch: Callable[[int, range], HostBatch]
    num_batches: int


@dataclasses.dataclass(frozen=True)
class TrainingJob:
    """What the loop trains, and on what."""

    objective: Objective
    # (key) → parameters, or (key, start_params) where there are any.
    init_params: Callable[..., PyTree]
    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule
    # Rows of the global batch of a step.
    train_batch: Callable[[int, range], HostBatch]
    evaluation: HeldOutBatches | Evaluate
    # Of the metrics of an evaluation: what the best checkpoint is best in.
    best_metric: str
    is_lower_better: bool
    # (step) → what one of its examples takes.
    work: Callable[[int], Work]
    metadata: CheckpointMetadata
    # What the training starts from, on the host; None for nothing.
    start_params: PyTree | None = None
    # The checkpoint of another run whose state the training goes on with; None for a new state.
    start_checkpoint: Path | None = None
    # Weights that the objective finds beside the parameters and that stay as they are.
    frozen: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a training ended."""

    step: int
    # Of the last evaluation in this process, if there was one.
    metrics: dict[str, float] | None
    # The signal that ended it, if one did.
    signal_number: int | None
