"""Encoded pairs, their batches, and what is said of a vocabulary that cannot write the targets."""

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from albert_jax.data.normalization import Normalization
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.tasks.batches import TrainBatches, bucket_lengths, eval_batches
from albert_jax.tasks.encoded import Encoder
from albert_jax.tasks.pair_features import PairFeatures, as_pairs
from albert_jax.tasks.target_vocabulary import note_target_vocabulary
from albert_jax.tasks.text_pairs import TextPair
from tests import tiny
from tests.tiny import NEGATIVE, POSITIVE


def pairs_of(*texts: tuple[str, str | None]) -> list[TextPair]:
    return [TextPair(f'a.tsv, line {i + 2}', str(i), *pair) for i, pair in enumerate(texts)]


def encoded(task, examples, tokenizer) -> PairFeatures:
    head = task.head(examples)
    features = task.finish(task.encode(examples, tokenizer, head, True), examples)
    assert isinstance(features, PairFeatures)
    return features


def test_sides_are_marked_and_cut(tokenizer, tmp_path, capsys):
    task = tiny.task('generation', max_length=8, max_target_length=8)
    examples = pairs_of(
        ('class value', 'list'),
        (f'{POSITIVE} ' * 4, f'{NEGATIVE} ' * 4),
        ('class', None),
        ('', 'x'),
        ('class', '\u0301'),
    )
    cls, sep = tokenizer.cls_id, tokenizer.sep_id
    encode = Encoder(task, tokenizer, task.head(examples), tmp_path)
    # Encoded, and then found in the cache.
    for _ in range(2):
        features = encode(examples, True)
        assert isinstance(features, PairFeatures)
        (source, target) = tokenizer.encode(['class value', 'list'])
        assert features.sequence(0).tolist() == [cls, *source, sep, cls, *target, sep]
        assert features.target(0).tolist() == [cls, *target, sep]
        # A source that was cut has its end, a target none that could be learnt.
        assert features.source_lengths.tolist()[1:4] == [8, 3, 2]
        assert features.target_lengths.tolist()[1:3] == [7, 0]
        assert features.target(4).tolist() == [cls, sep]
        assert features.sequence(1)[7] == sep and features.target(1)[0] == cls
        assert sep not in features.target(1)
        said = capsys.readouterr().err
        assert 'a.tsv, line 2 and what follows: 1 of 5 examples were cut' in said
        assert '1 of 5 sources are empty after normalisation.' in said
        # Of the targets that are known.
        assert '1 of 4 targets were cut, because task.max_target_length is 8 tokens' in said
        assert '1 of 4 targets are empty after normalisation.' in said
    some = features.subset([2, 0])
    assert [some.sequence(i).tolist() for i in range(2)] == [
        features.sequence(i).tolist() for i in (2, 0)
    ]


LENGTHS = st.lists(st.tuples(st.integers(2, 40), st.integers(0, 60)), min_size=1, max_size=40)


@given(LENGTHS, st.integers(1, 9), st.integers(0, 3))
def test_batches_hold_every_pair_once_in_the_smallest_lengths(lengths, batch_size, step):
    sources, targets = (np.array(side) for side in zip(*lengths, strict=True))
    plain = tiny.features(sources + targets)
    features = as_pairs(dataclasses.replace(plain, seconds=sources.astype(np.int32)), 60)
    seen = []
    for numbers, batch in eval_batches(features, batch_size, 40, 0):
        seen += numbers.tolist()
        for name, longest, largest in (
            ('input_ids', sources[numbers].max(), 40), ('target_ids', targets[numbers].max(), 60),
        ):  # fmt: skip
            fits = [x for x in bucket_lengths(largest) if x >= longest]
            assert batch[name].shape == (batch_size, fits[0])
        for row, number in enumerate(numbers):
            ids = features.sequence(int(number)).tolist()
            kept = batch['attention_mask'][row] > 0
            assert batch['input_ids'][row][kept].tolist() == ids[: sources[number]]
            kept = batch['target_mask'][row] > 0
            assert batch['target_ids'][row][kept].tolist() == ids[sources[number] :]
        assert batch['weights'].sum() == len(numbers)
        assert batch['numbers'][: len(numbers)].tolist() == numbers.tolist()
    assert sorted(seen) == list(range(len(lengths)))
    batches = TrainBatches(features, batch_size, 40, 0, seed=1)
    batch = batches.batch(step, range(batch_size))
    again = TrainBatches(features, batch_size, 40, 0, seed=1).batch(step, range(batch_size))
    assert all((batch[name] == again[name]).all() for name in batch)


def test_sorting_saves_padding_on_both_sides():
    """Fewer than two thirds of the places that batches in the file's order have."""
    rng = np.random.default_rng(0)
    sources = rng.integers(4, 100, 2000)
    targets = np.clip(sources + rng.integers(-10, 30, 2000), 4, 128)
    plain = tiny.features(sources + targets)
    features = as_pairs(dataclasses.replace(plain, seconds=sources.astype(np.int32)), 128)
    sizes = {True: 0, False: 0}
    for is_sorted in sizes:
        order = np.argsort(features.length_keys(), kind='stable') if is_sorted else np.arange(2000)
        for first in range(0, 2000, 50):
            chunk = order[first : first + 50]
            batch = features.padded_batch(chunk, np.ones(50), chunk, bucket_lengths(128), 0)
            sizes[is_sorted] += batch['input_ids'].size + batch['target_ids'].size
    assert sizes[True] < 0.67 * sizes[False]
    assert sizes[True] < 1.35 * (sources + targets).sum()


@pytest.mark.parametrize(
    ('target', 'keeps', 'message'),
    [
        ('statement λόγος ж', False, r'% of the pieces of the targets are unknown .*\((.*ж|.*λ)'),
        ('A Class of Values', False, "100% of the targets cannot be written .*'A Class of Values'"
         " becomes 'a class of values'"),
        ('a class of values', False, None),
        # A vocabulary without capitals that keeps them does not know them.
        ('CLASS', True, 'unknown to the vocabulary'),
    ],
)  # fmt: skip
def test_targets_that_the_vocabulary_cannot_write_are_told(
    target, keeps, message, vocabulary, capsys
):
    tokenizer = Tokenizer(vocabulary, Normalization(keep_case=keeps))
    examples = pairs_of(*[('a source', target)] * 3)
    task = tiny.task('generation', max_length=32, max_target_length=32)
    note_target_vocabulary(examples, encoded(task, examples, tokenizer), tokenizer)
    said = capsys.readouterr().err
    if message is None:
        assert not said
    else:
        assert re.search(message, said), said
