"""Two rows of a sweep compared seed by seed."""

import json

import numpy as np
import pytest
from scipy import stats

from albert_jax.cli.errors import UserError
from configs.changes import Change, Sweep, seeds
from launch import comparison, record, report
from launch.plan import make_plan
from launch.record import Record
from launch.stages import Member
from tests.fake_stages import stage

FIRST = [70.0, 72.0, 75.0]
SECOND = [71.0, 74.5, 75.5]


@pytest.fixture
def swept(tmp_path):
    changes = seeds([Change('all'), Change('none'), Change('other')], 3)
    columns = {'parameters': 'parameters', 'sst2.accuracy': 'SST-2', 'pretrain.mlm_loss': 'loss'}
    found = Sweep('sharing', '', changes, (), {}, columns)
    own = [
        Member(change, (stage(change.name, 'pretrain'), stage(change.name, 'sst2')), None)
        for change in changes
    ]
    record.write_json(tmp_path / record.PLAN_FILE, make_plan('f.py', found, own, {}))
    for member, accuracy in zip(own, [*FIRST, *SECOND], strict=False):
        record.write_record(tmp_path, member.stages[1], Record(record.FINISHED, {}))
        file = tmp_path / member.change.name / 'sst2/results.json'
        file.write_text(json.dumps({'accuracy': accuracy / 100}))
    return tmp_path


def test_the_difference_is_that_of_a_paired_test(swept):
    accuracy, loss = comparison.compare(swept, 'all', 'none')
    expected = stats.ttest_rel(SECOND, FIRST).confidence_interval(0.95)
    assert accuracy.mean == pytest.approx(np.mean(SECOND) - np.mean(FIRST))
    assert accuracy.interval == pytest.approx((expected.low, expected.high))
    assert accuracy.missing == {} and loss.differences == []
    assert loss.missing == {f'{row}-seed{seed}': 'waiting' for row in ('all', 'none')
                            for seed in range(3)}  # fmt: skip


def test_seeds_are_paired_by_number_and_what_is_missing_is_named(swept, capsys):
    (swept / 'all-seed0/sst2/stage.json').unlink()
    (swept / 'none-seed2/sst2/stage.json').unlink()
    assert report.main([str(swept), '--compare', 'all', 'none']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == '| | all | none | none − all | 95% interval | pairs |'
    # The seed that both have is the one in the middle.
    assert lines[2] == '| SST-2 | 73.5 | 72.8 | +2.5 |  | 1 |'
    assert lines[3] == '| loss |  |  |  |  | 0 |'
    assert 'One pair has no interval: run the sweep with --seeds=2 or more.' in lines
    assert lines[-2].startswith('Missing: all-seed0 (waiting), none-seed2 (waiting)')


def test_rows_that_are_not_there_are_refused(swept):
    with pytest.raises(UserError, match="no row 'some'; there are all, none, other"):
        report.main([str(swept), '--compare', 'all', 'some'])
    with pytest.raises(UserError, match="'all' is given twice"):
        report.main([str(swept), '--compare', 'all', 'all'])
