"""The sweeps from text to text: what their members are, and a report of scores as they are."""

import json

import pytest

from albert_jax.cli.errors import UserError
from launch import record, report, results
from launch.plan import make_plan
from launch.stages import make_members, missing_inputs, read_overrides, read_sweep
from tests.conftest import ROOT

SWEEP = 'configs/sweeps/decoder_sharing.py'
SPLITTING = 'configs/sweeps/splitting.py'


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize('scale', ['base', 'mini'])
def test_members_differ_in_the_decoder_or_have_no_checkpoint(scale):
    found = read_sweep(f'{SWEEP}:{scale}')
    overrides = ['finetune.init_from=model', 'translation.data.train=captions']
    members = make_members(found, read_overrides(overrides))
    assert [member.change.name for member in members] == [
        'random-weights', 'encoder', 'copy', 'random',
    ]  # fmt: skip
    for member in members:
        (stage,) = member.stages
        own = dict(stage.settings)
        own_weights = member.change.name == 'random-weights'
        sharing = 'random' if own_weights else member.change.name
        assert own.pop('decoder.decoder_sharing') == sharing
        assert own.pop('from_scratch', False) is own_weights
        # All else is the same.
        assert own == {
            name: value
            for name, value in dict(members[1].stages[0].settings).items()
            if name != 'decoder.decoder_sharing'
        }
        assert own['init_from'] == 'model' and own['data.train'] == 'captions'
    assert set(found.published) <= {member.row for member in found.members}


@pytest.mark.parametrize('scale', ['base', 'mini'])
def test_members_of_splitting_differ_in_the_weights_that_they_start_from(scale):
    found = read_sweep(f'{SPLITTING}:{scale}')
    overrides = ['finetune.init_from=model', 'splitting.data.train=pairs.tsv']
    members = make_members(found, read_overrides(overrides))
    pretrained, random = (dict(member.stages[0].settings) for member in members)
    assert [member.change.name for member in members] == ['pretrained', 'random-weights']
    assert random == {**pretrained, 'from_scratch': True}
    assert pretrained['init_from'] == 'model' and pretrained['data.train'] == 'pairs.tsv'
    assert set(found.published) == {member.row for member in found.members}


def test_files_of_two_languages_are_named_by_what_they_share(tmp_path):
    for name in ('train.en.gz', 'train.de.gz', 'val.en', 'val.de'):
        (tmp_path / name).touch()
    overrides = [
        f'translation.data.{n}={tmp_path}/{f}'
        for n, f in (('train', 'train'), ('validation', 'val'), ('test', 'other'))
    ]
    (missing,) = missing_inputs(make_members(read_sweep(SWEEP), read_overrides(overrides)))
    assert f'translation.data.test is {tmp_path}/other, which is not there.' in missing


@pytest.mark.parametrize('sweep', [SWEEP, SPLITTING])
def test_an_unknown_scale_is_refused(sweep):
    with pytest.raises(UserError, match='there is no scale .huge.; there are base and mini'):
        read_sweep(f'{sweep}:huge')


def test_scores_of_texts_are_shown_as_they_are(tmp_path):
    found = read_sweep(f'{SWEEP}:mini')
    members = make_members(found, {})
    record.write_json(tmp_path / record.PLAN_FILE, make_plan('x', found, members, {}))
    for member in members[:2]:
        folder = tmp_path / member.stages[0].key
        folder.mkdir(parents=True)
        # As finetune writes it: BLEU of a hundred.
        (folder / 'results.json').write_text(json.dumps({'loss': 2.5, 'bleu': 33.1, 'chrf': 57.24}))
        record.write_record(tmp_path, member.stages[0], record.Record(record.FINISHED, {}))
    lines = report.markdown(results.read(tmp_path)).splitlines()
    assert '| random-weights | 2.50 | 33.1 | 57.2 | 26 |' in lines
    assert '| copy | waiting | waiting | waiting |  |' in lines
