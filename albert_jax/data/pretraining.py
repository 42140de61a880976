"""batch(step): segments, sentence order and n-gram masks, as a pure function of (seed, step).

Sections 3.1 and 4.1 of the paper; details in docs/REFERENCE.md, 2. Every random number comes from a
counter-based generator addressed by (seed, step, row of the global batch), so that a run resumes
from a number, and any host can make any rows of the same global batch.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float64, Int, UInt64

from albert_jax.cli.errors import UserError
from albert_jax.data.batch import HostBatch
from albert_jax.data.dataset import Chunks, PreparedCorpus
from albert_jax.data.masking import NgramMasker
from albert_jax.data.permutation import shuffled_indices
from albert_jax.data.random_bits import random_bits, uniform
from albert_jax.data.segments import (
    Segments,
    assemble,
    replace_labelled,
    split_chunks,
    swap_labelled,
)
from albert_jax.runs.pretraining import PretrainingSettings

# Raised by whoever changes what a batch of the same seed and step holds: runs of another version
# do not resume. A golden digest in the tests guards it.
DATA_VERSION = 1

_NUM_SPECIAL = 3  # [CLS] A [SEP] B [SEP]
_TRAIN_STREAM, _EVAL_STREAM = 0, 1
# The n-th attempt to draw another document's segment has the stream _NEGATIVE_STREAM + n.
_NEGATIVE_STREAM = 1024
_MAX_NEGATIVE_ATTEMPTS = 64
# Uniform numbers of each row: for its segments, and the last for its number of predictions.
_NUM_UNIFORMS = 8


class PretrainingData:
    """Batches of one split of a prepared corpus.

    Args:
      corpus: where the text is.
      split: 'train' or 'validation'.
      settings: what to make of it; of the validation split, what they say of held-out batches.
      batch_size: rows of the global batch.
      seed: of order, segments and masks.
      num_steps: of the run; may be left out where the masked fraction does not change.

    Raises:
      UserError: if the split is empty, or was prepared for shorter sequences.
    """

    def __init__(
        self,
        corpus: PreparedCorpus,
        split: str,
        settings: PretrainingSettings,
        batch_size: int,
        seed: int,
        num_steps: int | None = None,
    ) -> None:
        if settings.sequence_length > corpus.sequence_length:
            raise UserError(
                f'pretraining.sequence_length is {settings.sequence_length}, but '
                f'{corpus.directory} was prepared for {corpus.sequence_length}; prepare it again '
                f'with --sequence_length={settings.sequence_length}.'
            )
        num_documents = corpus.manifest['counts'].get(f'documents/{split}', 0)
        if settings.sentence_loss == 'nsp' and num_documents < 2:
            raise UserError(
                f'pretraining.sentence_loss is nsp, which takes segments from other documents, but '
                f'the {split} split of {corpus.directory} has {num_documents}; use sop, or prepare '
                f'more documents.'
            )
        self._split = corpus.split(split)
        self._tokenizer = corpus.tokenizer
        self._settings = settings.held_out if split == 'validation' else settings
        self._batch_size = batch_size
        self._seed = seed
        self._num_steps = num_steps
        self._masker = NgramMasker(self._tokenizer, self._settings)

    def __len__(self) -> int:
        """How many chunks there are."""
        return len(self._split)

    @property
    def num_eval_batches(self) -> int:
        """Batches that hold every chunk once."""
        return -(-len(self) // self._batch_size)

    def batch(self, step: int, rows: range | None = None) -> HostBatch:
        """Rows of the global training batch of a step, all of them if `rows` is left out."""
        rows = rows or range(self._batch_size)
        positions = step * self._batch_size + np.arange(rows.start, rows.stop)
        indices = shuffled_indices(positions, len(self), self._seed)
        return self._examples(indices, step, rows, _TRAIN_STREAM, self._masked_fraction(step))

    def eval_batch(self, number: int, rows: range | None = None) -> HostBatch:
        """Rows of an evaluation batch: the same examples every time, each chunk once.

        They are shuffled, so that a few batches are a fair sample. Rows past the last chunk have
        weight zero.
        """
        rows = rows or range(self._batch_size)
        positions = number * self._batch_size + np.arange(rows.start, rows.stop)
        indices = shuffled_indices(positions % len(self), len(self), self._seed)
        fraction = self._settings.held_out.masked_fraction
        batch = self._examples(indices, number, rows, _EVAL_STREAM, fraction)
        is_real = positions < len(self)
        batch['masked_weights'] *= is_real[:, None]
        batch['sentence_weights'] *= is_real
        return batch

    def _masked_fraction(self, step: int) -> float:
        if self._settings.final_masked_fraction is None:
            return self._settings.masked_fraction
        if self._num_steps is None:
            raise ValueError('num_steps is needed where the masked fraction changes.')
        return self._settings.masked_fraction_at(step, self._num_steps)

    def _examples(
        self,
        indices: Int[np.ndarray, 'batch'],
        step: int,
        rows: range,
        stream: int,
        masked_fraction: float,
    ) -> HostBatch:
        settings = self._settings
        chunks = self._split.read(indices)
        num_words = _NUM_UNIFORMS + self._masker.num_words
        bits = self._bits(num_words, step, rows, stream)
        uniforms = uniform(bits[:, :_NUM_UNIFORMS])
        segments = self._segments(chunks, uniforms, step, rows, stream)
        batch = assemble(
            segments,
            settings.sequence_length,
            self._tokenizer,
            has_sentence_loss=settings.sentence_loss != 'none',
        )
        self._masker.mask(
            batch,
            segments.first_length,
            uniforms[:, -1],
            bits[:, _NUM_UNIFORMS:],
            masked_fraction,
        )
        return batch

    def _bits(
        self, num_words: int, step: int, rows: range, stream: int
    ) -> UInt64[np.ndarray, 'batch words']:
        return random_bits(num_words, seed=self._seed, stream=stream, step=step, rows=rows)

    def _segments(
        self,
        chunks: Chunks,
        uniforms: Float64[np.ndarray, 'batch uniforms'],
        step: int,
        rows: range,
        stream: int,
    ) -> Segments:
        """Two segments of each chunk, those of half the rows swapped or replaced."""
        u_short, u_target, u_start, u_cut, u_label = uniforms[:, :5].T
        capacity = self._settings.sequence_length - _NUM_SPECIAL
        shorter = 2 + (u_target * (capacity - 1)).astype(np.int64)
        target = np.where(u_short < self._settings.short_fraction, shorter, capacity)
        segments = split_chunks(chunks, target, u_start, u_cut, u_label)
        match self._settings.sentence_loss:
            case 'sop':
                return swap_labelled(segments)
            case 'nsp':
                negative_chunks, u_sentence = self._negative_chunks(
                    chunks, segments.label, step, rows, stream
                )
                return replace_labelled(segments, target, negative_chunks, u_sentence)
            case _:
                return dataclasses.replace(segments, label=np.zeros_like(segments.label))

    def _negative_chunks(
        self,
        chunks: Chunks,
        is_needed: Bool[np.ndarray, 'batch'],
        step: int,
        rows: range,
        stream: int,
    ) -> tuple[Chunks, Float64[np.ndarray, 'batch']]:
        """A chunk of another document for each row that needs one, and where to start in it."""
        indices = np.zeros(len(rows), np.int64)
        u_sentence = np.zeros(len(rows))
        is_open = np.ones(len(rows), bool)
        for attempt in range(_MAX_NEGATIVE_ATTEMPTS):
            bits = self._bits(2, step, rows, _NEGATIVE_STREAM * (stream + 1) + attempt)
            u_index, u_next = uniform(bits[:, :2]).T
            indices = np.where(is_open, (u_index * len(self)).astype(np.int64), indices)
            u_sentence = np.where(is_open, u_next, u_sentence)
            negative_chunks = self._split.read(indices)
            is_open = is_needed & (negative_chunks.documents == chunks.documents)
            if not is_open.any():
                return negative_chunks, u_sentence
        raise UserError(
            'pretraining.sentence_loss is nsp, which takes segments from other documents, but '
            'almost all of a split is one document; use sop, or a corpus of more documents.'
        )
