"""benchmarks.accelerator on a CPU, with no more packages than it may need."""

import json
import math
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from albert_jax.model.flops import peak_flops
from benchmarks.accelerator import __main__ as program
from benchmarks.accelerator import kernels
from benchmarks.accelerator.data import make_batches
from tests.conftest import ROOT, xla_flags

# What a common image with JAX lacks.
HIDDEN = (
    'grain', 'tensorflow_datasets', 'array_record', 'ml_collections', 'tensorboardX',
    'sentencepiece', 'sentencex', 'selectolax', 'sklearn', 'matplotlib', 'safetensors', 'torch',
)  # fmt: skip
SITE = f"""
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {HIDDEN}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)

sys.meta_path.insert(0, Hidden())
"""


@pytest.fixture
def environment(tmp_path):
    """Of a process in which those packages cannot be imported, with one device."""
    (tmp_path / 'site').mkdir()
    (tmp_path / 'site' / 'sitecustomize.py').write_text(SITE)
    path = os.pathsep.join([str(tmp_path / 'site'), str(ROOT)])
    return os.environ | {'PYTHONPATH': path, 'XLA_FLAGS': xla_flags(1)}


def run(environment, *flags):
    command = [sys.executable, '-m', 'benchmarks.accelerator', *flags]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_the_whole_program_with_few_packages(environment, tmp_path):
    done = run(environment, '--minutes=10', f'--json={tmp_path / "report.json"}')
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / 'report.json').read_text())
    assert report['ended'] == 'complete' and report['failures'] == []
    assert report['device']['kind'] == 'cpu' and 'synthetic' in report['device']['data']
    rows = {(row['what'], row['attention']): row for row in report['rows']}
    assert set(rows) == {
        ('attention', 'einsum'), ('attention', 'chunked'), ('train step', 'chunked'),
        ('forward', 'chunked'),
    }  # fmt: skip
    step, forward = rows['train step', 'chunked'], rows['forward', 'chunked']
    # The largest batch of the steps that were compiled, and more than one was.
    assert step['batch'] == forward['batch'] > 2 and step['num_steps'] >= 3
    # As for any model that knows nothing of 1,000 pieces and two orders.
    assert step['loss'] == pytest.approx(math.log(1000) + math.log(2), abs=0.3)
    assert step['mfu'] is None and 0 <= step['device_wait'] <= 1 and 0 <= step['data_wait'] <= 1
    seconds = step['milliseconds'] / 1e3
    assert step['sequences_per_second'] == pytest.approx(step['batch'] / seconds)
    assert step['compile_seconds'] > 0 and step['program_bytes'] > 0
    assert rows['attention', 'chunked']['is_within_rounding'] is True


@pytest.mark.parametrize(
    ('flags', 'said'),
    [
        (('--minutes=0',), '--minutes=0 must be between 0.1 and 1440.'),
        (('--minutes=nan',), '--minutes=nan must be between 0.1 and 1440.'),
        (('--json=no/folder/x.json',), '--json=no/folder/x.json cannot be written (No such file'),
    ],
)
def test_bad_flags_in_one_sentence(flags, said, environment):
    done = run(environment, *flags)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count('\n') == 1


HANGS = """
import os, subprocess, sys, time
print('ROW {"what": "forward", "by": "x", "milliseconds": 1.0}', flush=True)
print('ROW {"cut', flush=True)
subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
time.sleep(600)
"""


def test_a_measurement_that_hangs_or_crashes_costs_no_other(monkeypatch, tmp_path):
    report = program.Report(tmp_path / 'r.json', 1)
    popen = subprocess.Popen

    def worker(code):
        monkeypatch.setattr(
            program.subprocess, 'Popen', lambda _, **how: popen([sys.executable, '-c', code], **how)
        )

    worker(HANGS)
    started = time.monotonic()
    assert not program.run_job({'kind': 'ours', 'model': 'base'}, report, started + 1.5)
    assert time.monotonic() - started < 30
    worker('import os; os.abort()')
    assert program.run_job({'kind': 'peer'}, report, time.monotonic() + 60)
    content = json.loads((tmp_path / 'r.json').read_text())
    assert [row['what'] for row in content['rows']] == ['forward']
    assert [x['what'] for x in content['failures']] == ['ours', 'peer']
    assert 'no time was left' in content['failures'][0]['error']
    assert 'status -6' in content['failures'][1]['error']


def test_the_order_of_the_jobs_and_the_comparison():
    found = program.jobs('tpu', 1.0)
    assert [(job['kind'], job.get('model'), job.get('length')) for job in found[:3]] == [
        ('attention', 'base', None), ('ours', 'base', 128), ('ours', 'base', 512),
    ]  # fmt: skip
    report = program.Report(None, 1)
    same = {'what': 'forward', 'model': 'base', 'length': 128, 'batch': 8, 'milliseconds': 1.0}
    report.add({**same, 'by': 'albert_jax', 'sequences_per_second': 30.0})
    report.add({**same, 'by': 'torch', 'sequences_per_second': 20.0})
    report.add({**same, 'by': 'torch', 'length': 512, 'sequences_per_second': 1.0})
    program.compare(report)
    assert report.content['rows'][0]['times torch'] == 1.5


def test_batches_are_as_pretraining_makes_them():
    data = make_batches(30000, 128, 64)
    batch, again = data.batch(3), data.batch(3)
    assert all((batch[name] == again[name]).all() for name in batch)
    assert any((batch[name] != data.batch(4)[name]).any() for name in batch)
    mask, ids = batch['attention_mask'], batch['input_ids']
    # Padding stands at the right, where there is any.
    assert (np.diff(mask, axis=1) <= 0).all() and 0 < (mask == 0).mean() < 0.2
    assert (ids[:, 0] == 2).all() and (ids[mask == 0] == 0).all() and ids.max() < 30000
    masked = batch['masked_weights'].sum(1)
    np.testing.assert_allclose(masked.sum() / mask.sum(), 0.15, atol=0.01)
    seen = np.take_along_axis(ids, batch['masked_positions'], 1)[batch['masked_weights'] > 0]
    assert 0.7 < (seen == 4).mean() < 0.9
    assert 0.3 < batch['sentence_labels'].mean() < 0.7 and batch['sentence_weights'].mean() > 0.9
    assert batch['token_type_ids'].max() == 1


def test_a_wrong_gradient_is_told():
    query = np.ones((1, 1, 4, 2))
    mask = np.array([[1, 1, 1, 0]])
    assert kernels.worst_error((query,), (query,), mask) == [0.0]
    wrong = query.copy()
    wrong[0, 0, 3] = 9.0
    assert kernels.worst_error((wrong,), (query,), mask) == [0.0]
    wrong[0, 0, 0, 0] = 1.5
    assert kernels.worst_error((wrong,), (query,), mask) == [0.5]
    wrong[0, 0, 0, 0] = np.nan
    assert np.isnan(kernels.worst_error((wrong,), (query,), mask)[0])


def test_peak_flops_of_gpus():
    assert peak_flops('NVIDIA H100 80GB HBM3') == peak_flops('NVIDIA H200') == 989.4e12
    assert peak_flops('NVIDIA H100 PCIe') == 756e12
    assert peak_flops('NVIDIA A100-SXM4-40GB') == 312e12
    assert peak_flops('NVIDIA L4') == 121e12 and peak_flops('NVIDIA L40S') == 362.05e12
    assert peak_flops('NVIDIA GeForce RTX 4090') is None and peak_flops('NVIDIA L400') is None
