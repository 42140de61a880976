"""Every pair of a split through a model from text to text once: its loss, and its texts."""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from albert_jax.data.hub_tokenizer import AnyTokenizer
from albert_jax.model.decoder import Seq2SeqModel
from albert_jax.model.losses import Batch
from albert_jax.runs.task import TaskSettings
from albert_jax.tasks.generation import LOSS, NUM_PIECES
from albert_jax.tasks.generation_objective import target_losses
from albert_jax.tasks.pair_features import PairFeatures
from albert_jax.tasks.prediction import BatchRunner, rounded_up
from albert_jax.training.sharding import BATCH, REPLICATED, replicated

Rows = dict[str, list[np.ndarray]]


class Generator:
    """Runs a model with a decoder over encoded pairs; compiles once for each pair of lengths.

    Args:
      model: with a decoder.
      tokenizer: of sources and targets.
      mesh: the rows of a batch are split over all its devices.
      batch_size: examples a batch, rounded up to a multiple of the devices.
      settings: of the task: lengths, and the search for a text.
    """

    def __init__(
        self,
        model: Seq2SeqModel,
        tokenizer: AnyTokenizer,
        mesh: Mesh,
        batch_size: int,
        settings: TaskSettings,
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._settings = settings
        self._run = BatchRunner(
            mesh, rounded_up(batch_size, mesh), settings.max_length, tokenizer.pad_id
        )
        mapped = jax.shard_map(
            self._losses, mesh=mesh, in_specs=(REPLICATED, BATCH), out_specs=BATCH, check_vma=False
        )
        self._losses_of_batch = jax.jit(mapped, out_shardings=replicated(mesh))

    def _losses(self, params: PyTree, batch: Batch) -> dict[str, jax.Array]:
        losses = target_losses(self._model, params, batch)
        return {LOSS: losses['loss'], NUM_PIECES: losses['num_pieces']}

    def losses(
        self, params: PyTree, features: PairFeatures, is_stopped: Callable[[], bool]
    ) -> Rows | None:
        """The loss of each target and its number of pieces, in order; None if stopped.

        Args:
          params: of the model.
          features: of the split.
          is_stopped: asked before every batch.
        """
        return self._run(lambda batch: self._losses_of_batch(params, batch), features, is_stopped)
