"""How much compute a member of a sweep needs to reach the final loss of another."""

import dataclasses
import json
import math

import pytest

from albert_jax.cli.errors import UserError
from albert_jax.pretraining.intrinsic import _unpaired
from albert_jax.runs.pretraining import PretrainingSettings
from configs.changes import Change, Sweep
from launch import record, results
from launch.compute import first_step_below
from launch.plan import make_plan
from launch.record import Record
from launch.stages import Member
from tests.fake_stages import stage


@pytest.mark.parametrize(
    ('curve', 'step'),
    [
        ([(100, 6.0), (200, 5.0), (300, 4.0)], 250.0),
        ([(100, 6.0), (200, 4.5)], 200.0),
        ([(100, 6.0), (200, 5.0)], None),
        # It was there before its first evaluation, at a step that nobody knows.
        ([(100, 4.0), (200, 3.0)], None),
        # Up again, and down for the second time: the first counts.
        ([(100, 5.0), (200, 4.0), (300, 5.0), (400, 4.0)], 150.0),
        ([(100, math.nan), (200, 4.0)], None),
        ([], None),
    ],
)
def test_a_level_is_reached_on_the_line_between_two_evaluations(curve, step):
    assert first_step_below(curve, 4.5) == step


@pytest.fixture
def swept(tmp_path):
    """Two seeds of the reference, which ends at 4.4 and 4.6, and of another with half its FLOPs."""
    changes = [
        Change(f'{row}-seed{seed}', row=row) for row in ('paper', 'modern') for seed in (0, 1)
    ]
    columns = {'flops': 'FLOPs', 'compute_to_reach': 'compute'}
    found = Sweep('recipe', '', changes, (), {}, columns, reference='paper')
    own = [
        Member(change, (stage(change.name, 'pretrain'), stage(change.name, 'intrinsic')), None)
        for change in changes
    ]
    flops = {change.name: 2e13 if change.row == 'paper' else 1e13 for change in changes}
    record.write_json(tmp_path / record.PLAN_FILE, make_plan('f.py', found, own, {}, flops))
    for member, loss in zip(own, (4.4, 4.6, 3.9, 4.0), strict=True):
        for one in member.stages:
            record.write_record(tmp_path, one, Record(record.FINISHED, {}))
        file = tmp_path / member.change.name / 'intrinsic/results.json'
        file.write_text(json.dumps({'unpaired_mlm_loss': loss}))
    for seed, losses in ((0, (5.0, 4.0)), (1, (5.5, 5.0))):
        lines = [
            {'step': step, 'split': split, 'mlm_loss': loss}
            for step, loss in zip((2, 4), losses, strict=True)
            for split in ('train', 'validation')
        ]
        file = tmp_path / f'modern-seed{seed}/pretrain/metrics.jsonl'
        file.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return tmp_path


def test_the_ratio_is_of_flops_up_to_the_mean_final_loss_of_the_reference(swept):
    paper, modern = results.read(swept).rows
    assert paper.cells['FLOPs'].text('FLOPs') == '2.00e+13'
    assert paper.cells['compute'].values == (1.0, 1.0)
    # The first seed comes to 4.5 at step 3 of 5: 3/5 of 1e13, by 2e13. The second never does.
    assert modern.cells['compute'].values == (pytest.approx(0.3),)
    assert modern.cells['compute'].text('compute') == '0.30 (1 of 2 not reached)'


def test_without_the_references_end_there_is_no_ratio(swept):
    (swept / 'paper-seed1/intrinsic/stage.json').unlink()
    modern = results.read(swept).rows[1]
    assert modern.cells['compute'].text('compute') == 'paper-seed1 waiting'


def test_a_member_that_has_not_ended_may_still_reach_it(swept):
    (swept / 'modern-seed1/pretrain/stage.json').unlink()
    modern = results.read(swept).rows[1]
    assert modern.cells['compute'].text('compute') == '0.30 (1 of 2 waiting)'


def test_a_plan_of_an_earlier_version_has_no_flops(swept):
    plan = json.loads((swept / record.PLAN_FILE).read_text())
    del plan['reference']
    for member in plan['members']:
        del member['flops']
    (swept / record.PLAN_FILE).write_text(json.dumps(plan))
    paper, _ = results.read(swept).rows
    assert paper.cells['FLOPs'].text('FLOPs') == 'unknown'
    assert paper.cells['compute'].text('compute') == 'unknown'


def test_the_reference_is_a_row():
    with pytest.raises(UserError, match="The reference 'papers' is no row"):
        Sweep('recipe', '', [Change('paper')], reference='papers')


def test_the_common_held_out_text_does_not_depend_on_the_recipe():
    paper = PretrainingSettings(sequence_length=64)
    modern = dataclasses.replace(
        paper, sentence_loss='none', masked_fraction=0.45, eval_masked_fraction=0.15,
        short_fraction=0.0,
    )  # fmt: skip
    assert _unpaired(paper) == _unpaired(modern) == modern.held_out
    assert _unpaired(dataclasses.replace(paper, final_masked_fraction=0.3)) == _unpaired(paper)
