"""Configs as Python files: how they are run, and what is said of what is wrong in them."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from albert_jax.cli import command
from albert_jax.cli.errors import UserError
from albert_jax.cli.libtpu import WITHOUT_CHIPS, silence_without_chips
from albert_jax.cli.python_file import load_python_file
from albert_jax.runs.runs import PretrainRun
from tests.conftest import ROOT

# The file counts how often it was run, and has a dataclass that looks its module up.
COUNTING = """
from __future__ import annotations
import dataclasses
from ml_collections import ConfigDict

@dataclasses.dataclass
class Size:
    width: int = 3

num_runs = globals().get('num_runs', 0) + 1

def get_config(*names):
    return ConfigDict({'names': ','.join(names), 'num_runs': num_runs, 'width': Size().width})
"""


@pytest.fixture
def config_file(tmp_path):
    return tmp_path / 'configs' / 'mine.py'


def write(file, text):
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ('suffix', 'names'),
    [('', ''), (':', ''), (':a', 'a'), (':a:b', 'a:b'), (':sst2+small', 'sst2+small')],
)
def test_what_follows_the_first_colon_is_the_argument(suffix, names, config_file):
    write(config_file, COUNTING)
    with warnings.catch_warnings():
        # Python 3.15 has no load_module.
        warnings.simplefilter('error')
        values = command.read_config(f'{config_file}{suffix}', [])
    assert values == {'names': names, 'num_runs': 1, 'width': 3}


def test_a_file_is_run_anew_each_time_whatever_its_ending(config_file):
    other = write(config_file.with_suffix('.conf'), COUNTING.replace('= 3', '= 5'))
    write(config_file, COUNTING)
    # As those that a script writes one after the other.
    for file in (config_file, other):
        os.utime(file, (1_700_000_000, 1_700_000_000))
    for _ in range(2):
        assert command.read_config(str(config_file), [])['num_runs'] == 1
    assert command.read_config(str(other), ['--config.num_runs=7'])['num_runs'] == 7
    assert command.read_config(str(other), [])['width'] == 5


def test_a_file_that_fails_leaves_no_module(config_file):
    write(config_file, 'raise ValueError("not today")')
    with pytest.raises(ValueError, match='not today'):
        load_python_file(str(config_file), 'of_a_test')
    assert 'of_a_test' not in sys.modules


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('def get_config(:', r'SyntaxError: invalid syntax \(mine.py, line 1\)'),
        ('x = 1', r'AttributeError: .* has no attribute .get_config.'),
        ('\nimport nothing_of_this_name', 'line 2: ModuleNotFoundError: No module named'),
        ('def get_config():\n    return {}["x"]', "line 2: KeyError: 'x'"),
        ('def get_config():\n    raise ValueError("choose a or b.\\nmore")', 'py: choose a or b.$'),
        ('def get_config():\n    return None', 'get_config gives NoneType, not a ConfigDict'),
        ('def get_config():\n    return {"loop": {}}', 'get_config gives dict, not a ConfigDict'),
        ('def get_config(name):\n    return name', 'TypeError: .*missing 1 required'),
        ('def get_config():\n    open("/nothing")', 'line 2: FileNotFoundError'),
    ],
)  # fmt: skip
def test_a_mistake_in_a_file_is_told_with_its_line(text, message, config_file):
    write(config_file, text)
    with pytest.raises(UserError, match=message) as error:
        command.read_config(str(config_file), [])
    assert str(error.value).startswith(f'--config={config_file}: ')
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('config', 'override', 'message'),
    [
        (
            'finetune.py:sst2', 'robust.adversarial_steps=3',
            '--config.robust.adversarial_steps is not a field of the config; did you mean '
            'finetuning.adversarial_steps',
        ),
        ('finetune.py:sst2', 'num_steps=3', r'did you mean loop.num_steps\?'),
        ('finetune.py:sst2', 'loop.path=3', r'did you mean data.path\?'),
        ('pretrain.py:tiny', 'model.hiden_size=3', r'did you mean model.hidden_size\?'),
        ('pretrain.py:tiny', 'loop.num_steps.x=3', 'num_steps.x is not a field of the config'),
        ('pretrain.py:tiny', 'qqq=3', 'qqq is not a field of the config; --help=SECTION lists'),
        ('pretrain.py:tiny', 'loop.num_steps=many', 'loop.num_steps'),
        ('pretrain.py:tiny', 'optimizer.l1=none', 'optimizer.l1'),
    ],
)  # fmt: skip
def test_a_field_that_is_not_there_is_refused_with_the_one_that_is(config, override, message):
    with pytest.raises(UserError, match=message) as error:
        command.read_config(f'configs/{config}', [f'--config.{override}'])
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('value', ['inf', '-inf', 'nan', '1e400'])
def test_a_number_that_is_not_finite_is_refused(value):
    values = command.read_config('configs/pretrain.py:tiny', [f'--config.optimizer.l1={value}'])
    with pytest.raises(UserError, match=r'optimizer.l1 is -?(inf|nan); it must be'):
        PretrainRun.from_dict(values)


@pytest.mark.parametrize('device', [None, 'accel0', 'vfio/0'])
def test_libtpu_is_told_to_be_silent_where_there_is_no_chip(device, tmp_path, monkeypatch):
    for name in WITHOUT_CHIPS:
        # So that monkeypatch restores what the function sets.
        monkeypatch.setenv(name, '')
        monkeypatch.delenv(name)
    monkeypatch.setenv('TPU_MIN_LOG_LEVEL', '0')
    if device:
        (tmp_path / device).parent.mkdir(exist_ok=True)
        (tmp_path / device).touch()
    silence_without_chips(tmp_path)

    found = {name: os.environ.get(name) for name in WITHOUT_CHIPS}
    wanted = dict.fromkeys(WITHOUT_CHIPS) if device else WITHOUT_CHIPS
    # What a person has set stays.
    assert found == {**wanted, 'TPU_MIN_LOG_LEVEL': '0'}


@pytest.mark.slow  # needs libtpu
@pytest.mark.skipif(any(Path('/dev').glob('accel*')), reason='this machine has a TPU')
def test_a_command_prints_nothing_of_libtpu():
    pytest.importorskip('libtpu')
    code = (
        'from albert_jax.cli import command\n'
        'def main(arguments):\n'
        '    import jax\n'
        '    print(jax.devices()[0].platform)\n'
        'command.run(main)\n'
    )
    env = {name: value for name, value in os.environ.items() if 'TPU' not in name}
    env.pop('JAX_PLATFORMS')
    result = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert (result.stdout, result.stderr, result.returncode) == ('cpu\n', '', 0)
