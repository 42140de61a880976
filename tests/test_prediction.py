"""Prediction on any number of devices, and what is compiled for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from albert_jax.model import attention
from albert_jax.model.albert import init_params
from albert_jax.model.heads import HEADS
from albert_jax.runs.task import FinetuningSettings
from albert_jax.tasks.batches import TrainBatches, bucket_lengths
from albert_jax.tasks.objective import fine_tuning
from albert_jax.tasks.prediction import Predictor
from albert_jax.training.sharding import make_mesh
from tests import tiny

CONFIG = tiny.config()


@pytest.fixture(scope='module')
def params():
    return tiny.classifier_params(CONFIG)


def test_on_eight_tpu_chips_the_attention_kernel_is_lowered_too():
    """The compiler refuses to split a Pallas kernel by itself."""
    config = tiny.config(hidden_size=128, max_position_embeddings=128)
    shapes = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    shapes |= {
        'head': jax.eval_shape(
            lambda: HEADS['sequence_classification'].init(2, config, jax.random.key(1))
        )
    }
    predictor = Predictor(config, tiny.CLASSES, make_mesh(8), 8, 128, 0)
    batch = dict.fromkeys(
        ('input_ids', 'attention_mask', 'token_type_ids'), jax.ShapeDtypeStruct((8, 128), jnp.int32)
    )
    with attention.compiling_for('tpu'):
        lowered = predictor._predict_batch.function.trace(shapes, batch).lower(
            lowering_platforms=('tpu',)
        )
    assert 'tpu_custom_call' in lowered.as_text()


def test_every_example_once_on_1_3_and_8_devices(params):
    features = tiny.features(np.random.default_rng(0).integers(3, 30, 29))
    found = {}
    for devices, batch_size in ((1, 29), (3, 4), (8, 8)):
        predictor = Predictor(CONFIG, tiny.CLASSES, make_mesh(devices), batch_size, 32, 0)
        outputs = predictor(params, features)
        found[devices] = np.stack(outputs['logits'])
        assert found[devices].shape == (29, 2)
        assert predictor.num_compiled <= len(bucket_lengths(32))
    np.testing.assert_allclose(found[3], found[1], atol=1e-5)
    np.testing.assert_allclose(found[8], found[1], atol=1e-5)
    # Each example's own output, not its neighbour's.
    for example in (0, 28):
        ids = features.sequence(example)[None]
        types = (np.arange(ids.shape[1]) >= features.seconds[example])[None].astype(np.int32)
        encoded = tiny.outputs(CONFIG, params, ids, np.ones_like(ids), types, method='encode')
        pooled = encoded.pooled_output
        head = params['head']
        alone = np.asarray(pooled) @ np.asarray(head['kernel']) + np.asarray(head['bias'])
        np.testing.assert_allclose(found[1][example], alone[0], atol=1e-5)
    assert predictor(params, features, lambda: True) is None


def test_nothing_is_compiled_after_each_length_was_seen(params):
    features = tiny.features(np.random.default_rng(1).integers(3, 60, 200))
    batches = TrainBatches(features, 16, 64, 0, seed=0)
    objective = fine_tuning(CONFIG, tiny.CLASSES, 0.1, FinetuningSettings(), (0,))
    counted = jax.jit(lambda p, b, k: objective.sums(p, b, k)['task_loss'].sum)
    sizes = []
    for step in range(3 * batches.batches_per_epoch):
        counted(params, batches.batch(step, range(16)), jax.random.key(0))
        sizes.append(counted._cache_size())
    assert sizes[-1] == sizes[batches.batches_per_epoch - 1] <= len(bucket_lengths(64))
