"""Any sizes and seeds: segments, n-gram masks, order of examples, and the rows of several hosts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Int64

from albert_jax.data.batch import HostBatch
from albert_jax.data.dataset import Chunks, PreparedCorpus, Split, id_dtype
from albert_jax.data.masking import NgramMasker, choose_ngrams
from albert_jax.data.segments import Segments, assemble, split_chunks, swap_labelled
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.runs.pretraining import PretrainingSettings
from albert_jax.tasks.batches import TrainBatches
from albert_jax.tasks.features import Features
from tests.pretraining_rows import make_data, unmasked

_SEEDS = st.integers(0, 2**32 - 1)
_INPUTS = ('input_ids', 'attention_mask', 'token_type_ids')


# Segments.
def _chunks(sentences: list[list[int]], tokenizer: Tokenizer, rng: np.random.Generator) -> Chunks:
    """A chunk for each list of the lengths of its sentences."""
    lengths = np.array([sum(chunk) for chunk in sentences])
    num_edges = 1 + max(map(len, sentences))
    edges = np.repeat(lengths[:, None], num_edges, axis=1)
    for row, chunk in enumerate(sentences):
        edges[row, : len(chunk) + 1] = np.cumsum([0, *chunk])
    tokens = rng.choice(tokenizer.ordinary_ids, lengths.sum()).astype(np.uint16)
    starts = np.concatenate([[0], lengths.cumsum()])
    numbers = np.array([len(chunk) for chunk in sentences])
    return Chunks(tokens, starts, edges, numbers, np.arange(len(sentences)))


_SENTENCES = st.lists(st.lists(st.integers(1, 25), min_size=1, max_size=8), min_size=1, max_size=6)


@given(sentences=_SENTENCES, seed=_SEEDS, capacity=st.integers(5, 60))
def test_segments_are_adjacent_cut_at_their_outer_ends_only(
    sentences: list[list[int]], seed: int, capacity: int, tokenizer: Tokenizer
) -> None:
    rng = np.random.default_rng(seed)
    chunks = _chunks(sentences, tokenizer, rng)
    target = rng.integers(2, capacity + 1, len(sentences))
    segments = split_chunks(chunks, target, *rng.random((3, len(sentences))))
    for row, edges in enumerate(chunks.edges.tolist()):
        first, second = segments.first[row], segments.second[row]
        first_length, second_length = segments.first_length[row], segments.second_length[row]
        begin, end = chunks.starts[row], chunks.starts[row + 1]
        assert begin <= first and second + second_length <= end
        assert first_length + second_length <= target[row] and first_length > 0
        if len(sentences[row]) == 1:
            assert not second_length
        if second_length:
            assert first + first_length == second and second - begin in edges
            # Both are whole, unless two sentences alone are too long.
            is_whole = first - begin in edges and second + second_length - begin in edges
            assert is_whole or first_length + second_length == target[row]
        else:
            assert not segments.label[row]
    _check_rows(segments, capacity + 3, tokenizer)
    _check_rows(swap_labelled(segments), capacity + 3, tokenizer)


def _check_rows(segments: Segments, length: int, tokenizer: Tokenizer) -> None:
    """Compares the rows that are made of segments with rows that are put together one by one."""
    batch = assemble(segments, length, tokenizer, has_sentence_loss=True)
    for row in range(len(segments.first)):
        first = segments.tokens[segments.first[row] :][: segments.first_length[row]].tolist()
        second = segments.tokens[segments.second[row] :][: segments.second_length[row]].tolist()
        ids = [tokenizer.cls_id, *first, tokenizer.sep_id]
        types = [0] * len(ids)
        if second:
            ids += [*second, tokenizer.sep_id]
            types += [1] * (len(second) + 1)
        padding = [0] * (length - len(ids))
        assert batch['input_ids'][row].tolist() == ids + [tokenizer.pad_id] * len(padding)
        assert batch['attention_mask'][row].tolist() == [1] * len(ids) + padding
        assert batch['token_type_ids'][row].tolist() == types + padding
        assert batch['sentence_weights'][row] == bool(second)


# Masks.
@given(
    sentences=_SENTENCES,
    seed=_SEEDS,
    fraction=st.floats(0.01, 0.99),
    max_ngram=st.integers(1, 6),
    length=st.integers(8, 80),
)
def test_whole_words_are_masked_as_many_as_wanted_and_nothing_else(
    sentences: list[list[int]],
    seed: int,
    fraction: float,
    max_ngram: int,
    length: int,
    tokenizer: Tokenizer,
) -> None:
    rng = np.random.default_rng(seed)
    chunks = _chunks(sentences, tokenizer, rng)
    target = np.full(len(sentences), length - 3)
    segments = split_chunks(chunks, target, *rng.random((3, len(sentences))))
    batch = assemble(segments, length, tokenizer, has_sentence_loss=True)
    before = {name: batch[name].copy() for name in _INPUTS}
    masking = PretrainingSettings(
        sequence_length=length, masked_fraction=fraction, max_ngram=max_ngram
    )
    masker = NgramMasker(tokenizer, masking)
    bits = rng.integers(0, 2**64, (len(sentences), masker.num_words), np.uint64)
    u_budget = rng.random(len(sentences))
    masker.mask(batch, segments.first_length, u_budget, bits)

    np.testing.assert_array_equal(unmasked(batch), before['input_ids'])
    for name in _INPUTS[1:]:
        np.testing.assert_array_equal(batch[name], before[name])
    for row, length_of_first in enumerate(segments.first_length.tolist()):
        num_predictions = int(batch['masked_weights'][row].sum())
        places = batch['masked_positions'][row][:num_predictions].tolist()
        assert len(set(places)) == num_predictions
        words = _words(before, row, length_of_first, tokenizer)
        # So no [CLS], [SEP] or padding either.
        assert set(places) == {place for word in words for place in word if word[0] in places}
        _check_number(num_predictions, words, before['attention_mask'][row].sum(), masking)


def _words(batch: HostBatch, row: int, first_length: int, tokenizer: Tokenizer) -> list[list[int]]:
    """The places of each word of a row; a segment starts with one."""
    segment_starts = (1, first_length + 2)
    words: list[list[int]] = []
    for place in range(1, int(batch['attention_mask'][row].sum()) - 1):
        if place == first_length + 1:
            continue
        starts = tokenizer.starts_word[batch['input_ids'][row, place]]
        if starts or place in segment_starts:
            words.append([])
        words[-1].append(place)
    return words


def _check_number(
    number: int, words: list[list[int]], num_tokens: int, masking: PretrainingSettings
) -> None:
    """Off the wanted number by less than the longest n-gram."""
    sizes = [len(word) for word in words]
    num = masking.max_ngram
    longest = max(sum(sizes[first : first + num]) for first in range(len(sizes)))
    wanted = masking.masked_fraction * num_tokens
    most = masking.max_predictions_per_sequence
    assert number <= most and number < wanted + longest
    assert number > min(wanted - longest, most - longest, sum(sizes) - 1)


@given(
    sizes=st.lists(st.lists(st.integers(0, 9), min_size=8, max_size=8), min_size=1, max_size=5),
    seed=_SEEDS,
    most=st.integers(1, 30),
)
def test_ngrams_are_chosen_as_one_by_one(sizes: list[list[int]], seed: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    budget, u_budget = rng.random(len(sizes)) * 30, rng.random(len(sizes))
    # Some keys are equal.
    bits = rng.integers(0, 6, (len(sizes), 8), dtype=np.uint32)
    chosen = choose_ngrams(np.array(sizes), budget, most, u_budget, bits)
    for row, of_row in enumerate(sizes):
        total = sum(of_row)
        excess = sum(size * (size - 1) for size in of_row) / (2 * total) if total else 0.0
        bound = np.floor(budget[row] - excess + u_budget[row])
        expected, spent = [False] * 8, 0
        for index in sorted(range(8), key=lambda index: (bits[row, index], index)):
            if of_row[index] and spent < bound:
                spent += of_row[index]
                if spent > most:
                    break
                expected[index] = True
        assert chosen[row].tolist() == expected


# The order of examples.
def _features(lengths: list[int]) -> Features:
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = np.arange(1, starts[-1] + 1, dtype=np.int32)
    numbers = {'number': np.arange(len(lengths), dtype=np.int32)}
    return Features(ids, starts, np.array(lengths, np.int32), numbers)


@given(
    lengths=st.lists(st.integers(2, 40), min_size=1, max_size=50),
    num_hosts=st.sampled_from([1, 2, 4]),
    rows_per_host=st.integers(1, 5),
    seed=_SEEDS,
    data=st.data(),
)
def test_an_epoch_has_each_example_once_on_one_host_wherever_it_resumes(
    lengths: list[int], num_hosts: int, rows_per_host: int, seed: int, data: st.DataObject
) -> None:
    features, batch_size = _features(lengths), num_hosts * rows_per_host
    batches = TrainBatches(features, batch_size, 40, 0, seed)
    per_epoch = batches.batches_per_epoch
    assert per_epoch == -(-len(lengths) // batch_size)
    for epoch in range(2):
        seen: list[int] = []
        for step in range(epoch * per_epoch, (epoch + 1) * per_epoch):
            for host in range(num_hosts):
                rows = range(host * rows_per_host, (host + 1) * rows_per_host)
                batch = batches.batch(step, rows)
                seen += batch['number'][batch['weights'] > 0].tolist()
                for row, number in enumerate(batch['number']):
                    mask = batch['attention_mask'][row].astype(bool)
                    np.testing.assert_array_equal(
                        batch['input_ids'][row][mask], features.sequence(int(number))
                    )
        assert sorted(seen) == list(range(len(lengths)))
    step = data.draw(st.integers(0, 3 * per_epoch), 'step')
    resumed = TrainBatches(features, batch_size, 40, 0, seed).batch(step, range(batch_size))
    for name, values in batches.batch(step, range(batch_size)).items():
        np.testing.assert_array_equal(resumed[name], values)


# Chunks of a corpus on several hosts.
class _RecordingSplit(Split):
    """Keeps the indices that are read."""

    def __init__(self, corpus: PreparedCorpus, name: str) -> None:
        super().__init__(corpus.directory, name, id_dtype(corpus.tokenizer.vocab_size))
        self.indices: list[int] = []

    def read(self, indices: Int64[np.ndarray, 'chunks']) -> Chunks:
        self.indices += indices.tolist()
        return super().read(indices)


@pytest.fixture(scope='module')
def corpus(corpus_directory) -> PreparedCorpus:
    return PreparedCorpus(corpus_directory)


@settings(max_examples=10)
@given(num_hosts=st.sampled_from([1, 2, 3, 8]), rows_per_host=st.integers(9, 40), seed=_SEEDS)
def test_each_chunk_is_on_one_host_once_an_epoch(
    num_hosts: int, rows_per_host: int, seed: int, corpus: PreparedCorpus
) -> None:
    batch_size = num_hosts * rows_per_host
    data = make_data(corpus, batch_size, 'validation', seed, sequence_length=16)
    split = data._split = _RecordingSplit(corpus, 'validation')
    hosts = [range(h * rows_per_host, (h + 1) * rows_per_host) for h in range(num_hosts)]
    num_batches = data.num_eval_batches
    parts = [data.eval_batch(number, rows) for number in range(num_batches) for rows in hosts]
    assert sorted(split.indices[: len(data)]) == list(range(len(data)))
    for name in ('masked_weights', 'sentence_weights'):
        assert not np.concatenate([part[name] for part in parts])[len(data) :].any()
    # Training goes on into the next epoch within a batch.
    split.indices = []
    for step in range(2 * num_batches):
        for rows in hosts:
            data.batch(step, rows)
    for epoch in (split.indices[: len(data)], split.indices[len(data) :][: len(data)]):
        assert sorted(epoch) == list(range(len(data)))
