"""What a sweep tells before it starts: what is not there, which members, how long it takes here."""

import re

import pytest

from albert_jax.cli.errors import UserError
from launch import record, speed, sweep
from launch.stages import make_members, read_sweep
from tests.conftest import ROOT
from tests.fake_stages import stage


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_a_dry_run_tells_what_is_not_there_and_how_long_it_takes_here(tmp_path, capsys):
    corpus = f'--override=pretrain.data.path={tmp_path}/no'
    arguments = ['--sweep=configs/sweeps/sharing.py:mini', f'--workdir={tmp_path}', '--dry_run']
    # Both that are named, and no other.
    assert sweep.main([*arguments, '--only=none', '--only=all', corpus]) == 0
    shown, told = capsys.readouterr()
    assert re.search(r'On this machine about [\d.,]+ (seconds|minutes|hours) \(at 40% of', shown)
    folders = re.findall(rf'--workdir={tmp_path}/(\w+)/pretrain', shown)
    assert folders == ['all', 'none']
    assert f'note: all, none: pretrain.data.path is {tmp_path}/no, which is not there.' in told
    assert 'note: all, none: nothing is named to fine-tune sst2 on' in told
    with pytest.raises(UserError, match='--only=half: there is no such member .* are all, atten'):
        sweep.main([*arguments, '--only=all', '--only=half'])
    with pytest.raises(UserError, match=f'all, none: pretrain.data.path is {tmp_path}/no, which'):
        sweep.main([*arguments[:2], '--only=all', '--only=none', corpus])
    assert not list(tmp_path.rglob('stage.json'))


def test_time_left_is_by_the_members_that_are_finished(tmp_path):
    run = make_members(read_sweep('configs/sweeps/sharing.py:mini'), {})[0].run
    assert run is not None
    for name, seconds in (('a', 20.0), ('b', 30.0)):
        found = record.Record(record.FINISHED, {}, 0, seconds)
        record.write_record(tmp_path, stage(name, 'pretrain'), found)
    flops = {'a': 1e9, 'b': 4e9, 'c': 7e9}
    per_second, source = speed.flops_per_second(tmp_path, flops, run)
    assert per_second == pytest.approx(1e8) and 'that are finished' in source
    assert [speed.duration(x) for x in (40, 1500, 9000)] == [
        '40 seconds',
        '25 minutes',
        '2.5 hours',
    ]
