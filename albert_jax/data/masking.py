"""N-gram masking: which words of a row the model predicts, and what it sees in their place.

Section 3.1 of the paper; details in docs/REFERENCE.md, 2. All random bits are given, so that the
masks are a pure function of them.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int, UInt16, UInt32, UInt64

from albert_jax.data.batch import HostBatch
from albert_jax.data.random_bits import uniform
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.runs.pretraining import PretrainingSettings


class _Ngrams(NamedTuple):
    """Each row cut into consecutive n-grams of whole words."""

    # The n-gram that each token belongs to, from 1; 0 for special pieces and padding.
    ids: Int[np.ndarray, 'batch length']
    # Tokens of each n-gram; zero for the n-gram 0.
    sizes: Int[np.ndarray, 'batch ngrams']


class NgramMasker:
    """Chooses n-grams of whole words to predict, and replaces them in the inputs.

    Args:
      tokenizer: of the corpus.
      settings: how much to mask, and the longest n-gram.
    """

    def __init__(self, tokenizer: Tokenizer, settings: PretrainingSettings) -> None:
        self._tokenizer = tokenizer
        self._settings = settings
        weights = 1 / np.arange(1, settings.max_ngram + 1)
        self._ngram_cdf = np.cumsum(weights / weights.sum())

    @property
    def num_words(self) -> int:
        """Random words of 64 bits that each row takes."""
        # 16 bits for the length of each n-gram, 32 for its place in the order of choice, and a
        # word for each prediction.
        length = self._settings.sequence_length
        return length // 4 + length // 2 + self._settings.max_predictions_per_sequence

    def mask(
        self,
        batch: HostBatch,
        first_length: Int[np.ndarray, 'batch'],
        u_budget: Float64[np.ndarray, 'batch'],
        bits: UInt64[np.ndarray, 'batch words'],
        masked_fraction: float | None = None,
    ) -> None:
        """Adds the predictions to a batch, and replaces their tokens in its `input_ids`.

        Args:
          batch: with `input_ids` and `attention_mask`; changed in place.
          first_length: tokens of the first segment.
          u_budget: uniform numbers that round the number of predictions.
          bits: at least `num_words` of each row.
          masked_fraction: of the tokens to predict; the settings' where left out.
        """
        if masked_fraction is None:
            masked_fraction = self._settings.masked_fraction
        input_ids = batch['input_ids']
        num_rows, length = input_ids.shape
        num_predictions = self._settings.max_predictions_per_sequence
        ngram_bits = np.ascontiguousarray(bits[:, : length // 4]).view(np.uint16)
        key_bits = np.ascontiguousarray(bits[:, length // 4 :][:, : length // 2]).view(np.uint32)
        choice_bits = bits[:, length // 4 + length // 2 :][:, :num_predictions]

        ngrams = self._ngrams(input_ids, batch['attention_mask'], first_length, ngram_bits)
        budget = masked_fraction * batch['attention_mask'].sum(1, dtype=np.int64)
        is_chosen = choose_ngrams(ngrams.sizes, budget, num_predictions, u_budget, key_bits)
        # N-gram 0, of everything that cannot be masked, is never chosen.
        is_masked = np.take_along_axis(is_chosen, ngrams.ids, axis=1)

        rows, columns = np.nonzero(is_masked)
        counts = np.bincount(rows, minlength=num_rows)
        # The index of each masked token among those of its row.
        index = np.arange(len(rows)) - np.repeat(counts.cumsum() - counts, counts)
        masked_positions = np.zeros((num_rows, num_predictions), np.int32)
        masked_positions[rows, index] = columns
        weights = np.arange(num_predictions) < counts[:, None]
        masked_ids = np.take_along_axis(input_ids, masked_positions, axis=1) * weights

        corrupted = self._corrupt_tokens(masked_ids, choice_bits)
        input_ids[rows, columns] = corrupted[rows, index]
        batch['masked_positions'] = masked_positions
        batch['masked_ids'] = masked_ids
        batch['masked_weights'] = weights.astype(np.float32)

    def _ngrams(
        self,
        input_ids: Int[np.ndarray, 'batch length'],
        attention_mask: Int[np.ndarray, 'batch length'],
        first_length: Int[np.ndarray, 'batch'],
        bits: UInt16[np.ndarray, 'batch bits'],
    ) -> _Ngrams:
        """Cuts each row into consecutive n-grams of words with independent lengths n.

        A choice among them that does not look at n then has lengths of exactly p(n) ∝ 1/n.
        """
        num_rows, length = input_ids.shape
        row = np.arange(num_rows)
        column = np.arange(length, dtype=np.int32)
        first_sep = (first_length + 1)[:, None]
        last = attention_mask.sum(1, dtype=np.int64)[:, None] - 1
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
        num_ngrams = int(ngram_ids.max()) + 1
        bins = (ngram_ids + (row * num_ngrams)[:, None]).ravel()
        sizes = np.bincount(bins, minlength=num_rows * num_ngrams).reshape(num_rows, num_ngrams)
        sizes[:, 0] = 0
        return _Ngrams(ngram_ids, sizes)

    def _corrupt_tokens(
        self, ids: Int[np.ndarray, 'batch masked'], bits: UInt64[np.ndarray, 'batch masked']
    ) -> Int[np.ndarray, 'batch masked']:
        """What the model sees in place of each piece: 80 % [MASK], 10 % itself, 10 % any other."""
        tokenizer = self._tokenizer
        choice = uniform(bits & np.uint64(0xFFFFFFFF << 32))
        ordinary = tokenizer.ordinary_ids
        draw = (bits & np.uint64(0xFFFFFFFF)) * np.uint64(len(ordinary)) >> np.uint64(32)
        unmasked = np.where(choice < 0.9, ids, ordinary[draw.astype(np.int64)])
        return np.where(choice < 0.8, tokenizer.mask_id, unmasked)


def choose_ngrams(
    sizes: Int[np.ndarray, 'batch ngrams'],
    budget: Float64[np.ndarray, 'batch'],
    max_tokens: int,
    u_budget: Float64[np.ndarray, 'batch'],
    bits: UInt32[np.ndarray, 'batch keys'],
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
