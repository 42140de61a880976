"""Names of the Hugging Face Hub: the local cache, and no network."""

import shutil
import sys
from pathlib import Path

import pytest

import albert_jax
from albert_jax.cli.errors import UserError
from albert_jax.interop import conversion, hub
from albert_jax.interop.native import Pretrained
from tests.huggingface_files import assert_same_model, make_model


@pytest.fixture
def model(vocabulary) -> Pretrained:
    return make_model(vocabulary)


@pytest.fixture
def directory(model, tmp_path) -> Path:
    conversion.convert(model, tmp_path / 'hf', 'huggingface')
    return tmp_path / 'hf'


def test_a_name_is_found_in_the_local_cache(directory, model, tmp_path, monkeypatch):
    repository = tmp_path / 'cache' / 'models--albert--albert-tiny-v9'
    (repository / 'refs').mkdir(parents=True)
    (repository / 'refs' / 'main').write_text('abc')
    shutil.copytree(directory, repository / 'snapshots' / 'abc')
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'cache'))
    assert_same_model(albert_jax.load('albert-tiny-v9'), model)
    assert_same_model(albert_jax.load('albert/albert-tiny-v9'), model)


def test_a_name_without_a_network_is_one_sentence(tmp_path, monkeypatch):
    import huggingface_hub

    real = huggingface_hub.snapshot_download

    def offline(name, *, local_files_only=False, **options):
        if local_files_only:
            return real(name, local_files_only=True, **options)
        assert not any('bin' in pattern for pattern in options['allow_patterns'])
        raise ConnectionError('Name or service not known')

    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setattr('huggingface_hub.snapshot_download', offline)
    with pytest.raises(UserError, match='albert-base-v2, no such model in the local .* cache, and'):
        albert_jax.load('albert-base-v2')
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(UserError, match=r"install the extra: pip install -e '.\[hugg"):
        albert_jax.load('albert-base-v2')
    assert hub.is_name('albert-base-v2') and hub.is_name('someone/model.v1')
    monkeypatch.undo()
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    with pytest.raises(UserError, match='no model can have this name'):
        albert_jax.load('a--b')
    assert not hub.is_name('../x') and not hub.is_name('/abs') and not hub.is_name('a/b/c')
