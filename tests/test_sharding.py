"""Where arrays live: rules, choices, bad meshes, and that a split state is split and adds up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from albert_jax.cli.errors import UserError
from albert_jax.interop import checksums
from albert_jax.interop.checksums import digests
from albert_jax.training.sharding import choose_fsdp, make_mesh, replicator, shardings, spec_of
from tests import tiny

CONFIG = tiny.config(vocab_size=60, max_position_embeddings=16)


def test_rules_by_path():
    mesh = make_mesh(8, 4)
    cases = {
        ('embeddings/word/embedding', (60, 8)): PartitionSpec('fsdp', None),
        ('embeddings/word/embedding', (61, 8)): PartitionSpec(None, 'fsdp'),
        ('embeddings/word/embedding', (61, 7)): PartitionSpec(),
        ('encoder/layer/ffn/output/kernel', (32, 16)): PartitionSpec(None, 'fsdp'),
        ('encoder/layer/ffn/output/kernel', (12, 32, 16)): PartitionSpec(None, None, 'fsdp'),
        ('0/first/encoder/layer/ffn/output/kernel', (32, 2)): PartitionSpec('fsdp', None),
        ('encoder/layer/ffn/output/bias', (16,)): PartitionSpec(),
        ('1/count', ()): PartitionSpec(),
        ('1/inner_states/muon/inner_state/0/ns_coeffs', (3,)): PartitionSpec(),
    }
    for (path, shape), wanted in cases.items():
        assert spec_of(path, shape, mesh) == wanted, path
    with pytest.raises(ValueError, match='No sharding rule matches the array encoder/novelty'):
        spec_of('encoder/novelty', (4, 4), mesh)
    assert spec_of('a/kernel', (32, 16), make_mesh(8)) == PartitionSpec()


def test_small_states_are_repeated_and_large_ones_split():
    assert choose_fsdp(11_813_810, 8) == 1
    assert choose_fsdp(223_158_450, 16) == 16
    assert choose_fsdp(223_158_450, 256) == 16
    assert choose_fsdp(223_158_450, 12) == 12
    assert choose_fsdp(223_158_450, 1) == 1


def test_meshes_that_do_not_fit():
    with pytest.raises(UserError, match='num_devices is 9, but this machine has 8'):
        make_mesh(9)
    with pytest.raises(UserError, match='loop.num_fsdp is 3, but the mesh has 8 devices'):
        make_mesh(8, 3)
    mesh = make_mesh(8, 2)
    assert dict(mesh.shape) == {'data': 4, 'fsdp': 2}


def test_a_split_state_takes_a_share_of_the_memory():
    mesh = make_mesh(8, 8)
    tree = {'kernel': jnp.arange(64.0).reshape(8, 8), 'bias': jnp.arange(8.0)}
    split = jax.device_put(tree, shardings(tree, mesh))
    assert split['kernel'].addressable_shards[0].data.shape == (8, 1)
    assert split['bias'].addressable_shards[0].data.shape == (8,)
    np.testing.assert_array_equal(replicator(mesh)(split)['kernel'], tree['kernel'])
    assert replicator(mesh)(split)['kernel'].sharding.is_fully_replicated
    assert digests(split) == digests(tree)


def test_digests_in_memory_are_those_of_the_devices(monkeypatch):
    rng = np.random.default_rng(0)
    tree = {
        'kernel': rng.normal(size=(24, 8)).astype(np.float32),
        'half': jnp.asarray(rng.normal(size=(3, 5, 2)), jnp.bfloat16),
        'step': np.int32(-7),
        'empty': np.zeros((0, 4), np.float32),
    }
    tree = jax.tree.map(jnp.asarray, tree)
    found = digests(tree)
    assert digests(jax.device_get(tree)) == found
    assert digests(tree | {'kernel': tree['kernel'][::-1]}) != found
    monkeypatch.setattr(checksums, 'is_in_memory', lambda array: False)
    assert digests(tree) == found


def test_the_state_stays_where_it_was_put():
    from albert_jax.model.albert import init_params
    from albert_jax.runs.optimizer import OptimizerSettings
    from albert_jax.training import objectives
    from albert_jax.training.optimizer import make_optimizer
    from albert_jax.training.sharding import put_batch
    from albert_jax.training.step import init_state, make_train_step, state_shardings

    mesh = make_mesh(8, 8)
    objective = objectives.pretraining(CONFIG)
    optimizer = make_optimizer(OptimizerSettings(warmup_steps=2), 20, CONFIG)
    (batch,) = tiny.pretraining_batches(1)

    def make_state():
        return init_state(lambda key: init_params(CONFIG, key), optimizer, objective, batch, 0)

    placement = state_shardings(jax.eval_shape(make_state), mesh)
    state = jax.jit(make_state, out_shardings=placement)()
    step = make_train_step(objective, optimizer, mesh, 1, 10, 0)
    state, _ = step(state, put_batch(mesh, batch))
    found = jax.tree.map(lambda x: x.sharding.is_equivalent_to, state)
    same = jax.tree.map(lambda f, s, x: f(s, x.ndim), found, placement, state)
    assert all(jax.tree.leaves(same))
    kernel = state.params['encoder']['layer']['ffn']['output']['kernel']
    assert kernel.addressable_shards[0].data.shape == (32, 2)
