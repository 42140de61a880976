"""Exported models from text to text write our texts, without the package."""

import json
import subprocess
import sys

import numpy as np
import pytest

from albert_jax import export
from albert_jax.cli.errors import UserError
from albert_jax.data.target_text import target_text
from albert_jax.interop.writing import writing_of
from albert_jax.model.decoder import Seq2SeqModel
from albert_jax.model.decoding import generate
from albert_jax.tasks.answering import Answerer
from tests import tiny

SOURCES = [
    'returns an index of the list', 'a value', 'class error',
    'the names of all the modules that were imported so far',
]  # fmt: skip
# Some texts at a time, padded to a length.
BATCHES = [(slice(0, 1), 8), (slice(0, 4), 13)]
MODELS = {
    'greedy': ({}, {}),
    'beams': (tiny.MODERN, {'num_beams': 3, 'num_return_sequences': 2, 'length_penalty': 0.6}),
    'samples': ({}, {'temperature': 1.0, 'top_k': 20, 'num_return_sequences': 2, 'seed': 3}),
}

_CHILD = """
import contextlib, io, json, os, sys
from pathlib import Path
sys.modules['albert_jax'] = None
import numpy as np
from jax import export
for folder in sys.argv[1:]:
    artefact = export.deserialize(open(folder + '/model.stablehlo', 'rb').read())
    assert artefact.platforms == ('cpu', 'cuda', 'tpu')
    arrays = np.load(folder + '.npz')
    outputs = {}
    for number in range(2):
        found = artefact.call(arrays[f'ids{number}'], arrays[f'mask{number}'])
        outputs |= {f'{name}{number}': np.asarray(array) for name, array in found.items()}
    np.savez(folder + '-found.npz', **outputs)
    os.chdir(folder)
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        exec(Path('README.md').read_text().split('```')[1].removeprefix('python'), {})
    print(json.dumps(told.getvalue().strip()))
"""


def encoded(tokenizer, texts, length):
    ids = np.full((len(texts), length), tokenizer.pad_id, np.int32)
    mask = np.zeros_like(ids)
    for row, pieces in enumerate(tokenizer.encode(texts)):
        whole = [tokenizer.cls_id, *pieces[: length - 2], tokenizer.sep_id]
        ids[row, : len(whole)], mask[row, : len(whole)] = whole, 1
    return ids, mask


@pytest.mark.parametrize(
    'names', [('greedy',), pytest.param(('beams', 'samples'), marks=pytest.mark.slow)], ids=str
)
def test_the_artefact_writes_our_texts_token_by_token(names, vocabulary, tmp_path):
    models, folders = {}, []
    for name, (fields, decoding) in ((name, MODELS[name]) for name in names):
        model = models[name] = tiny.text_to_text(vocabulary, fields, decoding=decoding)
        tiny.write(model, tmp_path / f'{name}-source')
        folder = tmp_path / name
        assert export.main([f'{folder}-source', str(folder), '--format=stablehlo']) == 0
        arrays = {}
        for number, (chosen, length) in enumerate(BATCHES):
            ids, mask = encoded(model.tokenizer, SOURCES[chosen], length)
            arrays |= {f'ids{number}': ids, f'mask{number}': mask}
        np.savez(f'{folder}.npz', **arrays)
        folders.append(str(folder))
    done = subprocess.run(
        [sys.executable, '-c', _CHILD, *folders], cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for (name, model), told in zip(models.items(), done.stdout.splitlines(), strict=True):
        given, found = (np.load(tmp_path / f'{name}{end}.npz') for end in ('', '-found'))
        writing = writing_of(model)
        seq2seq = Seq2SeqModel(model.config, model.decoder)
        for number in range(len(BATCHES)):
            ours = generate(
                seq2seq, model.params, given[f'ids{number}'], given[f'mask{number}'],
                writing.settings, writing.special, writing.max_new_tokens,
            )  # fmt: skip
            tokens = found[f'token_ids{number}']
            assert tokens.shape[1:] == (writing.settings.num_return_sequences, 15)
            np.testing.assert_array_equal(tokens, np.asarray(ours.token_ids)[..., :15])
            np.testing.assert_array_equal(found[f'is_finished{number}'], ours.is_finished)
            np.testing.assert_allclose(found[f'scores{number}'], ours.scores, atol=1e-4)
        # The card's program says what predict does, which cuts the source at the same place.
        text = 'A text of a few words, to try the model with.'
        (answer,) = Answerer(model, num_devices=1, batch_size=1).answer([text], 'x')
        assert json.loads(told) == answer['prediction'] != ''
        # Each source has a text of its own.
        texts = {target_text(tokens[0], model.tokenizer) for tokens in found['token_ids1']}
        assert len(texts) > 1 or name != 'greedy'


def test_the_card_and_the_signature_say_how_it_writes(vocabulary, tmp_path):
    model = tiny.text_to_text(vocabulary, decoding=MODELS['beams'][1])
    tiny.write(model, tmp_path / 'm')
    assert export.main([f'{tmp_path}/m', f'{tmp_path}/out', '--format=stablehlo']) == 0
    card = (tmp_path / 'out/README.md').read_text()
    assert '| head | none: a decoder, from text to text |' in card
    assert '| writes | at most 15 pieces, beam search with 3 beams, penalty 0.6; 2 for' in card
    signature = json.loads((tmp_path / 'out/signature.json').read_text())
    assert list(signature['inputs']) == ['input_ids', 'attention_mask']
    assert signature['max_new_tokens'] == 15 and signature['decoding']['num_beams'] == 3


@pytest.mark.parametrize('form', ['savedmodel', 'onnx'])
def test_other_formats_are_refused(form, vocabulary, tmp_path):
    tiny.write(tiny.text_to_text(vocabulary), tmp_path / 'm')
    with pytest.raises(UserError, match=f'which --format={form} cannot hold: its decoding is a'):
        export.main([f'{tmp_path}/m', f'{tmp_path}/out', f'--format={form}'])
    assert not (tmp_path / 'out').exists()
