"""The batches of a (seed, step) are today what they were when the data version was last raised."""

import dataclasses
import hashlib

import numpy as np
import pytest

from albert_jax.cli.errors import UserError
from albert_jax.data.dataset import PreparedCorpus
from albert_jax.data.pretraining import DATA_VERSION, PretrainingData
from albert_jax.pretraining import job as pretraining
from albert_jax.runs.pretraining import PretrainingSettings
from albert_jax.runs.runs import PretrainRun
from albert_jax.training.checkpoint import Checkpoints
from albert_jax.training.placement import place
from tests.conftest import extract_old_runs

DIGESTS = {
    'sop': 'bf821a432695bd679d40d2dc59b8d84735a69306df239154b9ac8db79334b54d',
    'nsp': '797f38c74b48f95baa76612963f2915c5cac254d80ce56bca89f17cd60fcba23',
    'none': 'd315921e9db70d3db20c8675090782089b3b3f6af23652c6bd9a2f6e310b9799',
}


@pytest.fixture(scope='module')
def corpus(tmp_path_factory) -> str:
    return str(extract_old_runs(tmp_path_factory.mktemp('golden'), 'corpus') / 'corpus')


@pytest.mark.parametrize('sentence_loss', DIGESTS)
def test_a_batch_is_what_it_was(corpus, sentence_loss):
    """If this changes on purpose, raise DATA_VERSION in albert_jax/data/pretraining.py, so that
    runs that have seen other batches do not resume, and put the new digests here."""
    settings = PretrainingSettings(sequence_length=32, sentence_loss=sentence_loss)
    data = PretrainingData(PreparedCorpus(corpus), 'train', settings, 16, 3)
    digest = hashlib.sha256()
    for step in (0, 1, 7):
        batch = data.batch(step)
        for name in sorted(batch):
            array = batch[name]
            digest.update(f'{name}{array.dtype}{array.shape}'.encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    held_out = data.eval_batch(0)
    for name in sorted(held_out):
        digest.update(name.encode() + np.ascontiguousarray(held_out[name]).tobytes())
    assert digest.hexdigest() == DIGESTS[sentence_loss]


def test_a_run_of_another_data_version_does_not_resume(corpus, tmp_path):
    run = PretrainRun.from_dict(
        {
            'data': {'path': corpus},
            'model': {
                'size': 'albert_base', 'vocab_size': 150, 'embedding_size': 8, 'hidden_size': 16,
                'num_hidden_layers': 1, 'num_attention_heads': 2, 'intermediate_size': 32,
                'max_position_embeddings': 32,
            },
            'pretraining': {'sequence_length': 32},
            'optimizer': {'warmup_steps': 1},
            'loop': {'num_steps': 4, 'batch_size': 8, 'num_devices': 1},
        }
    )  # fmt: skip
    job = pretraining.make_job(pretraining.prepare(run))
    fingerprint = job.metadata.resume_fingerprint
    assert fingerprint['data']['version'] == DATA_VERSION

    other = fingerprint | {'data': fingerprint['data'] | {'version': DATA_VERSION + 1}}
    changed = dataclasses.replace(job.metadata, resume_fingerprint=other)
    placement = place(job, run.loop)
    with Checkpoints(tmp_path, 1, job.best_metric, job.is_lower_better) as checkpoints:
        checkpoints.save(1, placement.make_state(None), changed, None)
    with (
        Checkpoints(tmp_path, 1, job.best_metric, job.is_lower_better) as checkpoints,
        pytest.raises(UserError, match=r'data\.version'),
    ):
        checkpoints.restore(placement.abstract_state, job.metadata)
