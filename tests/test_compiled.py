"""Where compiled programs are kept, and what short commands must not import or compile."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from albert_jax.cli import compiled
from albert_jax.cli.paths import user_cache
from tests.conftest import ROOT

NAMES = (
    'JAX_COMPILATION_CACHE_DIR', 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', 'XDG_CACHE_HOME',
)  # fmt: skip


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """As of a process that has not imported JAX, with a cache of its own."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.delitem(sys.modules, 'jax')
    return monkeypatch


def found():
    """What is set, which is removed again."""
    values = [os.environ.pop(name, None) for name in NAMES[:2]]
    return values[0], values[1] and float(values[1])


def test_programs_are_kept_in_the_users_cache(environment, tmp_path):
    compiled.keep_programs()
    folder, seconds = found()
    assert folder == str(tmp_path / 'cache' / 'albert_jax' / 'compiled')
    # JAX's own threshold of a second would keep none of a small model's.
    assert seconds is not None and 0 < seconds <= 0.1
    assert Path(folder).stat().st_mode & 0o777 == 0o700
    environment.delenv('XDG_CACHE_HOME')
    environment.setenv('HOME', str(tmp_path / 'home'))
    compiled.keep_programs()
    assert found()[0] == str(tmp_path / 'home' / '.cache' / 'albert_jax' / 'compiled')


@pytest.mark.parametrize('value', ['', '~/cc', 'cc', './cc'])
def test_a_relative_path_of_the_cache_is_ignored(value, environment, tmp_path):
    """By the XDG Base Directory Specification; nothing is made below the folder of today."""
    environment.setenv('HOME', str(tmp_path / 'home'))
    environment.setenv('XDG_CACHE_HOME', value)
    environment.chdir(tmp_path)
    assert user_cache() == tmp_path / 'home' / '.cache' / 'albert_jax'


def test_what_a_person_has_set_stays(environment):
    for folder, seconds in (('elsewhere', '7'), ('', '7')):
        environment.setenv(NAMES[0], folder)
        environment.setenv(NAMES[1], seconds)
        compiled.keep_programs()
        assert found() == (folder, 7)
    assert not user_cache().exists()


def test_without_a_folder_that_can_be_written_nothing_is_kept(environment, tmp_path, capfd):
    (tmp_path / 'file').write_text('')
    environment.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    compiled.keep_programs()
    assert found()[0] is None
    environment.setenv('XDG_CACHE_HOME', str(tmp_path))
    environment.setattr(os, 'access', lambda *_: False)
    compiled.keep_programs()
    assert found()[0] is None
    environment.delenv('XDG_CACHE_HOME')

    def homeless():
        raise RuntimeError('Could not determine home directory.')

    environment.setattr(Path, 'home', homeless)
    compiled.keep_programs()
    assert found()[0] is None and capfd.readouterr() == ('', '')


def test_what_was_not_used_for_the_longest_time_goes_first(tmp_path):
    sizes = {'a': 10, 'b': 20, 'programs/c': 30, 'd': 40}
    (tmp_path / 'programs').mkdir()
    for age, (name, size) in enumerate(sizes.items()):
        (tmp_path / name).write_bytes(bytes(size))
        os.utime(tmp_path / name, (1e9 + age, 1e9))
    for most, left in ((100, 'a b c d'), (99, 'b c d'), (70, 'c d'), (69, 'd'), (0, '')):
        compiled.remove_oldest(tmp_path, most)
        names = sorted(path.name for path in tmp_path.rglob('*') if path.is_file())
        assert names == left.split()


def test_the_folder_is_looked_through_once_a_day(environment, tmp_path):
    environment.setattr(compiled, '_MAX_BYTES', 10)
    compiled.keep_programs()
    folder = Path(found()[0])
    (folder / 'program').write_bytes(bytes(20))
    compiled.keep_programs()
    assert found()[0] and (folder / 'program').exists()
    os.utime(folder / 'looked-through', (1e9, 1e9))
    compiled.keep_programs()
    assert found()[0] and not (folder / 'program').exists()


_SCRIPT = """
import json, sys
from albert_jax.cli.compiled import keep_programs
keep_programs()
import jax
programs = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **more: programs.append(event) if 'backend_compile' in event else None
)
import albert_jax
from albert_jax import explain, fill_mask, predict
counts = []
for run in (
    lambda: predict.main([f'--checkpoint={sys.argv[1]}', f'--input={sys.argv[3]}']),
    lambda: fill_mask.main([f'--checkpoint={sys.argv[2]}', 'a [MASK] b']),
    lambda: albert_jax.load(sys.argv[2]).embed(['a', 'b c']),
    lambda: explain.main([f'--checkpoint={sys.argv[1]}', f'--output={sys.argv[4]}', 'a good b']),
):
    before = len(programs)
    run()
    counts.append(len(programs) - before)
modules = sorted({name.split('.')[0] for name in sys.modules})
print(json.dumps({'counts': counts, 'modules': modules}))
"""


def run(environment, script, *arguments):
    env = {name: value for name, value in os.environ.items() if name != NAMES[0]} | environment
    command = [sys.executable, '-c', script, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_what_short_commands_import_and_compile(checkpoints, tmp_path):
    """What a newcomer waits for, counted in modules and programs: seconds differ."""
    (tmp_path / 'texts.txt').write_text('a good text\na bad one\n')
    seen = run(
        {'XDG_CACHE_HOME': str(tmp_path / 'cache')}, _SCRIPT, checkpoints / 'mood',
        checkpoints / 'base', tmp_path / 'texts.txt', tmp_path / 'page.html',
    )  # fmt: skip
    # predict, fill_mask, embed; explain: layers, outputs, gradients.
    for count, most in zip(seen['counts'], (1, 1, 1, 3), strict=True):
        assert 0 < count <= most
    heavy = {'scipy', 'sklearn', 'pandas', 'matplotlib', 'tensorflow', 'torch', 'transformers',
             'tensorflow_datasets', 'huggingface_hub', 'tensorboardX', 'grain', 'sacrebleu',
             'fastapi'}  # fmt: skip
    assert heavy.isdisjoint(seen['modules'])
    kept = {path.name.split('-')[0] for path in (tmp_path / 'cache/albert_jax/compiled').iterdir()}
    assert kept >= {'jit__predict', 'jit__likeliest', 'jit_last_layer', 'jit__gradients'}


_CURVE = """
import json, sys
from albert_jax import curve
curve.main([f'--output={sys.argv[1]}/curve.png', sys.argv[1]])
print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))
"""


def test_a_curve_needs_no_jax(tmp_path):
    line = {'step': 1, 'split': 'validation', 'mlm_loss': 2.0, 'mlm_accuracy': 0.5}
    (tmp_path / 'metrics.jsonl').write_text(json.dumps(line) + '\n')
    modules = run({}, _CURVE, tmp_path)
    assert {'jax', 'flax', 'orbax', 'tensorboardX'}.isdisjoint(modules)
    assert (tmp_path / 'curve.png').stat().st_size > 10_000
