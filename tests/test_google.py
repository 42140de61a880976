"""Google's checkpoints, written here with TensorFlow under the names of the release."""

import json
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest

import albert_jax
from albert_jax.cli.errors import UserError
from albert_jax.interop import conversion
from albert_jax.model.config import AlbertConfig
from tests.reference_albert import albert_forward

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings('ignore')]
tf = pytest.importorskip('tensorflow', reason='needs the extra tensorflow')

H, E, F, VOCAB = 16, 8, 24, 1000
CONFIG = {
    'attention_probs_dropout_prob': 0,
    'hidden_act': 'gelu',
    'hidden_dropout_prob': 0,
    'embedding_size': E,
    'hidden_size': H,
    'initializer_range': 0.02,
    'intermediate_size': F,
    'max_position_embeddings': 20,
    'num_attention_heads': 2,
    'num_hidden_layers': 4,
    'num_hidden_groups': 1,
    'net_structure_type': 0,
    'gap_size': 0,
    'num_memory_blocks': 0,
    'inner_group_num': 1,
    'down_scale_factor': 1,
    'type_vocab_size': 2,
    'vocab_size': VOCAB,
}


def variables(groups: int = 1, inner: int = 1, embedding: int = E) -> dict[str, np.ndarray]:
    """Names and shapes as in the table of the reference, typed out; random values."""
    shapes = {
        'bert/embeddings/word_embeddings': (VOCAB, embedding),
        'bert/embeddings/position_embeddings': (20, embedding),
        'bert/embeddings/token_type_embeddings': (2, embedding),
        'bert/embeddings/LayerNorm/gamma': (embedding,),
        'bert/embeddings/LayerNorm/beta': (embedding,),
        'bert/pooler/dense/kernel': (H, H),
        'bert/pooler/dense/bias': (H,),
        'cls/predictions/transform/dense/kernel': (H, embedding),
        'cls/predictions/transform/dense/bias': (embedding,),
        'cls/predictions/transform/LayerNorm/gamma': (embedding,),
        'cls/predictions/transform/LayerNorm/beta': (embedding,),
        'cls/predictions/output_bias': (VOCAB,),
        'cls/seq_relationship/output_weights': (2, H),
        'cls/seq_relationship/output_bias': (2,),
    }
    if embedding != H:
        shapes['bert/encoder/embedding_hidden_mapping_in/kernel'] = (embedding, H)
        shapes['bert/encoder/embedding_hidden_mapping_in/bias'] = (H,)
    for group in range(groups):
        for block in range(inner):
            prefix = f'bert/encoder/transformer/group_{group}/inner_group_{block}'
            for name in ('query', 'key', 'value'):
                shapes[f'{prefix}/attention_1/self/{name}/kernel'] = (H, H)
                shapes[f'{prefix}/attention_1/self/{name}/bias'] = (H,)
            shapes[f'{prefix}/attention_1/output/dense/kernel'] = (H, H)
            shapes[f'{prefix}/attention_1/output/dense/bias'] = (H,)
            for norm in ('LayerNorm', 'LayerNorm_1'):
                shapes[f'{prefix}/{norm}/gamma'] = (H,)
                shapes[f'{prefix}/{norm}/beta'] = (H,)
            shapes[f'{prefix}/ffn_1/intermediate/dense/kernel'] = (H, F)
            shapes[f'{prefix}/ffn_1/intermediate/dense/bias'] = (F,)
            shapes[f'{prefix}/ffn_1/intermediate/output/dense/kernel'] = (F, H)
            shapes[f'{prefix}/ffn_1/intermediate/output/dense/bias'] = (H,)
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def save(prefix: Path, tensors: dict[str, np.ndarray]) -> None:
    prefix.parent.mkdir(parents=True, exist_ok=True)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(tensors),
        shape_and_slices=[''] * len(tensors),
        tensors=list(tensors.values()),
    )


def release(folder: Path, vocabulary: bytes, tensors=None, **config) -> Path:
    """A folder as in the archives of the release, with the optimizer's moments."""
    tensors = variables() if tensors is None else tensors
    moments = {
        f'{name}/adam_{which}': value for name, value in tensors.items() for which in 'mv'
    } | {'global_step': np.array(125000, np.int64)}
    save(folder / 'model.ckpt-best', tensors | moments)
    (folder / 'albert_config.json').write_text(json.dumps(CONFIG | config))
    (folder / '30k-clean.model').write_bytes(vocabulary)
    return folder


def expected(tensors: dict[str, np.ndarray], config: AlbertConfig, batch: dict) -> dict:
    """The NumPy reference on a tree that is put together here, by hand."""
    layers = [
        f'bert/encoder/transformer/group_{group}/inner_group_{inner}'
        for group in range(config.num_hidden_groups)
        for inner in range(config.inner_group_num)
    ]

    def stack(name):
        values = [tensors[f'{prefix}/{name}'] for prefix in layers]
        return np.stack(values) if len(values) > 1 else values[0]

    def dense(name, get=tensors.__getitem__):
        return {'kernel': get(f'{name}/kernel'), 'bias': get(f'{name}/bias')}

    def norm(name, get=tensors.__getitem__):
        return {'scale': get(f'{name}/gamma'), 'bias': get(f'{name}/beta')}

    embeddings = {
        name: {'embedding': tensors[f'bert/embeddings/{name}_embeddings']}
        for name in ('word', 'position', 'token_type')
    } | {'layer_norm': norm('bert/embeddings/LayerNorm')}
    if config.use_embedding_projection:
        embeddings['projection'] = dense('bert/encoder/embedding_hidden_mapping_in')
    ffn = 'ffn_1/intermediate'
    params = {
        'embeddings': embeddings,
        'encoder': {
            'layer': {
                'attention': {
                    **{n: dense(f'attention_1/self/{n}', stack) for n in ('query', 'key', 'value')},
                    'output': dense('attention_1/output/dense', stack),
                    'layer_norm': norm('LayerNorm', stack),
                },
                'ffn': {
                    'intermediate': dense(f'{ffn}/dense', stack),
                    'output': dense(f'{ffn}/output/dense', stack),
                    'layer_norm': norm('LayerNorm_1', stack),
                },
            }
        },
        'pooler': dense('bert/pooler/dense'),
        'mlm': {
            'transform': dense('cls/predictions/transform/dense'),
            'layer_norm': norm('cls/predictions/transform/LayerNorm'),
            'bias': tensors['cls/predictions/output_bias'],
        },
        'sentence': {
            'kernel': tensors['cls/seq_relationship/output_weights'].T,
            'bias': tensors['cls/seq_relationship/output_bias'],
        },
    }
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    return albert_forward(params, config.to_dict(), **batch)


def assert_outputs(loaded, tensors) -> None:
    rng = np.random.default_rng(1)
    batch = {
        'input_ids': rng.integers(0, VOCAB, (2, 9)).astype(np.int32),
        'attention_mask': np.ones((2, 9), np.int32),
        'token_type_ids': rng.integers(0, 2, (2, 9)).astype(np.int32),
        'masked_positions': np.array([[1, 3], [0, 8]], np.int32),
    }
    model = albert_jax.PretrainingModel(loaded.config)
    output = jax.jit(lambda p: model.apply({'params': p}, **batch))(loaded.params)
    wanted = expected(tensors, loaded.config, batch)
    for name in ('last_hidden_state', 'pooled_output', 'mlm_logits', 'sop_logits'):
        scale = np.abs(wanted[name]).max()
        np.testing.assert_allclose(getattr(output, name), wanted[name], atol=1e-5 * max(1, scale))


def test_a_release_as_folder_prefix_or_archive(vocabulary, tmp_path):
    folder = release(tmp_path / 'albert_tiny', vocabulary)
    with tarfile.open(tmp_path / 'some.data', 'w:gz') as archive:
        archive.add(folder, 'albert_tiny')
    for place in (folder, folder / 'model.ckpt-best', folder / 'model.ckpt-best.index'):
        assert_outputs(albert_jax.load(place), variables())
    loaded = albert_jax.load(tmp_path / 'some.data')
    assert loaded.initialised == () and loaded.notes == ()
    assert loaded.config.hidden_act == 'gelu_tanh'
    assert loaded.tokenizer.encode(['a test']) == albert_jax.Tokenizer(vocabulary).encode(
        ['a test']
    )
    # By way of Hugging Face, nothing is lost.
    conversion.convert(loaded, tmp_path / 'hf', 'huggingface')
    again = albert_jax.load(tmp_path / 'hf')
    jax.tree.map(np.testing.assert_array_equal, again.params, loaded.params)


@pytest.mark.parametrize(
    ('groups', 'inner', 'embedding'), [(2, 1, E), (2, 2, E), (1, 1, H)], ids=str
)
def test_groups_inner_groups_and_no_projection(groups, inner, embedding, vocabulary, tmp_path):
    tensors = variables(groups, inner, embedding)
    fields = {
        'num_hidden_groups': groups,
        'inner_group_num': inner,
        'embedding_size': embedding,
    }
    loaded = albert_jax.load(release(tmp_path / 'x', vocabulary, tensors, **fields))
    assert loaded.config.use_embedding_projection == (embedding != H)
    assert_outputs(loaded, tensors)


def test_a_hub_module_has_no_sentence_head(vocabulary, tmp_path, capsys):
    tensors = variables()
    kept = {f'module/{n}': v for n, v in tensors.items() if 'seq_relationship' not in n}
    save(tmp_path / 'variables' / 'variables', kept)
    (tmp_path / 'saved_model.pb').touch()
    (tmp_path / 'assets').mkdir()
    (tmp_path / 'assets' / 'albert_config.json').write_text(json.dumps(CONFIG))
    (tmp_path / 'assets' / '30k-clean.model').write_bytes(vocabulary)
    loaded = albert_jax.load(tmp_path)
    assert loaded.initialised == ('sentence',)
    assert 'the source has no sentence-order head' in capsys.readouterr().err
    sentence = loaded.params['sentence']
    drawn = dict(tensors) | {
        'cls/seq_relationship/output_weights': np.asarray(sentence['kernel']).T,
        'cls/seq_relationship/output_bias': np.asarray(sentence['bias']),
    }
    assert_outputs(loaded, drawn)


def test_names_of_forks(vocabulary, tmp_path):
    """albert#241: Keras' names for norms, numbered over the whole graph."""
    forked = {
        name.replace('embeddings/LayerNorm/', 'embeddings/layer_normalization/')
        .replace('/LayerNorm_1/', '/layer_normalization_12/')
        .replace('0/LayerNorm/', '0/layer_normalization_9/')
        .replace('transform/LayerNorm/', 'transform/layer_normalization_25/'): value
        for name, value in variables().items()
    }
    assert not any('LayerNorm' in name for name in forked)
    assert_outputs(albert_jax.load(release(tmp_path / 'x', vocabulary, forked)), variables())


def test_a_fine_tuned_classifier(vocabulary, tmp_path):
    tensors = {n: v for n, v in variables().items() if not n.startswith('cls/')}
    weights = np.arange(3 * H, dtype=np.float32).reshape(3, H)
    tensors |= {'output_weights': weights, 'output_bias': np.ones(3, np.float32)}
    loaded = albert_jax.load(release(tmp_path / 'x', vocabulary, tensors))
    assert loaded.head.kind == 'sequence_classification' and len(loaded.head.labels) == 3
    np.testing.assert_array_equal(loaded.params['head']['kernel'], weights.T)
    assert loaded.initialised == ('mlm', 'sentence')


def spoil_config(folder):
    (folder / 'albert_config.json').write_text(json.dumps(CONFIG | {'hidden_size': 32}))


def bert_config(folder):
    fields = {name: value for name, value in CONFIG.items() if name != 'embedding_size'}
    (folder / 'albert_config.json').write_text(json.dumps(fields))


def other_structure(folder):
    (folder / 'albert_config.json').write_text(json.dumps(CONFIG | {'net_structure_type': 1}))


def another_checkpoint(folder):
    save(folder / 'model.ckpt-100', variables())


def truncate(folder):
    file = next(folder.glob('*.data-*'))
    file.write_bytes(file.read_bytes()[:200])


def truncate_index(folder):
    file = next(folder.glob('*.index'))
    file.write_bytes(file.read_bytes()[:50])


def unknown(folder):
    save(folder / 'model.ckpt-best', variables() | {'bert/adapter/kernel': np.ones((2, 2), 'f')})


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (spoil_config, r'has the shape \[.*\]; its config says'),
        (bert_config, "has no embedding_size: it is a BERT's"),
        (other_structure, 'net_structure_type is 1; only 0 can be read'),
        (another_checkpoint, 'holds 2 checkpoints: model.ckpt-100, model.ckpt-best; name one'),
        (truncate, 'cannot be read'),
        (truncate_index, 'cannot be read as a TensorFlow checkpoint'),
        (unknown, r'has 1 tensor\(s\) that no ALBERT or BERT of its config has: bert/adapter'),
        (lambda f: (f / 'albert_config.json').unlink(), 'has 0 JSON files that describe a model'),
    ],
)
def test_bad_checkpoints(spoil, message, vocabulary, tmp_path):
    folder = release(tmp_path / 'x', vocabulary)
    spoil(folder)
    with pytest.raises(UserError, match=message) as caught:
        albert_jax.load(folder)
    assert '\n' not in str(caught.value)
