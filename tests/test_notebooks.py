"""Every notebook, its cells run one after the other."""

import json

import jax
import pytest

from albert_jax.data.tokenizer import Tokenizer
from albert_jax.interop import native
from albert_jax.interop.native import Pretrained
from albert_jax.model.albert import init_params
from albert_jax.model.config import AlbertConfig
from tests.conftest import ROOT


def cells(name: str) -> list[str]:
    content = json.loads((ROOT / 'notebooks' / name).read_text())
    assert content['nbformat'] == 4
    assert len(content['cells']) <= 14
    assert not any(cell.get('outputs') for cell in content['cells'])
    return [''.join(cell['source']) for cell in content['cells'] if cell['cell_type'] == 'code']


@pytest.fixture
def small_model(vocabulary, tmp_path):
    config = AlbertConfig(
        vocab_size=1000, embedding_size=16, hidden_size=32, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=64, max_position_embeddings=48,
    )  # fmt: skip
    params = jax.jit(lambda: init_params(config, jax.random.key(0)))()
    (tmp_path / 'model').mkdir()
    native.write(Pretrained(config, dict(params), Tokenizer(vocabulary)), tmp_path / 'model')
    return tmp_path / 'model'


@pytest.mark.slow
def test_finetune(small_model, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('NOTEBOOK_FOLDER', str(tmp_path / 'notebook'))
    monkeypatch.setenv('NOTEBOOK_CHECKPOINT', str(small_model))
    monkeypatch.setenv('NOTEBOOK_LEARNING_RATE', '5e-3')
    names: dict = {}
    for cell in cells('finetune.ipynb'):
        exec(cell, names)
    assert [answer['prediction'] for answer in names['found']] == ['praise', 'complaint']
    assert len(names['wrong']) <= 4
    assert 'are wrong' in capsys.readouterr().out


def test_inside(small_model, monkeypatch):
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    monkeypatch.setattr(pyplot, 'show', lambda: None)
    monkeypatch.setenv('NOTEBOOK_CHECKPOINT', str(small_model))
    names: dict = {}
    for cell in cells('inside.ipynb'):
        exec(cell, names)
    assert names['moved'].gap <= 1e-2
    assert len(names['angles']) == names['layers'] == 2
    pyplot.close('all')
