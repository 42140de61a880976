"""Masked positions: every ratio that docs/REFERENCE.md, 2, names."""

import collections

import numpy as np
import pytest

from albert_jax.data.dataset import PreparedCorpus
from albert_jax.data.masking import choose_ngrams
from albert_jax.runs.pretraining import PretrainingSettings
from tests.pretraining_rows import LENGTH, make_data, unmasked


@pytest.fixture(scope='module')
def corpus(corpus_directory) -> PreparedCorpus:
    return PreparedCorpus(corpus_directory)


@pytest.fixture(scope='module')
def many(corpus):
    data = make_data(corpus, batch_size=512)
    batches = [data.batch(step) for step in range(20)]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def test_fifteen_percent_of_the_tokens_are_to_be_predicted(many):
    lengths = many['attention_mask'].sum(1)
    counts = many['masked_weights'].sum(1)
    assert counts.sum() / lengths.sum() == pytest.approx(0.15, abs=0.001)
    # At every length, and never far from it in any row.
    for low, high in ((16, 64), (64, 120), (120, 129)):
        rows = (lengths >= low) & (lengths < high)
        assert counts[rows].sum() / lengths[rows].sum() == pytest.approx(0.15, abs=0.004)
    assert np.abs(counts - 0.15 * lengths).mean() < 1.5
    # Not 20 positions: a full sequence of 512 has its 77.
    assert PretrainingSettings().max_predictions_per_sequence == 80


def test_predictions_are_distinct_tokens_of_the_text(corpus, many):
    tokenizer = corpus.tokenizer
    for positions, weights, ids in zip(
        many['masked_positions'][:500], many['masked_weights'][:500], unmasked(many)[:500],
        strict=True,
    ):  # fmt: skip
        chosen = positions[weights > 0]
        assert (np.diff(chosen) > 0).all()
        special = [tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id]
        assert not np.isin(ids[chosen], special).any()
    padding = many['masked_weights'] == 0
    assert (many['masked_ids'][padding] == 0).all()
    assert (many['masked_positions'][padding] == 0).all()


def test_eighty_ten_ten(corpus, many):
    rows, slots = np.nonzero(many['masked_weights'])
    hidden = many['input_ids'][rows, many['masked_positions'][rows, slots]]
    truth = many['masked_ids'][rows, slots]
    is_mask = hidden == corpus.tokenizer.mask_id
    is_same = hidden == truth
    assert len(truth) > 100_000
    assert is_mask.mean() == pytest.approx(0.8, abs=0.005)
    # A random piece is the true one now and then.
    assert is_same.mean() == pytest.approx(0.1 + 0.1 / 995, abs=0.005)
    random = hidden[~is_mask & ~is_same]
    assert len(random) / len(truth) == pytest.approx(0.1, abs=0.005)
    assert np.isin(random, corpus.tokenizer.ordinary_ids).all()
    # All ordinary pieces alike: no count is far from the mean of about 20.
    counts = np.bincount(random, minlength=1000)[corpus.tokenizer.ordinary_ids]
    assert counts.min() > 0
    expected = counts.mean()
    assert ((counts - expected) ** 2 / expected).mean() == pytest.approx(1, abs=0.2)


def test_words_are_masked_whole(corpus, many):
    starts_word = corpus.tokenizer.starts_word
    special = [corpus.tokenizer.cls_id, corpus.tokenizer.sep_id, corpus.tokenizer.pad_id]
    ids = unmasked(many)
    is_masked = np.zeros(ids.shape, bool)
    rows, slots = np.nonzero(many['masked_weights'])
    is_masked[rows, many['masked_positions'][rows, slots]] = True
    # A piece that continues a word is masked exactly if the piece before it is.
    is_text = ~np.isin(ids, special)
    continues = ~starts_word[ids] & is_text
    continues[:, 1:] &= is_text[:, :-1]
    continues[:, 0] = False
    assert continues.sum() > 10_000
    before = np.roll(is_masked, 1, axis=1)
    assert (is_masked[continues] == before[continues]).all()


def test_ngram_lengths_follow_one_over_n(corpus):
    data = make_data(corpus, batch_size=512, short_fraction=0.0)
    lengths = collections.Counter()
    for step in range(8):
        # The n-grams themselves are asked for: neighbouring ones cannot be told apart in a batch.
        recorded = {}
        masker = data._masker
        original = masker._ngrams

        def record(input_ids, *others, recorded=recorded, original=original):
            ngrams = original(input_ids, *others)
            recorded['ngram_ids'], recorded['ids'] = ngrams.ids, input_ids.copy()
            return ngrams

        masker._ngrams = record
        batch = data.batch(step)
        masker._ngrams = original
        ngram_ids, ids = recorded['ngram_ids'], recorded['ids']
        starts = corpus.tokenizer.starts_word[ids]
        starts[:, 1] = True
        seps = batch['token_type_ids'].argmax(1)
        starts[np.arange(len(ids)), seps] = True
        rows, slots = np.nonzero(batch['masked_weights'])
        columns = batch['masked_positions'][rows, slots]
        chosen = ngram_ids[rows, columns]
        words = collections.Counter()
        for row, tile, column in zip(rows, chosen, columns, strict=True):
            words[row, tile] += starts[row, column]
        # The last n-gram of a row may be cut by its end.
        lengths.update(n for (row, tile), n in words.items() if tile < ngram_ids[row].max())
    total = sum(lengths.values())
    assert total > 20_000 and set(lengths) == {1, 2, 3}
    fractions = [lengths[n] / total for n in (1, 2, 3)]
    assert fractions == pytest.approx([0.545, 0.273, 0.182], abs=0.012)


@pytest.mark.parametrize('max_ngram', [1, 2])
def test_ngrams_can_be_shorter(corpus, max_ngram):
    batch = make_data(corpus, max_ngram=max_ngram).batch(0)
    assert batch['masked_weights'].sum() / batch['attention_mask'].sum() == pytest.approx(
        0.15, abs=0.01
    )


def test_every_position_is_masked_equally_often(many):
    full = many['attention_mask'].sum(1) >= LENGTH - 8
    rows, slots = np.nonzero(many['masked_weights'] * full[:, None])
    counts = np.bincount(many['masked_positions'][rows, slots], minlength=LENGTH)[2:100]
    assert counts.std() / counts.mean() < 0.1


def test_choosing_reaches_the_budget_on_average_with_the_sizes_as_they_are():
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 6, (20_000, 60))
    sizes[:, 50:] = 0
    bits = rng.integers(0, 2**32, sizes.shape, dtype=np.uint32)
    chosen = choose_ngrams(sizes, np.full(20_000, 19.2), 24, rng.random(20_000), bits)
    spent = (sizes * chosen).sum(1)
    assert spent.max() <= 24 and not chosen[:, 50:].any()
    assert spent.mean() == pytest.approx(19.2, abs=0.05)
    fractions = np.bincount(sizes[chosen], minlength=6)[1:] / chosen.sum()
    assert fractions == pytest.approx([0.2] * 5, abs=0.005)
    # What cannot fit is not chosen.
    none = choose_ngrams(np.full((1, 4), 9), np.array([3.0]), 8, np.array([0.9]), bits[:1])
    assert not none.any()
