"""What a pretraining batch is: the names, shapes and types of its arrays."""

from typing import Any

import numpy as np

from albert_jax.runs.pretraining import PretrainingSettings

HostBatch = dict[str, np.ndarray]


def batch_shapes(
    settings: PretrainingSettings, batch_size: int
) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and type of every field of a batch, by its name.

    Args:
      settings: of the batches.
      batch_size: rows.
    """
    ids, flags = np.dtype(np.int32), np.dtype(np.float32)
    sequence = (batch_size, settings.sequence_length)
    predictions = (batch_size, settings.max_predictions_per_sequence)
    return {
        'input_ids': (sequence, ids),
        'attention_mask': (sequence, ids),
        'token_type_ids': (sequence, ids),
        'sentence_labels': ((batch_size,), ids),
        'sentence_weights': ((batch_size,), flags),
        'masked_positions': (predictions, ids),
        'masked_ids': (predictions, ids),
        'masked_weights': (predictions, flags),
    }
