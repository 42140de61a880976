"""The sweep of recipes: two recipes as their configs say, and every other member at equal FLOPs."""

import dataclasses

import pytest

from albert_jax.runs.runs import PretrainRun
from configs import pretrain
from launch.cost import pretraining_flops
from launch.stages import make_members, read_sweep
from tests.conftest import ROOT


@pytest.fixture
def members(monkeypatch):
    monkeypatch.chdir(ROOT)
    sweep = read_sweep('configs/sweeps/recipe.py:mini')
    return {member.change.name: member for member in make_members(sweep, {})}


def test_paper_and_modern_are_the_configs_of_that_name(members):
    modern = PretrainRun.from_dict(pretrain.get_config('mini+modern').to_dict())
    assert members['modern'].run == modern
    paper = PretrainRun.from_dict(pretrain.get_config('mini').to_dict())
    ours = members['paper'].run
    # Its own steps, and fields that do nothing under LAMB or whose default they are.
    loop = dataclasses.replace(ours.loop, num_steps=paper.loop.num_steps)
    assert loop == paper.loop and ours.albert == paper.albert
    assert ours.pretraining.held_out == paper.pretraining.held_out
    own = dataclasses.replace(ours.pretraining, eval_masked_fraction=None)
    assert own == paper.pretraining
    rate = paper.optimizer.muon_learning_rate
    assert dataclasses.replace(ours.optimizer, muon_learning_rate=rate) == paper.optimizer


def test_all_train_for_the_same_flops(members):
    flops = pretraining_flops(list(members.values()))
    assert len(flops) == 19
    for name, of_member in flops.items():
        assert of_member == pytest.approx(flops['modern'], rel=0.005), name


def test_each_differs_in_one_thing_and_the_steps_for_it(members):
    for name, member in members.items():
        parent = members[name.partition('-')[0]].change.fields
        own = {
            field.removeprefix('pretrain.')
            for field in {*member.change.fields, *parent}
            if member.change.fields.get(field) != parent.get(field)
        }
        parts = {field.partition('.')[0] for field in own if not field.startswith('loop.')}
        # A batch has its own warm-up.
        assert len(parts) <= 1, (name, own)
    # As many sequences between two evaluations, so that all curves have points at the same text.
    for name, member in members.items():
        loop = member.run.loop
        assert loop.eval_every * loop.batch_size == 1600, name
        assert loop.num_eval_batches * loop.batch_size == 512, name
