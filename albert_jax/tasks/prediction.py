"""Every example of a split through the model once, whatever the batch and the devices."""

import collections
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from albert_jax.model.config import AlbertConfig
from albert_jax.model.finetuned import FinetunedModel
from albert_jax.model.heads import Head, Logits
from albert_jax.model.losses import Batch
from albert_jax.tasks.batches import BatchedExamples, eval_batches
from albert_jax.tasks.features import Features
from albert_jax.training.programs import Programs
from albert_jax.training.sharding import BATCH, REPLICATED, put_batch, replicated

# One array for each example, in order.
Rows = dict[str, list[np.ndarray]]


def never() -> bool:
    """That nobody asks to stop."""
    return False


def nothing(num_examples: int) -> None:
    """Does nothing when examples are done."""
    del num_examples


@dataclasses.dataclass(frozen=True)
class BatchRunner:
    """Runs a function over encoded examples in batches, and puts its rows in their order.

    Args:
      mesh: the rows of a batch are split over all its devices.
      batch_size: examples a batch, a multiple of the devices.
      max_length: of a sequence.
      pad_id: of the vocabulary.
    """

    mesh: Mesh
    batch_size: int
    max_length: int
    pad_id: int

    def __call__(
        self,
        compute: Callable[[Batch], Mapping[str, jax.Array]],
        features: BatchedExamples,
        is_stopped: Callable[[], bool] = never,
        on_batch: Callable[[int], None] = nothing,
    ) -> Rows | None:
        """What the function gives, a row for each example in its order; None if stopped.

        Args:
          compute: starts the computation of a batch; every process has all of its outputs.
          features: of the examples.
          is_stopped: asked before every batch.
          on_batch: called with the number of examples of each batch that is done.
        """
        rows: dict[str, list[Any]] = {}
        pending: collections.deque[tuple[np.ndarray, Mapping[str, jax.Array]]] = collections.deque()
        batches = eval_batches(features, self.batch_size, self.max_length, self.pad_id)
        for examples, batch in batches:
            if is_stopped():
                return None
            pending.append((examples, compute(put_batch(self.mesh, self._local_rows(batch)))))
            # The next batch is under way while the one before is read.
            if len(pending) > 1:
                _collect(rows, *pending[0], features.num_examples)
                on_batch(len(pending.popleft()[0]))
        for examples, outputs in pending:
            _collect(rows, examples, outputs, features.num_examples)
            on_batch(len(examples))
        return rows

    def _local_rows(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The rows of a global batch that belong to this process."""
        num_examples = self.batch_size // jax.process_count()
        first = jax.process_index() * num_examples
        num_choices = len(batch['input_ids']) // self.batch_size
        local = {}
        for name, values in batch.items():
            per_example = 1 if len(values) == self.batch_size else num_choices
            local[name] = values[first * per_example : (first + num_examples) * per_example]
        return local


class Predictor:
    """Runs a fine-tuned model over encoded examples; compiles once for each length.

    Args:
      config: of the model.
      head: what it answers.
      mesh: the rows of a batch are split over all its devices.
      batch_size: examples a batch, rounded up to a multiple of the devices.
      max_length: of a sequence.
      pad_id: of the vocabulary.
    """

    def __init__(
        self,
        config: AlbertConfig,
        head: Head,
        mesh: Mesh,
        batch_size: int,
        max_length: int,
        pad_id: int,
    ) -> None:
        self._mesh = mesh
        self._run = BatchRunner(mesh, rounded_up(batch_size, mesh), max_length, pad_id)
        self._model = FinetunedModel(config, head)
        # Mapped and not left to the compiler: it cannot split a Pallas kernel.
        mapped = jax.shard_map(
            self._predict, mesh=mesh, in_specs=(REPLICATED, BATCH), out_specs=BATCH, check_vma=False
        )
        self._predict_batch = Programs(
            jax.jit(mapped, out_shardings=replicated(mesh)), 'predict', config, head
        )

    def _predict(self, params: PyTree, batch: Batch) -> Logits:
        return self._model.head.definition.predictions(self._model(params, batch).logits)

    @property
    def num_compiled(self) -> int:
        """How many shapes have been compiled."""
        return self._predict_batch.num_compiled

    def compile(self, params: PyTree, batch: Mapping[str, np.ndarray]) -> None:
        """Compiles what `start` needs for a batch of these shapes, or reads it from disk."""
        self._predict_batch.compile(params, put_batch(self._mesh, batch))

    def start(self, params: PyTree, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """The head's outputs for one batch, whose rows must divide by the devices.

        They may still be under way.
        """
        return self._predict_batch(params, put_batch(self._mesh, batch))

    def __call__(
        self,
        params: PyTree,
        features: Features,
        is_stopped: Callable[[], bool] = never,
        on_batch: Callable[[int], None] = nothing,
    ) -> Rows | None:
        """The head's outputs, a row for each example in its order; None if stopped.

        Args:
          params: of the model, with those of its head.
          features: of the split.
          is_stopped: asked before every batch.
          on_batch: called with the number of examples of each batch that is done.
        """
        return self._run(
            lambda batch: self._predict_batch(params, batch), features, is_stopped, on_batch
        )


def _collect(
    rows: dict[str, list[Any]],
    examples: np.ndarray,
    outputs: Mapping[str, jax.Array],
    num_examples: int,
) -> None:
    """Writes the outputs of a batch into the rows of its examples."""
    for name, values in jax.device_get(dict(outputs)).items():
        column = rows.setdefault(name, [None] * num_examples)
        for row, example in enumerate(examples):
            column[example] = np.asarray(values[row])


def rounded_up(batch_size: int, mesh: Mesh) -> int:
    """The size of a batch that divides by the devices."""
    return -(-batch_size // mesh.size) * mesh.size
