"""The least that a language model must beat: pieces by their frequency, whatever surrounds them."""

import numpy as np
from jaxtyping import Int64

from albert_jax.data.pretraining import PretrainingData


def unigram_baseline(
    data: PretrainingData, token_counts: Int64[np.ndarray, 'vocab'], num_batches: int
) -> tuple[float, float]:
    """Loss in nats and accuracy of a unigram model on the masked pieces of evaluation batches.

    Args:
      data: the held-out split.
      token_counts: of each piece in the training split; one is added to each.
      num_batches: the first so many batches are scored.
    """
    probabilities = (token_counts + 1) / (token_counts + 1).sum()
    losses, best = -np.log(probabilities), probabilities.argmax()
    total = loss = hits = 0.0
    for number in range(num_batches):
        batch = data.eval_batch(number)
        weights, ids = batch['masked_weights'], batch['masked_ids']
        total += float(weights.sum())
        loss += float((losses[ids] * weights).sum())
        hits += float(((ids == best) * weights).sum())
    total = max(total, 1.0)
    return loss / total, hits / total
