"""A masked fraction that changes from step to step, and that of the held-out batches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from albert_jax.cli.errors import UserError
from albert_jax.data.dataset import PreparedCorpus
from albert_jax.data.pretraining import PretrainingData
from albert_jax.pretraining import job
from albert_jax.runs.pretraining import PretrainingSettings
from albert_jax.runs.runs import PretrainRun
from tests.pretraining_rows import LENGTH, assert_same_batch, make_data
from tests.test_train import tiny_config

FALLING = {'masked_fraction': 0.45, 'final_masked_fraction': 0.15}
FRACTIONS = st.floats(0.01, 0.99)


@pytest.fixture(scope='module')
def corpus(corpus_directory) -> PreparedCorpus:
    return PreparedCorpus(corpus_directory)


def scheduled(corpus, num_steps=11, split='train', batch_size=256, **settings):
    settings = PretrainingSettings(**({'sequence_length': LENGTH} | FALLING | settings))
    return PretrainingData(corpus, split, settings, batch_size, 0, num_steps)


def share(batch):
    # Rows past the last held-out chunk have no weight.
    is_real = batch['masked_weights'].any(1)
    return batch['masked_weights'].sum() / batch['attention_mask'][is_real].sum()


def test_the_share_changes_by_the_same_amount_in_each_step(corpus):
    data = scheduled(corpus)
    batches = [data.batch(step) for step in range(11)]
    wanted = 0.45 - 0.03 * np.arange(11)
    np.testing.assert_allclose([share(batch) for batch in batches], wanted, atol=0.006)
    # The places are those of the step with the most predictions: one program for all steps.
    assert {batch['masked_ids'].shape for batch in batches} == {(256, 64)}
    rising = scheduled(corpus, masked_fraction=0.15, final_masked_fraction=0.45)
    assert share(rising.batch(10)) == pytest.approx(0.45, abs=0.006)
    assert rising.batch(0)['masked_ids'].shape == (256, 64)


@given(first=FRACTIONS, last=FRACTIONS, num_steps=st.integers(1, 10**6), step=st.integers(0, 10**6))
def test_the_share_goes_from_the_first_to_the_last(first, last, num_steps, step):
    settings = PretrainingSettings(masked_fraction=first, final_masked_fraction=last)
    at = settings.masked_fraction_at
    assert at(0, num_steps) == first
    assert at(max(num_steps - 1, 1), num_steps) == last
    low, high = sorted((first, last))
    assert low - 1e-15 <= at(step, num_steps) <= high + 1e-15
    step = min(step, num_steps - 1)
    exact = first + (last - first) * step / max(num_steps - 1, 1)
    assert at(step, num_steps) == pytest.approx(exact, abs=1e-12)


def test_a_batch_is_a_function_of_its_step(corpus):
    data = scheduled(corpus)
    whole = data.batch(7)
    assert_same_batch(scheduled(corpus).batch(7), whole)
    parts = [scheduled(corpus).batch(7, range(first, first + 64)) for first in range(0, 256, 64)]
    assert_same_batch({name: np.concatenate([p[name] for p in parts]) for name in whole}, whole)
    # The first step of a fraction is that of a run with this fraction throughout.
    assert_same_batch(data.batch(0), make_data(corpus, masked_fraction=0.45).batch(0))
    # All but the number of predictions is the same, so that a longer schedule changes nothing else.
    other = scheduled(corpus, num_steps=100).batch(7)
    np.testing.assert_array_equal(other['token_type_ids'], whole['token_type_ids'])
    assert share(other) > share(whole) + 0.1


def test_held_out_masks_may_be_the_default_ones_whatever_the_training_masks(corpus):
    default = make_data(corpus, 64, split='validation')
    for settings in ({}, {'final_masked_fraction': None}):
        data = scheduled(
            corpus, split='validation', batch_size=64, eval_masked_fraction=0.15, **settings
        )
        assert_same_batch(data.eval_batch(0), default.eval_batch(0))
    # Left out, they are those of the end of the training.
    data = scheduled(corpus, split='validation', batch_size=64)
    assert_same_batch(data.eval_batch(0), default.eval_batch(0))
    high = scheduled(corpus, split='validation', batch_size=64, final_masked_fraction=None)
    assert share(high.eval_batch(0)) == pytest.approx(0.45, abs=0.01)


def test_a_run_has_one_schedule_over_both_phases(corpus_directory):
    config = tiny_config(corpus_directory, num_steps=9, batch_size=256)
    config['pretraining'] |= FALLING | {'short_phase_steps': 4, 'short_phase_length': 16}
    config['pretraining'] |= {'eval_masked_fraction': 0.2}
    prepared = job.prepare(PretrainRun.from_dict(config))
    batches = prepared.batches
    # Short rows have whole words to choose among only few, so that their share is less exact.
    for step, atol in ((0, 0.04), (3, 0.04), (4, 0.012), (8, 0.012)):
        found = share(batches.train(step, range(256)))
        assert found == pytest.approx(0.45 - 0.3 * step / 8, abs=atol), step
    assert batches.sequence(0) == (16, 16) and batches.sequence(8) == (32, 16)
    held_out = batches.held_out.eval_batch(0)
    assert share(held_out) == pytest.approx(0.2, abs=0.02)
    assert held_out['masked_ids'].shape[1] == 8


@pytest.mark.parametrize('name', ['masked', 'final_masked', 'eval_masked'])
@pytest.mark.parametrize(
    ('value', 'message'),
    [
        (0.0, 'it must be above 0'),
        (-0.1, 'it must be above 0'),
        (1.0, 'it must be at least 0 and below 1'),
        (float('nan'), 'it must be above 0'),
        ('0.3', 'it must be of type float'),
    ],
)
def test_shares_outside_0_and_1_are_refused(name, value, message):
    with pytest.raises(UserError, match=f'pretraining.{name}_fraction is .*; {message}'):
        PretrainingSettings(**{f'{name}_fraction': value})


def test_a_schedule_needs_a_length(corpus):
    with pytest.raises(ValueError, match='num_steps is needed'):
        make_data(corpus, **FALLING).batch(0)
