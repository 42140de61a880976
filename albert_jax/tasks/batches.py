"""Padded batches of encoded examples.

Every batch is as long as the smallest of a few lengths that its longest sequence fits into, so
short texts do not pay for long ones and nothing is compiled after each length has been seen once.
A batch is a function of the seed and the step.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from albert_jax.data.batch import HostBatch
from albert_jax.data.permutation import shuffled_indices

LENGTHS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
# Batches that are sorted by length together; the order of batches is shuffled.
_BATCHES_A_POOL = 64


@runtime_checkable
class BatchedExamples(Protocol):
    """Encoded examples, as batches of like lengths are made of them."""

    @property
    def num_examples(self) -> int:
        """How many examples there are."""
        ...

    def length_keys(self) -> Int64[np.ndarray, 'examples']:
        """Numbers that are near one another where examples have like lengths."""
        ...

    def padded_batch(
        self,
        examples: Int64[np.ndarray, 'batch'],
        weights: np.ndarray,
        longest: Int64[np.ndarray, 'some'],
        lengths: Sequence[int],
        pad_id: int,
    ) -> HostBatch:
        """Some examples, padded.

        Args:
          examples: which.
          weights: of each; 0 for one that only fills the batch.
          longest: examples that decide the length.
          lengths: that sequences may have, ascending; the first that fits is taken.
          pad_id: of the vocabulary.
        """
        ...


def bucket_lengths(max_length: int) -> tuple[int, ...]:
    """The lengths that batches may have."""
    return (*(length for length in LENGTHS if length < max_length), max_length)


def fitting_length(own_lengths: Int64[np.ndarray, 'some'], lengths: Sequence[int]) -> int:
    """The first of the lengths, which ascend, that all sequences fit into."""
    longest = own_lengths.max()
    return next(length for length in lengths if length >= longest)


class TrainBatches:
    """batch(step): each epoch visits each example once, in batches of like lengths.

    Args:
      features: of the training split.
      batch_size: examples a batch; the last of an epoch is filled up with weights of 0.
      max_length: of a sequence.
      pad_id: of the vocabulary.
      seed: of the order.
    """

    def __init__(
        self,
        features: BatchedExamples,
        batch_size: int,
        max_length: int,
        pad_id: int,
        seed: int,
    ) -> None:
        self._features, self._batch_size = features, batch_size
        self._length_keys = features.length_keys()
        self._lengths, self._pad_id, self._seed = bucket_lengths(max_length), pad_id, seed
        self.batches_per_epoch = -(-features.num_examples // batch_size)
        self._plan = functools.lru_cache(maxsize=2)(self._make_plan)

    def _make_plan(self, epoch: int) -> list[Int64[np.ndarray, 'batch']]:
        count, size = self._features.num_examples, self._batch_size
        order = shuffled_indices(np.arange(count) + epoch * count, count, self._seed)
        batches: list[Int64[np.ndarray, 'batch']] = []
        for start in range(0, count, size * _BATCHES_A_POOL):
            pool = order[start : start + size * _BATCHES_A_POOL]
            pool = pool[np.argsort(self._length_keys[pool], kind='stable')]
            batches += [pool[first : first + size] for first in range(0, len(pool), size)]
        numbers = np.arange(len(batches)) + epoch * len(batches)
        return [batches[i] for i in shuffled_indices(numbers, len(batches), self._seed + 1)]

    def batch(self, step: int, rows: range) -> HostBatch:
        """Rows of the global batch of a step."""
        epoch, number = divmod(step, self.batches_per_epoch)
        examples = self._plan(epoch)[number]
        return _padded(
            self._features, examples, self._batch_size, self._lengths, self._pad_id, rows
        )


def eval_batches(
    features: BatchedExamples, batch_size: int, max_length: int, pad_id: int
) -> Iterator[tuple[Int64[np.ndarray, 'batch'], HostBatch]]:
    """Every example once, in batches of like lengths, with the numbers of its examples.

    Args:
      features: of the split.
      batch_size: rows a batch; those beyond the examples have weight 0.
      max_length: of a sequence.
      pad_id: of the vocabulary.
    """
    order = np.argsort(features.length_keys(), kind='stable')
    lengths = bucket_lengths(max_length)
    chunks = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
    for chunk in chunks:
        yield chunk, _padded(features, chunk, batch_size, lengths, pad_id, range(batch_size))


def _padded(
    features: BatchedExamples,
    examples: Int64[np.ndarray, 'some'],
    batch_size: int,
    lengths: Sequence[int],
    pad_id: int,
    rows: range,
) -> HostBatch:
    weights = np.arange(batch_size) < len(examples)
    filled = np.resize(examples, batch_size)
    own = slice(rows.start, rows.stop)
    return features.padded_batch(filled[own], weights[own], examples, lengths, pad_id)
