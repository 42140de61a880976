"""A sweep with real runs: pretraining (the deeper net from the shallower), evaluation, fine-tuning.

Its folder is then read by the notebook.
"""

import json
import sys
import types

import pytest

from albert_jax.cli.errors import UserError
from launch import report, results, sweep
from tests.conftest import ROOT, notebook_cells

SWEEP = """
from configs.changes import Change, Sweep, each_from_the_last

SMALL = {
    'model.vocab_size': 1000, 'model.hidden_size': 16, 'model.intermediate_size': 32,
    'model.num_attention_heads': 2, 'pretraining.sequence_length': 32, 'loop.num_devices': 1,
    'optimizer.warmup_steps': 2, 'loop.num_steps': 6, 'loop.batch_size': 16, 'loop.log_every': 2,
    'loop.eval_every': 3, 'loop.checkpoint_every': 3, 'loop.num_eval_batches': 2,
}
TUNED = {
    'loop.num_steps': 4, 'loop.batch_size': 8, 'loop.num_devices': 1, 'task.max_length': 32,
    'loop.eval_every': 4, 'loop.checkpoint_every': 4, 'optimizer.warmup_steps': 1,
}


def get_sweep():
    depths = [Change(f'layers{n}', {'pretrain.model.num_hidden_layers': n}) for n in (1, 2)]
    common = {f'pretrain.{name}': value for name, value in SMALL.items()}
    common |= {f'classification.{name}': value for name, value in TUNED.items()}
    return Sweep(
        title='Depth', pretrain='configs/pretrain.py:tiny', members=each_from_the_last(depths),
        tasks=['classification'], common=common,
        columns={
            'parameters': 'parameters', 'intrinsic.mlm_loss': 'MLM loss',
            'intrinsic.nsp_accuracy': 'NSP', 'intrinsic.sop_accuracy': 'SOP',
            'pairs.word_l2r': 'BLiMP',
            'classification.accuracy': 'toy', 'average': 'Avg',
        },
        published={'layers1': {'Avg': 52.9}}, source='the paper',
    )
"""


@pytest.fixture(scope='module')
def swept(corpus_directory, tmp_path_factory):
    folder = tmp_path_factory.mktemp('sweep')
    (folder / 'mine.py').write_text(SWEEP)
    rows = [('good ' * n, 'yes') if n % 2 else ('bad ' * n, 'no') for n in range(1, 33)]
    text = 'text\tlabel\n' + ''.join(f'{text.strip()}\t{label}\n' for text, label in rows)
    for name in ('train', 'dev'):
        (folder / f'{name}.tsv').write_text(text)
    pairs = ''.join(f'this is {n},this are {n},agreement\n' for n in ('one', 'two', 'three'))
    (folder / 'pairs.csv').write_text('good,bad,topic\n' + pairs)
    arguments = [
        f'--sweep={folder}/mine.py', f'--workdir={folder}/runs', '--jobs=2',
        f'--override=pretrain.data.path={corpus_directory}',
        f'--override=classification.data.path={folder}',
        f'--override=classification.data.cache={folder}/cache',
        f'--override=pairs.path={folder}/pairs.csv', '--override=pairs.columns=good,bad,topic',
        '--override=pairs.limit_per_group=2',
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        assert sweep.main(arguments) == 0
    return folder / 'runs', arguments


def check_the_deeper_net_started_from_the_shallower_one(swept):
    import numpy as np

    from albert_jax.interop import native

    root, _ = swept
    shallow, deep = (native.read(root / f'layers{n}/pretrain') for n in (1, 2))
    assert deep.run['init_from'] == f'{root}/layers1/pretrain'
    assert deep.config.num_hidden_layers == 2
    # Six small steps from those weights, not from others.
    kernels = [
        m.params['encoder']['layer']['ffn']['intermediate']['kernel'] for m in (shallow, deep)
    ]
    distance = np.linalg.norm(kernels[0] - kernels[1]) / np.linalg.norm(kernels[0])
    assert 0 < distance < 0.5


def check_a_start_that_does_not_fit_is_refused(swept, corpus_directory, tmp_path):
    from albert_jax import pretrain

    root, _ = swept
    flags = [
        '--config=configs/pretrain.py:tiny', f'--workdir={tmp_path}',
        '--config.model.vocab_size=1000', '--config.pretraining.sequence_length=32',
        '--config.loop.batch_size=16',
        f'--config.data.path={corpus_directory}', f'--config.init_from={root}/layers1/pretrain',
    ]  # fmt: skip
    with pytest.raises(UserError, match='has num_attention_heads=2, the model of this run 4'):
        pretrain.main(flags)
    with pytest.raises(UserError, match=r'has the shape \(.*\), this run needs'):
        pretrain.main([*flags, '--config.model.num_attention_heads=2'])
    assert not (tmp_path / 'checkpoints').exists()


def check_its_minimal_pairs_are_scored(swept):
    root, _ = swept
    for member in ('layers1', 'layers2'):
        stored = json.loads((root / member / 'pairs/results.json').read_text())
        table = json.loads((root / member / 'pairs/pairs.json').read_text())
        assert stored == table['overall'] and table['num_pairs'] == 2
        assert 'word_l2r' in stored


def check_its_own_tasks_are_scored_as_in_the_run(swept, corpus_directory):
    from albert_jax.data.dataset import PreparedCorpus
    from albert_jax.interop import native
    from albert_jax.pretraining import intrinsic

    root, _ = swept
    model = native.read(root / 'layers1/pretrain')
    stored = json.loads((root / 'layers1/intrinsic/results.json').read_text())
    assert set(stored) == {
        f'{task}_{kind}'
        for task in ('mlm', 'nsp', 'sop', 'unpaired_mlm')
        for kind in ('loss', 'accuracy')
    }
    found = intrinsic.evaluate(model, PreparedCorpus(corpus_directory), batch_size=32)
    assert found == pytest.approx(stored, abs=1e-5)
    # NumPy's mean over the same batches.
    import numpy as np

    import albert_jax
    from albert_jax.data.pretraining import PretrainingData
    from albert_jax.runs.pretraining import PretrainingSettings

    settings = PretrainingSettings(sequence_length=32, sentence_loss='nsp')
    data = PretrainingData(PreparedCorpus(corpus_directory), 'validation', settings, 32, seed=0)
    albert = albert_jax.PretrainingModel(model.config)
    hits = total = 0.0
    for number in range(data.num_eval_batches):
        batch = data.eval_batch(number)
        inputs = [batch[n] for n in ('input_ids', 'attention_mask', 'token_type_ids')]
        logits = np.asarray(albert.apply({'params': model.params}, *inputs).sop_logits)
        hits += ((logits.argmax(-1) == batch['sentence_labels']) * batch['sentence_weights']).sum()
        total += batch['sentence_weights'].sum()
    assert found['nsp_accuracy'] == pytest.approx(hits / total, abs=1e-5)


def check_it_is_reported_and_runs_no_second_time(swept, monkeypatch, capsys):
    root, arguments = swept
    monkeypatch.chdir(ROOT)
    assert report.main([str(root)]) == 0
    lines = (root / 'report.md').read_text().splitlines()
    assert lines[4].startswith('| layers1 |') and lines[4].endswith('| 52.9 |')
    assert 'not finished' not in lines[-1]
    before = {path: path.stat().st_mtime for path in root.rglob('stage.json')}
    assert len(before) == 8
    assert sweep.main(arguments) == 0
    assert before == {path: path.stat().st_mtime for path in root.rglob('stage.json')}
    with pytest.raises(UserError, match='was started with loop.seed=None, now it is 3'):
        sweep.main([*arguments, '--override=pretrain.loop.seed=3'])
    capsys.readouterr()


def check_the_notebook_reads_it(swept, monkeypatch, capsys):
    import matplotlib

    matplotlib.use('Agg')
    shown = []
    # What a notebook server brings along.
    display = types.ModuleType('IPython.display')
    display.Markdown, display.display = str, shown.append
    package = types.ModuleType('IPython')
    package.get_ipython, package.version_info = lambda: None, (9, 0)
    monkeypatch.setitem(sys.modules, 'IPython', package)
    monkeypatch.setitem(sys.modules, 'IPython.display', display)
    # The notebook's first cell goes there.
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv('NOTEBOOK_SWEEP', str(swept[0]))
    from matplotlib import pyplot

    monkeypatch.setattr(pyplot, 'show', lambda: None)
    names: dict = {}
    for cell in notebook_cells('ablation.ipynb'):
        exec(cell, names)
    assert '| layers2 |' in shown[0]
    assert 'model.num_hidden_layers: layers1 1, layers2 2' in capsys.readouterr().out
    assert names['attention'].shape[:2] == (1, 2)
    assert names['entropy'].min() >= 0 and len(names['angles']) == 1
    pyplot.close('all')
    assert results.read(swept[0]).title == 'Depth'


@pytest.mark.slow
def test_a_sweep_with_real_runs(swept, corpus_directory, tmp_path, monkeypatch, capsys):
    """In one, for the runs take long: pytest's workers would each make them anew."""
    check_the_deeper_net_started_from_the_shallower_one(swept)
    check_a_start_that_does_not_fit_is_refused(swept, corpus_directory, tmp_path)
    check_its_minimal_pairs_are_scored(swept)
    check_its_own_tasks_are_scored_as_in_the_run(swept, corpus_directory)
    check_it_is_reported_and_runs_no_second_time(swept, monkeypatch, capsys)
    check_the_notebook_reads_it(swept, monkeypatch, capsys)
