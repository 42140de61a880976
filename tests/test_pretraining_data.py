"""batch(step): its purity, its segments, and what is refused."""

import collections
import json

import numpy as np
import pytest

from albert_jax.cli.errors import UserError
from albert_jax.data.corpus import Source
from albert_jax.data.dataset import PreparedCorpus
from albert_jax.data.preparation import PreparationSettings, prepare
from albert_jax.runs.pretraining import PretrainingSettings
from tests.pretraining_rows import LENGTH, assert_same_batch, chunks_of, make_data, segments


@pytest.fixture(scope='module')
def corpus(corpus_directory) -> PreparedCorpus:
    return PreparedCorpus(corpus_directory)


# Purity.
def test_a_batch_depends_on_seed_and_step_only(corpus):
    first, second = make_data(corpus), make_data(corpus)
    second.batch(3)
    assert_same_batch(first.batch(7), second.batch(7))
    assert (first.batch(7)['input_ids'] != first.batch(8)['input_ids']).any()
    other = make_data(corpus, seed=1)
    assert (first.batch(7)['input_ids'] != other.batch(7)['input_ids']).any()


@pytest.mark.parametrize('num_hosts', [2, 8, 64])
@pytest.mark.parametrize('loss', ['sop', 'nsp'])
def test_hosts_make_the_rows_of_one_global_batch(corpus, num_hosts, loss):
    data = make_data(corpus, sentence_loss=loss)
    global_batch = data.batch(5)
    size = 256 // num_hosts
    parts = [data.batch(5, range(host * size, (host + 1) * size)) for host in range(num_hosts)]
    together = {name: np.concatenate([part[name] for part in parts]) for name in global_batch}
    assert_same_batch(together, global_batch)


def test_an_epoch_reads_every_chunk_once(corpus):
    data = make_data(corpus, batch_size=16, short_fraction=0.0, sentence_loss='none')
    starts = {tuple(tokens[:20]) for tokens, _ in chunks_of(corpus)}
    seen = collections.Counter()
    for step in range(len(data) // 16):
        for first, second in segments(corpus, data.batch(step)):
            seen[tuple((first + second)[:20])] += 1
    assert len(seen) >= 0.97 * min(len(starts), len(data) // 16 * 16)


def test_evaluation_covers_every_chunk_once_and_never_changes(corpus):
    data = make_data(corpus, batch_size=24, split='validation')
    assert len(data) % 24
    batches = [data.eval_batch(n) for n in range(data.num_eval_batches)]
    seen = [
        tuple(first + second) for batch in batches for first, second in segments(corpus, batch)
    ][: len(data)]
    all_chunks = {tuple(tokens) for tokens, _ in chunks_of(corpus, 'validation')}
    full = make_data(corpus, 24, 'validation', short_fraction=0.0, sentence_loss='none')
    texts = [
        tuple(first + second)
        for n in range(full.num_eval_batches)
        for first, second in segments(corpus, full.eval_batch(n))
    ][: len(data)]
    assert len(seen) == len(data) and set(texts) == all_chunks
    assert_same_batch(data.eval_batch(1), make_data(corpus, 24, 'validation').eval_batch(1))
    last = data.eval_batch(data.num_eval_batches - 1)
    padding = np.arange(24) >= len(data) % 24
    assert last['masked_weights'][padding].sum() == 0
    assert last['sentence_weights'][padding].sum() == 0


def test_a_second_epoch_has_other_masks(corpus):
    data = make_data(corpus, batch_size=len(make_data(corpus)))
    first, second = data.batch(0), data.batch(1)
    assert (np.sort(first['masked_ids'], 0) != np.sort(second['masked_ids'], 0)).any()


# Segments.
def test_segments_are_adjacent_runs_of_sentences_and_half_are_swapped(corpus):
    boundaries = collections.defaultdict(set)
    for tokens, edges in chunks_of(corpus):
        for begin in range(len(edges) - 1):
            for end in range(begin + 1, len(edges)):
                boundaries[tuple(tokens[edges[begin] : edges[end]])].add(True)
    data = make_data(corpus, batch_size=512, short_fraction=0.0)
    labels = []
    for step in range(4):
        batch = data.batch(step)
        for (first, second), label, weight in zip(
            segments(corpus, batch), batch['sentence_labels'], batch['sentence_weights'],
            strict=True,
        ):  # fmt: skip
            if not second:
                # One segment: never labelled swapped, and not counted.
                assert label == 0 and weight == 0
                continue
            assert weight == 1
            labels.append(label)
            ordered = second + first if label else first + second
            assert tuple(ordered) in boundaries
            assert tuple(first) in boundaries and tuple(second) in boundaries
    assert len(labels) > 1000
    assert np.mean(labels) == pytest.approx(0.5, abs=0.04)


def test_a_chunk_of_one_sentence_is_never_swapped(tmp_path, vocabulary):
    sentence = 'one long sentence without any end that goes on and on about nothing at all'
    (tmp_path / 'a.jsonl').write_text(
        ''.join(json.dumps({'text': f'{sentence} {n}'}) + '\n' for n in range(200))
    )
    source = [Source('jsonl', str(tmp_path / 'a.jsonl'))]
    prepare(source, tmp_path / 'c', vocabulary, PreparationSettings(sequence_length=64), 1)
    for loss in ('sop', 'nsp'):
        data = make_data(
            PreparedCorpus(tmp_path / 'c'), 512, sequence_length=64, sentence_loss=loss
        )
        batch = data.batch(0)
        assert batch['sentence_labels'].sum() == 0 and batch['sentence_weights'].sum() == 0
        assert batch['token_type_ids'].sum() == 0


def test_ten_percent_are_shorter(corpus):
    lengths = {
        fraction: np.concatenate(
            [make_data(corpus, 512, short_fraction=fraction).batch(s)['attention_mask'].sum(1)
             for s in range(8)]
        )
        for fraction in (0.0, 0.1, 0.999)
    }  # fmt: skip
    base, short, always = (np.mean(lengths[f] < 60) for f in (0.0, 0.1, 0.999))
    assert (short - base) / (always - base) == pytest.approx(0.1, abs=0.03)
    assert lengths[0.999].min() >= 3 and lengths[0.0].max() <= LENGTH
    # Cut to any length, alike.
    assert np.mean(lengths[0.999]) < 0.6 * LENGTH


def test_nsp_takes_the_second_segment_from_another_document(corpus):
    by_document = collections.defaultdict(list)
    read = corpus.split('train')
    chunks = read.read(np.arange(len(read)))
    for i, document in enumerate(chunks.documents):
        tokens = chunks.tokens[chunks.starts[i] : chunks.starts[i + 1]]
        by_document[int(document)].append(' '.join(map(str, tokens)))
    texts = {document: f' {" | ".join(parts)} ' for document, parts in by_document.items()}

    def documents_of(ids):
        return {d for d, text in texts.items() if f' {" ".join(map(str, ids))} ' in text}

    batch = make_data(corpus, 256, sentence_loss='nsp', short_fraction=0.0).batch(0)
    labels = batch['sentence_labels'][batch['sentence_weights'] > 0]
    assert labels.mean() == pytest.approx(0.5, abs=0.1)
    num_checked = 0
    for (first, second), label in zip(
        segments(corpus, batch), batch['sentence_labels'], strict=True
    ):
        if min(len(first), len(second)) < 12:
            continue  # too short to tell where it is from
        num_checked += 1
        left, right = documents_of(first), documents_of(second)
        assert left and right
        # A sentence may stand in several documents.
        assert len(left | right) > 1 if label else left & right
    assert num_checked > 100


def test_without_a_sentence_loss_nothing_is_swapped_or_counted(corpus):
    batch = make_data(corpus, sentence_loss='none').batch(0)
    assert batch['sentence_labels'].sum() == 0 and batch['sentence_weights'].sum() == 0


def test_shorter_sequences_than_prepared_are_windows_of_the_chunks(corpus):
    batch = make_data(corpus, sequence_length=32, sentence_loss='none').batch(0)
    assert batch['input_ids'].shape == (256, 32)
    texts = [' ' + ' '.join(map(str, tokens)) + ' ' for tokens, _ in chunks_of(corpus)]
    corpus_text = '|'.join(texts)
    for first, second in list(segments(corpus, batch))[:50]:
        assert f' {" ".join(map(str, first + second))} ' in corpus_text


# Refusals.
def test_longer_sequences_than_prepared_are_refused(corpus):
    with pytest.raises(UserError, match='is 512, but .* was prepared for 128; prepare it again'):
        make_data(corpus, sequence_length=512)


def test_nsp_needs_more_than_one_document(tmp_path, vocabulary):
    text = ' '.join(f'This is sentence number {n}.' for n in range(400))
    (tmp_path / 'a.txt').write_text(text)
    source = [Source('text', str(tmp_path / 'a.txt'))]
    settings = PreparationSettings(sequence_length=64, validation_fraction=0.0)
    prepare(source, tmp_path / 'c', vocabulary, settings, 1)
    with pytest.raises(UserError, match='takes segments from other documents, but the train split'):
        make_data(PreparedCorpus(tmp_path / 'c'), 8, sequence_length=64, sentence_loss='nsp')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'sentence_loss': 'sos'}, 'must be one of sop, nsp, none'),
        ({'masked_fraction': 0.0}, 'must be above 0'),
        ({'short_fraction': 1.5}, 'must be at least 0 and below 1'),
        ({'max_ngram': 0}, 'must be above 0'),
        ({'sequence_length': 4}, 'sequence_length is 4'),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        PretrainingSettings(**change)
