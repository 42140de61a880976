"""Ragged features, length buckets and the batches made of them."""

import dataclasses

import numpy as np
import pytest

from albert_jax.data.tokenizer import Tokenizer
from albert_jax.tasks.batches import TrainBatches, bucket_lengths, eval_batches
from albert_jax.tasks.encoded import Encoder
from albert_jax.tasks.features import Features, FeaturesWriter, cached, truncate_pair
from albert_jax.tasks.text_examples import TextExample
from tests import tiny


@pytest.mark.parametrize('num_choices', [1, 4])
def test_an_epoch_has_every_example_once_in_batches_of_like_lengths(num_choices):
    rng = np.random.default_rng(1)
    features = tiny.features(rng.integers(3, 200, 403 * num_choices), num_choices)
    batches = TrainBatches(features, 32, 256, pad_id=0, seed=5)
    assert batches.batches_per_epoch == 13
    orders = []
    for epoch in range(2):
        seen, padded = [], 0
        for number in range(13):
            batch = batches.batch(epoch * 13 + number, range(32))
            is_real = batch['weights'] > 0
            seen += batch['labels'][is_real].tolist()
            assert batch['input_ids'].shape[1] in bucket_lengths(256)
            assert batch['input_ids'].shape[0] == 32 * num_choices
            padded += batch['input_ids'].size
        assert sorted(seen) == list(range(403))
        orders.append(seen)
        # Padding all to 256 would be a quarter more, or twice as much.
        assert padded < (0.8 if num_choices > 1 else 0.6) * 13 * 32 * num_choices * 256
    assert orders[0] != orders[1]


def test_a_batch_is_a_function_of_seed_and_step_and_each_host_has_its_rows():
    features = tiny.features(np.arange(3, 103))
    one, two = (TrainBatches(features, 16, 128, 0, seed=3) for _ in range(2))
    two.batch(0, range(16))
    global_batch = one.batch(9, range(16))
    halves = [two.batch(9, rows) for rows in (range(8), range(8, 16))]
    for name, rows in global_batch.items():
        np.testing.assert_array_equal(rows, np.concatenate([half[name] for half in halves]))
    other = TrainBatches(features, 16, 128, 0, seed=4).batch(9, range(16))
    assert not np.array_equal(np.sort(other['labels']), np.sort(global_batch['labels']))


def test_padding_masks_and_segments():
    features = tiny.features([5, 3])
    batch = features.batch(np.array([1, 0]), np.ones(2), 8, pad_id=0)
    np.testing.assert_array_equal(batch['input_ids'][1, :5], features.sequence(0))
    np.testing.assert_array_equal(batch['attention_mask'].sum(1), [3, 5])
    np.testing.assert_array_equal(batch['token_type_ids'][1], [0, 0, 1, 1, 1, 0, 0, 0])
    assert (batch['input_ids'][0, 3:] == 0).all()
    assert (batch['token_labels'][0, 3:] == -1).all()


@pytest.mark.parametrize('batch_size', [1, 7, 64])
def test_evaluation_has_every_example_once(batch_size):
    features = tiny.features(np.random.default_rng(2).integers(3, 60, 30))
    seen = []
    for examples, batch in eval_batches(features, batch_size, 64, 0):
        assert len(batch['input_ids']) == batch_size
        assert batch['weights'].sum() == len(examples)
        np.testing.assert_array_equal(batch['labels'][: len(examples)], examples)
        seen += examples.tolist()
    assert sorted(seen) == list(range(30))


def one_at_a_time(first, second, max_length):
    """BERT's rule, as written."""
    first, second = list(first), list(second)
    while len(first) + len(second) > max_length - 3:
        if len(first) > len(second):
            first.pop()
        else:
            second.pop()
    return first, second


@pytest.mark.parametrize('sizes', [(2, 10), (10, 2), (9, 9), (0, 20), (20, 0), (3, 3), (7, 8)])
@pytest.mark.parametrize('max_length', [8, 9, 12])
def test_pairs_are_cut_as_bert_cuts_them(sizes, max_length):
    first, second = list(range(sizes[0])), list(range(sizes[1]))
    assert truncate_pair(first, second, max_length) == one_at_a_time(first, second, max_length)
    assert truncate_pair(first, None, max_length) == (first[: max_length - 2], None)


def test_sequences_have_their_special_pieces(vocabulary):
    tokenizer = Tokenizer(vocabulary)
    writer = FeaturesWriter(tokenizer)
    assert writer.add([10, 11], [12]) == 6
    assert writer.add([], None) == 2
    features = writer.finish()
    cls, sep = tokenizer.cls_id, tokenizer.sep_id
    assert features.sequence(0).tolist() == [cls, 10, 11, sep, 12, sep]
    assert features.sequence(1).tolist() == [cls, sep]
    assert features.seconds.tolist() == [4, 2]


def test_encoding_runs_once(tmp_path):
    features, calls = tiny.features([4, 6, 5, 3], num_choices=2), []

    def encode():
        calls.append(1)
        return features

    for _ in range(2):
        found = cached(tmp_path / 'cache', {'text': 'abc'}, encode)
        for field in dataclasses.fields(Features):
            expected = getattr(features, field.name)
            if isinstance(expected, dict):
                for name, values in expected.items():
                    np.testing.assert_array_equal(getattr(found, field.name)[name], values)
            else:
                np.testing.assert_array_equal(getattr(found, field.name), expected)
    assert len(calls) == 1
    cached(tmp_path / 'cache', {'text': 'abd'}, encode)
    assert len(calls) == 2
    # A file that was cut is made again.
    for file in (tmp_path / 'cache').iterdir():
        file.write_bytes(file.read_bytes()[:100])
    cached(tmp_path / 'cache', {'text': 'abc'}, encode)
    assert len(calls) == 3


def test_lengths_are_few():
    assert bucket_lengths(512)[-1] == 512
    assert bucket_lengths(100) == (16, 32, 48, 64, 96, 100)
    assert len(bucket_lengths(512)) <= 10


@pytest.mark.parametrize('pair', [None, 'word word word'])
def test_texts_that_are_cut_are_counted(pair, tokenizer, tmp_path, capsys):
    task = tiny.task('classification', max_length=12)
    texts = ['word', 'word ' * 30, '', 'word ' * 40]
    examples = [TextExample('x, line 2', str(i), text, pair, None) for i, text in enumerate(texts)]
    encode = Encoder(task, tokenizer, tiny.CLASSES, tmp_path)
    for _ in range(2):
        # The second time from the cache.
        features = encode(examples, False)
        assert features.num_cut == 2 and features.lengths.max() == 12
        told = capsys.readouterr().err
        assert (
            'x, line 2 and what follows: 2 of 4 examples were cut, because task.max_length' in told
        )
    encode(examples[:1], False)
    assert not capsys.readouterr().err


@pytest.mark.parametrize('name', ['squad1', 'squad2'])
@pytest.mark.parametrize(
    ('settings', 'limit', 'reason'),
    [
        ({'max_length': 40, 'max_query_length': 6}, 6, 'task.max_query_length is 6.'),
        ({'max_length': 24}, 12, 'task.max_length is 24 and a question has half of it.'),
    ],
)
def test_questions_that_are_cut_are_counted(
    settings, limit, reason, name, tokenizer, tmp_path, capsys
):
    """By questions and not by windows, and as what they are: no passage is cut."""
    task = tiny.task(name, stride=8, **settings)
    fits = 'word ' * limit
    asked = [fits, f'{fits}word', '', 'word ' * 40]
    assert [len(x) for x in tokenizer.encode(asked)][:2] == [limit, limit + 1]
    examples = [
        task.parse({'question': question, 'passage': 'word ' * 60}, 'x, line 2', str(i))
        for i, question in enumerate(asked)
    ]
    encode = Encoder(task, tokenizer, task.head([]), tmp_path)
    for _ in range(2):
        # The second time from the cache.
        features = encode(examples, False)
        assert features.num_cut == 2 and features.num_examples > 8
        assert capsys.readouterr().err == (
            f'note: x, line 2 and what follows: 2 of 4 questions were cut to {limit} tokens, '
            f'because {reason}\n'
        )
    assert task.cut_to == f'the {limit} pieces of a question that the model reads at most'
    encode(examples[:1], False)
    assert not capsys.readouterr().err


def test_passages_that_are_cut_are_counted(tokenizer, capsys):
    task = tiny.task('race', max_length=24, max_option_length=12)
    fields = {'question': 'word', 'options': ['a', 'b', 'c', 'd']}
    given = [
        {**fields, 'passage': 'word'},
        {**fields, 'passage': 'word ' * 30},
        {**fields, 'passage': 'word', 'options': ['a', 'b', 'c', 'word ' * 30]},
    ]
    examples = [task.parse(one, 'x', str(index)) for index, one in enumerate(given)]
    features = task.encode(examples, tokenizer, task.head(examples), False)
    assert features.num_cut == 2
    task.finish(features, examples)
    told = capsys.readouterr().err
    assert 'were cut, because task.max_length is 24 and task.max_option_length 12 tokens.' in told
