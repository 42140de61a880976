"""Sources that are refused: bad weights, bad configs, damaged archives."""

import io
import json
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

import albert_jax
from albert_jax import convert
from albert_jax.cli.errors import UserError
from albert_jax.interop import conversion
from albert_jax.interop.native import Pretrained
from tests import tiny
from tests.huggingface_files import (
    WORD,
    assert_same_model,
    configure,
    edit_tensors,
    make_model,
    put,
)


@pytest.fixture
def model(vocabulary) -> Pretrained:
    return make_model(vocabulary)


@pytest.fixture
def directory(model, tmp_path) -> Path:
    conversion.convert(model, tmp_path / 'hf', 'huggingface')
    return tmp_path / 'hf'


def drop(name):
    return lambda d: edit_tensors(d, lambda t: {n: v for n, v in t.items() if n != name})


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
    conversion.convert(make_model(vocabulary, sharing='attention'), tmp_path / 'hf', 'huggingface')
    name = 'albert.encoder.albert_layer_groups.2.albert_layers.0.attention.key.bias'
    put(name, np.ones(16, 'f'))(tmp_path / 'hf')
    with pytest.raises(UserError, match='is shared by its config, but .* differ; delete the key'):
        albert_jax.load(tmp_path / 'hf')
    configure(albert_jax={})(tmp_path / 'hf')
    assert albert_jax.load(tmp_path / 'hf').config.num_hidden_groups == 4


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
    assert_same_model(albert_jax.load(pack(tmp_path / 'model.data', directory)), model)


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
            assert_same_model(albert_jax.load(damaged), model)
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
    conversion.convert(make_model(vocabulary, sharing='none'), tmp_path / 'hf', 'huggingface')
    configure(num_hidden_groups=2)(tmp_path / 'hf')
    with pytest.raises(UserError, match='num_hidden_groups is 2, but its key albert_jax implies 4'):
        albert_jax.load(tmp_path / 'hf')


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


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'position_encoding': 'rope'}, 'no ALBERT or BERT with position_encoding=rope; convert'),
        ({'norm_placement': 'pre', 'sharing': 'none'}, 'with norm_placement=pre; convert'),
        ({'is_gated': True}, 'with is_gated=True; convert to albert_jax, or use albert_jax.export'),
        (tiny.MODERN, 'with position_encoding=rope and norm_placement=pre and is_gated=True;'),
    ],
)
def test_what_hugging_face_cannot_compute_is_refused(fields, message, vocabulary, tmp_path):
    model = make_model(vocabulary, **fields)
    with pytest.raises(UserError, match=message) as caught:
        conversion.convert(model, tmp_path / 'out', 'huggingface')
    assert '\n' not in str(caught.value)
    assert not list(tmp_path.iterdir())
    conversion.convert(model, tmp_path / 'ours', 'albert_jax')
    assert_same_model(albert_jax.load(tmp_path / 'ours'), model)


def test_how_weights_started_is_kept_in_hugging_faces_config(vocabulary, tmp_path):
    fields = {'embedding_initializer_range': 0.05, 'kernel_initializer': 'fan_in'}
    model = make_model(vocabulary, **fields)
    conversion.convert(model, tmp_path / 'out', 'huggingface')
    assert_same_model(albert_jax.load(tmp_path / 'out'), model)
