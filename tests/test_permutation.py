import numpy as np
import pytest

from albert_jax.data.permutation import shuffled_indices


@pytest.mark.parametrize('num_items', [1, 2, 3, 5, 64, 1000, 4097])
def test_every_epoch_visits_everything_once_in_its_own_order(num_items):
    epochs = shuffled_indices(np.arange(3 * num_items), num_items, seed=7).reshape(3, num_items)
    for epoch in epochs:
        assert sorted(epoch) == list(range(num_items))
    if num_items >= 64:
        assert (epochs[0] != epochs[1]).any() and (epochs[1] != epochs[2]).any()


def test_a_position_needs_no_others():
    whole = shuffled_indices(np.arange(1000), 333, seed=1)
    some = np.array([999, 4, 500])
    np.testing.assert_array_equal(shuffled_indices(some, 333, seed=1), whole[some])


def test_neighbouring_seeds_share_no_epoch():
    orders = {
        tuple(shuffled_indices(np.arange(50) + 50 * epoch, 50, seed))
        for seed in range(10)
        for epoch in range(10)
    }
    assert len(orders) == 100


def test_order_looks_random():
    order = shuffled_indices(np.arange(100_000), 100_000, seed=3)
    places = np.arange(100_000)
    assert abs(np.corrcoef(order, places)[0, 1]) < 0.02
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.02
    # Neighbours in a random order are far apart: a third of the range on average.
    assert np.abs(np.diff(order)).mean() == pytest.approx(100_000 / 3, rel=0.02)


def test_works_beyond_32_bits():
    num_items = 10**11
    order = shuffled_indices(np.arange(1000) * 10**8, num_items, seed=0)
    assert (order >= 0).all() and (order < num_items).all() and len(set(order)) == 1000
    assert order.mean() == pytest.approx(num_items / 2, rel=0.1)
