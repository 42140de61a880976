"""The model against a NumPy reference written from the paper, and its invariances."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from albert_jax.model.albert import Encoder, Layer, PretrainingModel, init_params
from albert_jax.model.config import AlbertConfig
from albert_jax.model.modules import LayerNorm
from albert_jax.model.paths import flatten
from tests import tiny
from tests.reference_albert import albert_forward

SMALL = tiny.config(
    vocab_size=50, num_hidden_layers=4, num_attention_heads=4, intermediate_size=24,
    max_position_embeddings=12,
)  # fmt: skip


def inputs(config: AlbertConfig, batch: int = 3, length: int = 9, seed: int = 1):
    rng = np.random.default_rng(seed)
    lengths = np.array([length, length - 4, 1])[:batch]
    return {
        'input_ids': rng.integers(0, config.vocab_size, (batch, length)).astype(np.int32),
        'attention_mask': (np.arange(length) < lengths[:, None]).astype(np.int32),
        'token_type_ids': rng.integers(0, 2, (batch, length)).astype(np.int32),
        'masked_positions': rng.integers(0, length, (batch, 4)).astype(np.int32),
    }


def run(config, params, batch, **options):
    apply = jax.jit(
        lambda params, batch: PretrainingModel(config).apply({'params': params}, **batch, **options)
    )
    return apply(params, batch)


VARIANTS = [
    *({'sharing': sharing} for sharing in ('all', 'attention', 'ffn', 'none')),
    *(
        {'sharing': sharing, 'num_hidden_groups': 2, 'inner_group_num': 2}
        for sharing in ('all', 'attention', 'ffn', 'none')
    ),
    {'num_hidden_groups': 3},
    {'hidden_act': 'gelu_erf'},
    {'hidden_act': 'relu'},
    {'embedding_size': 16, 'use_embedding_projection': False, 'sharing': 'none'},
    {'position_encoding': 'rope'},
    {'norm_placement': 'pre'},
    {'is_gated': True},
    tiny.MODERN,
    tiny.MODERN | {'sharing': 'none'},
    tiny.MODERN
    | {'sharing': 'ffn', 'num_hidden_groups': 2, 'inner_group_num': 2, 'hidden_act': 'relu'},
    tiny.RELAXED,
    # As many unique layers as none; one of each; the feed-forward untied.
    {'num_loops': 1, 'num_prelude_layers': 2},
    tiny.OF_DEPTHS | {'num_loops': 2, 'sharing': 'attention'},
    tiny.OF_DEPTHS | {'num_hidden_groups': 2, 'inner_group_num': 2},
]


@pytest.mark.parametrize('variant', VARIANTS, ids=str)
def test_outputs_equal_the_numpy_reference(variant):
    config = dataclasses.replace(SMALL, **variant)
    params, batch = tiny.random_params(config), inputs(config)
    output = run(config, params, batch, return_attentions=True)
    expected = albert_forward(
        jax.tree.map(lambda x: np.asarray(x, np.float64), params), config.to_dict(), **batch
    )
    for name in ('last_hidden_state', 'pooled_output', 'mlm_logits', 'sop_logits'):
        actual = np.asarray(getattr(output, name))
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(actual, expected[name], atol=1e-5 * max(1, scale), rtol=0)
    for actual, wanted in zip(output.hidden_states, expected['hidden_states'], strict=True):
        np.testing.assert_allclose(actual, wanted, atol=2e-5, rtol=0)
    assert output.attention_probs.shape[0] == config.num_blocks
    np.testing.assert_allclose(output.attention_probs.sum(-1), 1, atol=1e-6)


def test_mlm_logits_everywhere_hold_those_of_the_masked_positions():
    params, batch = tiny.random_params(SMALL), inputs(SMALL)
    gathered = run(SMALL, params, batch).mlm_logits
    positions = batch.pop('masked_positions')
    everywhere = run(SMALL, params, batch).mlm_logits
    expected = np.take_along_axis(np.asarray(everywhere), positions[:, :, None], axis=1)
    np.testing.assert_allclose(gathered, expected, atol=1e-5)


@pytest.mark.parametrize('variant', [{}, tiny.MODERN], ids=str)
def test_padding_changes_nothing(variant):
    config = dataclasses.replace(SMALL, **variant)
    params, batch = tiny.random_params(config), inputs(config)
    is_padding = batch['attention_mask'] == 0
    other = dict(batch, input_ids=np.where(is_padding, 7, batch['input_ids']).astype(np.int32))
    assert (other['input_ids'] != batch['input_ids']).any()
    first, second = run(config, params, batch), run(config, params, other)
    np.testing.assert_array_equal(first.pooled_output, second.pooled_output)
    kept = ~is_padding
    np.testing.assert_array_equal(first.last_hidden_state[kept], second.last_hidden_state[kept])
    # The example with one token is the same as that token alone.
    alone = {name: rows[2:, :1] for name, rows in batch.items() if name != 'masked_positions'}
    alone = run(config, params, alone)
    np.testing.assert_allclose(alone.pooled_output[0], first.pooled_output[2], atol=1e-6)


def loss(config, params, batch, **options):
    output = PretrainingModel(config).apply({'params': params}, **batch, **options)
    return jnp.square(output.mlm_logits).mean() + jnp.square(output.sop_logits).mean()


def assert_trees_close(actual, expected, tolerance=1e-5):
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    for path, wanted in jax.tree_util.tree_leaves_with_path(expected):
        found = actual
        for key in path:
            found = found[key.key]
        np.testing.assert_allclose(
            found, wanted, atol=tolerance * scale, rtol=0, err_msg=jax.tree_util.keystr(path)
        )


@pytest.mark.parametrize(
    ('variant', 'remat'),
    [
        ({'sharing': 'all'}, 'full'),
        ({'sharing': 'none'}, 'attention'),
        *(
            pytest.param({'sharing': sharing}, remat, marks=pytest.mark.slow)
            for sharing, remat in (
                ('all', 'attention'),
                ('none', 'full'),
                ('attention', 'full'),
                ('attention', 'attention'),
            )
        ),
        (tiny.MODERN | {'sharing': 'attention'}, 'full'),
        (tiny.RELAXED, 'full'),
    ],
    ids=str,
)
def test_remat_changes_neither_outputs_nor_gradients(variant, remat):
    config = dataclasses.replace(
        SMALL, hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2, **variant
    )
    rematerialised = dataclasses.replace(config, remat=remat)
    params, batch = tiny.random_params(config), inputs(config)

    def value_and_grad(config):
        rngs = {'dropout': jax.random.key(3)}
        return jax.jit(
            jax.value_and_grad(lambda p: loss(config, p, batch, deterministic=False, rngs=rngs))
        )

    plain, again = value_and_grad(config), value_and_grad(rematerialised)
    # What is compared must really differ: remat computes forward operations again.
    num_products = [
        str(jax.make_jaxpr(function)(params)).count('dot_general') for function in (plain, again)
    ]
    assert num_products[1] > num_products[0]
    (value, grads), (value_again, grads_again) = plain(params), again(params)
    np.testing.assert_allclose(value_again, value, rtol=1e-6)
    assert_trees_close(grads_again, grads)


@pytest.mark.parametrize(
    'variant',
    [
        VARIANTS[0], VARIANTS[3], {'num_hidden_groups': 3}, tiny.MODERN | {'sharing': 'ffn'},
        tiny.OF_DEPTHS | {'num_loops': 2},
        pytest.param(VARIANTS[5], marks=pytest.mark.slow),
    ],
    ids=str,
)  # fmt: skip
def test_scan_equals_a_python_loop(variant):
    config = dataclasses.replace(SMALL, **variant)
    params, batch = tiny.random_params(config), inputs(config)
    attention = config.unique_layer_indices(config.num_unique_attention_layers)
    ffn = config.unique_layer_indices(config.num_unique_ffn_layers)
    embedded = run(config, params, batch, return_attentions=True).hidden_states[0]
    mask, examples = jnp.asarray(batch['attention_mask']), jnp.arange(len(embedded))

    def looped(encoder_params, hidden):
        for layer in range(config.num_hidden_layers):
            depths = jnp.arange(config.inner_group_num) + layer * config.inner_group_num
            indices = jnp.asarray(attention[layer]), jnp.asarray(ffn[layer]), depths
            hidden, _ = Layer(config).apply(
                {'params': encoder_params['layer']}, hidden, *indices, mask, examples
            )
        if config.norm_placement == 'pre':
            hidden = LayerNorm(config).apply({'params': encoder_params['layer_norm']}, hidden)
        return hidden

    def scanned(encoder_params, hidden):
        variables = {'params': encoder_params}
        return Encoder(config).apply(variables, hidden, mask, examples, True, False)[0]

    def value_and_grad(function):
        def total(encoder_params):
            hidden = function(encoder_params, embedded)
            return jnp.sin(hidden).sum(), hidden

        return jax.jit(jax.value_and_grad(total, has_aux=True))(params['encoder'])

    ((_, hidden), grads), ((_, wanted), wanted_grads) = map(value_and_grad, (scanned, looped))
    np.testing.assert_allclose(hidden, wanted, atol=1e-5)
    assert_trees_close(grads, wanted_grads)


def test_dropout_of_an_example_does_not_depend_on_the_batch_around_it():
    config = dataclasses.replace(SMALL, hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    params, batch = tiny.random_params(config), inputs(config)
    options = {'deterministic': False, 'rngs': {'dropout': jax.random.key(0)}}
    together = run(config, params, batch, **options).last_hidden_state
    for example in range(3):
        alone = {name: rows[example : example + 1] for name, rows in batch.items()}
        alone |= {'example_ids': np.array([example], np.int32)}
        hidden = run(config, params, alone, **options).last_hidden_state
        np.testing.assert_allclose(hidden[0], together[example], atol=1e-5)
    assert not np.allclose(together, run(config, params, batch).last_hidden_state, atol=0.1)


def test_dropout_keeps_the_stated_share_and_the_mean():
    from albert_jax.model.modules import Dropout

    ones = jnp.ones((64, 1000))
    dropped = Dropout(0.3).apply(
        {}, ones, jnp.arange(64), False, rngs={'dropout': jax.random.key(1)}
    )
    assert abs(float((dropped == 0).mean()) - 0.3) < 0.01
    np.testing.assert_allclose(dropped[dropped != 0], 1 / 0.7, rtol=1e-6)
    assert len(np.unique(np.asarray(dropped), axis=0)) == 64


@pytest.mark.parametrize('variant', [{}, tiny.MODERN, tiny.RELAXED], ids=str)
def test_bfloat16_is_as_close_as_its_precision(variant):
    config = dataclasses.replace(SMALL, **variant)
    params, batch = tiny.random_params(config), inputs(config)
    exact = run(config, params, batch)
    rounded = run(dataclasses.replace(config, compute_dtype='bfloat16'), params, batch)
    for name in ('last_hidden_state', 'pooled_output', 'mlm_logits', 'sop_logits'):
        assert getattr(rounded, name).dtype == jnp.float32
        scale = np.abs(getattr(exact, name)).max()
        assert np.abs(getattr(rounded, name) - getattr(exact, name)).max() < 0.04 * scale


def test_fresh_weights_are_those_of_the_paper():
    params = init_params(AlbertConfig(), jax.random.key(0))
    table = np.asarray(params['embeddings']['word']['embedding'])
    assert np.abs(table).max() <= 0.04 + 1e-7  # cut at two standard deviations of 0.02
    assert abs(table.std() - 0.02 * 0.8796) < 1e-4  # of a normal that is cut there
    assert (np.asarray(params['mlm']['bias']) == 0).all()
    assert (np.asarray(params['encoder']['layer']['ffn']['layer_norm']['scale']) == 1).all()


def test_kernels_start_by_their_inputs_and_tables_by_their_own_range():
    config = tiny.config(
        vocab_size=4000, embedding_size=64, hidden_size=128, intermediate_size=512,
        embedding_initializer_range=0.1, kernel_initializer='fan_in', sharing='attention',
    )  # fmt: skip
    params = flatten(jax.jit(lambda: init_params(config, jax.random.key(0)))())
    for path, leaf in params.items():
        if path.endswith('/embedding'):
            assert np.abs(leaf).max() <= 0.2 + 1e-6
            assert np.std(leaf) == pytest.approx(0.1 * 0.8796, rel=0.1), path
        elif path.endswith('/kernel'):
            # A variance of one over the inputs, of which the axis of layers is none.
            assert np.std(leaf) == pytest.approx(leaf.shape[-2] ** -0.5, rel=0.1), path
    assert params['encoder/layer/ffn/output/kernel'].shape == (2, 512, 128)
    assert params['encoder/layer/attention/output/kernel'].shape == (128, 128)


@pytest.mark.parametrize('position_encoding', ['learned', 'rope'])
def test_too_long_a_sequence_is_refused(position_encoding):
    config = dataclasses.replace(SMALL, position_encoding=position_encoding)
    ids = np.zeros((1, 13), np.int32)
    with pytest.raises(ValueError, match='13 tokens; the model has 12 positions'):
        PretrainingModel(config).apply({'params': tiny.random_params(config)}, ids)
