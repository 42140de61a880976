"""Eight simulated devices, strict switches, and the corpora and runs that tests share."""

import importlib.metadata
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.version import Version


def xla_flags(num_devices: int) -> str:
    """For a process of a test.

    Without LLVM's optimisation, and by the older emitters of loops, programs compile several
    times faster and compute the same.
    """
    flags = [
        f'--xla_force_host_platform_device_count={num_devices}',
        '--xla_backend_optimization_level=0',
        '--xla_llvm_disable_expensive_passes=true',
        # Else each program is compiled in up to 32 parts: a fifth more work for the same.
        '--xla_cpu_parallel_codegen_split_count=1',
    ]
    # XLA ends a process that has a flag it does not know, and jaxlib 0.11.1 dropped this one.
    if Version(importlib.metadata.version('jaxlib')) < Version('0.11.1'):
        flags.append('--xla_cpu_use_fusion_emitters=false')
    return ' '.join(flags)


os.environ['XLA_FLAGS'] = xla_flags(8)
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
# Many tests, and the commands that they start, compile the same programs.
os.environ.setdefault(
    'JAX_COMPILATION_CACHE_DIR', str(Path(__file__).parents[1] / '.pytest_cache' / 'jax')
)
# Small ones too: operations outside jit are a program each, and the same in each process.
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')

from jaxtyping import install_import_hook

from tests import type_checker

# The shapes and types in the signatures of the whole package are checked in every test. The hook
# looks the checker up by its name.
install_import_hook('albert_jax', f'{type_checker.__name__}.{type_checker.check.__name__}')

import json
import pydoc_data.topics
import shutil
import tarfile

import hypothesis
import jax
import pytest

from albert_jax.cli import phase

# No test waits for the lines that appear after some seconds, nor meets them on a slow machine.
phase.SECONDS = 1e6

# The same examples in every run; what fails becomes an explicit example of its test.
hypothesis.settings.register_profile(
    'tests', deadline=None, derandomize=True, max_examples=50, database=None
)
hypothesis.settings.load_profile('tests')

jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_numpy_dtype_promotion', 'strict')

SHARED_DATA = Path(__file__).parents[2] / 'shared' / 'data'
ROOT = Path(__file__).parents[1]


def shared_data(name: str) -> Path:
    """A file that is not part of the project; the test is skipped where it is absent."""
    path = SHARED_DATA / name
    if not path.exists():
        pytest.skip(f'{name} of the shared data is not here')
    return path


def extract_old_runs(directory: Path, *names: str) -> Path:
    """Extracts runs of an earlier version (fixtures/README.md), all or what is named at its top."""
    with tarfile.open(ROOT / 'tests/fixtures/old_runs.tar.xz') as archive:
        members = archive.getmembers()
        if names:
            members = [member for member in members if member.name.split('/')[0] in names]
        archive.extractall(directory, members, filter='data')
    return directory


def documents() -> list[str]:
    """About 0.4 MB of English that comes with Python."""
    topics = pydoc_data.topics.topics
    return [' \n'.join(topics[name].split('\n\n')) for name in sorted(topics)]


def notebook_cells(name: str) -> list[str]:
    """The code cells of a notebook."""
    content = json.loads((ROOT / 'notebooks' / name).read_text())
    return [''.join(cell['source']) for cell in content['cells'] if cell['cell_type'] == 'code']


@pytest.fixture(scope='session')
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('text') / 'topics.jsonl'
    path.write_text(''.join(json.dumps({'text': text}) + '\n' for text in documents()))
    return path


@pytest.fixture(scope='session')
def vocabulary(text_file: Path) -> bytes:
    from albert_jax.data.corpus import Source
    from albert_jax.data.preparation import PreparationSettings, vocabulary_for

    return vocabulary_for([Source('jsonl', str(text_file))], PreparationSettings(), 1000)


@pytest.fixture(scope='session')
def tokenizer(vocabulary: bytes):
    from albert_jax.data.tokenizer import Tokenizer

    return Tokenizer(vocabulary)


@pytest.fixture(scope='session')
def corpus_directory(
    text_file: Path, vocabulary: bytes, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    from albert_jax.data.corpus import Source
    from albert_jax.data.preparation import PreparationSettings, prepare

    directory = tmp_path_factory.mktemp('corpus') / 'topics'
    settings = PreparationSettings(sequence_length=128, validation_fraction=0.2)
    prepare([Source('jsonl', str(text_file))], directory, vocabulary, settings, num_workers=1)
    return directory


@pytest.fixture(scope='session')
def checkpoint(vocabulary: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained model to fine-tune; tests only read it."""
    from tests import tiny

    model = tiny.pretrained(tiny.config(), vocabulary)
    return tiny.write(model, tmp_path_factory.mktemp('start') / 'checkpoint')


@pytest.fixture(scope='session')
def mood_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files to fine-tune a classifier on; tests only read them."""
    from tests import tiny

    folder = tmp_path_factory.mktemp('mood')
    tiny.write_classification_files(folder)
    return folder


@pytest.fixture(scope='session')
def finetuned(checkpoint: Path, mood_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fine-tuning run on mood_files, with its cache; tests only read it."""
    from albert_jax import finetune
    from tests import tiny

    workdir = tmp_path_factory.mktemp('finetuned')
    flags = tiny.finetune_flags(checkpoint, mood_files, workdir / 'cache', tiny.TWO_LENGTHS)
    assert finetune.main([*flags, f'--workdir={workdir}']) == 0
    return workdir


@pytest.fixture(scope='session')
def checkpoints(vocabulary: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the models that the tests of the service serve: mood and base."""
    from tests.running_service import write_checkpoints

    folder = tmp_path_factory.mktemp('served')
    write_checkpoints(folder, vocabulary)
    return folder


@pytest.fixture(scope='module')
def server(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A running service of mood and base."""
    from tests.running_service import Server, eventually

    log = tmp_path_factory.mktemp('log') / 'serve.log'
    started = Server(checkpoints, log, ['mood', 'base'], '--max_length=32', '--timeout=5')
    eventually(started.is_ready, 600)
    yield started
    started.process.kill()
    started.process.wait()


# Of a window of a browser, in pixels.
WIDTHS = {'wide': (1280, 900), 'narrow': (390, 844)}


@pytest.fixture(scope='module')
def browser() -> Iterator[Any]:
    """A Chromium of its own, for slow tests."""
    api = pytest.importorskip('playwright.sync_api')
    program = shutil.which('chromium') or shutil.which('google-chrome')
    if program is None:
        pytest.skip('no Chromium here')
    with api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=program, args=['--no-sandbox'])
        yield made
        made.close()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files of slow tests alone, which import torch or TensorFlow, are not even opened."""
    slow = (
        'test_google.py',
        'test_huggingface_parity.py',
        'test_real_weights.py',
        'test_seq2seq_parity.py',
    )
    return True if config.option.markexpr == 'not slow' and collection_path.name in slow else None
