"""What a model from text to text minimises: cross entropy of each piece after those before it."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from albert_jax.model.config import AlbertConfig
from albert_jax.model.decoder import Seq2SeqModel, init_seq2seq
from albert_jax.model.decoder_config import DecoderConfig
from albert_jax.model.losses import Batch, Sum, accuracy
from albert_jax.runs.task import FinetuningSettings
from albert_jax.tasks.objective import RobustLoss
from albert_jax.training.objectives import Objective

PerPiece = Float[Array, 'batch pieces']


def generation(
    model: Seq2SeqModel,
    label_smoothing: float,
    settings: FinetuningSettings,
    special_ids: tuple[int, ...],
) -> Objective:
    """The mean loss of a piece of the targets, all batches' pieces alike, as `task_loss`.

    Args:
      model: what is trained.
      label_smoothing: share of the probability that is spread over the vocabulary.
      settings: adversary on the source, and replacement of its tokens.
      special_ids: pieces that are never replaced.
    """
    loss = TargetLoss(model.config, settings, special_ids, model, label_smoothing)
    return Objective({'task_loss': 1.0}, loss.totals, loss.sums)


@dataclasses.dataclass(frozen=True)
class TargetLoss(RobustLoss):
    """The loss of the targets' pieces, each given those before it (teacher forcing).

    Args:
      model: what is trained.
      label_smoothing: share of the probability that is spread over the vocabulary.
    """

    model: Seq2SeqModel
    label_smoothing: float

    def totals(self, batch: Batch) -> dict[str, Array]:
        """The number of pieces that are predicted."""
        return {'task_loss': _weights(batch).sum()}

    def losses(
        self,
        params: PyTree,
        batch: Batch,
        dropout_key: Key[Array, ''] | None,
        perturbation: Float[Array, 'batch length embedding'] | None = None,
    ) -> dict[str, Sum]:
        """The loss, smoothed in training, and the share of pieces that are the likeliest."""
        logits = target_logits(self.model, params, batch, dropout_key, perturbation)
        labels, weights = batch['target_ids'][:, 1:], _weights(batch)
        smoothing = 0.0 if dropout_key is None else self.label_smoothing
        per_piece = smoothed_cross_entropy(logits, labels, smoothing)
        return {
            'task_loss': Sum((per_piece * weights).sum(), weights.sum()),
            'accuracy': accuracy(logits, labels, weights),
        }


def target_logits(
    model: Seq2SeqModel,
    params: PyTree,
    batch: Batch,
    dropout_key: Key[Array, ''] | None = None,
    perturbation: Float[Array, 'batch length embedding'] | None = None,
) -> Float[Array, 'batch pieces vocab']:
    """The logits of the pieces after the first of each target.

    Args:
      model: with a decoder.
      params: of the model.
      batch: of PairFeatures.
      dropout_key: None for no dropout.
      perturbation: added to the word embeddings of the source.
    """
    return model(
        params,
        batch['input_ids'],
        batch['attention_mask'],
        batch['target_ids'][:, :-1],
        batch['target_mask'][:, :-1],
        example_ids=batch.get('example_ids'),
        dropout_key=dropout_key,
        perturbation=perturbation,
    ).logits


def target_losses(model: Seq2SeqModel, params: PyTree, batch: Batch) -> dict[str, Array]:
    """The summed loss of each target, without smoothing and dropout, and the number of its pieces.

    Args:
      model: with a decoder.
      params: of the model.
      batch: of PairFeatures.
    """
    per_piece = smoothed_cross_entropy(
        target_logits(model, params, batch), batch['target_ids'][:, 1:], 0.0
    )
    weights = _weights(batch)
    return {'loss': (per_piece * weights).sum(1), 'num_pieces': weights.sum(1)}


def smoothed_cross_entropy(
    logits: Float[Array, 'batch pieces vocab'],
    labels: Int[Array, 'batch pieces'],
    smoothing: float,
) -> PerPiece:
    """−(1 − ε) log p(label) − ε · mean over the vocabulary of log p, in nats.

    Args:
      logits: of each piece.
      labels: the right pieces.
      smoothing: ε.
    """
    logits = logits.astype(jnp.float32)
    normalizer = jax.nn.logsumexp(logits, -1)
    right = jnp.take_along_axis(logits, labels[..., None], -1)[..., 0]
    if not smoothing:
        return normalizer - right
    return normalizer - (1 - smoothing) * right - smoothing * logits.mean(-1)


def _weights(batch: Batch) -> PerPiece:
    """1 for each piece that is predicted: all of a target but its first."""
    is_piece = batch['target_mask'][:, 1:].astype(jnp.float32)
    return is_piece * batch['weights'][:, None]


def with_decoder(
    config: AlbertConfig,
    decoder: DecoderConfig,
    key: Key[Array, ''],
    start: Mapping[str, PyTree] | None = None,
) -> dict[str, PyTree]:
    """The parameters before a training: those that it starts from, and a fresh decoder unless one.

    Args:
      config: of the encoder.
      decoder: of the decoder.
      key: of what is random.
      start: parameters to start from; parts that they lack are random.
    """
    params = init_seq2seq(config, decoder, key, start)
    return params if start is None else {**params, **start}
