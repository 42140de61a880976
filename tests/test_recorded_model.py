"""A model as one small file."""

import re
import shlex
import tarfile

import jax
import numpy as np

import albert_jax
from albert_jax import fill_mask
from albert_jax.model.paths import num_params
from benchmarks import record_model
from tests import tiny
from tests.conftest import ROOT


def test_a_packed_model_is_the_model_with_rounded_weights(vocabulary, tmp_path):
    model = tiny.random_model(tiny.config(), vocabulary)
    file = tmp_path / 'small.tar.gz'
    file.write_bytes(record_model.packed(model, 'small'))
    found = albert_jax.load(file)
    assert found.config == model.config
    assert found.tokenizer.sha256 == model.tokenizer.sha256

    def check(rounded, weights):
        assert rounded.dtype == np.float32
        # Eight bits of a bfloat16 are the number's.
        np.testing.assert_allclose(rounded, weights, rtol=2**-8)
        assert (np.asarray(rounded).view(np.uint32) & 0xFFFF == 0).all()

    jax.tree.map(check, found.params, model.params)
    with tarfile.open(file) as archive:
        assert {member.name.split('/')[0] for member in archive} == {'small'}
        assert {member.uname for member in archive} == {''}


def test_the_model_of_books_is_what_the_documents_say(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    readme = (ROOT / 'README.md').read_text()
    (command,) = re.findall(r'^python -m albert_jax.fill_mask (.*books\.tar.*)$', readme, re.M)
    assert fill_mask.main(shlex.split(command)) == 0
    (first, *_) = (line for line in capsys.readouterr().out.splitlines() if line.endswith('% │'))
    assert first.split()[1] == 'sky'
    model = albert_jax.load('docs/models/books.tar.gz')
    count = f'{num_params(model.params) / 1e6:.2f} M'
    assert f'an ALBERT of {count} parameters' in (ROOT / 'docs/RESULTS.md').read_text()
