"""The commands as a person meets them: help, answers, and one sentence for a mistake."""

import os
import re
import shlex
import subprocess
import sys

import pytest

from albert_jax.cli.command import read_config
from albert_jax.training import learning_curve
from tests.commands import commands_in, refused, run
from tests.conftest import ROOT

COMMANDS = (
    'prepare', 'pretrain', 'finetune', 'evaluate', 'predict', 'fill_mask', 'curve', 'convert',
    'plan', 'prepare_beam', 'explain', 'export', 'demo', 'distill', 'serve', 'launch.sweep',
    'launch.search', 'launch.report', 'launch.tpu_vm',
)  # fmt: skip


@pytest.fixture(scope='module')
def trained(text_file, tmp_path_factory):
    """The run of the README's walk through one's own text: as written, on a small text."""
    folder = tmp_path_factory.mktemp('walk')
    for command in walk('runs/mine', 'prepare', 'pretrain'):
        command = command.replace('runs/mine', f'{folder}/mine')
        command = command.replace('jsonl:mine/*.jsonl', f'jsonl:{text_file}')
        command = command.replace('vocab_size=8000', 'vocab_size=1000')
        _, _, module, *arguments = shlex.split(command.replace('=2000', '=6'))
        result = run(module, *arguments, *(SMALL if module == 'albert_jax.pretrain' else ()))
        assert result.returncode == 0, command + result.stderr
    return folder / 'mine'


SMALL = (
    '--config.model.hidden_size=16', '--config.model.num_hidden_layers=1',
    '--config.optimizer.warmup_steps=2', '--config.loop.batch_size=16',
    '--config.loop.num_eval_batches=1', '--config.loop.num_devices=1',
)  # fmt: skip


def pretrain_flags(corpus, workdir) -> list[str]:
    return [
        '--config=configs/pretrain.py:tiny', f'--workdir={workdir}', f'--config.data.path={corpus}',
        '--config.model.vocab_size=1000', *SMALL,
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
    """And in processes of their own, an answer and a refusal."""

    def curve(*arguments):
        command = [sys.executable, '-m', 'albert_jax.curve', *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    result = curve(f'--output={tmp_path}/curve.png', str(trained))
    assert result.returncode == 0, result.stderr
    assert (tmp_path / 'curve.png').read_bytes().startswith(b'\x89PNG')
    # The line of the unigram model is that of the run's held-out text.
    assert 'note:' not in result.stderr
    (level,) = learning_curve.read_unigram([trained]).items()
    assert level[0] == 'unigram model' and level[1]['mlm_loss'] > 1 > level[1]['mlm_accuracy'] > 0
    result = curve('--output=x.png', str(tmp_path))
    assert result.returncode == 2
    assert 'is not a run' in result.stderr and 'Traceback' not in result.stderr


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


def test_prepare_tells_of_a_corpus_that_pretraining_would_refuse(tmp_path, vocabulary):
    (tmp_path / 'v.model').write_bytes(vocabulary)
    (tmp_path / 'a.txt').write_text('The only document. It has two sentences.')
    flags = [
        'albert_jax.prepare', f'--input=text:{tmp_path}/a.txt', f'--output={tmp_path}/c',
        f'--vocabulary={tmp_path}/v.model', '--workers=1',
    ]  # fmt: skip
    for result in (run(*flags), run(*flags)):
        assert result.returncode == 0 and 'Next:' not in result.stdout
        assert 'has no documents in validation, on which pretraining evaluates' in result.stderr
    error = refused('albert_jax.pretrain', *pretrain_flags(tmp_path / 'c', tmp_path / 'run'))
    assert 'has no validation split; prepare the corpus again' in error


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
    error = refused('albert_jax.fill_mask', f'--checkpoint={trained}', 'word ' * 150 + '[MASK]')
    assert 'the model has 128 positions: shorten it' in error


DRIVER = 'NVRM version: NVIDIA UNIX {}x86_64 Kernel Module{}  {}.65.06  Tue May 1 1:2:3 UTC 2026\n'


@pytest.mark.parametrize(
    ('device', 'driver', 'flags', 'is_installed', 'said'),
    [
        (False, None, (), False, ''),
        (False, None, ('GPU=1',), False, 'of version 580 or later, and this machine has none;'),
        (True, 570, ('GPU=1',), False, 'of version 580 or later, and this machine has 570;'),
        # Not asked for: on the CPU, as without a GPU.
        (True, 570, (), False, ''),
        (True, None, (), False, ''),
        (True, 580, (), True, ''),
        (True, 1000, ('GPU=0',), False, ''),
        (False, 595, ('GPU=1',), True, ''),
    ],
)  # fmt: skip
def test_make_sees_the_gpu(device, driver, flags, is_installed, said, tmp_path):
    if device:
        (tmp_path / 'nvidia0').touch()
    if driver:
        (tmp_path / 'version').write_text(DRIVER.format('Open ', ' for x86_64', driver))
    command = [
        'make', '--dry-run', '--always-make', 'install', f'NVIDIA_DEVICE={tmp_path}/nvidia0',
        f'NVIDIA_VERSION={tmp_path}/version', f'NVIDIA_SMI={tmp_path}/nvidia-smi', *flags,
    ]  # fmt: skip
    # As typed at a prompt, though `make test GPU=0` runs this: a make under a make prints its
    # folders and takes the outer one's variables.
    outer = ('MAKE', 'MFLAGS', 'GPU', 'TPU')
    environment = {name: value for name, value in os.environ.items() if not name.startswith(outer)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert bool(done.returncode) == bool(said) and said in done.stderr, done.stderr
    assert ('[ "1" = 1 ]; then .venv/bin/python -m pip install' in done.stdout) == is_installed
    # A sentence, and no recipe after it.
    assert not said or (done.stderr.count('\n') == 1 and not done.stdout)


def test_a_config_finds_its_neighbours_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', [path for path in sys.path if path not in ('', str(ROOT))])
    for name in [name for name in sys.modules if name.partition('.')[0] == 'configs']:
        monkeypatch.delitem(sys.modules, name)
    for name in ('finetune.py:sst2', 'distill.py:sst2+small', 'distill.py:mini@64'):
        assert read_config(f'{ROOT}/configs/{name}', [])
    # A real command too, which ends for what is missing and for no module.
    result = subprocess.run(
        [sys.executable, '-m', 'albert_jax.distill', f'--config={ROOT}/configs/distill.py:mini@64',
         f'--workdir={tmp_path}/run'],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = result.stderr.splitlines()
    assert result.returncode == 2 and len(lines) == 2, result.stderr
    assert 'error: teacher is empty' in lines[0] and 'error: data.path is empty' in lines[1]


def walk(folder: str, *names: str) -> list[str]:
    """Those of the README's commands on one's own text that write to or read a folder."""
    commands = [c for c in commands_in('README.md') if folder in c]
    assert set(names) <= {c.split()[2].split('.')[1] for c in commands}
    return [c for c in commands if c.split()[2].split('.')[1] in names]


def test_the_readmes_commands_run_one_after_the_other(trained):
    """After the first two, whose run this is."""
    for command in walk('runs/mine', 'fill_mask', 'curve'):
        _, _, module, *arguments = shlex.split(command.replace('runs/mine', str(trained)))
        result = run(module, *arguments)
        assert result.returncode == 0, command + result.stderr
    assert (trained / 'curve.png').read_bytes().startswith(b'\x89PNG')


def test_the_readmes_classifier(trained, tmp_path):
    """From its table to its answers, its page of explanations and Hugging Face's format."""
    (table,) = re.findall(r'```csv\n(.*?)```', (ROOT / 'README.md').read_text(), re.DOTALL)
    head, *rows = table.splitlines()
    # Which of them are held out is a hash of the text.
    texts = [f'{number} {row}' for number in range(20) for row in rows]
    (tmp_path / 'texts.csv').write_text('\n'.join([head, *texts]) + '\n')
    (tmp_path / 'new.txt').write_text('It works.\n')
    for command in walk('runs/labels', 'finetune', 'predict', 'explain', 'convert'):
        command = command.replace('runs/', f'{tmp_path}/').replace('albert-base-v2', str(trained))
        for name in ('texts.csv', 'new.txt'):
            command = command.replace(f'={name}', f'={tmp_path}/{name}')
        _, _, module, *arguments = shlex.split(command.replace('=300', '=4'))
        small = ('--config.loop.batch_size=8', '--config.loop.num_devices=1')
        result = run(module, *arguments, *(small if module == 'albert_jax.finetune' else ()))
        assert result.returncode == 0, command + result.stderr
        if module == 'albert_jax.predict':
            assert '"prediction": ' in result.stdout
    assert (tmp_path / 'labels/explained.html').read_text().startswith('<!doctype html>')
    assert (tmp_path / 'labels-hf/config.json').exists()


def test_the_readmes_python_example_runs(trained):
    text = (ROOT / 'README.md').read_text()
    (example,) = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
    exec(example.replace('demo/run', str(trained)), {})
