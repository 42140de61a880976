"""The commands as a person meets them: help, answers, and one sentence for a mistake."""

import os
import re
import shlex
import subprocess
import sys

import pytest

from tests.conftest import ROOT, xla_flags

COMMANDS = (
    'prepare', 'pretrain', 'finetune', 'evaluate', 'predict', 'fill_mask', 'curve', 'convert',
    'plan', 'prepare_beam', 'explain', 'export', 'demo', 'distill', 'serve', 'launch.sweep',
    'launch.report', 'launch.tpu_vm',
)  # fmt: skip


def run(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    env = os.environ | {'XLA_FLAGS': xla_flags(1), 'COLUMNS': '100'}
    return subprocess.run(
        [sys.executable, '-m', *arguments],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False, **options,
    )  # fmt: skip


def refused(*arguments: str, **options) -> str:
    """The one sentence of a command that must not do its work."""
    result = run(*arguments, **options)
    assert result.returncode == 2, result.stdout + result.stderr
    assert 'Traceback' not in result.stderr
    return result.stderr


@pytest.fixture(scope='module')
def trained(corpus_directory, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('trained')
    result = run('albert_jax.pretrain', *pretrain_flags(corpus_directory, workdir))
    assert result.returncode == 0, result.stderr
    return workdir


def pretrain_flags(corpus, workdir) -> list[str]:
    return [
        '--config=configs/pretrain.py:tiny', f'--workdir={workdir}', f'--config.data.path={corpus}',
        '--config.model.vocab_size=1000', '--config.model.hidden_size=16',
        '--config.model.num_hidden_layers=1', '--config.pretraining.sequence_length=32',
        '--config.optimizer.warmup_steps=2', '--config.loop.num_steps=6',
        '--config.loop.batch_size=16', '--config.loop.num_eval_batches=1',
    ]  # fmt: skip


@pytest.mark.parametrize('name', COMMANDS)
def test_help_teaches_and_is_quick(name):
    """It imports nothing that takes seconds."""
    module = name if '.' in name else f'albert_jax.{name}'
    result = subprocess.run(
        [sys.executable, '-c', _HELP, module, *SLOW_TO_IMPORT],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert result.stderr.splitlines()[-1] == 'status 0, imported: []'
    assert name == 'demo' or 'example' in result.stdout


SLOW_TO_IMPORT = (
    'jax', 'jaxlib', 'flax', 'optax', 'orbax', 'grain', 'tensorflow',
    'tensorflow_datasets', 'torch', 'transformers', 'tokenizers', 'apache_beam', 'fastapi',
    'matplotlib',
)  # fmt: skip
# As `python -m` runs a command; then which of the modules have been imported.
_HELP = """
import runpy, sys
module, *slow = sys.argv[1:]
sys.argv = [module, '--help']
status = 0
try:
    runpy.run_module(module, run_name='__main__', alter_sys=True)
except SystemExit as error:
    status = error.code or 0
imported = [name for name in slow if name in sys.modules]
print(f'status {status}, imported: {imported}', file=sys.stderr)
"""


def test_importing_the_package_is_quick():
    code = 'import sys, albert_jax; sys.exit(any(name in sys.modules for name in sys.argv[1:]))'
    subprocess.run([sys.executable, '-c', code, *SLOW_TO_IMPORT], cwd=ROOT, check=True)


def test_fill_mask_prints_a_table_for_each_text(trained):
    result = run(
        'albert_jax.fill_mask', f'--checkpoint={trained}', '--top=3',
        'The [MASK] statement raises [MASK].', 'A [MASK] of [brackets].',
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.count('%') == 3 * 2 + 3
    assert 'mask 2' in result.stdout and '[brackets]' in result.stdout


def test_fill_mask_gives_probabilities_of_the_model(trained):
    import jax
    import numpy as np

    import albert_jax
    from albert_jax.pretraining.fill_mask import fill_mask

    model = albert_jax.load(trained)
    (candidates,) = fill_mask(model, 'the [MASK] statement', top=1000)
    assert sum(c.probability for c in candidates) == pytest.approx(1, abs=1e-4)
    assert [c.probability for c in candidates] == sorted(
        (c.probability for c in candidates), reverse=True
    )
    tokenizer = model.tokenizer
    ids = np.array([[2, *tokenizer.encode_with_masks('the [MASK] statement'), 3]])
    output = albert_jax.PretrainingModel(model.config).apply({'params': model.params}, ids)
    position = ids[0].tolist().index(tokenizer.mask_id)
    expected = jax.nn.softmax(output.mlm_logits[0, position])
    assert candidates[0].piece == tokenizer.pieces[int(expected.argmax())]


def test_curve_draws_a_picture(trained, tmp_path):
    result = run('albert_jax.curve', f'--output={tmp_path}/curve.png', str(trained))
    assert result.returncode == 0, result.stderr
    assert (tmp_path / 'curve.png').read_bytes().startswith(b'\x89PNG')
    assert 'is not a run' in refused('albert_jax.curve', '--output=x.png', str(tmp_path))


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--config=configs/pretrain.py:huge'], "there is no config 'huge'; choose among tiny"),
        (['--config=configs/nothing.py:base'], 'there is no file configs/nothing.py'),
        (['--config.model.hiden_size=32'], 'hiden_size'),
        (['--config.loop.num_steps=many'], 'num_steps'),
        (['--config.loop.batch_size=2.5'], 'batch_size'),
        (['--nonsense=3'], '--nonsense=3 is not an argument of this command'),
        (['--config.model.num_attention_heads=5'], 'does not divide into 5 attention heads'),
        (['--config.data.path=/nothing'], '/nothing holds no prepared corpus'),
    ],
)
def test_pretrain_refuses_in_one_sentence(corpus_directory, tmp_path, flags, message):
    arguments = pretrain_flags(corpus_directory, tmp_path / 'run')
    if flags[0].startswith('--config='):
        arguments = arguments[1:]
    error = refused('albert_jax.pretrain', *arguments, *flags)
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / 'run').exists()


def test_pretrain_refuses_a_workdir_that_cannot_be(corpus_directory, tmp_path):
    (tmp_path / 'file').write_text('here already')
    error = refused('albert_jax.pretrain', *pretrain_flags(corpus_directory, tmp_path / 'file'))
    assert 'cannot be written' in error
    assert (tmp_path / 'file').read_text() == 'here already'
    # /proc takes no new directories, even from root.
    error = refused('albert_jax.pretrain', *pretrain_flags(corpus_directory, '/proc/run'))
    assert '/proc/run cannot be written' in error


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--input=books'], 'is not a source; give builtin, text:GLOB, jsonl:GLOB'),
        (['--input=text:/nothing/*'], "No file matches '/nothing/*'"),
        (['--vocabulary=/nothing.model'], 'cannot be read: No such file'),
        (['--vocabulary=train', '--vocab_size=900000'], 'too small for a vocabulary of 900000'),
        (['--validation_fraction=1.5'], 'must be at least 0 and below 1'),
        (['--sequence_length=4'], 'sequence_length is 4'),
        (['--workers=-1'], '--workers is -1; it must be 0 or above'),
        (['--output=/proc/nothing/here'], 'cannot be written'),
    ],
)
def test_prepare_refuses_in_one_sentence(text_file, tmp_path, vocabulary, flags, message):
    (tmp_path / 'v.model').write_bytes(vocabulary)
    given = {flag.partition('=')[0] for flag in flags}
    defaults = [
        f'--input=jsonl:{text_file}', f'--output={tmp_path}/c', f'--vocabulary={tmp_path}/v.model',
    ]  # fmt: skip
    kept = [flag for flag in defaults if flag.partition('=')[0] not in given]
    error = refused('albert_jax.prepare', *kept, *flags)
    assert message in error
    assert not (tmp_path / 'c').exists() and not (tmp_path / 'c.incomplete').exists()


def test_prepare_again_says_so_and_other_settings_are_refused(text_file, tmp_path, vocabulary):
    (tmp_path / 'v.model').write_bytes(vocabulary)
    flags = [
        'albert_jax.prepare', f'--input=jsonl:{text_file}', f'--output={tmp_path}/c',
        f'--vocabulary={tmp_path}/v.model',
    ]  # fmt: skip
    first = run(*flags, '--sequence_length=64')
    assert first.returncode == 0 and 'Next:' in first.stdout
    manifest = (tmp_path / 'c' / 'corpus.json').read_bytes()
    again = run(*flags, '--sequence_length=64')
    assert again.returncode == 0 and 'is prepared already' in again.stdout
    assert 'another sequence_length' in refused(*flags, '--sequence_length=128')
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other' / 'thesis.txt').write_text('all of it')
    error = refused(*flags[:2], f'--output={tmp_path}/other', flags[3])
    assert 'exists and is no prepared corpus' in error
    assert (tmp_path / 'other' / 'thesis.txt').read_text() == 'all of it'
    assert (tmp_path / 'c' / 'corpus.json').read_bytes() == manifest


def test_prepare_on_a_full_disk_says_so_and_leaves_nothing(text_file, tmp_path, vocabulary):
    (tmp_path / 'v.model').write_bytes(vocabulary)
    code = (
        'import resource, runpy, sys;'
        'resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY));'
        'sys.argv[0] = "prepare"; runpy.run_module("albert_jax.prepare", run_name="__main__")'
    )
    result = subprocess.run(
        [sys.executable, '-c', code, f'--input=jsonl:{text_file}', f'--output={tmp_path}/c',
         f'--vocabulary={tmp_path}/v.model', '--workers=1'],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 2, result.stderr
    assert 'cannot be written' in result.stderr and 'Traceback' not in result.stderr
    assert not (tmp_path / 'c').exists() and not (tmp_path / 'c.incomplete').exists()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--checkpoint=/nothing', 'a [MASK]'], 'There is no file or directory'),
        (['--checkpoint=/tmp', 'no mask'], 'There is no [MASK] in'),
        (['--checkpoint=/tmp', '--top=0', 'a [MASK]'], '--top is 0; it must be 1 or above'),
    ],
)
def test_fill_mask_refuses_in_one_sentence(arguments, message):
    assert message in refused('albert_jax.fill_mask', *arguments)


def test_fill_mask_refuses_too_long_a_text(trained):
    error = refused('albert_jax.fill_mask', f'--checkpoint={trained}', 'word ' * 100 + '[MASK]')
    assert 'the model has 64 positions: shorten it' in error


# The README.


def readme_commands() -> list[str]:
    text = (ROOT / 'README.md').read_text()
    blocks = re.findall(r'```(?:bash|sh)\n(.*?)```', text, re.DOTALL)
    lines = '\n'.join(blocks).replace('\\\n', ' ').splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith('#')]


def test_every_command_of_the_readme_is_real():
    """Targets of make exist, modules import, their flags and configs are known."""
    makefile = (ROOT / 'Makefile').read_text()
    num_checked = 0
    for command in readme_commands():
        words = command.split()
        if words[0] == 'make':
            assert re.search(rf'^{words[1]}:', makefile, re.MULTILINE), command
            num_checked += 1
        elif words[:2] == ['python', '-m'] and words[2].startswith('launch.'):
            check_launch(words[2], command)
            num_checked += 1
        elif words[:2] == ['python', '-m'] and words[2].startswith('albert_jax.'):
            known = run(words[2], '--help').stdout
            for flag in re.findall(r'(--[a-z_]+)[= ]', command):
                assert flag in known, command
            for name in re.findall(r'--config=(\S+)', command):
                run_config(name, re.findall(r'--config\.\S+', command))
            num_checked += 1
    assert num_checked >= 6


def check_launch(module: str, command: str) -> None:
    """What a command would do, without a cloud."""
    words = shlex.split(command)[3:]
    if module == 'launch.report':
        return
    dry = [] if '--dry_run' in words else ['--dry_run']
    if module == 'launch.tpu_vm':
        place = words.index('--') if '--' in words else len(words)
        words[place:place] = dry
    else:
        words += dry
    result = run(module, *words)
    assert result.returncode == 0, command + result.stderr
    shown = 'gcloud compute tpus' if module == 'launch.tpu_vm' else 'python -m albert_jax.'
    assert shown in result.stdout


def run_config(name: str, overrides: list[str]) -> None:
    from albert_jax.cli.command import read_config

    read_config(name, overrides)


def test_a_config_finds_its_neighbours_from_anywhere(tmp_path):
    for name in ('finetune.py:sst2', 'distill.py:sst2+small', 'distill.py:mini@64'):
        command = 'finetune' if name.startswith('finetune') else 'distill'
        result = subprocess.run(
            [sys.executable, '-m', f'albert_jax.{command}', f'--config={ROOT}/configs/{name}',
             f'--workdir={tmp_path}/run'],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        # What is missing, and no module.
        wanted = {
            'finetune.py:sst2': ['init_from is empty', 'There is nothing to train on'],
            'distill.py:sst2+small': ['teacher is empty', 'There is nothing to train on'],
            'distill.py:mini@64': ['teacher is empty', 'data.path is empty'],
        }[name]
        lines = result.stderr.splitlines()
        assert result.returncode == 2 and len(lines) == len(wanted)
        assert all(f'error: {text}' in line for text, line in zip(wanted, lines, strict=True))


def test_the_readmes_commands_run_one_after_the_other(text_file, tmp_path):
    """The walk through one's own text, as written, on a small text."""
    commands = [c for c in readme_commands() if 'runs/mine' in c]
    assert [c.split()[2].split('.')[1] for c in commands] == [
        'prepare', 'pretrain', 'fill_mask', 'curve', 'convert', 'explain',
    ]  # fmt: skip
    for command in commands:
        command = command.replace('runs/mine', f'{tmp_path}/mine')
        command = command.replace('--output=inside', f'--output={tmp_path}/inside')
        command = command.replace('jsonl:mine/*.jsonl', f'jsonl:{text_file}')
        if 'albert_jax.prepare' in command:
            command = command.replace('--vocab_size=8000', '--vocab_size=1000')
        if 'albert_jax.pretrain' in command:
            command = re.sub(r'num_steps=\d+', 'num_steps=4', command)
            command = re.sub(r'vocab_size=\d+', 'vocab_size=1000', command)
            command += ' --config.optimizer.warmup_steps=2 --config.loop.num_eval_batches=1'
        result = subprocess.run(
            command.replace('python', sys.executable, 1), shell=True, cwd=ROOT,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert result.returncode == 0, command + result.stderr


def test_the_readmes_python_example_runs(trained):
    text = (ROOT / 'README.md').read_text()
    (example,) = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
    exec(example.replace('demo/run', str(trained)), {})
