"""Names of the Hugging Face Hub: the local cache, and no network."""

import http.server
import shutil
import sys
import threading
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


class NoSuchRepository(http.server.BaseHTTPRequestHandler):
    """The Hub's answer for a repository that it does not have."""

    def do_GET(self):
        self.send_response(404)
        self.send_header('X-Error-Code', 'RepoNotFound')
        self.send_header('Content-Length', '0')
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, format, *args):
        pass


def test_a_name_that_the_hub_does_not_have_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), NoSuchRepository) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f'http://127.0.0.1:{server.server_port}'
        monkeypatch.setattr('huggingface_hub.constants.ENDPOINT', endpoint)
        with pytest.raises(
            UserError, match='albert-base-v2, and no such model on the Hugging Face'
        ):
            albert_jax.load('albert-base-v2')
        server.shutdown()


def test_a_name_without_a_network_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    # Nobody listens there.
    monkeypatch.setattr('huggingface_hub.constants.ENDPOINT', 'http://127.0.0.1:9')
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
