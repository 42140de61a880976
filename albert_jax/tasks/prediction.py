"""Every example of a split through the model once, whatever the batch and the devices."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from albert_jax.model.albert import PretrainingModel
from albert_jax.model.config import AlbertConfig
from albert_jax.model.heads import POOLED, Head, apply_head, dropout_of
from albert_jax.model.losses import Batch
from albert_jax.tasks.features import Features, eval_batches
from albert_jax.training.sharding import BATCH, REPLICATED, put_batch, replicated


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
        self._mesh, self._max_length, self._pad_id = mesh, max_length, pad_id
        self._batch_size = -(-batch_size // mesh.size) * mesh.size
        model = PretrainingModel(config)

        def answer(params: Any, batch: Batch) -> dict[str, jax.Array]:
            encoded: Any = model.apply(
                {'params': params},
                batch['input_ids'],
                batch['attention_mask'],
                batch['token_type_ids'],
                use_pooler=head.kind in POOLED,
                method='encode',
            )
            hidden, pooled, _, _ = encoded
            nothing = dropout_of(0.0, None, jnp.zeros(0, jnp.int32))
            logits = apply_head(head.kind, params['head'], hidden, pooled, batch, nothing, False)
            if head.kind == 'token_classification':
                return {'tags': logits['logits'].argmax(-1).astype(jnp.int32)}
            return logits

        # Mapped and not left to the compiler: it cannot split a Pallas kernel.
        mapped = jax.shard_map(
            answer, mesh=mesh, in_specs=(REPLICATED, BATCH), out_specs=BATCH, check_vma=False
        )
        self._answer = jax.jit(mapped, out_shardings=replicated(mesh))

    @property
    def num_compiled(self) -> int:
        """How many shapes have been compiled."""
        return self._answer._cache_size()  # pyright: ignore[reportAttributeAccessIssue]

    def start(self, params: PyTree, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """The head's outputs for one batch, whose rows must divide by the devices.

        They may still be under way.
        """
        return self._answer(params, put_batch(self._mesh, batch))

    def __call__(
        self,
        params: PyTree,
        features: Features,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> dict[str, list[np.ndarray]] | None:
        """The head's outputs, a row for each example in its order; None if stopped.

        Args:
          params: of the model, with those of its head.
          features: of the split.
          is_stopped: asked before every batch.
        """
        rows: dict[str, list[Any]] = {}
        waiting: list[tuple[np.ndarray, dict[str, jax.Array]]] = []

        def collect() -> None:
            examples, outputs = waiting.pop(0)
            for name, values in jax.device_get(outputs).items():
                found = rows.setdefault(name, [None] * features.num_examples)
                for row, example in enumerate(examples):
                    found[example] = values[row]

        share = self._batch_size // jax.process_count()
        first = jax.process_index() * share
        batches = eval_batches(features, self._batch_size, self._max_length, self._pad_id)
        for examples, batch in batches:
            if is_stopped():
                return None
            choices = len(batch['input_ids']) // self._batch_size
            mine = {
                name: values[first * many : (first + share) * many]
                for name, values in batch.items()
                for many in (choices if len(values) != self._batch_size else 1,)
            }
            waiting.append((examples, self._answer(params, put_batch(self._mesh, mine))))
            # The next batch is under way while the one before is read.
            if len(waiting) > 1:
                collect()
        while waiting:
            collect()
        return rows
