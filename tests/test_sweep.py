"""Sweeps: read, checked, run as processes, stopped, resumed, and reported."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from albert_jax.cli.errors import UserError
from configs.changes import Change, Sweep
from launch import cores, record, report, results, sweep
from launch.local import LocalRunner
from launch.plan import make_plan
from launch.stages import Member, make_members, missing_inputs, read_overrides, read_sweep
from tests.conftest import ROOT
from tests.fake_stages import members, stage

NAMES = (
    'embedding', 'sharing', 'groups', 'sentence_loss', 'depth', 'width', 'dropout', 'added_data',
    'ngram', 'equal_time',
)  # fmt: skip


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


# Reading.


@pytest.mark.parametrize('scale', ['base', 'mini'])
@pytest.mark.parametrize('name', NAMES)
def test_every_ablation_is_a_short_named_diff_that_its_commands_accept(name, scale):
    found = read_sweep(f'configs/sweeps/{name}.py:{scale}')
    members = make_members(found, {})
    for member in members:
        assert len(member.change.fields) <= 10
        assert member.stages[0].name == 'pretrain'
        assert [stage.name for stage in member.stages if stage.needs] != []
    names = {member.change.name for member in members}
    if scale == 'base':
        # Every published row is one that is run.
        assert set(found.published) <= names
        assert 'Avg' in found.columns.values()


def test_depth_starts_from_the_shallower_net():
    members = make_members(read_sweep('configs/sweeps/depth.py'), {})
    assert [dict(m.stages[0].settings).get('init_from') for m in members] == [
        None, *(f'{{root}}/layers{n}/pretrain' for n in (1, 3, 6, 12, 24)),
    ]  # fmt: skip
    arguments = members[1].stages[0].arguments('runs/depth')
    assert '--config.init_from=runs/depth/layers1/pretrain' in arguments
    assert members[1].stages[0].needs == ('layers1/pretrain',)


def test_the_paper_has_these_numbers():
    sharing = read_sweep('configs/sweeps/sharing.py')
    assert sharing.published['e128-all'] == {'Avg': 80.1}
    own = read_sweep('configs/sweeps/sentence_loss.py').published
    assert own['sop'] == {'MLM': 54.0, 'NSP': 78.9, 'SOP': 86.5, 'Avg': 80.1}


def test_overrides_are_for_a_part_a_task_or_a_member():
    found = read_sweep('configs/sweeps/sharing.py:mini')
    overrides = read_overrides(
        ['pretrain.loop.num_steps=700', 'finetune.loop.num_steps=800', 'sst2.loop.batch_size=16',
         'ffn/pretrain.loop.seed=5']
    )  # fmt: skip
    members = {member.change.name: member for member in make_members(found, overrides)}
    pretraining, intrinsic, tuning = members['ffn'].stages
    assert (pretraining.num_steps, intrinsic.num_steps) == (700, 0)
    # Though the sweep itself has a value for sst2.
    assert tuning.num_steps == 800
    assert pretraining.settings['loop.seed'] == '5'
    assert tuning.settings['loop.batch_size'] == '16'
    assert 'loop.seed' not in members['all'].stages[0].settings


@pytest.mark.parametrize(
    ('override', 'message'),
    [
        ('pretrain.loop.num_stepz=7', 'num_stepz'),
        ('pretrain.model.num_attention_heads=5', 'all: .* 5 attention heads'),
        ('mnli.loop.seed=1', "there is no part 'mnli' in this sweep"),
        ('nobody/pretrain.loop.seed=1', "there is no member 'nobody'"),
        ('loop', 'write PART.FIELD=VALUE'),
        (
            'pretrain.model.sharing=all',
            'the members of this sweep differ in pretrain.model.sharing',
        ),
    ],
)
def test_a_wrong_override_is_refused_before_anything_runs(override, message):
    found = read_sweep('configs/sweeps/sharing.py:mini')
    with pytest.raises(UserError, match=message):
        make_members(found, read_overrides([override]))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('def get_sweep(: pass', 'SyntaxError'),
        ('x = 1', 'get_sweep'),
        ('def get_sweep(scale="base"):\n    return 3', 'gives int, not a Sweep'),
        ('import nothing_at_all', "No module named 'nothing_at_all'"),
    ],
)
def test_a_wrong_file_is_refused(text, message, tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_sweep(str(path))


def test_unknown_scales_and_files_are_refused():
    with pytest.raises(UserError, match='there is no file'):
        read_sweep('configs/sweeps/nothing.py')
    with pytest.raises(UserError, match="no scale 'huge'; there are base and mini"):
        read_sweep('configs/sweeps/depth.py:huge')


def test_the_cost_comes_from_plan(capsys, monkeypatch):
    monkeypatch.setenv('COLUMNS', '80')
    arguments = ['--sweep=configs/sweeps/sentence_loss.py', '--workdir=nowhere', '--dry_run']
    assert sweep.main([*arguments, '--topology=v5e:4x4', '--price=2']) == 0
    shown = capsys.readouterr().out
    from albert_jax.planning.estimate import on_paper
    from albert_jax.planning.topologies import parse

    member = make_members(read_sweep('configs/sweeps/sentence_loss.py'), {})[0]
    paper = on_paper(member.run, parse('v5e:4x4'))
    hours = 3 * paper.bound_seconds * 125_000 / 3600
    assert f'{hours:,.1f} hours, {16 * hours:,.0f} chip-hours, {32 * hours:,.0f} at 2' in shown
    assert shown.count('python -m albert_jax.') == 3 * 7
    # No head and no number is cut at 80 columns.
    heads = ['member', 'size', 'steps', 'length', 'FLOP', 'hours', 'hours', 'cost', 'done']
    assert heads in [line.split() for line in shown.splitlines()] and '…' not in shown
    with pytest.raises(UserError, match='none: .* multiple of 16'):
        sweep.main([*arguments, '--topology=v5e:4x4', '--override=pretrain.loop.batch_size=9'])


@pytest.mark.parametrize(
    ('overrides', 'message'),
    [
        (['pairs.limit_per_group=20'], 'pairs.path is missing; minimal pairs have pairs.path, '),
        (['pairs.path=x', 'pairs.limit_per_group=few'], 'is few; it must be a whole number, 0 or'),
        (['pairs.path=x', 'pairs.limit_per_group=-1'], 'is -1; it must be a whole number, 0 or'),
        (['pairs.path=x', 'pairs.file=y'], r'there is no pairs\.file; minimal pairs have '),
    ],
)
def test_minimal_pairs_are_named_by_their_file(overrides, message):
    with pytest.raises(UserError, match=message):
        make_members(read_sweep('configs/sweeps/recipe.py:mini'), read_overrides(overrides))


def test_minimal_pairs_are_a_column_where_a_file_is_named():
    found = read_sweep('configs/sweeps/recipe.py:mini')
    for overrides, titles in ((['pairs.path=blimp.jsonl'], ['BLiMP']), ([], [])):
        members = make_members(found, read_overrides(overrides))
        columns = make_plan('', found, members, {})['columns']
        assert [title for title in columns.values() if title == 'BLiMP'] == titles
    members = make_members(found, {'pairs.path': 'blimp.jsonl', 'pairs.limit_per_group': '20'})
    stage = members[0].stages[2]
    assert stage.arguments('runs') == [
        '-m', 'albert_jax.evaluate', '--checkpoint=runs/paper/pretrain', '--pairs=blimp.jsonl',
        '--limit_per_group=20', '--output=runs/paper/pairs',
    ]  # fmt: skip
    assert missing_inputs(members[:1])[0] == (
        'paper: pairs.path is blimp.jsonl, which is not there.'
    )


# Running.


def started(root: Path) -> list[str]:
    path = root / 'started.txt'
    return path.read_text().split() if path.exists() else []


def test_all_run_once_and_a_second_time_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('COLUMNS', '80')
    (tmp_path / 'how.json').write_text('{}')
    assert LocalRunner(tmp_path, members('a', 'b'), 2).run() == 0
    # The table at the end has what each has reached, and whole heads.
    shown = capsys.readouterr().out
    assert shown.count('sst2: accuracy 0.5') == 2 and 'pretrain: accuracy 0.5' in shown
    (head,) = (line for line in shown.splitlines() if 'member' in line)
    assert head.split() == ['member', 'done', 'state', 'results', 'time']
    assert '…' not in shown and max(map(len, shown.splitlines())) <= 80
    assert sorted(started(tmp_path)) == ['a/pretrain', 'a/sst2', 'b/pretrain', 'b/sst2']
    assert LocalRunner(tmp_path, members('a', 'b'), 2).run() == 0
    assert len(started(tmp_path)) == 4


def cores_of(root: Path) -> list[list[int]]:
    return [json.loads(line) for line in (root / 'cores.txt').read_text().splitlines()]


def test_jobs_share_the_cores_and_one_has_all(tmp_path):
    available = sorted(os.sched_getaffinity(0))
    for num_jobs in (1, 2):
        root = tmp_path / str(num_jobs)
        root.mkdir()
        (root / 'how.json').write_text('{}')
        assert LocalRunner(root, members('a', 'b', 'c'), num_jobs).run() == 0
    assert cores_of(tmp_path / '1') == [available] * 6
    halves = {tuple(available[::2]), tuple(available[1::2] or available)}
    assert set(map(tuple, cores_of(tmp_path / '2'))) == halves


def test_cores_are_shared_as_evenly_as_there_are(monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: {3, 5, 7, 11, 13})
    assert cores.shares(2) == [{3, 7, 13}, {5, 11}]
    assert cores.shares(7) == [{3}, {5}, {7}, {11}, {13}, {3}, {5}]
    assert cores.shares(1) == [None]
    # A GPU computes.
    monkeypatch.setattr(cores, 'has_accelerator', lambda: True)
    assert cores.shares(2) == [None, None]


def test_others_continue_when_one_fails_and_it_is_tried_again(tmp_path, capsys):
    how = tmp_path / 'how.json'
    how.write_text(json.dumps({'a/pretrain': 'fail'}))
    # A mistake, as the process itself says.
    assert LocalRunner(tmp_path, members('a', 'b'), 1).run() == 2
    shown = capsys.readouterr().out
    assert 'failed: a/pretrain: error: the corpus is on another planet.' in shown
    assert '1 of 4 failed; 1 that need them were left out' in shown
    assert started(tmp_path) == ['a/pretrain', 'b/pretrain', 'b/sst2']
    how.write_text('{}')
    assert LocalRunner(tmp_path, members('a', 'b'), 1).run() == 0
    assert started(tmp_path)[3:] == ['a/pretrain', 'a/sst2']


def test_one_alone_that_starts_from_another(tmp_path):
    (tmp_path / 'how.json').write_text('{}')
    deeper = Member(Change('b', after='a'), (stage('b', 'pretrain', 'a/pretrain'),), None)
    with pytest.raises(UserError, match='b starts from a, which is not finished .* --only=a first'):
        LocalRunner(tmp_path, [deeper], 1, ['b']).run()
    assert started(tmp_path) == []
    LocalRunner(tmp_path, members('a'), 1, ['a']).run()
    assert LocalRunner(tmp_path, [deeper], 1, ['b']).run() == 0
    assert started(tmp_path)[-1] == 'b/pretrain'


def test_a_finished_stage_keeps_its_settings(tmp_path):
    (tmp_path / 'how.json').write_text('{}')
    LocalRunner(tmp_path, members('a'), 1).run()
    other = Member(Change('a'), (stage('a', 'pretrain', seed=1),), None)
    with pytest.raises(UserError, match='was started with seed=None, now it is 1'):
        record.check_same(tmp_path, [other])


_RUN = """
import sys
from pathlib import Path
from launch.local import LocalRunner
from tests.fake_stages import members
sys.exit(LocalRunner(Path(sys.argv[1]), members('a', 'b'), 2).run())
"""


def start(root: Path) -> subprocess.Popen[str]:
    (root / 'how.json').write_text(json.dumps({'a/pretrain': 'slow', 'b/pretrain': 'slow'}))
    return subprocess.Popen(
        [sys.executable, '-c', _RUN, str(root)], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def wait_for_step(root: Path, step: int) -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        lines = [record.last_line(root, f'{name}/pretrain').get('step', 0) for name in 'ab']
        if min(lines) >= step:
            return
        time.sleep(0.1)
    raise AssertionError('the runs did not start')


def test_ctrl_c_saves_all_and_the_same_command_resumes(tmp_path):
    process = start(tmp_path)
    wait_for_step(tmp_path, 1)
    os.killpg(process.pid, signal.SIGINT)
    text, _ = process.communicate(timeout=600)
    assert process.returncode == 128 + signal.SIGINT, text
    assert 'Start the same command again to resume.' in text
    assert 'Traceback' not in text
    for name in 'ab':
        assert 'saved' in (tmp_path / name / 'pretrain/log.txt').read_text()
        assert record.read_record(tmp_path, f'{name}/pretrain').state == 'stopped'
    (tmp_path / 'how.json').write_text('{}')
    assert LocalRunner(tmp_path, members('a', 'b'), 2).run() == 0
    steps = [json.loads(x)['step'] for x in (tmp_path / 'a/pretrain/metrics.jsonl').open()]
    assert steps == [1, 2, 3, 4, 5]


def test_when_the_sweep_is_killed_its_runs_save_and_nothing_runs_twice(tmp_path):
    process = start(tmp_path)
    wait_for_step(tmp_path, 1)
    with pytest.raises(UserError, match='Another process runs the sweep'):
        LocalRunner(tmp_path, members('a', 'b'), 2).run()
    process.kill()
    process.wait()
    # What was left alone still saves; a new sweep waits for it.
    (tmp_path / 'how.json').write_text('{}')
    assert LocalRunner(tmp_path, members('a', 'b'), 2).run() == 0
    steps = [json.loads(x)['step'] for x in (tmp_path / 'b/pretrain/metrics.jsonl').open()]
    assert steps == [1, 2, 3, 4, 5]


# Reporting.


def swept(root: Path) -> None:
    """A folder as a sweep of two rows with two seeds leaves it, one of them failed."""
    columns = {'parameters': 'parameters', 'pretrain.mlm_loss': 'MLM loss',
               'sst2.accuracy': 'SST-2', 'average': 'Avg'}  # fmt: skip
    changes = [Change(f'{row}-seed{seed}', row=row) for row in ('a', 'b') for seed in (0, 1)]
    found = Sweep('A <table>', '', changes, (), {}, columns,
                  {'a': {'Avg': 80.1}, 'c': {'Avg': 79.0}}, 'a paper, Table 4')  # fmt: skip
    own = [Member(change, members(change.name)[0].stages, None) for change in changes]
    (root / 'how.json').write_text(json.dumps({'b-seed1/sst2': 'fail'}))
    num_params = {
        change.name: 1_500_000 * (1 + number // 2) for number, change in enumerate(changes)
    }
    content = make_plan('mine.py', found, own, num_params)
    record.write_json(root / record.PLAN_FILE, content)
    LocalRunner(root, own, 2).run()
    (root / 'a-seed1/sst2/results.json').write_text('{"accuracy": 0.6}')


def test_the_report_has_means_spreads_failures_and_the_papers_numbers(tmp_path, capsys):
    swept(tmp_path)
    assert report.main([str(tmp_path)]) == 0
    lines = (tmp_path / 'report.md').read_text().splitlines()
    assert lines[2] == '|  | parameters | MLM loss | SST-2 | Avg | Avg, published |'
    # Two seeds, 50 and 60: mean 55, sample standard deviation 7.07.
    assert lines[4] == '| a | 1.50 M | 6.60 ± 0.00 | 55.0 ± 7.1 | 55.0 ± 7.1 | 80.1 |'
    assert lines[5] == (
        '| b | 3.00 M | 6.60 ± 0.00 | 50.0 (1 of 2 failed) | 50.0 (1 of 2 failed) |  |'
    )
    assert lines[6] == '| c |  |  |  |  | 79 |'
    assert 'b-seed1/sst2 failed: error: the corpus is on another planet.' in lines[-1]
    assert 'a paper, Table 4; not measured here' in lines[8]
    rows = (tmp_path / 'report.csv').read_text().splitlines()
    assert rows[0] == 'row,column,mean,std,seeds,state,published'
    average = next(row for row in rows if row.startswith('a,Avg')).split(',')
    assert float(average[2]) == 55 and float(average[3]) == pytest.approx(7.0711, abs=1e-4)
    assert average[4:] == ['2', '', '80.1']
    page = (tmp_path / 'report.html').read_text()
    assert (
        'A &lt;table&gt;' in page
        and '<table>' in page
        and 'http' not in page.replace('http://www.w3.org/2000/svg', '')
    )
    assert 'Wrote' in capsys.readouterr().out


@pytest.mark.slow
def test_a_browser_draws_the_page(tmp_path):
    browser = shutil.which('chromium') or shutil.which('google-chrome')
    if browser is None:
        pytest.skip('no Chromium here')
    swept(tmp_path)
    report.main([str(tmp_path)])

    def dom(script: str) -> str:
        page = tmp_path / 'page.html'
        page.write_text((tmp_path / 'report.html').read_text() + f'<script>{script}</script>')
        flags = ['--headless', '--no-sandbox', '--disable-gpu', '--dump-dom']
        return subprocess.run(
            [browser, *flags, page.as_uri()], capture_output=True, text=True, check=True, timeout=60
        ).stdout  # fmt: skip

    shown = dom('')
    assert shown.count('aria-pressed="true"') == 2
    assert shown.count('class="curve"') == 7 and 'pretrain: mlm loss' in shown
    # A member is taken out with a click, and a point names itself.
    less = dom("document.querySelector('#legend button').click()")
    assert less.count('aria-pressed="false"') == 1 and less.count('class="curve"') == 3
    hover = (
        "const s = document.querySelector('svg'), b = s.getBoundingClientRect();"
        'const at = {clientX: b.right - 5, clientY: b.bottom - 30};'
        "s.dispatchEvent(new PointerEvent('pointermove', at))"
    )
    assert 'step 5: 6.6' in dom(hover)
    # Runs with one point have no curve, and the page says so in its place.
    for metrics in tmp_path.rglob('metrics.jsonl'):
        metrics.write_text(metrics.read_text().splitlines()[0] + '\n')
    report.main([str(tmp_path)])
    short = dom('')
    assert 'class="curve"' not in short and 'No run has a metric at two steps yet' in short
    assert '<div class="legend" id="legend" hidden="">' in short


def test_a_report_before_anything_ran_says_waiting(tmp_path):
    found = read_sweep('configs/sweeps/sentence_loss.py:mini')
    content = make_plan('x', found, make_members(found, {}), {})
    record.write_json(tmp_path / record.PLAN_FILE, content)
    text = report.markdown(results.read(tmp_path))
    assert text.count('waiting') == 3 * 5
    (tmp_path / record.PLAN_FILE).write_text('[]')
    with pytest.raises(UserError, match='not what launch.sweep writes'):
        results.read(tmp_path)
    (tmp_path / record.PLAN_FILE).write_text('')
    with pytest.raises(UserError, match='is damaged'):
        results.read(tmp_path)
    with pytest.raises(UserError, match='not the folder of a sweep'):
        results.read(tmp_path / 'other')


def test_stages_that_version_0_1_0_has_begun_are_the_same_stages(tmp_path):
    """The digests were written down with that version."""
    sharing = make_members(read_sweep('configs/sweeps/sharing.py:base'), {})
    before = {'pretrain': '400401e2ba58f682', 'squad1': 'ff87d4944f7fa0f1'}
    for begun in sharing[0].stages:
        if begun.name in before:
            settings = record.settings_of(begun) | {'digest': before[begun.name]}
            record.write_record(tmp_path, begun, record.Record(record.FINISHED, settings))
    record.check_same(tmp_path, sharing)
    other = make_members(
        read_sweep('configs/sweeps/sharing.py:base'), {'pretrain.loop.num_steps': '9999'}
    )
    with pytest.raises(UserError, match='loop.num_steps'):
        record.check_same(tmp_path, other)
