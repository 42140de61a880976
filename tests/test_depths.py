"""What lies between sharing everything and nothing: loops, prelude, coda, weights of each depth."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np
import pytest

from albert_jax.cli.errors import UserError
from albert_jax.interop import conversion, source
from albert_jax.interop.native import Pretrained, expected_shapes
from albert_jax.model.albert import PretrainingModel, init_params
from albert_jax.model.config import SIZES, AlbertConfig
from albert_jax.model.decoder import Seq2SeqModel
from albert_jax.model.decoder_config import DecoderConfig
from albert_jax.model.flops import train_flops
from albert_jax.model.loops import with_num_loops
from albert_jax.model.paths import flatten
from albert_jax.runs.optimizer import OptimizerSettings
from albert_jax.training.optimizer import _muon_or_adamw, decays, is_stacked, update_flops
from tests import tiny
from tests.conftest import ROOT
from tests.test_model import inputs, run

SMALL = tiny.config(vocab_size=50, num_hidden_layers=4, max_position_embeddings=12)
OUTPUTS = ('last_hidden_state', 'pooled_output', 'mlm_logits', 'sop_logits')


def small(**changes) -> AlbertConfig:
    return dataclasses.replace(SMALL, **changes)


def assert_equal(first, second) -> None:
    for name in OUTPUTS:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


@pytest.mark.parametrize(
    ('looped', 'known'),
    [
        ({'num_loops': 1}, {'sharing': 'none'}),
        ({'num_loops': 4}, {}),
        ({'num_loops': 2}, {'num_hidden_layers': 2, 'inner_group_num': 2}),
    ],
    ids=str,
)
def test_loops_are_what_can_be_said_without_them(looped, known):
    first, second = small(**looped), small(**known)
    params, batch = tiny.random_params(first), inputs(first)
    shapes = jax.tree.map(np.shape, tiny.random_params(second))
    assert jax.tree.map(np.shape, params) == shapes
    assert_equal(run(first, params, batch), run(second, params, batch))


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_at_the_start_depths_differ_in_nothing(dtype):
    shared = small(compute_dtype=dtype, **tiny.MODERN)
    relaxed = dataclasses.replace(shared, **tiny.OF_DEPTHS)
    params, batch = tiny.random_params(shared), inputs(shared)
    fresh = init_params(relaxed, jax.random.key(0))
    num_depths = shared.num_depths

    def shared_values(path, leaf):
        """The shared model's value where there is one, at every depth where it is a depth's."""
        of_shared = flatten(params).get(jax.tree_util.keystr(path, simple=True, separator='/'))
        if of_shared is None:
            return leaf
        return np.broadcast_to(of_shared, leaf.shape)

    values = jax.tree_util.tree_map_with_path(shared_values, fresh)
    added = {path: x for path, x in flatten(fresh).items() if path not in flatten(params)}
    assert all(len(x) == num_depths for x in added.values())
    assert any('adapter_up' in path for path in added) and 'encoder/layer/depth/embedding' in added
    found, wanted = run(relaxed, values, batch), run(shared, params, batch)
    for name in OUTPUTS:
        np.testing.assert_allclose(
            getattr(found, name), getattr(wanted, name), rtol=0, atol=1e-6, err_msg=name
        )


def test_gradients_reach_every_weight_of_every_depth():
    config = small(**tiny.RELAXED)
    params, batch = tiny.random_params(config), inputs(config)

    def loss(params):
        options: Any = batch
        output: Any = PretrainingModel(config).apply({'params': params}, **options)
        return output.mlm_logits.std()

    for path, gradient in flatten(jax.jit(jax.grad(loss))(params)['encoder']).items():
        if 'key/bias' not in path:  # which adds the same to all scores
            by_layer = np.abs(np.asarray(gradient)).reshape(len(gradient), -1).max(1)
            assert (by_layer > 0).all(), path


def test_the_optimizer_knows_the_depths():
    config = small(**tiny.RELAXED)
    params = tiny.random_params(config)
    of_path = flatten(params)
    decay, rule = flatten(decays(params)), flatten(_muon_or_adamw(params))
    for path, leaf in of_path.items():
        name = path.rpartition('/')[2]
        assert decay[path] == (name not in ('bias', 'scale')), path
        if not path.startswith('encoder/'):
            continue
        assert rule[path] == ('muon' if name == 'kernel' else 'adamw'), path
        if decay[path]:
            # Two in the core and the coda; the prelude is one layer.
            num_axes = 1 if name == 'embedding' else 2
            assert is_stacked(config, path, leaf.ndim) == (leaf.ndim > num_axes), path
    assert of_path['encoder/prelude/ffn/output/kernel'].ndim == 2
    assert len(of_path['encoder/coda/ffn/output/kernel']) == 2
    assert len(of_path['encoder/layer/ffn/output/kernel']) == 2
    assert len(of_path['encoder/layer/ffn/output/adapter_up']) == 4


def test_flops_by_hand():
    config = small(num_loops=2)
    longer = dataclasses.replace(config, num_prelude_layers=1, num_coda_layers=2)
    a_layer = (train_flops(config, 8, 2) - train_flops(small(num_hidden_layers=1), 8, 2)) / 3
    assert train_flops(longer, 8, 2) - train_flops(config, 8, 2) == pytest.approx(3 * a_layer)
    shapes = {p: x.shape for p, x in flatten(tiny.random_params(small(**tiny.RELAXED))).items()}
    # Rank 3, width 16, gated inner width 24 for 32: four kernels 16 × 16, three 16 × 24, 4 depths.
    inner = small(**tiny.RELAXED).ffn_size
    by_hand = 3 * 2 * 3 * 4 * (4 * 16 * 16 + 3 * 16 * inner)
    assert update_flops(OptimizerSettings(name='lamb'), shapes) == by_hand


def test_numbers_of_parameters_are_those_of_the_table():
    base = SIZES['albert_base']
    changes = (
        {}, {'num_loops': 6}, {'num_loops': 3},
        {'num_hidden_layers': 10, 'num_prelude_layers': 1, 'num_coda_layers': 1},
        {'depth_adapter_rank': 8}, {'depth_norms': True}, {'depth_embedding': True},
        {'sharing': 'none'},
    )  # fmt: skip
    found = [
        sum(map(math.prod, expected_shapes(dataclasses.replace(base, **change)).values()))
        for change in changes
    ]
    row = f'| base | {" | ".join(f"{number:,}" for number in found)} |'
    assert row in (ROOT / 'docs' / 'REFERENCE.md').read_text()
    # By hand: twelve depths of two products, of rank 8, for each of a layer's kernels.
    assert found[4] - found[0] == 12 * 8 * (4 * (768 + 768) + 2 * (768 + 3072))
    assert found[6] - found[0] == 12 * 768


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({'num_loops': 3}, 'num_loops 3 does not divide num_hidden_layers 4'),
        ({'num_loops': 2, 'inner_group_num': 2}, 'num_loops is 2, and so is inner_group_num 2'),
        ({'num_loops': 2, 'sharing': 'none'}, 'sharing none, which says in another way'),
        ({'num_loops': 0}, 'num_loops'),
        ({'sharing': 'none', 'num_prelude_layers': 1}, 'sharing is none; add them'),
        ({'sharing': 'none', 'depth_adapter_rank': 2}, 'model.depth_adapter_rank tells depths'),
        (
            {'sharing': 'none', 'depth_norms': True, 'depth_embedding': True},
            'model.depth_norms and model.depth_embedding tell depths',
        ),
        ({'depth_adapter_rank': -1}, 'depth_adapter_rank'),
    ],
)
def test_impossible_models(changes, said):
    with pytest.raises(UserError, match=said) as error:
        small(**changes)
    assert str(error.value).count('\n') == 0


def test_foreign_formats(tmp_path, vocabulary):
    from albert_jax.data.tokenizer import Tokenizer

    tokenizer = Tokenizer(vocabulary)
    looped = tiny.config(num_hidden_layers=4, num_loops=2)
    model = Pretrained(looped, tiny.random_params(looped), tokenizer)
    conversion.convert(model, tmp_path / 'hf', 'huggingface')
    again = source.read(tmp_path / 'hf')
    assert (again.config.num_hidden_layers, again.config.inner_group_num) == (2, 2)
    batch = inputs(looped)
    assert_equal(run(looped, model.params, batch), run(again.config, again.params, batch))
    half = tiny.config(num_hidden_layers=4, num_loops=2, sharing='attention')
    model = Pretrained(half, tiny.random_params(half), tokenizer)
    conversion.convert(model, tmp_path / 'half', 'huggingface')
    again = source.read(tmp_path / 'half')
    assert again.config == half
    assert_equal(run(half, model.params, batch), run(half, again.params, batch))
    relaxed = tiny.config(**tiny.RELAXED)
    model = Pretrained(relaxed, tiny.random_params(relaxed), tokenizer)
    with pytest.raises(UserError, match='depth_adapter_rank=3 and depth_norms=True'):
        conversion.convert(model, tmp_path / 'no', 'huggingface')
    conversion.convert(model, tmp_path / 'own', 'albert_jax')
    again = source.read(tmp_path / 'own')
    assert again.config == relaxed
    assert_equal(run(relaxed, model.params, batch), run(relaxed, again.params, batch))


def test_no_decoder_of_such_layers():
    for changes in ({'num_loops': 2}, {'num_coda_layers': 1}, {'depth_norms': True}):
        with pytest.raises(UserError, match='A decoder has the layers of its encoder'):
            Seq2SeqModel(small(**changes), DecoderConfig())


# Other depths than in training.


def test_more_loops_are_the_same_layers_again():
    config, batch = small(num_loops=2, num_coda_layers=1), inputs(SMALL)
    params = tiny.random_params(config)
    deeper, same = with_num_loops(config, params, 5)
    assert deeper.num_hidden_layers == 10 and deeper.num_loops == 5 and same is params
    # The core of two again and again, then the coda.
    states = run(deeper, same, batch, return_hidden_states=True).hidden_states
    once = run(config, params, batch, return_hidden_states=True).hidden_states
    np.testing.assert_array_equal(states[:5], once[:5])
    assert len(states) == 1 + 10 + 1 and len(once) == 1 + 4 + 1
    shallow, _ = with_num_loops(config, params, 1)
    fewer = run(shallow, params, batch, return_hidden_states=True).hidden_states
    np.testing.assert_array_equal(fewer[:3], once[:3])
    # A model that shares everything goes through its layer as often as is asked.
    assert with_num_loops(SMALL, {}, 7)[0] == small(num_hidden_layers=7)


def test_fewer_loops_keep_the_weights_of_the_first_depths():
    config, batch = small(**tiny.RELAXED), inputs(SMALL)
    params = tiny.random_params(config)
    shallow, fewer = with_num_loops(config, params, 1)
    states = run(shallow, fewer, batch, return_hidden_states=True).hidden_states
    whole = run(config, params, batch, return_hidden_states=True).hidden_states
    # Embeddings, prelude, the two layers of the first loop.
    np.testing.assert_allclose(states[:4], whole[:4], atol=1e-6)


@pytest.mark.parametrize(
    ('changes', 'num_loops', 'said'),
    [
        ({'sharing': 'none'}, 2, 'no layers that it goes through in turn'),
        ({'num_hidden_groups': 2}, 2, 'no layers that it goes through in turn'),
        ({'num_loops': 2, 'sharing': 'ffn'}, 2, 'no layers that it goes through in turn'),
        ({'num_loops': 2, 'depth_norms': True}, 3, 'weights of its own at each of 4 depths'),
        ({}, 0, 'num_loops is 0; it must be 1 or above'),
    ],
)
def test_other_depths_that_cannot_be(changes, num_loops, said):
    config = small(**changes)
    with pytest.raises(UserError, match=said):
        with_num_loops(config, {}, num_loops)
