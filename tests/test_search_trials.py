"""Searches with Optuna: what is asked, told, stopped, and asked again after a kill.

The runs are tests/fake_run.py: the better the nearer their rate is to 1e-4.
"""

import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from albert_jax import finetune
from albert_jax.cli.errors import UserError
from configs.changes import FieldValue
from configs.search_space import Choices, Floats, Search
from launch import record, search, search_report
from launch.local import LocalRunner
from launch.search_members import Trials, trial_name
from launch.stages import Member
from tests.conftest import ROOT
from tests.tiny import finetune_flags

pytestmark = pytest.mark.slow
optuna = pytest.importorskip('optuna', reason='needs the extra search')


class FakeTrials(Trials):
    """As the search makes them, but for the module that runs."""

    def _member(self, name: str, fields: dict[str, FieldValue]) -> Member:
        member = super()._member(name, fields)
        (stage,) = member.stages
        return dataclasses.replace(
            member, stages=(dataclasses.replace(stage, module='tests.fake_run'),)
        )


def of_rate(parameters) -> dict[str, FieldValue]:
    return {'optimizer.learning_rate': parameters['rate']}


COMMON = {'loop.num_steps': 5, 'optimizer.warmup_steps': 0, 'loop.eval_every': 1,
          'loop.checkpoint_every': 1}  # fmt: skip


def make(root: Path, num_trials: int, **changes: Any):
    """A runner, as launch.search makes it."""
    from launch.search_study import Feed

    root.mkdir(exist_ok=True)
    if not (root / 'how.json').exists():
        (root / 'how.json').write_text('{}')
    fields = {
        'title': 'x', 'space': {'rate': Floats(1e-6, 1e-2, is_log=True)}, 'fields': of_rate,
        'metric': 'accuracy', 'num_trials': 3, 'pruner': 'none', 'common': COMMON,
    }  # fmt: skip
    trials = FakeTrials('x', Search(**fields | changes), {}, root)
    runner = LocalRunner(root, [trials.default], 1, feed=Feed(trials, num_trials))
    return runner, trials


def run(root: Path, num_trials: int, **changes: Any) -> int:
    runner, trials = make(root, num_trials, **changes)
    return runner.run(trials.write_identity)


def found(root: Path) -> search_report.Found:
    from launch.search_study import read_parameters

    return search_report.read(root, read_parameters(root))


def rates(root: Path) -> list[FieldValue]:
    return [row.parameters['rate'] for row in found(root).rows[1:]]


def started(root: Path) -> list[str]:
    return [line.partition('/')[0] for line in (root / 'started.txt').read_text().split()]


def test_the_seed_decides_the_trials_and_a_pause_does_not(tmp_path):
    assert run(tmp_path / 'a', 14) == 0
    # More than the ten by chance that the sampler begins with, in three parts.
    for number in (3, 12, 14):
        assert run(tmp_path / 'b', number) == 0
    assert rates(tmp_path / 'a') == rates(tmp_path / 'b')
    assert len(set(rates(tmp_path / 'a'))) == 14
    assert started(tmp_path / 'b') == ['default', *map(trial_name, range(14))]
    assert run(tmp_path / 'c', 3, seed=1) == 0
    assert not set(rates(tmp_path / 'a')) & set(rates(tmp_path / 'c'))
    # All are there: nothing runs again.
    assert run(tmp_path / 'b', 14) == 0
    assert len(started(tmp_path / 'b')) == 15
    best = found(tmp_path / 'a').best
    assert best is not None and best.value == max(r.value for r in found(tmp_path / 'a').rows[1:])
    # The sampler has learnt where the best is.
    assert best.value > 0.9


def test_a_damaged_journal_is_one_sentence_and_an_empty_one_no_trial(tmp_path):
    from launch.search_study import read_parameters

    assert run(tmp_path, 1) == 0
    journal = tmp_path / 'trials.journal'
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text(''.join([*lines[:2], '{"op_co\n', *lines[2:]]))
    with pytest.raises(UserError, match='trials.journal is damaged .*; choose another --workdir'):
        read_parameters(tmp_path)
    with pytest.raises(UserError, match='is damaged'):
        run(tmp_path, 2)
    journal.write_text('')
    assert read_parameters(tmp_path) == {}


_RUN = """
import sys
from pathlib import Path
from tests.test_search_trials import run
sys.exit(run(Path(sys.argv[1]), int(sys.argv[2])))
"""


def start_slowly(root: Path, slow: str) -> subprocess.Popen[str]:
    root.mkdir()
    (root / 'how.json').write_text(json.dumps({f'{slow}/mrpc': 'slow'}))
    process = subprocess.Popen(
        [sys.executable, '-c', _RUN, str(root), '4'], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while record.last_line(root, f'{slow}/mrpc').get('step', 0) < 1:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    return process


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGINT])
def test_a_trial_that_was_killed_is_asked_again_and_none_is_lost(number, tmp_path):
    root = tmp_path / 's'
    process = start_slowly(root, 'trial-002')
    os.kill(process.pid, number)
    text, _ = process.communicate(timeout=300)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number), text
    assert 'Traceback' not in text
    # A kill may cut the line that is being written.
    with (root / 'trials.journal').open('a') as journal:
        journal.write('{"op_code": 4, "wor')
    (root / 'how.json').write_text('{}')
    assert run(root, 4) == 0
    assert Counter(started(root)) == {
        'default': 1, 'trial-000': 1, 'trial-001': 1, 'trial-002': 2, 'trial-003': 1,
    }  # fmt: skip
    # It went on where it was.
    lines = record.metric_lines(root, 'trial-002/mrpc')
    assert [line['step'] for line in lines] == [1, 2, 3, 4, 5]
    assert [row.state for row in found(root).rows] == ['finished'] * 5
    assert run(tmp_path / 'whole', 4) == 0
    assert rates(root) == rates(tmp_path / 'whole')


def test_a_trial_that_had_ended_when_the_search_was_killed_does_not_run_again(tmp_path):
    from launch.search_study import Feed

    assert run(tmp_path, 2) == 0
    _, trials = make(tmp_path, 3)
    feed = Feed(trials, 3)
    feed.begin()
    member = feed.next()
    assert member is not None
    # As if it had ended, and Optuna had not been told.
    (stage,) = member.stages
    done = record.Record(record.FINISHED, record.settings_of(stage), 0, 1.0)
    record.write_record(tmp_path, stage, done)
    (tmp_path / stage.key / 'results.json').write_text('{"accuracy": 0.25}')
    again = Feed(trials, 3)
    assert again.begin() == [] and again.num_to_come == 0
    values = optuna.load_study(
        study_name='search',
        storage=optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(tmp_path / 'trials.journal'))
        ),
    ).trials
    assert [trial.state.name for trial in values] == ['COMPLETE'] * 3
    assert values[2].value == 0.25


@pytest.mark.parametrize('pruner', ['median', 'hyperband'])
def test_a_trial_that_falls_behind_is_stopped_and_says_so(pruner, tmp_path, capsys):
    good = [1e-4, 1.1e-4, 0.9e-4, 1.2e-4, 0.8e-4, 1.3e-4, 1.4e-4]
    bad = [1e-2, 0.9e-2, 0.8e-2, 0.7e-2]
    (tmp_path / 'how.json').write_text(
        json.dumps({f'trial-{number:03d}/mrpc': 'slow' for number in range(7, 11)})
    )
    changes = {
        'sampler': 'grid', 'space': {'rate': Choices(*good, *bad)}, 'pruner': pruner,
    }  # fmt: skip
    assert run(tmp_path, 11, **changes) == 0
    rows = found(tmp_path).rows
    states = Counter(row.state for row in rows)
    assert states['finished'] + states['pruned'] == 12
    shown = capsys.readouterr().out
    pruned = [row for row in rows if row.state == 'pruned']
    assert pruned and {row.parameters['rate'] for row in pruned} <= set(bad)
    for row in pruned:
        assert record.last_line(tmp_path, f'{row.name}/mrpc')['step'] < 5
        assert f'{row.name}/mrpc: pruned after' in shown
    best = found(tmp_path).best
    assert best is not None and best.parameters['rate'] == 1e-4
    # What was stopped stays so.
    assert run(tmp_path, 11, **changes) == 0
    assert len(started(tmp_path)) == 12


def test_the_grid_has_every_combination_once_and_tries_what_failed_again(tmp_path):
    space = {'rate': Choices(1e-3, 1e-4), 'seed': Choices(5, 6, 7)}

    def fields(parameters) -> dict[str, FieldValue]:
        return of_rate(parameters) | {'loop.seed': parameters['seed']}

    changes = {'sampler': 'grid', 'space': space, 'fields': fields}
    (tmp_path / 'how.json').write_text('{"trial-003/mrpc": "fail"}')
    assert run(tmp_path, 6, **changes) == 2
    rows = found(tmp_path).rows[1:]
    combinations = [(rate, seed) for rate in (1e-3, 1e-4) for seed in (5, 6, 7)]
    assert [tuple(row.parameters.values()) for row in rows] == combinations
    assert [row.state for row in rows].count('failed') == 1
    (tmp_path / 'how.json').write_text('{}')
    assert run(tmp_path, 6, **changes) == 0
    rows = found(tmp_path).rows[1:]
    done = [tuple(row.parameters.values()) for row in rows if row.state == 'finished']
    assert sorted(done) == sorted(combinations)
    assert len(started(tmp_path)) == 1 + 6 + 1


def test_when_the_default_fails_no_further_trial_starts(tmp_path, capsys):
    (tmp_path / 'how.json').write_text('{"default/mrpc": "fail"}')
    assert run(tmp_path, 3) == 2
    assert started(tmp_path) == ['default']
    assert 'the corpus is on another planet' in capsys.readouterr().out
    (tmp_path / 'how.json').write_text('{}')
    assert run(tmp_path, 3) == 0
    assert len(started(tmp_path)) == 5


STUDY = """
from configs.search_space import Choices, Search


def get_search():
    return Search(
        title='Mood', config='configs/finetune.py:classification', metric='accuracy',
        space={'rate': Choices(1e-9, 1e-2)}, sampler='grid',
        fields=lambda parameters: {'optimizer.learning_rate': parameters['rate']},
    )
"""


def test_the_command_of_the_best_of_real_runs_works_as_printed(
    checkpoint, mood_files, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(ROOT)
    (tmp_path / 'mine.py').write_text(STUDY)
    flags = finetune_flags(checkpoint, mood_files, tmp_path / 'cache')
    fields = [flag.removeprefix('--config.') for flag in flags if flag.startswith('--config.')]
    common = [f for f in fields if not f.startswith('optimizer.learning_rate')]
    root = tmp_path / "a person's search"
    arguments = [
        f'--study={tmp_path}/mine.py', f'--workdir={root}',
        *(f'--override={field}' for field in common),
    ]  # fmt: skip
    assert search.main(arguments) == 0
    shown = capsys.readouterr().out
    rows = found(root).rows
    assert [row.state for row in rows] == ['finished'] * 3
    best = found(root).best
    assert best is not None and best.value is not None and best.parameters == {'rate': 1e-2}
    assert f'Best accuracy: {best.value:.4f}, trial-001 (rate 0.01)' in shown
    (line,) = (line for line in shown.splitlines() if line.startswith('  python -m'))
    assert line in (root / 'report.md').read_text().replace('python -m', '  python -m')
    _, _, module, *words = shlex.split(line)
    assert module == 'albert_jax.finetune' and finetune.main(words) == 0
    results = json.loads((tmp_path / "a person's search-best/results.json").read_text())
    assert results['accuracy'] == pytest.approx(best.value, abs=1e-5)
    # All is finished: the same command, and --report, show the same.
    capsys.readouterr()
    assert search.main(arguments) == 0
    assert f'Best accuracy: {best.value:.4f}' in capsys.readouterr().out
    assert search.main([f'--report={root}']) == 0
    assert f'Best accuracy: {best.value:.4f}' in capsys.readouterr().out
    assert len(record.metric_lines(root, 'trial-001/classification')) > 0
