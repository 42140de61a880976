"""batch(step): segments, sentence order and n-gram masks, as a pure function of (seed, step).

Sections 3.1 and 4.1 of the paper; details in docs/REFERENCE.md, 2. Every random number comes from a
counter-based generator addressed by (seed, step, row of the global batch), so that a run resumes
from a number, and any host can make any rows of the same global batch.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int, UInt, UInt64

from albert_jax.cli.errors import UserError
from albert_jax.data.dataset import Chunks, PreparedCorpus
from albert_jax.data.permutation import shuffled_indices
from albert_jax.runs.pretraining import PretrainingSettings

HostBatch = dict[str, np.ndarray]

# Raised by whoever changes what a batch of the same seed and step holds: runs of another version
# do not resume. A golden digest in the tests guards it.
DATA_VERSION = 1

_NUM_SPECIAL = 3  # [CLS] A [SEP] B [SEP]
_TRAIN_STREAM, _EVAL_STREAM = 0, 1
# The n-th attempt to draw another document's segment has the stream _NEGATIVE_STREAM + n.
_NEGATIVE_STREAM = 1024
_MAX_NEGATIVE_ATTEMPTS = 64
# Uniform numbers of each row: for its shape, and for the segment that it may take elsewhere.
_NUM_UNIFORMS = 8
# Predictions come in whole words, so that a row may need a few places more than its share.
_PLACES_MULTIPLE = 8


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


@dataclasses.dataclass(frozen=True)
class _Segments:
    """Where the one or two segments of each row are in the tokens, and what they are."""

    tokens: UInt[np.ndarray, 'tokens']
    first: Int[np.ndarray, 'batch']
    first_length: Int[np.ndarray, 'batch']
    second: Int[np.ndarray, 'batch']
    # Zero where there is no second segment.
    second_length: Int[np.ndarray, 'batch']
    # 1: swapped (SOP) or of another document (NSP).
    label: Bool[np.ndarray, 'batch']


class PretrainingData:
    """Batches of one split of a prepared corpus.

    Args:
      corpus: where the text is.
      split: 'train' or 'validation'.
      settings: what to make of it.
      batch_size: rows of the global batch.
      seed: of order, segments and masks.

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
        self._settings = settings
        self._batch_size = batch_size
        self._seed = seed
        weights = 1 / np.arange(1, settings.max_ngram + 1)
        self._ngram_cdf = np.cumsum(weights / weights.sum())

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
        return self._examples(indices, step, rows, _TRAIN_STREAM)

    def eval_batch(self, number: int, rows: range | None = None) -> HostBatch:
        """Rows of an evaluation batch: the same examples every time, each chunk once.

        They are shuffled, so that a few batches are a fair sample. Rows past the last chunk have
        weight zero.
        """
        rows = rows or range(self._batch_size)
        positions = number * self._batch_size + np.arange(rows.start, rows.stop)
        indices = shuffled_indices(positions % len(self), len(self), self._seed)
        batch = self._examples(indices, number, rows, _EVAL_STREAM)
        is_real = positions < len(self)
        batch['masked_weights'] *= is_real[:, None]
        batch['sentence_weights'] *= is_real
        return batch

    def _examples(
        self, indices: Int[np.ndarray, 'batch'], step: int, rows: range, stream: int
    ) -> HostBatch:
        length = self._settings.sequence_length
        chunks = self._split.read(indices)
        num_bits = (
            _NUM_UNIFORMS + length // 4 + length // 2 + self._settings.max_predictions_per_sequence
        )
        bits = self._bits(num_bits, step, rows, stream)
        uniforms = _uniform(bits[:, :_NUM_UNIFORMS])
        segments = self._segments(chunks, uniforms, step, rows, stream)
        batch = self._assemble(segments)
        self._mask(batch, segments, uniforms[:, -1], bits[:, _NUM_UNIFORMS:])
        return batch

    def _bits(
        self, num_words: int, step: int, rows: range, stream: int
    ) -> UInt64[np.ndarray, 'batch words']:
        """Random words of each row, whatever the rows around it."""
        # Philox makes four words a count.
        counts = -(-num_words // 4)
        philox = np.random.Philox(
            key=[self._seed & (2**64 - 1), 0], counter=[rows.start * counts, step, stream, 0]
        )
        words = philox.random_raw(len(rows) * counts * 4)
        return words.reshape(len(rows), counts * 4)

    def _segments(
        self,
        chunks: Chunks,
        uniforms: Float64[np.ndarray, 'batch uniforms'],
        step: int,
        rows: range,
        stream: int,
    ) -> _Segments:
        """Two adjacent runs of sentences of each chunk, then swapped or replaced for half."""
        u_short, u_target, u_start, u_cut, u_label = uniforms[:, :5].T
        edges, num_sentences = chunks.edges, chunks.num_sentences
        row = np.arange(len(edges))
        column = np.arange(edges.shape[1])
        capacity = self._settings.sequence_length - _NUM_SPECIAL
        shorter = 2 + (u_target * (capacity - 1)).astype(np.int64)
        target = np.where(u_short < self._settings.short_fraction, shorter, capacity)

        # A window of whole sentences that fills the target, starting anywhere it can be filled.
        total = edges[:, -1]
        num_starts = (total[:, None] - edges >= target[:, None]).sum(1)
        start = (u_start * np.maximum(num_starts, 1)).astype(np.int64)
        start = np.minimum(start, np.maximum(num_sentences - 2, 0))
        begin = edges[row, start]
        is_inside = (edges <= (begin + target)[:, None]) & (column <= num_sentences[:, None])
        # Two sentences even where only one fits: they are then cut at their outer ends.
        end = np.maximum(is_inside.sum(1) - 1, np.minimum(start + 2, num_sentences))
        has_two = end - start >= 2
        cut = np.where(has_two, start + 1 + (u_cut * (end - start - 1)).astype(np.int64), end)
        boundary = edges[row, cut]
        second_length = edges[row, end] - boundary
        first_length = boundary - begin
        kept = np.maximum(target - second_length, target // 2)
        first_length = np.minimum(first_length, np.where(has_two, kept, target))
        first = np.where(has_two, boundary - first_length, begin)
        second_length = np.minimum(second_length, target - first_length)

        first, second = chunks.starts[:-1] + first, chunks.starts[:-1] + boundary
        tokens = chunks.tokens
        # A chunk that cannot make two segments is never labelled (Google's leak, albert#234).
        label = has_two & (u_label < 0.5)
        match self._settings.sentence_loss:
            case 'sop':
                first, second = np.where(label, second, first), np.where(label, first, second)
                first_length, second_length = (
                    np.where(label, second_length, first_length),
                    np.where(label, first_length, second_length),
                )
            case 'nsp':
                negative_chunks, u_sentence = self._negative_chunks(
                    chunks, label, step, rows, stream
                )
                sentence = (u_sentence * negative_chunks.num_sentences).astype(np.int64)
                offset = negative_chunks.edges[row, sentence]
                room = np.minimum(negative_chunks.edges[:, -1] - offset, target - first_length)
                offset = offset + negative_chunks.starts[:-1] + len(tokens)
                second = np.where(label, offset, second)
                second_length = np.where(label, room, second_length)
                tokens = np.concatenate([tokens, negative_chunks.tokens])
            case _:
                label = np.zeros_like(label)
        return _Segments(tokens, first, first_length, second, second_length, label)

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
            u_index, u_next = _uniform(bits[:, :2]).T
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

    def _assemble(self, segments: _Segments) -> HostBatch:
        """[CLS] first [SEP] second [SEP], padded; or [CLS] first [SEP]."""
        tokenizer = self._tokenizer
        first_length, second_length = segments.first_length, segments.second_length
        row = np.arange(len(first_length))
        column = np.arange(self._settings.sequence_length, dtype=np.int32)
        first_sep = (first_length + 1).astype(np.int32)
        has_second = second_length > 0
        last_sep = np.where(has_second, first_sep + 1 + second_length, first_sep).astype(np.int32)
        is_second = column > first_sep[:, None]
        # Both segments are read by adding the column to a number of the row.
        in_first = (segments.first - 1).astype(np.int32)
        in_second = (segments.second - first_sep - 1).astype(np.int32)
        source = np.where(is_second, in_second[:, None], in_first[:, None]) + column
        source = np.clip(source, 0, len(segments.tokens) - 1)
        input_ids = segments.tokens[source].astype(np.int32)
        is_present = column <= last_sep[:, None]
        input_ids *= is_present
        if tokenizer.pad_id:
            input_ids[~is_present] = tokenizer.pad_id
        input_ids[:, 0] = tokenizer.cls_id
        input_ids[row, first_sep] = tokenizer.sep_id
        input_ids[row, last_sep] = tokenizer.sep_id
        has_label = has_second & (self._settings.sentence_loss != 'none')
        return {
            'input_ids': input_ids,
            'attention_mask': is_present.astype(np.int32),
            'token_type_ids': (is_second & is_present).astype(np.int32),
            'sentence_labels': segments.label.astype(np.int32),
            'sentence_weights': has_label.astype(np.float32),
        }

    def _mask(
        self,
        batch: HostBatch,
        segments: _Segments,
        u_budget: Float64[np.ndarray, 'batch'],
        bits: UInt64[np.ndarray, 'batch words'],
    ) -> None:
        """Chooses n-grams of whole words to predict, and hides them in `input_ids`."""
        input_ids = batch['input_ids']
        num_rows, length = input_ids.shape
        max_predictions_per_sequence = self._settings.max_predictions_per_sequence
        ngram_bits = np.ascontiguousarray(bits[:, : length // 4]).view(np.uint16)
        key_bits = np.ascontiguousarray(bits[:, length // 4 :][:, : length // 2]).view(np.uint32)
        choice_bits = bits[:, length // 4 + length // 2 :][:, :max_predictions_per_sequence]

        ngram_ids, sizes = self._ngrams(batch, segments, ngram_bits)
        budget = self._settings.masked_fraction * batch['attention_mask'].sum(1, dtype=np.int64)
        is_chosen = choose_ngrams(sizes, budget, max_predictions_per_sequence, u_budget, key_bits)
        # Tile 0 is everything that cannot be masked.
        is_masked = np.take_along_axis(is_chosen, ngram_ids, axis=1)

        rows, columns = np.nonzero(is_masked)
        counts = np.bincount(rows, minlength=num_rows)
        places = np.arange(len(rows)) - np.repeat(counts.cumsum() - counts, counts)
        masked_positions = np.zeros((num_rows, max_predictions_per_sequence), np.int32)
        masked_positions[rows, places] = columns
        weights = np.arange(max_predictions_per_sequence) < counts[:, None]
        masked_ids = np.take_along_axis(input_ids, masked_positions, axis=1) * weights

        hidden = self._corrupt_tokens(masked_ids, choice_bits)
        input_ids[rows, columns] = hidden[rows, places]
        batch['masked_positions'] = masked_positions
        batch['masked_ids'] = masked_ids
        batch['masked_weights'] = weights.astype(np.float32)

    def _ngrams(
        self,
        batch: HostBatch,
        segments: _Segments,
        bits: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Cuts each row into consecutive n-grams of words with independent lengths n.

        A choice among them that does not look at n then has lengths of exactly p(n) ∝ 1/n.

        Returns:
          The n-gram that each token belongs to, from 1, 0 for special pieces and padding; and
          the number of tokens of each n-gram.
        """
        input_ids = batch['input_ids']
        num_rows, length = input_ids.shape
        row = np.arange(num_rows)
        column = np.arange(length, dtype=np.int32)
        first_sep = (segments.first_length + 1)[:, None]
        last = batch['attention_mask'].sum(1, dtype=np.int64)[:, None] - 1
        is_token = (column > 0) & (column < last) & (column != first_sep)
        starts_word = self._tokenizer.starts_word[input_ids]
        starts_word[:, 1] = True
        # A segment starts with a word, whatever its first piece looks like.
        starts_word[row, np.minimum(first_sep[:, 0] + 1, length - 1)] = True
        starts_word &= is_token
        word = starts_word.cumsum(1, dtype=np.int32)

        thresholds = (self._ngram_cdf * 2**16).astype(np.int64)
        ngram_length = np.ones(bits.shape, np.int32)
        for threshold in thresholds[:-1]:
            ngram_length += bits >= threshold
        # Words count from 1; the n-grams start at words 1, 1 + n₀, 1 + n₀ + n₁, …
        next_start = 1 + ngram_length.cumsum(1, dtype=np.int32)
        starts_ngram = np.zeros((num_rows, length + 1), bool)
        starts_ngram[:, 1] = True
        np.put_along_axis(starts_ngram, np.minimum(next_start, length), True, axis=1)
        ngram_of_word = starts_ngram.cumsum(1, dtype=np.int32)
        ngram_of_word[:, 0] = 0
        ngram_ids = np.take_along_axis(ngram_of_word, word, axis=1) * is_token
        num_ngram_ids = int(ngram_ids.max()) + 1
        flat = (ngram_ids + (row * num_ngram_ids)[:, None]).ravel()
        sizes = np.bincount(flat, minlength=num_rows * num_ngram_ids).reshape(
            num_rows, num_ngram_ids
        )
        sizes[:, 0] = 0
        return ngram_ids, sizes

    def _corrupt_tokens(
        self, ids: Int[np.ndarray, 'batch masked'], bits: UInt64[np.ndarray, 'batch masked']
    ) -> Int[np.ndarray, 'batch masked']:
        """What the model sees in place of each piece: 80 % [MASK], 10 % itself, 10 % any other."""
        tokenizer = self._tokenizer
        choice = _uniform(bits & np.uint64(0xFFFFFFFF << 32))
        ordinary = tokenizer.ordinary_ids
        draw = (bits & np.uint64(0xFFFFFFFF)) * np.uint64(len(ordinary)) >> np.uint64(32)
        hidden = np.where(choice < 0.9, ids, ordinary[draw.astype(np.int64)])
        return np.where(choice < 0.8, tokenizer.mask_id, hidden)


def _uniform(words: UInt64[np.ndarray, '*shape']) -> Float64[np.ndarray, '*shape']:
    return (words >> np.uint64(11)) * 2.0**-53


def choose_ngrams(
    sizes: Int[np.ndarray, 'batch ngrams'],
    budget: Float64[np.ndarray, 'batch'],
    max_tokens: int,
    u_budget: Float64[np.ndarray, 'batch'],
    bits: np.ndarray,
) -> Bool[np.ndarray, 'batch ngrams']:
    """Chooses n-grams in a random order until each row's budget of tokens is reached.

    The n-gram that reaches the budget is always taken: leaving out those that exceed it, as
    google-research/albert does, makes long n-grams rarer than 1/n. To come to the budget on
    average, a row stops early by what such a sum exceeds its bound by, `Σs(s − 1) / 2Σs` of its
    sizes s (the mean excess of a renewal process).

    Args:
      sizes: tokens of each n-gram; those of size 0 are never chosen.
      budget: tokens to choose in each row, on average.
      max_tokens: tokens to choose at most.
      u_budget: uniform numbers that round the bounds.
      bits: random words of 32 bits that decide the order, at least as many as n-grams.
    """
    num_rows, num_ngrams = sizes.shape
    row = np.arange(num_rows)[:, None]
    excess = (sizes * (sizes - 1)).sum(1) / np.maximum(2 * sizes.sum(1), 1)
    bound = np.floor(budget - excess + u_budget)
    # Key and index in one word: sorting words is much faster than sorting indices by key.
    keys = bits[:, :num_ngrams].astype(np.uint64) | np.uint64(1 << 32)
    keys = np.where(sizes > 0, keys, np.uint64(1 << 33)) << np.uint64(16)
    order = np.sort(keys | np.arange(num_ngrams, dtype=np.uint64), axis=1) & np.uint64(0xFFFF)
    # Each has at least a token, so that no more of them can be needed.
    order = order[:, :max_tokens].astype(np.int64)
    ordered = sizes[row, order]
    spent = ordered.cumsum(1)
    is_taken = (spent - ordered < bound[:, None]) & (spent <= max_tokens) & (ordered > 0)
    is_chosen = np.zeros(sizes.shape, bool)
    is_chosen[row, order] = is_taken
    return is_chosen
