"""Every notebook, its cells run one after the other."""

import jax
import pytest

from albert_jax import prepare
from tests import tiny
from tests.conftest import notebook_cells


@pytest.fixture
def small_model(vocabulary, tmp_path):
    return tiny.write(tiny.pretrained(tiny.wider_config(), vocabulary), tmp_path / 'model')


# As the demo's in test_demo.py, whose programs it shares.
SMALL_PRETRAINING = """
from configs.pretrain import get_config as get_large

def get_config(name):
    config = get_large(name)
    config.model.update(
        vocab_size=1000, embedding_size=8, hidden_size=16, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=32,
    )
    config.optimizer.warmup_steps = 0
    config.loop.update(num_steps=4, log_every=2, eval_every=2, num_eval_batches=2)
    return config
"""


def test_pretrain(corpus_directory, tmp_path, monkeypatch, capsys):
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    (tmp_path / 'corpus').symlink_to(corpus_directory)
    prepared = []
    monkeypatch.setattr(prepare, 'main', prepared.append)
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs/small.py').write_text(SMALL_PRETRAINING)
    monkeypatch.setenv('NOTEBOOK_FOLDER', str(tmp_path))
    monkeypatch.setenv('NOTEBOOK_CONFIG', f'{tmp_path}/configs/small.py:tiny+modern')
    monkeypatch.setattr(pyplot, 'show', lambda: None)
    cells = notebook_cells('pretrain.ipynb', has_outputs=True)
    names: dict = {}
    # For optax's Muon.
    with jax.numpy_dtype_promotion('standard'):
        for cell in cells:
            exec(cell, names)
    assert f'--output={tmp_path}/corpus' in prepared[0]
    curve, level = (line.get_xydata() for line in pyplot.gcf().axes[0].lines)
    assert curve[:, 0].tolist() == [2, 4] and level[0, 1] == names['unigram_loss']
    said = capsys.readouterr().out
    assert said.count('%') >= 9 and 'Returns a new [MASK]' in said
    pyplot.close('all')


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


@pytest.mark.slow
def test_translate(tmp_path, monkeypatch):
    """A few steps show that every cell runs."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    monkeypatch.setattr(pyplot, 'show', lambda: None)
    monkeypatch.setenv('NOTEBOOK_FOLDER', str(tmp_path / 'notebook'))
    monkeypatch.setenv('NOTEBOOK_STEPS', '6')
    names: dict = {}
    for cell in notebook_cells('translate.ipynb'):
        exec(cell, names)
    assert len(names['found']) == 5 and names['scores']['step'] == 6
    why, pairs = names['why'], names['pairs']
    assert why.source_words[:3] == ('In', 'the', 'park') and len(why.source_words) == 10
    assert why.scores.shape == (len(why.target_words), 10)
    # The grammar of the notebook: gender, case, and the verb in the second place.
    assert any('einen' in german for _, german in pairs)
    for english, german in pairs[:200]:
        first = german.split()[0]
        assert (first in ('Ein', 'Eine')) == (english.split()[0] in ('A', 'An')), german
    pyplot.close('all')
