"""A model as one small file."""

import tarfile

import jax
import numpy as np

import albert_jax
from benchmarks import record_model
from tests import tiny


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
