"""Combining named changes into the members of a sweep."""

import pytest

from albert_jax.cli.errors import UserError
from configs.changes import Change, Sweep, chain, each_from_the_last, product, seeds, zipped

A = [Change('a1', {'pretrain.x.a': 1}), Change('a2', {'pretrain.x.a': 2})]
B = [Change('b1', {'pretrain.x.b': 1}), Change('b2', {'pretrain.x.b': 2})]


def test_product_has_every_combination_with_the_last_running_fastest():
    members = product(A, B)
    assert [member.name for member in members] == ['a1-b1', 'a1-b2', 'a2-b1', 'a2-b2']
    assert members[1].fields == {'pretrain.x.a': 1, 'pretrain.x.b': 2}


def test_zipped_goes_side_by_side():
    assert [member.name for member in zipped(A, B)] == ['a1-b1', 'a2-b2']
    with pytest.raises(UserError, match=r'\[2, 1\] members'):
        zipped(A, B[:1])


def test_chain_keeps_names_apart():
    assert [member.name for member in chain(A, B)] == ['a1', 'a2', 'b1', 'b2']
    with pytest.raises(UserError, match="called 'a1'"):
        chain(A, A)


def test_two_changes_may_not_set_one_field():
    with pytest.raises(UserError, match='a1 and c both set pretrain.x.a'):
        product(A, [Change('c', {'pretrain.x.a': 3})])


def test_seeds_keep_the_row_and_follow_the_seed_of_what_came_before():
    members = seeds(each_from_the_last(A), 2)
    assert [member.name for member in members] == ['a1-seed0', 'a1-seed1', 'a2-seed0', 'a2-seed1']
    assert [member.row for member in members] == ['a1', 'a1', 'a2', 'a2']
    assert [member.after for member in members] == ['', '', 'a1-seed0', 'a1-seed1']
    assert members[3].fields == {
        'pretrain.x.a': 2, 'pretrain.loop.seed': 1, 'finetune.loop.seed': 1,
    }  # fmt: skip


def test_a_member_starts_from_one_before_it():
    with pytest.raises(UserError, match="starts from 'a2', which is no member before it"):
        Sweep('t', '', [Change('a1', after='a2'), Change('a2')])


@pytest.mark.parametrize('name', ['', 'A', 'a b', '../a', 'a/b', '-a', 'a;rm'])
def test_a_name_is_fit_for_a_folder_and_a_machine(name):
    with pytest.raises(UserError, match='small letters'):
        Change(name)
