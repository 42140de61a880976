"""Other people's formats: there and back, what is said, what is refused."""

import contextlib
import dataclasses
import errno
import io
import json
import resource
import shutil
import signal
import sys
import tarfile
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import albert_jax
from albert_jax import convert
from albert_jax.cli.errors import UserError
from albert_jax.data.normalization import Normalization
from albert_jax.interop import conversion, hub, native, source
from albert_jax.interop.native import Pretrained
from albert_jax.model.albert import PretrainingModel
from albert_jax.model.config import AlbertConfig
from albert_jax.model.heads import Head

CONFIG = AlbertConfig(
    vocab_size=1000,
    embedding_size=8,
    hidden_size=16,
    num_hidden_layers=4,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=20,
)
E_IS_H = {'embedding_size': 16, 'use_embedding_projection': False}
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


def make(vocabulary: bytes, head: Head | None = None, **fields) -> Pretrained:
    config = dataclasses.replace(CONFIG, **fields)
    shapes = native.expected_shapes(config)
    if head:
        count = len(head.labels) or {'question_answering': 2, 'multiple_choice': 1}[head.kind]
        shapes = shapes | {'head/kernel': (16, count), 'head/bias': (count,)}
    rng = np.random.default_rng(0)
    params: dict = {}
    for path, shape in shapes.items():
        *parents, name = path.split('/')
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = jnp.asarray(rng.normal(0, 0.3, shape), jnp.float32)
    tokenizer = albert_jax.Tokenizer(vocabulary, Normalization(keep_case=True))
    return Pretrained(config, params, tokenizer, head)


def assert_same(actual: Pretrained, expected: Pretrained) -> None:
    assert actual.config == expected.config
    assert actual.head == expected.head
    assert jax.tree.structure(actual.params) == jax.tree.structure(expected.params)
    jax.tree.map(np.testing.assert_array_equal, actual.params, expected.params)
    assert actual.tokenizer.sha256 == expected.tokenizer.sha256
    assert actual.tokenizer.normalization == expected.tokenizer.normalization


@pytest.fixture
def model(vocabulary) -> Pretrained:
    return make(vocabulary)


@pytest.fixture
def directory(model, tmp_path) -> Path:
    conversion.convert(model, tmp_path / 'hf', 'huggingface')
    return tmp_path / 'hf'


def edit_tensors(directory: Path, change) -> None:
    file = directory / 'model.safetensors'
    tensors = load_file(file)
    tensors = change(tensors) or tensors
    save_file(tensors, file)


def edit_json(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize('fields', VARIANTS, ids=str)
def test_there_and_back_is_bit_for_bit_the_same(fields, vocabulary, tmp_path):
    model = make(vocabulary, **fields)
    conversion.convert(model, tmp_path / 'hf', 'huggingface')
    loaded = albert_jax.load(tmp_path / 'hf')
    assert_same(loaded, model)
    conversion.convert(loaded, tmp_path / 'ours', 'albert_jax')
    assert_same(albert_jax.load(tmp_path / 'ours'), model)
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
    model = make(vocabulary, head, **fields)
    native.write(model, tmp_path)
    assert_same(albert_jax.load(tmp_path), model)
    notes = conversion.convert(model, tmp_path / 'hf', 'huggingface')
    assert 'left out' in notes[0] and 'masked-LM head' in notes[0]
    loaded = albert_jax.load(tmp_path / 'hf')
    assert loaded.head == head
    assert {'mlm', 'sentence'} <= set(loaded.initialised)
    for part in ('embeddings', 'encoder', 'head'):
        jax.tree.map(np.testing.assert_array_equal, loaded.params[part], model.params[part])
    assert capsys.readouterr().err.count('\n') == 1


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
    assert_same(albert_jax.load(directory), model)


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
    assert_same(albert_jax.load(directory), model)
    (directory / file).rename(directory / 'elsewhere')
    with pytest.raises(UserError, match='index.json names the files'):
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


WORD = 'albert.embeddings.word_embeddings.weight'


def drop(name):
    return lambda d: edit_tensors(d, lambda t: {n: v for n, v in t.items() if n != name})


def put(name, value):
    return lambda d: edit_tensors(d, lambda t: t | {name: np.asarray(value)})


def configure(**changes):
    return lambda d: edit_json(d / 'config.json', **changes)


def truncate(d):
    file = d / 'model.safetensors'
    file.write_bytes(file.read_bytes()[:-100])


def only_a_pickle(d):
    (d / 'model.safetensors').rename(d / 'pytorch_model.bin')


def two_files(d):
    shutil.copy(d / 'model.safetensors', d / 'other.safetensors')


def two_formats(d):
    (d / 'about').mkdir()
    (d / 'params').mkdir()


def tensorflow_too(d):
    (d / 'model.ckpt-best.index').touch()
    (d / 'model.ckpt-best.data-00000-of-00001').touch()


def no_config(d):
    (d / 'config.json').unlink()


def broken_config(d):
    (d / 'config.json').write_text('{"model_type": ')


def foreign_vocabulary(d):
    (d / 'spiece.model').write_bytes(b'not a model')


def emptied(d):
    for file in d.iterdir():
        file.unlink()


REFUSALS = [
    (drop(WORD), 'has no tensor embeddings.word_embeddings.weight, which its config needs'),
    (drop('predictions.bias'), 'has no tensor predictions.bias'),
    (put('albert.encoder.extra', [1.0]), r'has 1 tensor\(s\) that no ALBERT or BERT .* encoder.ex'),
    (
        put(WORD, np.zeros((1000, 9), 'f')),
        r'has the shape \[1000, 9\]; its config says \[1000, 8\]',
    ),
    (put(WORD, np.zeros((1000, 8), 'i')), 'is of type I32, not float'),
    (put('predictions.decoder.weight', np.zeros((1000, 8), 'f')), 'is not tied to'),
    (put('classifier.weight', np.zeros((2, 16), 'f')), 'names the architecture'),
    (configure(vocab_size=900), r'has the shape \[1000, 8\]; its config says \[900, 8\]'),
    (configure(intermediate_size=25), r'ffn.weight has the shape \[24, 16\]'),
    (configure(num_hidden_groups=2, albert_jax={}), 'has no tensor encoder.albert_layer_groups.1'),
    (configure(model_type='roberta'), "of the architecture 'roberta'; albert and bert"),
    (configure(model_type='bert'), 'tensor'),
    (configure(hidden_act='silu'), "hidden_act is 'silu'; it must be one of gelu_new"),
    (configure(position_embedding_type='relative_key'), "only 'absolute' can be read"),
    (configure(is_decoder=True), 'is_decoder is True; only False'),
    (configure(num_attention_heads=3), 'does not divide into 3 attention heads'),
    (configure(hidden_size='16'), 'it must be of type int'),
    (truncate, 'cannot be read as safetensors'),
    (only_a_pickle, r'pytorch_model.bin only, .* save_pretrained\(DIR, safe_serialization=True\)'),
    (two_files, 'has several safetensors files'),
    (two_formats, r'holds models in two formats \(albert_jax and Hugging Face\)'),
    (tensorflow_too, r'two formats \(Hugging Face and TensorFlow\)'),
    (no_config, 'has weights but no config.json'),
    (broken_config, 'config.json is not JSON'),
    (foreign_vocabulary, 'spiece.model is not a SentencePiece model'),
    (emptied, 'holds no model; give a run or checkpoint of albert_jax, a directory of Hugging'),
]


@pytest.mark.parametrize(('spoil', 'message'), REFUSALS, ids=[m[:40] for _, m in REFUSALS])
def test_a_bad_source_is_refused_and_the_destination_untouched(spoil, message, directory, tmp_path):
    spoil(directory)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=message) as caught:
        convert.main([str(directory), str(tmp_path / 'out')])
    assert '\n' not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


def test_shared_layers_that_were_trained_apart_are_refused(vocabulary, tmp_path):
    conversion.convert(make(vocabulary, sharing='attention'), tmp_path / 'hf', 'huggingface')
    name = 'albert.encoder.albert_layer_groups.2.albert_layers.0.attention.key.bias'
    put(name, np.ones(16, 'f'))(tmp_path / 'hf')
    with pytest.raises(UserError, match='is shared by its config, but .* differ; delete the key'):
        albert_jax.load(tmp_path / 'hf')
    configure(albert_jax={})(tmp_path / 'hf')
    assert albert_jax.load(tmp_path / 'hf').config.num_hidden_groups == 4


def test_groups_that_hugging_face_rounds_otherwise_are_refused(vocabulary, tmp_path):
    def wrong(layers, groups):
        pairs = ((layer, int(layer / (layers / groups))) for layer in range(layers))
        return any(theirs != layer * groups // layers for layer, theirs in pairs)

    layers, groups = next((n, g) for n in range(2, 100) for g in range(2, n) if wrong(n, g))
    model = make(vocabulary, num_hidden_layers=layers, num_hidden_groups=groups)
    with pytest.raises(UserError, match='Hugging Face takes another group'):
        conversion.convert(model, tmp_path / 'hf', 'huggingface')
    assert not list(tmp_path.iterdir())


def test_a_destination_that_exists_is_left_alone(directory, tmp_path):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'mine').write_text('precious')
    with pytest.raises(UserError, match='out exists already; choose another destination'):
        convert.main([str(directory), str(tmp_path / 'out')])
    assert [p.name for p in (tmp_path / 'out').iterdir()] == ['mine']


@pytest.mark.parametrize('to', conversion.FORMATS)
def test_a_full_disk_leaves_nothing(to, model, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, limits[1]))
    try:
        with pytest.raises(UserError, match='out cannot be written: .') as caught:
            conversion.convert(model, tmp_path / 'out', to)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert '\n' not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_writes_that_go_on_after_the_first_failure_leave_nothing(tmp_path):
    def go_on(folder):
        for number in range(20):
            with contextlib.suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f'{number}').write_text('late')
            time.sleep(0.02)

    with (
        pytest.raises(UserError, match='out cannot be written: full'),
        conversion.output_directory(tmp_path / 'out') as folder,
    ):
        thread = threading.Thread(target=go_on, args=[folder / 'params'])
        thread.start()
        raise OSError(errno.ENOSPC, 'full')
    thread.join()
    assert not list(tmp_path.iterdir())


def test_what_is_written_can_be_read_by_others(directory):
    modes = {file.stat().st_mode & 0o777 for file in directory.iterdir()}
    assert len(modes) == 1


def pack(path: Path, directory: Path, **members: bytes) -> Path:
    with tarfile.open(path, 'w:gz') as archive:
        for file in directory.iterdir():
            archive.add(file, f'albert_tiny/{file.name}')
        for name, content in members.items():
            member = tarfile.TarInfo(name.replace('_up_', '../'))
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_an_archive_is_read_whatever_its_name(directory, model, tmp_path):
    assert_same(albert_jax.load(pack(tmp_path / 'model.data', directory)), model)


def test_an_archive_that_leaves_its_folder_is_refused(directory, tmp_path):
    archive = pack(tmp_path / 'bad.tar.gz', directory, _up_outside=b'evil')
    with pytest.raises(UserError, match='../outside would leave the folder') as caught:
        albert_jax.load(archive)
    assert str(archive) in str(caught.value)
    with tarfile.open(tmp_path / 'link.tar', 'w') as links:
        member = tarfile.TarInfo('folder/link')
        member.type, member.linkname = tarfile.SYMTYPE, '/etc'
        links.addfile(member)
    with pytest.raises(UserError, match='folder/link is neither a file nor a folder'):
        albert_jax.load(tmp_path / 'link.tar')


def test_a_damaged_archive_is_never_read_as_something_else(directory, model, tmp_path):
    whole = pack(tmp_path / 'whole.tar.gz', directory).read_bytes()
    damaged = tmp_path / 'damaged.tar.gz'
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(30):
        content = bytearray(whole)
        place = int(rng.integers(0, len(content)))
        content[place] ^= 1 << int(rng.integers(0, 8))
        damaged.write_bytes(content)
        try:
            assert_same(albert_jax.load(damaged), model)
        except UserError as error:
            assert '\n' not in str(error)
            refused += 1
    # A few bits, such as those of the time in the header, mean nothing.
    assert refused >= 25
    for size in (100, len(whole) // 2, len(whole) - 5):
        damaged.write_bytes(whole[:size])
        with pytest.raises(UserError, match='cannot be unpacked|is a file, and no tar archive'):
            albert_jax.load(damaged)
    with tarfile.open(tmp_path / 'plain.tar', 'w') as archive:
        for file in sorted(directory.iterdir()):
            archive.add(file, file.name)
    content = bytearray((tmp_path / 'plain.tar').read_bytes())
    with tarfile.open(tmp_path / 'plain.tar') as archive:
        last = archive.getmembers()[-1].offset
    content[last + 3] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(UserError, match='is damaged: it does not end where its files do'):
        albert_jax.load(damaged)


def test_what_config_json_may_hold_is_one_sentence_at_most(directory):
    original = (directory / 'config.json').read_text()
    for changes in (
        {'hidden_act': ['gelu']}, {'model_type': []}, {'albert_jax': 'x'}, {'albert_jax': None},
        {'vocab_size': None}, {'num_attention_heads': 0}, {'architectures': 3},
    ):  # fmt: skip
        (directory / 'config.json').write_text(json.dumps(json.loads(original) | changes))
        try:
            albert_jax.load(directory)
        except UserError as error:
            assert '\n' not in str(error)
    (directory / 'config.json').write_text('[' * 100_000)
    with pytest.raises(UserError):
        albert_jax.load(directory)


def test_config_json_and_its_key_albert_jax_must_agree(vocabulary, tmp_path):
    conversion.convert(make(vocabulary, sharing='none'), tmp_path / 'hf', 'huggingface')
    configure(num_hidden_groups=2)(tmp_path / 'hf')
    with pytest.raises(UserError, match='num_hidden_groups is 2, but its key albert_jax implies 4'):
        albert_jax.load(tmp_path / 'hf')


def test_pieces_that_were_added_to_a_vocabulary_are_not_lost(directory):
    file = directory / 'tokenizer.json'
    content = json.loads(file.read_text())
    content['added_tokens'].append(content['added_tokens'][-1] | {'id': 999, 'content': '<e1>'})
    file.write_text(json.dumps(content))
    assert type(albert_jax.load(directory).tokenizer).__name__ == 'Tokenizer'
    content['added_tokens'][-1]['id'] = 1000
    file.write_text(json.dumps(content))
    edit_json(directory / 'config.json', vocab_size=1001)
    edit_tensors(
        directory,
        lambda t: (
            t
            | {
                WORD: np.concatenate([t[WORD], t[WORD][:1]]),
                'predictions.bias': np.append(t['predictions.bias'], 0).astype('f'),
            }
        ),
    )
    tokenizer = albert_jax.load(directory).tokenizer
    assert tokenizer.encode(['<e1>']) == [[1000]]


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


def test_a_file_or_path_that_is_nothing_is_refused(directory, tmp_path):
    with pytest.raises(UserError, match='is a file, and no tar archive; give a run'):
        albert_jax.load(directory / 'model.safetensors')
    with pytest.raises(UserError, match='There is no file or directory'):
        albert_jax.load(tmp_path / 'nothing')


def test_tensorflow_is_asked_for_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'tensorflow', None)
    (tmp_path / 'model.ckpt-best.index').touch()
    (tmp_path / 'model.ckpt-best.data-00000-of-00001').touch()
    (tmp_path / 'albert_config.json').write_text('{"num_hidden_layers": 2, "embedding_size": 8}')
    with pytest.raises(UserError, match=r"needs the extra 'tensorflow': install it with pip"):
        albert_jax.load(tmp_path)


def test_a_name_is_found_in_the_local_cache(directory, model, tmp_path, monkeypatch):
    repository = tmp_path / 'cache' / 'models--albert--albert-tiny-v9'
    (repository / 'refs').mkdir(parents=True)
    (repository / 'refs' / 'main').write_text('abc')
    shutil.copytree(directory, repository / 'snapshots' / 'abc')
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'cache'))
    assert_same(albert_jax.load('albert-tiny-v9'), model)
    assert_same(albert_jax.load('albert/albert-tiny-v9'), model)


def test_a_name_without_a_network_is_one_sentence(tmp_path, monkeypatch):
    import huggingface_hub

    real = huggingface_hub.snapshot_download

    def offline(name, *, local_files_only=False, **options):
        if local_files_only:
            return real(name, local_files_only=True, **options)
        assert not any('bin' in pattern for pattern in options['allow_patterns'])
        raise ConnectionError('Name or service not known')

    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setattr('huggingface_hub.snapshot_download', offline)
    with pytest.raises(UserError, match='albert-base-v2, no such model in the local .* cache, and'):
        albert_jax.load('albert-base-v2')
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(UserError, match=r"install the extra: pip install -e '.\[hugg"):
        albert_jax.load('albert-base-v2')
    assert hub.is_name('albert-base-v2') and hub.is_name('someone/model.v1')
    monkeypatch.undo()
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    with pytest.raises(UserError, match='no model can have this name'):
        albert_jax.load('a--b')
    assert not hub.is_name('../x') and not hub.is_name('/abs') and not hub.is_name('a/b/c')


def test_the_command_says_what_it_read_and_wrote(directory, model, tmp_path, capsys):
    out = tmp_path / 'deep' / 'out'
    assert convert.main([str(directory), str(out)]) == 0
    said = capsys.readouterr().out
    count = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    assert f'{count:,}' in said and 'sentence-order head' in said and '1,000 pieces' in said
    assert 'Next: python -m albert_jax.fill_mask' in said
    assert convert.main([str(out), str(tmp_path / 'hf2'), '--to=huggingface']) == 0
    assert 'transformers.AlbertForPreTraining.from_pretrained' in capsys.readouterr().out
    one, two = (d / 'model.safetensors' for d in (directory, tmp_path / 'hf2'))
    assert one.read_bytes() == two.read_bytes()


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
    model = make(vocabulary, vocab_size=900)
    conversion.convert(model, tmp_path / 'hf', 'huggingface')
    with pytest.raises(UserError, match='the vocabulary has 1000 pieces, the model 900'):
        albert_jax.load(tmp_path / 'hf')
