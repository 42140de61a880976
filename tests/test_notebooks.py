"""Every notebook, its cells run one after the other."""

import pytest

from tests import tiny
from tests.conftest import notebook_cells


@pytest.fixture
def small_model(vocabulary, tmp_path):
    return tiny.write(tiny.pretrained(tiny.wider_config(), vocabulary), tmp_path / 'model')


@pytest.mark.slow
def test_finetune(small_model, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('NOTEBOOK_FOLDER', str(tmp_path / 'notebook'))
    monkeypatch.setenv('NOTEBOOK_CHECKPOINT', str(small_model))
    monkeypatch.setenv('NOTEBOOK_LEARNING_RATE', '5e-3')
    names: dict = {}
    for cell in notebook_cells('finetune.ipynb'):
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
    for cell in notebook_cells('inside.ipynb'):
        exec(cell, names)
    assert names['moved'].gap <= 1e-2
    assert len(names['angles']) == names['layers'] == 2
    pyplot.close('all')
