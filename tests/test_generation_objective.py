"""The loss of the pieces of a target, against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from albert_jax.model.decoder import Seq2SeqModel, init_seq2seq
from albert_jax.model.decoder_config import DecoderConfig
from albert_jax.runs.task import FinetuningSettings
from albert_jax.tasks.generation_objective import generation, smoothed_cross_entropy
from tests import tiny
from tests.reference_seq2seq import seq2seq_forward

VOCAB = 30
# Which of the pieces are real.
SOURCE_LENGTHS, TARGET_LENGTHS = np.array([5, 2, 7, 3]), np.array([4, 6, 2, 6])
# The last row only fills the batch.
WEIGHTS = np.array([1, 1, 1, 0], np.float32)


def make_batch():
    rng = np.random.default_rng(0)
    batch = {'weights': WEIGHTS}
    for name, mask, lengths, width in (
        ('input_ids', 'attention_mask', SOURCE_LENGTHS, 7),
        ('target_ids', 'target_mask', TARGET_LENGTHS, 6),
    ):
        batch[mask] = (np.arange(width) < lengths[:, None]).astype(np.int32)
        batch[name] = rng.integers(3, VOCAB, (4, width)).astype(np.int32) * batch[mask]
    return batch


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
@pytest.mark.parametrize('is_training', [True, False], ids=['training', 'evaluation'])
def test_the_loss_is_of_the_real_pieces_after_the_first_and_smoothed_in_training(
    smoothing, is_training
):
    config = tiny.config(vocab_size=VOCAB, max_position_embeddings=12)
    model = Seq2SeqModel(config, DecoderConfig())
    shapes = jax.eval_shape(lambda: init_seq2seq(config, model.decoder, jax.random.key(0)))
    params, batch = tiny.random_tree(shapes), make_batch()
    objective = generation(model, smoothing, FinetuningSettings(), (0, 1, 2))
    key = jax.random.key(0) if is_training else None
    found = jax.jit(objective.sums)(params, batch, key)
    totals = jax.jit(objective.totals)(batch)

    labels, ids = batch['target_ids'][:, 1:], batch['target_ids'][:, :-1]
    logits, _ = seq2seq_forward(
        params, config.to_dict(), model.decoder.to_dict(), batch['input_ids'],
        batch['attention_mask'], ids, batch['target_mask'][:, :-1],
    )  # fmt: skip
    share = smoothing if is_training else 0
    per_piece = reference_loss(logits, labels, share)
    # Three, five and one of the three rows that count.
    counts = (batch['target_mask'][:, 1:] * WEIGHTS[:, None]).astype(bool)
    assert counts.sum() == 9 == totals['task_loss'] == found['task_loss'].weight
    assert found['task_loss'].sum == pytest.approx(per_piece[counts].sum(), rel=1e-5)
    is_right = (logits.argmax(-1) == labels)[counts]
    assert float(found['accuracy'].sum) == is_right.sum()


def reference_loss(logits, labels, smoothing):
    """Cross entropy with a share of the probability spread over the vocabulary."""
    logits = logits.astype(np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    count = logits.shape[-1]
    target = (1 - smoothing) * np.eye(count)[labels] + smoothing / count
    return -(target * log_probs).sum(-1)


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_smoothing_spreads_a_share_over_the_vocabulary(smoothing):
    logits = np.random.default_rng(0).normal(0, 3, (2, 3, 7)).astype(np.float32)
    labels = np.array([[0, 6, 2], [3, 3, 1]])
    found = smoothed_cross_entropy(jnp.asarray(logits), jnp.asarray(labels), smoothing)
    expected = reference_loss(logits, labels, smoothing)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
