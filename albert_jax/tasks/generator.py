"""Every pair of a split through a model from text to text once: its loss, and its texts."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from albert_jax.data.hub_tokenizer import AnyTokenizer
from albert_jax.data.target_text import special_ids, target_text
from albert_jax.model import decoding
from albert_jax.model.decoder import Seq2SeqModel
from albert_jax.model.decoding_settings import DecodingSettings
from albert_jax.model.losses import Batch
from albert_jax.runs.task import TaskSettings
from albert_jax.tasks.features import Features
from albert_jax.tasks.generation import IS_FINISHED, LOSS, NUM_PIECES, SCORES, TEXTS
from albert_jax.tasks.generation_objective import target_losses
from albert_jax.tasks.pair_features import PairFeatures
from albert_jax.tasks.prediction import BatchRunner, Rows, never, nothing, rounded_up
from albert_jax.training.programs import Programs
from albert_jax.training.sharding import BATCH, REPLICATED, put_batch, replicated


class Generator:
    """Runs a model with a decoder over encoded pairs; compiles once for each pair of lengths.

    Args:
      model: with a decoder.
      tokenizer: of sources and targets.
      mesh: the rows of a batch are split over all its devices.
      batch_size: examples a batch, rounded up to a multiple of the devices.
      settings: of the task, for the lengths.
      decoding_settings: how texts are written.

    Raises:
      UserError: if texts cannot be written so.
    """

    def __init__(
        self,
        model: Seq2SeqModel,
        tokenizer: AnyTokenizer,
        mesh: Mesh,
        batch_size: int,
        settings: TaskSettings,
        decoding_settings: DecodingSettings,
    ) -> None:
        self._model, self._tokenizer, self._mesh = model, tokenizer, mesh
        self._special = special_ids(tokenizer, model.config.vocab_size)
        # The start is a token of the target, but no new one.
        self.limit = settings.max_target_length - 1
        self._method, self._knobs = decoding.plan(model, decoding_settings, self.limit)
        self._run = BatchRunner(
            mesh, rounded_up(batch_size, mesh), settings.max_length, tokenizer.pad_id
        )
        # Mapped and not left to the compiler: it cannot split a Pallas kernel.
        identity = model.config, model.decoder, tokenizer.sha256, self._method, self.limit
        self._losses_of_batch, self._texts_of_batch = (
            Programs(
                jax.jit(
                    jax.shard_map(
                        function,
                        mesh=mesh,
                        in_specs=(REPLICATED, BATCH),
                        out_specs=BATCH,
                        check_vma=False,
                    ),
                    out_shardings=replicated(mesh),
                ),
                name,
                *identity,
                self._knobs,
            )
            for name, function in (('losses', self._losses), ('texts', self._write))
        )

    @property
    def num_compiled(self) -> int:
        """How many shapes have been compiled."""
        return self._losses_of_batch.num_compiled + self._texts_of_batch.num_compiled

    def compile(self, params: PyTree, batch: Mapping[str, np.ndarray]) -> None:
        """Compiles what `start` needs for a batch of these shapes, or reads it from disk."""
        self._texts_of_batch.compile(params, put_batch(self._mesh, batch))

    def _losses(self, params: PyTree, batch: Batch) -> dict[str, jax.Array]:
        losses = target_losses(self._model, params, batch)
        return {LOSS: losses['loss'], NUM_PIECES: losses['num_pieces']}

    def _write(self, params: PyTree, batch: Batch) -> dict[str, jax.Array]:
        limits = batch.get('limits')
        generated = decoding.decode(
            self._model,
            self._special,
            self._method,
            params,
            batch['input_ids'],
            batch['attention_mask'],
            batch['numbers'],
            jnp.full(len(batch['numbers']), self.limit) if limits is None else limits,
            jax.tree.map(jnp.asarray, self._knobs),
        )
        return {
            TEXTS: generated.token_ids,
            SCORES: generated.scores,
            IS_FINISHED: generated.is_finished,
        }

    def start(self, params: PyTree, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """The pieces of the texts of one batch, whose rows must divide by the devices.

        They may still be under way.

        Args:
          params: of the model.
          batch: as of PairFeatures, without targets; with `limits` of new tokens for each row, none
            above `limit`.
        """
        return self._texts_of_batch(params, put_batch(self._mesh, batch))

    def losses(
        self,
        params: PyTree,
        features: PairFeatures,
        is_stopped: Callable[[], bool] = never,
    ) -> Rows | None:
        """The loss of each target and its number of pieces, in order; None if stopped.

        Args:
          params: of the model.
          features: of the split.
          is_stopped: asked before every batch.
        """
        return self._run(lambda batch: self._losses_of_batch(params, batch), features, is_stopped)

    def texts(
        self,
        params: PyTree,
        features: PairFeatures,
        is_stopped: Callable[[], bool] = never,
        on_batch: Callable[[int], None] = nothing,
    ) -> Rows | None:
        """The texts of each source, their scores and whether they have an end; None if stopped.

        Of a source of which nothing is left after normalisation, the text is empty.

        Args:
          params: of the model.
          features: of the split.
          is_stopped: asked before every batch.
          on_batch: called with the number of examples of each batch that is done.
        """
        rows = self._run(
            lambda batch: self._texts_of_batch(params, batch), features, is_stopped, on_batch
        )
        return None if rows is None else self._with_words(rows, features)

    def _with_words(self, rows: Rows, features: PairFeatures) -> Rows:
        """The rows with texts in place of pieces; empty where nothing of a source was left."""
        has_source = features.source_lengths > 2
        rows[TEXTS] = [
            np.array([target_text(ids, self._tokenizer) if has_text else '' for ids in of_one])
            for of_one, has_text in zip(rows[TEXTS], has_source, strict=True)
        ]
        rows[IS_FINISHED] = [
            of_one | ~has_text
            for of_one, has_text in zip(rows[IS_FINISHED], has_source, strict=True)
        ]
        return rows

    def __call__(
        self,
        params: PyTree,
        features: Features,
        is_stopped: Callable[[], bool] = never,
        on_batch: Callable[[int], None] = nothing,
    ) -> Rows | None:
        """As `texts`, and, where there are targets, as `losses` in one pass; None if stopped."""
        assert isinstance(features, PairFeatures)
        if not features.target_lengths.any():
            return self.texts(params, features, is_stopped, on_batch)

        def both(batch: Batch) -> dict[str, jax.Array]:
            losses = self._losses_of_batch(params, batch)
            return {**losses, **self._texts_of_batch(params, batch)}

        rows = self._run(both, features, is_stopped, on_batch)
        return None if rows is None else self._with_words(rows, features)
