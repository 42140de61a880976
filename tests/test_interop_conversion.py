"""What the conversion writes, what it says, and what a failure leaves behind."""

import contextlib
import errno
import resource
import signal
import threading
import time
from pathlib import Path

import jax
import pytest

from albert_jax import convert
from albert_jax.cli.errors import UserError
from albert_jax.interop import conversion
from albert_jax.interop.native import Pretrained
from tests.huggingface_files import make_model


@pytest.fixture
def model(vocabulary) -> Pretrained:
    return make_model(vocabulary)


@pytest.fixture
def directory(model, tmp_path) -> Path:
    conversion.convert(model, tmp_path / 'hf', 'huggingface')
    return tmp_path / 'hf'


def test_groups_that_hugging_face_rounds_otherwise_are_refused(vocabulary, tmp_path):
    def wrong(layers, groups):
        pairs = ((layer, int(layer / (layers / groups))) for layer in range(layers))
        return any(theirs != layer * groups // layers for layer, theirs in pairs)

    layers, groups = next((n, g) for n in range(2, 100) for g in range(2, n) if wrong(n, g))
    model = make_model(vocabulary, num_hidden_layers=layers, num_hidden_groups=groups)
    with pytest.raises(UserError, match='Hugging Face takes another group'):
        conversion.convert(model, tmp_path / 'hf', 'huggingface')
    assert not list(tmp_path.iterdir())


def test_a_destination_that_exists_is_left_alone(directory, tmp_path):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'mine').write_text('precious')
    with pytest.raises(UserError, match='out exists already'):
        convert.main([str(directory), str(tmp_path / 'out')])
    assert [p.name for p in (tmp_path / 'out').iterdir()] == ['mine']


@pytest.mark.parametrize('to', conversion.FORMATS)
def test_a_full_disk_leaves_nothing(to, model, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, limits[1]))
    try:
        with pytest.raises(UserError, match='out cannot be written: .') as caught:
            conversion.convert(model, tmp_path / 'out', to)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert '\n' not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_writes_that_go_on_after_the_first_failure_leave_nothing(tmp_path):
    def go_on(folder):
        for number in range(20):
            with contextlib.suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f'{number}').write_text('late')
            time.sleep(0.02)

    with (
        pytest.raises(UserError, match='out cannot be written: full'),
        conversion.output_directory(tmp_path / 'out') as folder,
    ):
        thread = threading.Thread(target=go_on, args=[folder / 'params'])
        thread.start()
        raise OSError(errno.ENOSPC, 'full')
    thread.join()
    assert not list(tmp_path.iterdir())


def test_what_is_written_can_be_read_by_others(directory):
    modes = {file.stat().st_mode & 0o777 for file in directory.iterdir()}
    assert len(modes) == 1


def test_the_command_says_what_it_read_and_wrote(directory, model, tmp_path, capsys):
    out = tmp_path / 'deep' / 'out'
    assert convert.main([str(directory), str(out)]) == 0
    said = capsys.readouterr().out
    count = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    assert f'{count:,}' in said and 'sentence-order head' in said and '1,000 pieces' in said
    assert 'Next:\n  python -m albert_jax.fill_mask' in said
    assert convert.main([str(out), str(tmp_path / 'hf2'), '--to=huggingface']) == 0
    assert 'transformers.AlbertForPreTraining.from_pretrained' in capsys.readouterr().out
    one, two = (d / 'model.safetensors' for d in (directory, tmp_path / 'hf2'))
    assert one.read_bytes() == two.read_bytes()
