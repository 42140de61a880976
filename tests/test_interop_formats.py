"""What is read from the formats of others and converted to them is the same model."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import albert_jax
from albert_jax.cli.errors import UserError
from albert_jax.interop import conversion, native, source
from albert_jax.interop.native import Pretrained
from albert_jax.model.albert import PretrainingModel
from albert_jax.model.heads import Head
from tests.huggingface_files import (
    E_IS_H,
    assert_same_model,
    edit_json,
    edit_tensors,
    make_model,
)

VARIANTS = [
    {},
    {'num_hidden_groups': 2, 'inner_group_num': 2, 'hidden_act': 'relu'},
    {'sharing': 'attention', 'hidden_dropout_prob': 0.1},
    {'sharing': 'ffn', 'inner_group_num': 2},
    {'sharing': 'none', 'compute_dtype': 'bfloat16', 'remat': 'full'},
    {'hidden_act': 'gelu_erf', 'layer_norm_eps': 1e-6},
    E_IS_H,
    E_IS_H | {'sharing': 'none', 'num_hidden_groups': 2},
]


@pytest.fixture
def model(vocabulary) -> Pretrained:
    return make_model(vocabulary)


@pytest.fixture
def directory(model, tmp_path) -> Path:
    conversion.convert(model, tmp_path / 'hf', 'huggingface')
    return tmp_path / 'hf'


@pytest.mark.parametrize('fields', VARIANTS, ids=str)
def test_there_and_back_is_bit_for_bit_the_same(fields, vocabulary, tmp_path):
    model = make_model(vocabulary, **fields)
    conversion.convert(model, tmp_path / 'hf', 'huggingface')
    loaded = albert_jax.load(tmp_path / 'hf')
    assert_same_model(loaded, model)
    conversion.convert(loaded, tmp_path / 'ours', 'albert_jax')
    assert_same_model(albert_jax.load(tmp_path / 'ours'), model)
    conversion.convert(loaded, tmp_path / 'again', 'huggingface')
    for name in ('model.safetensors', 'config.json', 'tokenizer.json', 'spiece.model'):
        one, two = (tmp_path / folder / name for folder in ('hf', 'again'))
        assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize(
    'head',
    [
        Head('sequence_classification', ('no', 'yes', 'perhaps')),
        Head('token_classification', ('NOUN', 'VERB')),
        Head('question_answering', ()),
        Head('multiple_choice', ()),
    ],
    ids=lambda head: head.kind,
)
@pytest.mark.parametrize('fields', [{}, E_IS_H | {'sharing': 'none'}], ids=['albert', 'bert'])
def test_a_head_travels(head, fields, vocabulary, tmp_path, capsys):
    model = make_model(vocabulary, head, **fields)
    native.write(model, tmp_path)
    assert_same_model(albert_jax.load(tmp_path), model)
    notes = conversion.convert(model, tmp_path / 'hf', 'huggingface')
    assert 'left out' in notes[0] and 'masked-LM head' in notes[0]
    loaded = albert_jax.load(tmp_path / 'hf')
    assert loaded.head == head
    assert {'mlm', 'sentence'} <= set(loaded.initialised)
    for part in ('embeddings', 'encoder', 'head'):
        jax.tree.map(np.testing.assert_array_equal, loaded.params[part], model.params[part])
    assert capsys.readouterr().err == ''


def test_the_names_and_orientations_are_those_of_the_reference(directory, model):
    tensors = load_file(directory / 'model.safetensors')
    layer = 'albert.encoder.albert_layer_groups.0.albert_layers.0'
    encoder = model.params['encoder']['layer']
    for name, expected in {
        'albert.embeddings.word_embeddings.weight': model.params['embeddings']['word']['embedding'],
        'albert.embeddings.LayerNorm.bias': model.params['embeddings']['layer_norm']['bias'],
        'albert.encoder.embedding_hidden_mapping_in.weight': model.params['embeddings'][
            'projection'
        ]['kernel'].T,
        f'{layer}.attention.query.weight': encoder['attention']['query']['kernel'].T,
        f'{layer}.attention.dense.weight': encoder['attention']['output']['kernel'].T,
        f'{layer}.attention.LayerNorm.weight': encoder['attention']['layer_norm']['scale'],
        f'{layer}.ffn.weight': encoder['ffn']['intermediate']['kernel'].T,
        f'{layer}.ffn_output.bias': encoder['ffn']['output']['bias'],
        f'{layer}.full_layer_layer_norm.weight': encoder['ffn']['layer_norm']['scale'],
        'albert.pooler.weight': model.params['pooler']['kernel'].T,
        'predictions.dense.weight': model.params['mlm']['transform']['kernel'].T,
        'predictions.LayerNorm.weight': model.params['mlm']['layer_norm']['scale'],
        'predictions.bias': model.params['mlm']['bias'],
        # Ours is [hidden, 2]; Hugging Face and Google have [2, hidden].
        'sop_classifier.classifier.weight': model.params['sentence']['kernel'].T,
    }.items():
        np.testing.assert_array_equal(tensors[name], expected, err_msg=name)
    assert len(tensors) == 32
    content = json.loads((directory / 'config.json').read_text())
    assert content['architectures'] == ['AlbertForPreTraining']
    assert content['hidden_act'] == 'gelu_new'


def test_a_missing_head_is_said_in_one_line_and_drawn_from_a_fixed_seed(
    directory, model, tmp_path, capsys
):
    edit_tensors(directory, lambda t: {n: v for n, v in t.items() if 'sop' not in n})
    loaded = albert_jax.load(directory)
    said = capsys.readouterr().err
    assert said.count('\n') == 1
    assert 'has no sentence-order head; initialised at random (seed 0)' in said
    assert loaded.initialised == ('sentence',)
    again = albert_jax.load(directory).params['sentence']
    jax.tree.map(np.testing.assert_array_equal, loaded.params['sentence'], again)
    assert np.asarray(again['kernel']).std() > 0.005
    # What was drawn is not passed on as if it had been trained.
    notes = conversion.convert(loaded, tmp_path / 'back', 'huggingface')
    assert notes == ()
    written = load_file(tmp_path / 'back' / 'model.safetensors')
    assert 'albert.pooler.weight' in written
    assert not any('sop' in name for name in load_file(tmp_path / 'back' / 'model.safetensors'))
    conversion.convert(loaded, tmp_path / 'ours', 'albert_jax')
    assert albert_jax.load(tmp_path / 'ours').initialised == ('sentence',)


def test_a_bare_encoder_is_an_encoder_again(directory, tmp_path):
    def bare(tensors):
        body = {n: v for n, v in tensors.items() if n.startswith('albert.')}
        return {n.removeprefix('albert.'): v for n, v in body.items()}

    edit_tensors(directory, bare)
    loaded = albert_jax.load(directory)
    assert loaded.initialised == ('mlm', 'sentence')
    assert conversion.convert(loaded, tmp_path / 'back', 'huggingface') == ()
    assert 'AlbertModel' in (tmp_path / 'back' / 'config.json').read_text()
    again = load_file(tmp_path / 'back' / 'model.safetensors')
    expected = load_file(directory / 'model.safetensors')
    assert again.keys() == expected.keys()


def test_yesterdays_names_buffers_and_tied_copies_are_understood(directory, model):
    def age(tensors):
        table = tensors['albert.embeddings.word_embeddings.weight']
        tensors['albert.embeddings.position_ids'] = np.arange(20)[None]
        tensors['predictions.decoder.weight'] = table.copy()
        tensors['predictions.decoder.bias'] = tensors.pop('predictions.bias')
        norm = 'albert.embeddings.LayerNorm'
        tensors[f'{norm}.gamma'] = tensors.pop(f'{norm}.weight')
        tensors[f'{norm}.beta'] = tensors.pop(f'{norm}.bias')

    edit_tensors(directory, age)
    assert_same_model(albert_jax.load(directory), model)


def test_shards_are_put_together(directory, model):
    tensors = load_file(directory / 'model.safetensors')
    (directory / 'model.safetensors').unlink()
    weight_map = {}
    for number in (1, 2):
        file = f'model-{number:05}-of-00002.safetensors'
        names = sorted(tensors)[number - 1 :: 2]
        save_file({name: tensors[name] for name in names}, directory / file)
        weight_map |= dict.fromkeys(names, file)
    index = directory / 'model.safetensors.index.json'
    index.write_text(json.dumps({'metadata': {}, 'weight_map': weight_map}))
    assert_same_model(albert_jax.load(directory), model)
    (directory / file).rename(directory / 'elsewhere')
    with pytest.raises(UserError, match='index.json names the files'):
        albert_jax.load(directory)
    for value in (None, ['a'], 3):
        index.write_text(json.dumps({'weight_map': value}))
        with pytest.raises(UserError, match=r'index.json: weight_map is .*; it must be an object'):
            albert_jax.load(directory)


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_half_precision_becomes_float32_and_is_said(dtype, directory, model, capsys):
    edit_tensors(directory, lambda t: {n: v.astype(jnp.dtype(dtype)) for n, v in t.items()})
    loaded = albert_jax.load(directory)
    assert f'the tensors of type {dtype} became float32' in capsys.readouterr().err
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(loaded.params))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=0.01), loaded.params, model.params
    )


def test_load_gives_what_the_readme_promises(directory):
    model = albert_jax.load(directory)
    ids = np.array([[2, *model.tokenizer.encode(['a test'])[0], 3]], np.int32)
    ones = np.ones_like(ids)
    apply = PretrainingModel(model.config).apply
    output = apply({'params': model.params}, ids, ones, 0 * ones)
    length = ids.shape[1]
    assert output.last_hidden_state.shape == (1, length, 16)
    assert output.pooled_output.shape == (1, 16)
    assert output.mlm_logits.shape == (1, length, 1000)
    assert output.sop_logits.shape == (1, 2)
    assert output.hidden_states is None
    some = apply({'params': model.params}, ids, ones, 0 * ones, np.array([[1]], np.int32))
    np.testing.assert_allclose(some.mlm_logits, output.mlm_logits[:, 1:2], atol=1e-5)
    detailed = apply({'params': model.params}, ids, return_attentions=True)
    assert detailed.hidden_states.shape == (5, 1, length, 16)
    assert detailed.attention_probs.shape == (4, 1, 2, length, length)


# Vocabularies.


@pytest.mark.parametrize('says', [True, False])
def test_tokenizer_config_decides_the_case_as_in_transformers(says, directory, model):
    pieces = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'the', 'The', 'x\u2028y', 'z']
    (directory / 'spiece.model').unlink()
    (directory / 'tokenizer.json').unlink()
    (directory / 'vocab.txt').write_text('\n'.join(pieces), 'utf-8')
    edit_json(directory / 'tokenizer_config.json', do_lower_case=says)
    tokenizer = albert_jax.load(directory).tokenizer
    # A line separator of Unicode's does not end a line of the vocabulary.
    assert tokenizer.encode(['The z']) == [[5 if says else 6, 8]]
    (directory / 'tokenizer.json').write_text(tokenizer.definition)
    edit_json(directory / 'tokenizer_config.json', do_lower_case=not says)
    assert albert_jax.load(directory).tokenizer.encode(['The']) == [[6 if says else 5]]
    edit_json(directory / 'tokenizer_config.json', do_lower_case='false')
    with pytest.raises(UserError, match="do_lower_case is 'false'; it must be true or false"):
        albert_jax.load(directory)


def test_a_vocabulary_of_ones_own(directory, model, tmp_path):
    for name in ('spiece.model', 'tokenizer.json'):
        (directory / name).rename(tmp_path / name)
    assert albert_jax.load(directory).tokenizer is None
    for name, kind in (('spiece.model', 'Tokenizer'), ('tokenizer.json', 'HubTokenizer')):
        loaded = source.load(directory, tmp_path / name)
        assert type(loaded.tokenizer).__name__ == kind
        ids = loaded.tokenizer.encode(['The import statement'])
        assert ids == model.tokenizer.encode(['The import statement'])
    with pytest.raises(UserError, match=r'Vocabulary .*nothing cannot be read'):
        source.load(directory, tmp_path / 'nothing')
    conversion.convert(loaded, tmp_path / 'ours', 'albert_jax')
    again = albert_jax.load(tmp_path / 'ours')
    assert again.tokenizer.sha256 == loaded.tokenizer.sha256


def test_a_vocabulary_that_is_too_large_is_refused(vocabulary, tmp_path):
    model = make_model(vocabulary, vocab_size=900)
    conversion.convert(model, tmp_path / 'hf', 'huggingface')
    with pytest.raises(UserError, match='the vocabulary has 1000 pieces, the model 900'):
        albert_jax.load(tmp_path / 'hf')
