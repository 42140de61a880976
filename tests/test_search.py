"""Searches without Optuna: spaces, what is refused before a run, the runner, the report.

With it: tests/test_search_trials.py.
"""

import importlib.util
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from albert_jax.cli.errors import UserError
from albert_jax.runs.task import TaskSettings
from albert_jax.tasks.registry import TASKS, make_task, metric_names
from configs.changes import Change
from configs.search_space import Choices, Floats, Integers, Search
from launch import record, search, search_members, search_report
from launch.local import LocalRunner
from launch.search_members import Trials, read_search
from launch.stages import Member
from tests.conftest import ROOT
from tests.fake_stages import stage

STUDY = 'configs/searches/finetuning.py'
FILES = ['--override', 'init_from=M', '--override', 'data.path=D']


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def no_fields(parameters):
    return {}


def a_search(**changes) -> Search:
    fields = {
        'title': 'A search', 'space': {'rate': Floats(1e-5, 1e-3, is_log=True)},
        'fields': no_fields, 'metric': 'accuracy', 'num_trials': 3,
    }  # fmt: skip
    return Search(**fields | changes)


# Spaces.


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: Floats(2, 1), 'goes from 2 to 1, which is below it; turn them round'),
        (lambda: Floats(0, 1, is_log=True), 'with is_log goes from 0; it must begin above 0'),
        (lambda: Floats(0, float('inf')), 'inf is no finite number'),
        (lambda: Floats('1', 2), "'1' is no finite number"),
        (lambda: Integers(1, 2.5), '2.5 is no whole number'),
        (lambda: Integers(False, 3), 'False is no whole number'),
        (Choices, 'Choices.. has no values'),
        (lambda: Choices(8, 16, 8), 'Choices has 8 twice'),
        (lambda: Choices([8]), r'Choices has \[8\]; a value is'),
        (lambda: a_search(space={}), 'space of the search is empty'),
        (lambda: a_search(space={'a b': Floats(0, 1)}), "A parameter is called 'a b'"),
        (lambda: a_search(space={'rate': (0, 1)}), r'rate is \(0, 1\); it must be Floats'),
        (lambda: a_search(sampler='grid'), 'rate is Floats; a grid has Choices only'),
        (lambda: a_search(sampler='random'), "sampler is 'random'; it must be one of tpe, grid"),
        (lambda: a_search(pruner='best'), "The pruner is 'best'"),
        (lambda: a_search(num_trials=None), 'say how many trials there are'),
        (lambda: a_search(num_trials=0), 'num_trials is 0; it must be a whole number above 0'),
        (lambda: a_search(seed=-1), 'seed is -1'),
        (lambda: a_search(fields={}), 'fields is {}; it must be a function'),
    ],
)
def test_an_impossible_space_is_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_all_that_is_wrong_is_told_together():
    with pytest.raises(UserError) as found:
        a_search(space={}, pruner='best', num_trials=0)
    assert len(found.value.parts) == 3


def test_corners_are_all_ends_with_one_another_or_one_by_one():
    space = {'rate': Floats(1, 2), 'epochs': Integers(3, 4), 'batch': Choices(5, 6, 7)}
    corners = a_search(space=space).corners()
    assert len(corners) == 2 * 2 * 3
    assert corners[0] == {'rate': 1.0, 'epochs': 3, 'batch': 5}
    assert corners[-1] == {'rate': 2.0, 'epochs': 4, 'batch': 7}
    many = a_search(space={f'p{number}': Floats(0, 1) for number in range(12)}).corners()
    assert len(many) == 1 + 12
    assert [sum(corner.values()) for corner in many] == [0.0] + 12 * [1.0]


# Metrics are known before a run.


def test_each_task_knows_the_metrics_that_its_runs_write():
    for name in TASKS:
        settings = TaskSettings(name=name, generate_every=100)
        task = make_task(settings)
        assert task.best_metric in metric_names(settings)
    assert metric_names(TaskSettings(name='mnli')) == ['accuracy', 'accuracy_mismatched']
    assert metric_names(TaskSettings(name='translation')) == ['loss']
    assert 'chrf' in metric_names(TaskSettings(name='translation', generate_every=100))
    squad2 = metric_names(TaskSettings(name='squad2'))
    assert {'f1', 'f1_answerable', 'best_exact_match'} <= set(squad2)


# What is refused before anything runs.


def write_study(folder: Path, **changes: str) -> str:
    fields = {
        'title': "'x'", 'metric': "'accuracy'", 'num_trials': '3', 'pruner': "'none'",
        'space': "{'rate': Floats(1e-5, 1e-3, is_log=True)}",
        'fields': "lambda p: {'optimizer.learning_rate': p['rate']}",
    } | changes  # fmt: skip
    arguments = ', '.join(f'{name}={value}' for name, value in fields.items())
    path = folder / 'mine.py'
    path.write_text(
        'from configs.search_space import *\n\n'
        f'def get_search(name="x"):\n    return Search({arguments})\n'
    )
    return f'--study={path}'


@pytest.mark.parametrize(
    ('changes', 'more', 'message'),
    [
        ({'metric': "'bleu'"}, [], "no run writes the metric 'bleu'; one of mrpc writes accuracy"),
        ({'fields': "lambda p: {'optimizer.rate': 1}"}, [], 'rate=1e-05: optimizer.rate is not a'),
        ({'fields': "lambda p: {'optimizer.warmup_steps': 900}"}, [], 'optimizer.warmup_steps is'),
        (
            {'fields': "lambda p: {'optimizer.learning_rate': p['rate'] - 1e-5}"}, [],
            'rate=1e-05: optimizer.learning_rate is 0.0; it must be above 0',
        ),
        ({'fields': "lambda p: p['batch']"}, [], "rate=1e-05: line 4: KeyError: 'batch'"),
        ({'fields': 'lambda p: [1]'}, [], 'fields gives list, not a mapping'),
        ({'space': "{'rate': Floats(2, 1)}"}, [], 'goes from 2 to 1, which is below'),
        ({'is_lower_better': 'True'}, [], 'is_lower_better is True, but a higher accuracy is'),
        ({'sampler': "'grid'"}, [], 'rate is Floats; a grid has Choices only'),
        ({'pruner': "'median'"}, ['--override', 'seeds=3'], 'a run with seeds=3 has no metrics of'),
        ({}, ['--override', 'optimizer.learning_rate=1'], 'the trials of this search differ in'),
        ({}, ['--override', 'loop.num_stepz=1'], 'default: loop.num_stepz is not a field'),
        ({}, ['--override', 'init_from'], 'write FIELD=VALUE'),
        ({}, ['--trials=0'], '--trials=0: it must be 1 or above'),
        ({}, ['--jobs=0'], '--jobs=0: it must be 1 or above'),
        ({'config': "'configs/distill.py:mrpc'"}, [], 'teacher is not a field'),
        ({'config': "'nowhere.py'"}, [], 'there is no file nowhere.py'),
        ({'num_trials': '1/0'}, [], 'line 4: ZeroDivisionError'),
    ],
)  # fmt: skip
def test_a_wrong_search_is_refused_before_anything_runs(changes, more, message, tmp_path):
    study = write_study(tmp_path, **changes)
    with pytest.raises(UserError, match=message):
        search.main([study, f'--workdir={tmp_path}/s', *FILES, *more, '--dry_run'])
    assert not (tmp_path / 's').exists()


def test_files_that_are_not_there_are_told_with_the_flag_that_sets_them(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: name)
    with pytest.raises(UserError, match='set --override init_from=CHECKPOINT'):
        search.main([f'--study={STUDY}:mrpc', f'--workdir={tmp_path}/s'])


def test_without_optuna_it_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    for arguments in (
        [f'--study={STUDY}:mrpc', f'--workdir={tmp_path}/s', *FILES],
        [f'--report={tmp_path}'],
    ):
        with pytest.raises(UserError, match=r"pip install -e '.\[search\]'"):
            search.main(arguments)
    assert not (tmp_path / 's').exists()


def test_what_is_for_a_study_is_not_for_its_report(tmp_path):
    with pytest.raises(UserError, match='--trials is for --study; --report=DIR shows what is'):
        search.main([f'--report={tmp_path}', '--trials=4'])
    with pytest.raises(UserError, match='--study needs --workdir=DIR'):
        search.main([f'--study={STUDY}'])


def test_a_study_that_is_not_there_or_no_search_is_refused(tmp_path):
    with pytest.raises(UserError, match='there is no file'):
        read_search('configs/searches/nothing.py')
    with pytest.raises(UserError, match="no search 'sst2'; there are mrpc and mrpc-grid"):
        read_search(f'{STUDY}:sst2')
    (tmp_path / 'mine.py').write_text('get_search = lambda: 3')
    with pytest.raises(UserError, match='gives int, not a Search'):
        read_search(f'{tmp_path}/mine.py')


def test_another_folder_is_refused(tmp_path):
    overrides = {'init_from': 'M', 'data.path': 'D'}
    trials = Trials(STUDY, read_search(f'{STUDY}:mrpc'), overrides, tmp_path)
    trials.write_identity()
    trials.check_folder()
    with pytest.raises(UserError, match="another search: its space is .*'epochs'"):
        Trials(STUDY, read_search(f'{STUDY}:mrpc-grid'), overrides, tmp_path).check_folder()
    with pytest.raises(UserError, match='is not the folder of a search'):
        search_members.read_identity(tmp_path / 'other')
    record.write_json(tmp_path / record.PLAN_FILE, {})
    with pytest.raises(UserError, match='is the folder of a sweep'):
        trials.check_folder()


# The two studies.


def commands(shown: str) -> list[list[str]]:
    return [shlex.split(line) for line in shown.splitlines() if line.startswith('python -m')]


def test_the_grid_is_that_of_the_paper(tmp_path, capsys):
    arguments = [f'--study={STUDY}:mrpc-grid', f'--workdir={tmp_path}/s', *FILES, '--dry_run']
    assert search.main(arguments) == 0
    default, *trials = commands(capsys.readouterr().out)
    assert not any('learning_rate' in word or 'batch_size' in word for word in default)
    fields = [dict(w.removeprefix('--config.').split('=') for w in t[3:]) for t in trials]
    pairs = {(f['optimizer.learning_rate'], f['loop.batch_size']) for f in fields}
    rates, batches = ('0.0003', '0.0001', '5e-05', '3e-05'), ('8', '16', '32', '64', '128')
    assert pairs == {(rate, batch) for rate in rates for batch in batches}
    assert len(trials) == 20
    # Four times the 3,668 rows.
    for one in fields:
        rows = int(one['loop.num_steps']) * int(one['loop.batch_size'])
        assert abs(rows - 4 * 3668) <= int(one['loop.batch_size']) / 2
    assert search.main([*arguments, '--trials=99']) == 0
    shown = capsys.readouterr()
    assert len(commands(shown.out)) == 21
    assert 'note: the grid has 20 combinations' in shown.err


# The runner with members that are decided on as it goes.


class OneHopeless:
    """Gives a, then b, which it calls hopeless as soon as it has written something."""

    def __init__(self, root: Path) -> None:
        self.root, self.names = root, ['a', 'b']
        self.log: list[tuple[str, str]] = []

    @property
    def num_to_come(self) -> int:
        return len(self.names)

    def begin(self) -> Sequence[Member]:
        return []

    def next(self) -> Member | None:
        if not self.names:
            return None
        name = self.names.pop(0)
        return Member(Change(name), (stage(name, 'mrpc'),), None)

    def is_hopeless(self, key: str) -> bool:
        return key == 'b/mrpc' and record.last_line(self.root, key).get('step', 0) >= 1

    def ended(self, key: str, state: str) -> None:
        self.log.append((key, state))


def test_the_runner_takes_members_as_they_come_and_stops_the_hopeless(tmp_path, capsys):
    (tmp_path / 'how.json').write_text(json.dumps({'b/mrpc': 'slow'}))
    feed = OneHopeless(tmp_path)
    default = Member(Change('default'), (stage('default', 'mrpc'),), None)
    assert LocalRunner(tmp_path, [default], 1, feed=feed).run() == 0
    assert feed.log == [
        ('default/mrpc', 'finished'), ('a/mrpc', 'finished'), ('b/mrpc', 'pruned'),
    ]  # fmt: skip
    assert record.read_record(tmp_path, 'b/mrpc').state == 'pruned'
    assert 'saved' in (tmp_path / 'b/mrpc/log.txt').read_text()
    assert 'b/mrpc: pruned after' in capsys.readouterr().out


# The report.


def a_folder(root: Path, is_lower_better: bool = False) -> Path:
    trials = Trials(
        f'{STUDY}:mrpc',
        a_search(is_lower_better=is_lower_better, space={'rate': Floats(1e-5, 1e-3)}),
        {'init_from': "a model's folder", 'data.path': 'D'},
        root,
    )
    trials.write_identity()
    states = {'default': 0.7, 'trial-000': 0.6, 'trial-001': 0.9, 'trial-002': None}
    for name, value in states.items():
        fields = {'init_from': "a model's folder", 'optimizer.learning_rate': 2e-5}
        one = stage(name, 'mrpc', **{'loop.num_steps': 5, **fields})
        state = record.FINISHED if value else record.PRUNED
        record.write_record(root, one, record.Record(state, record.settings_of(one), 0, 9.0))
        lines = [
            {'step': step, 'split': 'validation', 'accuracy': 0.1 * step, 'loss': 1.0}
            for step in (1, 2)
        ]
        (root / name / 'mrpc/metrics.jsonl').write_text('\n'.join(map(json.dumps, lines)))
        if value:
            (root / name / 'mrpc/results.json').write_text(json.dumps({'accuracy': value}))
    return root


PARAMETERS = {0: {'rate': 2e-5}, 1: {'rate': 0.00012345}, 2: {'rate': 1e-3}}


def test_the_report_names_the_best_beside_the_default_and_its_command(tmp_path, capsys):
    root = a_folder(tmp_path / 's')
    found = search_report.read(root, PARAMETERS)
    assert found.best is not None and found.best.name == 'trial-001'
    search_report.show(root, found)
    shown = capsys.readouterr().out
    summary = (
        'Best accuracy: 0.9000, trial-001 (rate 0.0001234); the default has 0.7000 (finished).'
    )
    assert summary in shown
    (line,) = (line for line in shown.splitlines() if line.startswith('  python -m'))
    assert shlex.split(line) == [
        'python', '-m', 'albert_jax.finetune', '--config=f.py:x', '--config.loop.num_steps=5',
        "--config.init_from=a model's folder", '--config.optimizer.learning_rate=2e-05',
        f'--workdir={tmp_path}/s-best',
    ]  # fmt: skip
    text = (root / 'report.md').read_text()
    assert '|  | rate | accuracy | state |\n|---|---:|---:|---|\n' in text
    assert '| default |  | 0.7000 | finished |' in text
    assert '| trial-002 | 0.001 | 0.2000 | pruned |' in text
    assert summary in text and line.strip() in text
    page = (root / 'report.html').read_text()
    assert 'trial-002' in page and 'a model&#x27;' in page and '__' not in page.split('<script')[0]


def test_the_best_may_be_the_lowest_and_there_may_be_none(tmp_path):
    root = a_folder(tmp_path / 's', is_lower_better=True)
    found = search_report.read(root, PARAMETERS)
    assert found.best is not None and found.best.name == 'trial-000'
    # Of a pruned one alone there is no best.
    none = search_report.read(root, {2: PARAMETERS[2]})
    assert none.best is None and search_report.best_command(root, none) is None
    assert search_report.summary(none).startswith('No trial is finished; the default has 0.7000')
