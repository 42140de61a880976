"""The sweeps whose records are kept in docs/sweeps: the tables in RESULTS.md are their reports."""

import dataclasses
import gzip
import tarfile

import pytest

from benchmarks import archive, record_sweep
from configs.changes import seeds
from launch import report, results
from launch.record import FINISHED, STAGE_FILE, WAITING, read_record, settings_of
from launch.stages import make_members, read_sweep
from tests.conftest import ROOT

# What each was run with, beside its sweep.
OVERRIDES = {
    'recipe': {'pretrain.data.path': 'runs/builtin'},
    'tasks': {
        'finetune.init_from': 'docs/models/books.tar.gz',
        'sst2.data.path': 'runs/data/SST-2',
        'stsb.data.path': 'runs/data/STS-B',
        'qnli.data.train': 'runs/data/QNLI/dev.tsv',
        'qnli.data.validation_fraction': '0.2',
        'squad1.data.train': 'runs/data/xquad-en-v1.1.json',
        'squad1.data.validation_fraction': '0.2',
        'upos.data.train': 'runs/data/en_ewt-ud-dev.conllu',
        'upos.data.validation': 'runs/data/en_ewt-ud-test.conllu',
    },
}
ARCHIVES = sorted((ROOT / 'docs/sweeps').glob('*.tar.gz'))


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name)
def folder(request, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter='data')
    return tmp_path / request.param.name.partition('.')[0]


def test_there_are_some():
    assert ARCHIVES


def test_the_table_of_the_document_is_the_report(folder):
    lines = report.markdown(results.read(folder)).splitlines()
    table = [line for line in lines if line.startswith('|')]
    assert len(table) > 2
    assert '\n'.join(table) + '\n' in (ROOT / 'docs/RESULTS.md').read_text()


def test_the_members_are_those_that_the_sweep_runs_today(folder):
    plan = results.read_plan(folder)
    sweep = read_sweep(plan['sweep'])
    number = len({member['fields']['pretrain.loop.seed'] for member in plan['members']})
    repeated = dataclasses.replace(sweep, members=seeds(sweep.members, number))
    members = make_members(repeated, OVERRIDES[folder.name])
    assert [member.change.name for member in members] == [m['name'] for m in plan['members']]
    for stage in (stage for member in members for stage in member.stages):
        kept = read_record(folder, stage.key)
        if kept.state == WAITING:
            continue
        assert kept.state == FINISHED
        # The digest is of the corpus too, which is not here.
        assert {**kept.settings, 'digest': ''} == {**settings_of(stage), 'digest': ''}


def test_recorded_again_they_are_the_same(folder):
    (kept,) = (path for path in ARCHIVES if path.name == f'{folder.name}.tar.gz')
    again = archive.packed(folder, record_sweep.kept_files(folder))
    assert gzip.decompress(again) == gzip.decompress(kept.read_bytes())


def test_members_that_are_not_finished_are_left_out(folder):
    key = results.read_plan(folder)['members'][0]['stages'][0]['key']
    before = record_sweep.kept_files(folder)
    file = folder / key / STAGE_FILE
    file.write_text(file.read_text().replace('"finished"', '"running"'))
    lost = set(before) - set(record_sweep.kept_files(folder))
    assert lost and {path.relative_to(folder).parts[0] for path in lost} == {key.split('/')[0]}


def test_nothing_else_is_kept(folder):
    kept = {path.name for path in folder.rglob('*') if path.is_file()}
    assert kept <= {'sweep.json', STAGE_FILE, 'metrics.jsonl', 'results.json'}
    # A path of the machine that it ran on says nothing to others.
    for path in folder.rglob('*.json*'):
        assert '"/' not in path.read_text(), path
