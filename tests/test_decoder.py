"""The encoder–decoder against a NumPy reference, its invariances, and what it starts from."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from albert_jax.cli.errors import UserError
from albert_jax.interop import native
from albert_jax.interop.metadata import CheckpointMetadata
from albert_jax.model.albert import init_params
from albert_jax.model.config import SIZES
from albert_jax.model.decoder import Seq2SeqModel, init_seq2seq
from albert_jax.model.decoder_config import DecoderConfig
from albert_jax.model.losses import cross_entropy
from albert_jax.model.paths import flatten, num_params
from tests import tiny
from tests.conftest import ROOT
from tests.reference_seq2seq import seq2seq_forward

SMALL = tiny.config(
    vocab_size=50, num_hidden_layers=4, num_attention_heads=4, intermediate_size=24,
    max_position_embeddings=12,
)  # fmt: skip
GROUPS = {'num_hidden_groups': 2, 'inner_group_num': 2}
# Of the model, and of its decoder.
VARIANTS = [
    ({}, {}),
    ({'type_vocab_size': 1}, {'num_decoder_layers': 1}),
    (GROUPS | {'sharing': 'ffn'}, {'cross_attention': 'per_layer'}),
    (tiny.MODERN, {'decoder_sharing': 'copy', 'cross_attention': 'per_layer'}),
    (tiny.MODERN | {'sharing': 'none'}, {'num_decoder_layers': 2}),
    (
        {'sharing': 'none', 'use_embedding_projection': False, 'embedding_size': 16},
        {'decoder_sharing': 'copy', 'num_decoder_layers': 5, 'cross_attention': 'per_layer'},
    ),
    (tiny.MODERN | GROUPS, {'decoder_sharing': 'random', 'num_decoder_layers': 1}),
]


def random_params(model, seed=0, scale=0.3):
    init = functools.partial(init_seq2seq, model.config, model.decoder)
    return tiny.random_tree(jax.eval_shape(lambda: init(jax.random.key(0))), seed, scale)


def make_model(changes, decoder):
    return Seq2SeqModel(dataclasses.replace(SMALL, **changes), DecoderConfig(**decoder))


def batch(seed: int = 1):
    rng = np.random.default_rng(seed)

    def text(length, lengths):
        ids = rng.integers(0, SMALL.vocab_size, (3, length)).astype(np.int32)
        return ids, (np.arange(length) < np.array(lengths)[:, None]).astype(np.int32)

    return (*text(9, [9, 5, 1]), *text(7, [7, 2, 4]))


def run(model, params, arrays, **options):
    return jax.jit(lambda params, arrays: model(params, *arrays, **options))(params, arrays)


@pytest.mark.parametrize(('changes', 'decoder'), VARIANTS, ids=str)
def test_outputs_equal_the_numpy_reference(changes, decoder):
    model = make_model(changes, decoder)
    params, arrays = random_params(model), batch()
    output = run(model, params, arrays, return_attentions=True)
    config, decoder_fields = model.config.to_dict(), model.decoder.to_dict()
    logits, weights = seq2seq_forward(params, config, decoder_fields, *arrays)
    scale = max(1, np.abs(logits).max())
    np.testing.assert_allclose(output.logits, logits, atol=1e-5 * scale, rtol=0)
    np.testing.assert_allclose(output.cross_attention_probs, weights, atol=1e-5, rtol=0)


@pytest.mark.parametrize('changes', [{}, tiny.MODERN], ids=str)
def test_no_token_sees_later_ones_and_padding_changes_nothing(changes):
    model = make_model(changes, {})
    params, arrays = tiny.unbiased(random_params(model, scale=0.2)), batch()
    source_ids, source_mask, target_ids, target_mask = arrays
    apply = functools.partial(run, model, params)
    logits = apply((source_ids, source_mask, target_ids, target_mask)).logits
    later = target_ids.copy()
    later[:, 3] = (later[:, 3] + 1) % SMALL.vocab_size
    moved = apply((source_ids, source_mask, later, target_mask)).logits
    np.testing.assert_array_equal(moved[:, :3], logits[:, :3])
    change = np.abs(moved - logits)[0].max(-1)
    assert (change[3:] > 0).all()
    # Other pieces behind the ends of both texts.
    kept = target_mask > 0
    padded = apply(
        (
            np.where(source_mask > 0, source_ids, 7),
            source_mask,
            np.where(kept, target_ids, 8),
            target_mask,
        )
    ).logits
    np.testing.assert_array_equal(padded[kept], logits[kept])
    # The source matters to every piece, and a text is the same without the others.
    other = apply((source_ids[::-1], source_mask[::-1], target_ids, target_mask)).logits
    assert (np.abs(other - logits)[0].max(-1) > 0).all()
    alone = apply([x[1:2, :length] for x, length in zip(arrays, (5, 5, 2, 2), strict=True)])
    np.testing.assert_allclose(alone.logits[0], logits[1, :2], atol=1e-5)


def test_one_layer_is_what_one_writes_by_hand():
    """Depth 1, one head, one text: self-attention, cross-attention, feed-forward, each normed."""
    model = make_model({'num_attention_heads': 1, 'num_hidden_layers': 1}, {})
    params = random_params(model)
    source, target = np.array([[4, 9, 2]], np.int32), np.array([[5, 8]], np.int32)
    logits = run(model, params, (source, np.ones_like(source), target, np.ones_like(target))).logits
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)

    def dense(tree, x):
        return x @ tree['kernel'] + tree['bias']

    def norm(tree, x):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-12) * tree['scale'] + tree['bias']

    def gelu(x):
        return x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2

    def embed(ids, segment):
        tables = {
            name: p['embeddings'][name]['embedding'] for name in ('word', 'position', 'token_type')
        }
        x = tables['word'][ids] + tables['position'][: len(ids)] + tables['token_type'][segment]
        return dense(p['embeddings']['projection'], norm(p['embeddings']['layer_norm'], x))

    def attend(tree, x, y, is_causal=False):
        scores = dense(tree['query'], x) @ dense(tree['key'], y).T / 4
        if is_causal:
            scores[0, 1] = -np.inf
        weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        output = dense(tree['output'], weights @ dense(tree['value'], y))
        return norm(tree['layer_norm'], x + output)

    def feed(tree, x):
        output = dense(tree['output'], gelu(dense(tree['intermediate'], x)))
        return norm(tree['layer_norm'], x + output)

    layer, cross = p['encoder']['layer'], p['decoder']['cross_attention']
    x = embed(source[0], 0)
    memory = feed(layer['ffn'], attend(layer['attention'], x, x))
    y = attend(layer['attention'], y := embed(target[0], 1), y, is_causal=True)
    y = feed(layer['ffn'], attend(cross, y, memory))
    y = norm(p['mlm']['layer_norm'], gelu(dense(p['mlm']['transform'], y)))
    wanted = y @ p['embeddings']['word']['embedding'].T + p['mlm']['bias']
    np.testing.assert_allclose(logits[0], wanted, atol=1e-5)


def loss(model, params, arrays, key=None, perturbation=None):
    source_ids, source_mask, target_ids, target_mask = arrays
    logits = model(
        params, source_ids, source_mask, target_ids, target_mask,
        dropout_key=key, perturbation=perturbation,
    ).logits  # fmt: skip
    labels = jnp.roll(target_ids, -1, axis=1)
    weights = jnp.asarray(target_mask, jnp.float32)
    return cross_entropy(logits, labels, weights).mean()


def test_the_program_does_not_grow_with_the_depth():
    """All layers of encoder and decoder are one scan each."""

    def num_lines(num_layers):
        model = make_model({'num_hidden_layers': num_layers}, {'num_decoder_layers': num_layers})
        arguments = tiny.random_tree(
            jax.eval_shape(lambda: init_seq2seq(model.config, model.decoder, jax.random.key(0)))
        )
        program = jax.make_jaxpr(lambda params: model(params, *batch()).logits)(arguments)
        return len(str(program).splitlines())

    assert num_lines(3) == num_lines(9)


def test_remat_changes_neither_the_loss_nor_gradients():
    changes = {'hidden_dropout_prob': 0.2, 'attention_probs_dropout_prob': 0.2, 'sharing': 'none'}
    model = make_model(changes, {'cross_attention': 'per_layer'})
    params, arrays, key = random_params(model), batch(), jax.random.key(3)

    def value_and_grad(model):
        return jax.jit(jax.value_and_grad(lambda params: loss(model, params, arrays, key)))

    full = dataclasses.replace(model, config=dataclasses.replace(model.config, remat='full'))
    plain, again = value_and_grad(model), value_and_grad(full)
    counts = [str(jax.make_jaxpr(f)(params)).count('dot_general') for f in (plain, again)]
    assert counts[1] > counts[0]
    (value, grads), (value_again, grads_again) = plain(params), again(params)
    np.testing.assert_allclose(value, value_again, rtol=1e-6)
    without = jax.jit(functools.partial(loss, model))(params, arrays)
    assert float(value) != pytest.approx(float(without), rel=1e-4)
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(grads))
    close = functools.partial(np.testing.assert_allclose, atol=1e-5 * scale)
    jax.tree.map(close, grads, grads_again)


@pytest.mark.parametrize(
    'decoder',
    [
        {},
        {'decoder_sharing': 'copy', 'cross_attention': 'per_layer'},
        {'decoder_sharing': 'random'},
    ],
    ids=str,
)
def test_gradients_pass_the_cross_attention_from_the_first_step(decoder):
    """Into all of its kernels, and through it into the source."""
    model = make_model({'sharing': 'none'}, decoder)
    params = jax.jit(functools.partial(init_seq2seq, model.config, model.decoder))(
        jax.random.key(0)
    )
    arrays = batch()
    nothing = jnp.zeros((*arrays[0].shape, SMALL.embedding_size))
    to_params, to_source = jax.jit(
        jax.grad(lambda params, x: loss(model, params, arrays, perturbation=x), argnums=(0, 1))
    )(params, nothing)
    norms = {path: float(jnp.linalg.norm(x)) for path, x in flatten(to_params).items()}
    of_values = norms['decoder/cross_attention/value/kernel']
    largest = max(norm for path, norm in norms.items() if path.endswith('kernel'))
    assert of_values > 0.01 * largest
    for name in ('query', 'key', 'output'):
        assert norms[f'decoder/cross_attention/{name}/kernel'] > 1e-6 * largest
    kept = arrays[1] > 0
    assert (np.linalg.norm(to_source, axis=-1)[kept] > 1e-7).all()


def test_what_a_decoder_starts_from():
    config = dataclasses.replace(SMALL, sharing='ffn', norm_placement='pre')
    pretrained = tiny.random_params(config)
    lacking = {part: tree for part, tree in pretrained.items() if part != 'mlm'}
    key = jax.random.key(5)

    def start(sharing, given, **fields):
        decoder = DecoderConfig(decoder_sharing=sharing, **fields)
        return jax.jit(functools.partial(init_seq2seq, config, decoder))(key, given)

    shared, fresh = start('encoder', pretrained), start('random', None)
    assert set(shared) == {'embeddings', 'encoder', 'mlm', 'decoder'}
    assert set(shared['decoder']) == {'cross_attention', 'layer_norm'}
    for part in ('embeddings', 'encoder', 'mlm'):
        jax.tree.map(np.testing.assert_array_equal, shared[part], pretrained[part])
    jax.tree.map(
        np.testing.assert_array_equal,
        start('encoder', lacking)['mlm'],
        jax.jit(lambda: init_params(config, key)['mlm'])(),
    )
    # Two layers of the decoder are spread over the encoder's four: attentions of layers 0 and 2.
    copy = start('copy', pretrained, num_decoder_layers=2)['decoder']
    of_encoder = pretrained['encoder']
    for name, wanted in (('query', [0, 2]), ('output', [0, 2])):
        np.testing.assert_array_equal(
            copy['layer']['attention'][name]['kernel'],
            of_encoder['layer']['attention'][name]['kernel'][np.array(wanted)],
        )
    jax.tree.map(np.testing.assert_array_equal, copy['layer']['ffn'], of_encoder['layer']['ffn'])
    jax.tree.map(np.testing.assert_array_equal, copy['layer_norm'], of_encoder['layer_norm'])
    deeper = start('copy', pretrained, num_decoder_layers=5)['decoder']['layer']['attention']
    np.testing.assert_array_equal(
        deeper['key']['kernel'],
        of_encoder['layer']['attention']['key']['kernel'][np.array([0, 0, 1, 2, 3])],
    )
    kernel = fresh['decoder']['layer']['ffn']['output']['kernel']
    assert kernel.shape == fresh['encoder']['layer']['ffn']['output']['kernel'].shape
    assert (kernel != fresh['encoder']['layer']['ffn']['output']['kernel']).any()
    # Of variance 1 / inputs, also where the other kernels are smaller.
    cross = start('encoder', None, cross_attention='per_layer')['decoder']['cross_attention']
    assert cross['output']['kernel'].shape == (4, 16, 16)
    assert float(cross['output']['kernel'].std()) == pytest.approx(16**-0.5, rel=0.1)
    assert (cross['output']['kernel'][0] != cross['output']['kernel'][1]).any()


def test_numbers_of_parameters_are_those_of_the_table():
    """In docs/REFERENCE.md, 1: of each size, by what the decoder shares with the encoder."""
    columns = [
        {'decoder_sharing': sharing, 'cross_attention': attention}
        for sharing in ('encoder', 'copy')
        for attention in ('shared', 'per_layer')
    ]
    document = (ROOT / 'docs/REFERENCE.md').read_text()
    table = document.split('| decoder | `encoder`, one cross-attention |')[1].split('\n\n')[0]
    rows = [line.strip('|').split('|') for line in table.splitlines()[2:]]
    assert len(rows) == 5
    for name, *numbers in rows:
        size = SIZES[name.strip() if 'bert' in name else f'albert_{name.strip()}']
        found = [
            num_params(
                jax.eval_shape(
                    functools.partial(init_seq2seq, size, DecoderConfig(**fields)),
                    jax.random.key(0),
                )
            )
            for fields in columns
        ]
        assert [int(number.replace(',', '')) for number in numbers] == found, name


def test_a_checkpoint_says_what_its_decoder_is(tmp_path, vocabulary):
    decoder = DecoderConfig(decoder_sharing='copy', num_decoder_layers=1)
    config = tiny.config()
    params = jax.jit(functools.partial(init_seq2seq, config, decoder))(jax.random.key(0))
    model = dataclasses.replace(
        tiny.pretrained(config, vocabulary), params=dict(params), decoder=decoder
    )
    folder = tiny.write(model, tmp_path / 'model')
    read = native.read(folder)
    assert read.decoder == decoder
    jax.tree.map(np.testing.assert_array_equal, read.params, dict(params))
    content = CheckpointMetadata({}, config, None, {}).to_json()
    assert 'decoder' not in content
    assert CheckpointMetadata.from_json(content).decoder is None
    # The config of another decoder than the weights'.
    other = dataclasses.replace(model, decoder=DecoderConfig(cross_attention='per_layer'))
    with pytest.raises(UserError, match='decoder/cross_attention/key/bias has the shape'):
        native.read(tiny.write(other, tmp_path / 'other'))
    for fields, message in (
        ({'decoder_sharing': 'all'}, 'decoder.decoder_sharing is .all.; it must be one of encoder'),
        ({'num_decoder_layers': -1}, 'decoder.num_decoder_layers is -1; it must be 0 or above'),
        ({'cross_attention': 1}, 'decoder.cross_attention is 1 .int.; it must be of type str'),
    ):
        with pytest.raises(UserError, match=message):
            DecoderConfig(**fields)


def test_all_devices_are_one():
    """A step with weights split over four devices, and rows over eight, is that of one device."""
    from albert_jax.runs.optimizer import OptimizerSettings
    from albert_jax.training.objectives import Objective
    from albert_jax.training.optimizer import make_optimizer
    from albert_jax.training.sharding import make_mesh, put_batch
    from albert_jax.training.step import init_state, make_train_step, state_shardings

    model = make_model({'hidden_dropout_prob': 0.1}, {'cross_attention': 'per_layer'})
    names = 'source_ids', 'source_mask', 'target_ids', 'target_mask'
    rows = [np.concatenate([batch(seed)[i] for seed in range(3)])[:8] for i in range(4)]

    def sums(params, batch, key):
        logits = model(
            params, *(batch[name] for name in names), example_ids=batch.get('example_ids'),
            dropout_key=key,
        ).logits  # fmt: skip
        weights = batch['target_mask'].astype(jnp.float32)
        return {'loss_sum': cross_entropy(logits, batch['target_ids'], weights)}

    def totals(batch):
        return {'loss_sum': batch['target_mask'].sum().astype(jnp.float32)}

    objective = Objective({'loss_sum': 1.0}, totals, sums)
    optimizer = make_optimizer(
        OptimizerSettings(learning_rate=0.01, warmup_steps=0), 20, model.config
    )
    arrays = dict(zip(names, rows, strict=True))

    def stepped(mesh):
        def make_state():
            init = functools.partial(init_seq2seq, model.config, model.decoder)
            return init_state(init, optimizer, objective, arrays, 0)

        placement = state_shardings(jax.eval_shape(make_state), mesh)
        state = jax.jit(make_state, out_shardings=placement)()
        step = make_train_step(objective, optimizer, mesh, 1, 10, 0)
        state, _ = step(state, put_batch(mesh, arrays))
        return state

    one, eight = stepped(make_mesh(1)), stepped(make_mesh(8, 4))
    kernel = eight.params['decoder']['cross_attention']['query']['kernel']
    assert kernel.addressable_shards[0].data.shape == (4, 16, 4)
    # The norms and biases, whose updates are not of the sign of noise.
    assert one.metric_sums['loss'].sum == pytest.approx(float(eight.metric_sums['loss'].sum), 1e-6)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), one.params, eight.params)


def test_flops_are_those_of_the_traced_model():
    from albert_jax.model.flops import seq2seq_train_flops
    from tests.test_flops import _product_flops

    for changes, decoder in VARIANTS[::2]:
        model = make_model(changes, decoder)
        shapes = jax.eval_shape(
            lambda m=model: init_seq2seq(m.config, m.decoder, jax.random.key(0))
        )
        source, target = (jax.ShapeDtypeStruct((1, n), jnp.int32) for n in (9, 7))
        jaxpr = jax.make_jaxpr(lambda p, s, t, m=model: m(p, s, s, t, t).logits)(
            shapes, source, target
        )
        wanted = seq2seq_train_flops(model.config, model.decoder, 9, 7)
        assert 3 * _product_flops(jaxpr.jaxpr) == wanted
