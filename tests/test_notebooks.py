"""Every notebook: what is saved with it, and its cells run one after the other."""

import json
import re
import tomllib

import jax
import pytest

from albert_jax import prepare
from benchmarks import notebooks
from tests import tiny
from tests.conftest import ROOT, notebook_cells

COLAB = 'https://colab.research.google.com'


def colab_link(project: dict, name: str) -> str:
    """Of a notebook: straight to it, once pyproject.toml has the address of the repository."""
    repository = project.get('urls', {}).get('Repository')
    if repository is None:
        return f'({COLAB})'
    place = repository.removeprefix('https://github.com/')
    return f'({COLAB}/github/{place}/blob/main/notebooks/{name}.ipynb)'


@pytest.mark.parametrize('name', notebooks.ORDER)
def test_what_is_saved_is_of_these_cells(name):
    """`python -m benchmarks.notebooks` makes it so after a change of the cells."""
    text = (ROOT / f'notebooks/{name}.ipynb').read_text()
    content = json.loads(text)
    cells = [cell for cell in content['cells'] if cell['cell_type'] == 'code']
    assert content['nbformat'] == 4 and len(content['cells']) <= 14
    assert content['metadata'][notebooks.EXECUTED] == notebooks.digest(content)
    assert [cell['execution_count'] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell['outputs']]
    assert outputs and not any(output['output_type'] == 'error' for output in outputs)
    # Neither this machine's folders nor a notebook that is heavy to load.
    assert str(ROOT) not in text and '/home/' not in text and len(text) < 1_000_000
    first = ''.join(content['cells'][0]['source'])
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    assert colab_link(project, name) in first and '!git clone ' in first


def test_the_saved_run_of_pretraining_is_the_documented_one():
    """Of the corpus that the documents name, with the demo's result up to rounding."""
    text = (ROOT / 'notebooks/pretrain.ipynb').read_text()
    (num_bytes,) = {int(x.replace(',', '')) for x in re.findall(r'bytes_read +│ ([\d,]+)', text)}
    assert '11 MB' in text and 10.5e6 < num_bytes < 11.5e6
    last = re.findall(r'step 4000, held out: mlm_accuracy ([\d.]+) mlm_loss ([\d.]+)', text)[-1]
    results = (ROOT / 'docs/RESULTS.md').read_text()
    row = re.search(r'`tiny\+modern`: .*\| ([\d.]+) \| ([\d.]+) % \|', results)
    assert float(last[0]) == pytest.approx(float(row[2]) / 100, abs=0.01)
    assert float(last[1]) == pytest.approx(float(row[1]), abs=0.05)


def test_there_is_no_other_notebook():
    found = {path.stem for path in (ROOT / 'notebooks').glob('*.ipynb')}
    assert found == set(notebooks.ORDER)


def test_the_link_to_colab_names_the_repository():
    project = {'urls': {'Repository': 'https://github.com/somebody/albert_jax'}}
    link = colab_link(project, 'inside')
    assert link == f'({COLAB}/github/somebody/albert_jax/blob/main/notebooks/inside.ipynb)'


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    """The first cell goes there; afterwards the tests are where they were."""
    monkeypatch.chdir(ROOT)


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
    monkeypatch.setenv('NOTEBOOK_STEPS', '4')
    monkeypatch.setattr(pyplot, 'show', lambda: None)
    cells = notebook_cells('pretrain.ipynb')
    names: dict = {}
    # For optax's Muon.
    with jax.numpy_dtype_promotion('standard'):
        for cell in cells:
            exec(cell, names)
    assert f'--output={tmp_path}/corpus' in prepared[0]
    curve, level = (line.get_xydata() for line in pyplot.gcf().axes[0].lines)
    assert curve[:, 0].tolist() == [2, 4] and level[0, 1] == names['prepared'].unigram['mlm_loss']
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
