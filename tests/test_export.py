"""Exported models give our numbers in a process that cannot import the package."""

import dataclasses
import json
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from albert_jax import export
from albert_jax.cli.errors import UserError
from albert_jax.interop.native import Pretrained
from albert_jax.model.albert import PretrainingModel
from albert_jax.model.heads import HEADS, Head
from tests import tiny
from tests.conftest import documents

# (batch, length), of texts padded on the right.
SHAPES = [(1, 8), (3, 31), (2, 48)]

_CHILD = """
import contextlib, io, json, os, sys
from pathlib import Path
sys.modules['albert_jax'] = None
import numpy as np
for folder in sys.argv[1:]:
    signature = json.load(open(folder + '/signature.json'))
    names = list(signature['inputs'])
    arrays = np.load(folder + '.npz')
    form = Path(folder).name
    if 'stablehlo' in form:
        from jax import export
        call = export.deserialize(open(folder + '/model.stablehlo', 'rb').read()).call
        run = lambda inputs: call(*[inputs[name] for name in names])
    elif 'onnx' in form:
        import onnxruntime
        session = onnxruntime.InferenceSession(folder + '/model.onnx')
        given = [output.name for output in session.get_outputs()]
        run = lambda inputs: dict(zip(given, session.run(given, inputs)))
    else:
        import tensorflow as tf
        model = tf.saved_model.load(folder + '/savedmodel')
        serve = model.signatures['serving_default']
        run = lambda inputs: serve(**{name: tf.constant(inputs[name]) for name in names})
    worst = count = 0
    for number in range(3):
        outputs = run({name: arrays[f'{number}/in/{name}'] for name in names})
        assert len(outputs) == sum(key.startswith(f'{number}/out/') for key in arrays)
        for key in arrays:
            if key.startswith(f'{number}/out/'):
                found = np.asarray(outputs[key.split('/')[2]], np.float64)
                assert found.shape == arrays[key].shape, (folder, key)
                worst = max(worst, np.abs(found - arrays[key]).max())
                count += 1
    # The card's own program.
    os.chdir(folder)
    example = Path('README.md').read_text().split('```')[1].removeprefix('python')
    told, known = io.StringIO(), {}
    with contextlib.redirect_stdout(told):
        exec(example, known)
    assert set(known['outputs']) == set(outputs) and told.getvalue()
    assert all(np.isfinite(np.asarray(x)).all() for x in known['outputs'].values())
    print(json.dumps([folder, float(worst), count]))
"""


def make_encoder(vocabulary, **changes):
    return tiny.pretrained(tiny.wider_config(**{'initializer_range': 0.2} | changes), vocabulary)


@pytest.fixture(scope='module')
def encoder(vocabulary):
    return make_encoder(vocabulary)


def with_head(encoder: Pretrained, kind: str) -> Pretrained:
    labels = ('a', 'b', 'c') if HEADS[kind].has_labels else ()
    head = HEADS[kind].init(max(len(labels), 1), encoder.config, jax.random.key(1))
    parts = {part: encoder.params[part] for part in ('embeddings', 'encoder', 'pooler')}
    return dataclasses.replace(encoder, params={**parts, 'head': head}, head=Head(kind, labels))


def batch(encoder: Pretrained, kind: str | None, rows: int, length: int) -> dict[str, np.ndarray]:
    """Real texts of different lengths, and where an answer may be."""
    tokenizer = encoder.tokenizer
    count = rows * 4 if kind == 'multiple_choice' else rows
    texts = (' '.join(documents()).split('. ') * 3)[rows : rows + count]
    ids = np.zeros((count, length), np.int32)
    mask, types = np.zeros_like(ids), np.zeros_like(ids)
    for row, text in enumerate(texts):
        own = [tokenizer.cls_id, *tokenizer.encode([text])[0]][: length - 1 - row % 4]
        own.append(tokenizer.sep_id)
        ids[row, : len(own)], mask[row, : len(own)] = own, 1
        types[row, len(own) // 2 : len(own)] = 1
    inputs = {'input_ids': ids, 'attention_mask': mask, 'token_type_ids': types}
    if kind == 'multiple_choice':
        return {name: array.reshape(rows, 4, length) for name, array in inputs.items()}
    if kind in ('question_answering', 'conditional_question_answering'):
        inputs['can_answer'] = types * mask
    return inputs


def ours(model: Pretrained, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """By the model as it is fine-tuned and asked, with whatever kernels this machine has."""
    names = ('input_ids', 'attention_mask', 'token_type_ids')
    if model.head is None:
        output = tiny.outputs(model.config, model.params, *(inputs[n] for n in names))
        names = ('last_hidden_state', 'pooled_output', 'mlm_logits', 'sop_logits')
        return {name: np.asarray(getattr(output, name)) for name in names}

    @jax.jit
    def asked(params, inputs):
        flat = [inputs[name].reshape(-1, inputs[name].shape[-1]) for name in names]
        albert = PretrainingModel(model.config)
        encoded: Any = albert.apply({'params': params}, *flat, method=PretrainingModel.encode)
        extra = {'labels': jnp.zeros(len(inputs['input_ids']), jnp.int32)}
        if 'can_answer' in inputs:
            extra['can_answer'] = inputs['can_answer']
        hidden = encoded.last_hidden_state.astype(jnp.float32)
        definition = HEADS[model.head.kind]
        return definition.apply(
            params['head'], hidden, encoded.pooled_output, extra, lambda x: x, False
        )

    return {name: np.asarray(value) for name, value in asked(model.params, inputs).items()}


def check(encoder, form, kinds, tmp_path):
    folders = []
    for kind in kinds:
        model = encoder if kind is None else with_head(encoder, kind)
        folder = tmp_path / f'{form}-{kind}'
        source = tiny.write(model, tmp_path / f'source-{kind}')
        (source / 'results.json').write_text('{"step": 7, "accuracy": 0.8125}')
        assert export.main([str(source), str(folder), f'--format={form}']) == 0
        arrays = {}
        for number, (rows, length) in enumerate(SHAPES):
            inputs = batch(encoder, kind, rows, length)
            arrays |= {f'{number}/in/{name}': array for name, array in inputs.items()}
            arrays |= {f'{number}/out/{name}': x for name, x in ours(model, inputs).items()}
        np.savez(f'{folder}.npz', **arrays)
        folders.append(str(folder))
        card = (folder / 'README.md').read_text()
        assert '| accuracy | 0.8125 |' in card
        assert (folder / 'vocabulary.model').read_bytes() == encoder.tokenizer.model
    done = subprocess.run(
        [sys.executable, '-c', _CHILD, *folders], cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 'W:onnxruntime' not in done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(kinds)
    for folder, worst, count in found:
        assert count >= len(SHAPES) and worst < 1e-4, folder


# The one with most inputs and outputs.
_MOST = 'conditional_question_answering'


def test_stablehlo(encoder, tmp_path):
    check(encoder, 'stablehlo', [_MOST], tmp_path)


def test_stablehlo_of_a_modern_model(vocabulary, tmp_path):
    """Positions of a length that is left open."""
    modern = make_encoder(vocabulary, **tiny.MODERN)
    check(modern, 'stablehlo', ['sequence_classification'], tmp_path)


@pytest.mark.slow
def test_stablehlo_of_every_head(encoder, tmp_path):
    check(encoder, 'stablehlo', [None, *HEADS], tmp_path)


@pytest.mark.slow
def test_savedmodel_of_every_head(encoder, tmp_path):
    pytest.importorskip('tensorflow')
    check(encoder, 'savedmodel', [None, *HEADS], tmp_path)


def states_of_loops(file):
    import onnx

    model = onnx.load(file)
    weights = {tensor.name for tensor in model.graph.initializer}
    loops = [node for node in model.graph.node if node.op_type == 'Loop']
    assert loops
    return {name for node in loops for name in node.input[2:]}, weights


@pytest.mark.slow
def test_onnx_of_every_head(encoder, tmp_path):
    """In an environment with jax2onnx: see the Makefile."""
    pytest.importorskip('jax2onnx')
    check(encoder, 'onnx', [None, *HEADS], tmp_path)
    states, weights = states_of_loops(tmp_path / 'onnx-None/model.onnx')
    # The layers share what they read: a weight that is a state is copied for each.
    assert len(states) <= 5 and not states & weights


_OTHERS = [
    {
        'sharing': 'none', 'hidden_act': 'gelu_erf', 'embedding_size': 32,
        'use_embedding_projection': False,
    },
    {
        'sharing': 'ffn', 'hidden_act': 'relu', 'num_hidden_groups': 2, 'inner_group_num': 2,
    },
    tiny.MODERN,
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize('changes', _OTHERS, ids=('bert', 'groups', 'modern'))
def test_onnx_of_other_models(changes, vocabulary, tmp_path):
    pytest.importorskip('jax2onnx')
    check(make_encoder(vocabulary, **changes), 'onnx', ['sequence_classification'], tmp_path)


def test_an_artefact_is_for_cpu_cuda_and_tpu(encoder):
    from albert_jax.interop.portable import stablehlo

    found = jax.export.deserialize(bytearray(stablehlo(encoder)))
    assert found.platforms == ('cpu', 'cuda', 'tpu')
    assert all(str(x.shape) == '(batch, length)' for x in found.in_avals)


def test_mistakes_leave_what_is_there(encoder, tmp_path, monkeypatch):
    tiny.write(encoder, tmp_path / 'm')
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out/mine.txt').write_text('x')
    with pytest.raises(UserError, match='is not empty'):
        export.main([f'{tmp_path}/m', f'{tmp_path}/out', '--format=stablehlo'])
    assert (tmp_path / 'out/mine.txt').read_text() == 'x'
    with pytest.raises(UserError, match='nothing'):
        export.main(['/nothing', f'{tmp_path}/new', '--format=stablehlo'])
    needs = (('onnx', 'jax2onnx', 'onnx'), ('savedmodel', 'tensorflow', 'tensorflow'))
    for form, package, extra in needs:
        with monkeypatch.context() as without:
            without.setitem(sys.modules, package, None)
            with pytest.raises(UserError, match=rf'\.\[{extra}\]'):
                export.main([f'{tmp_path}/m', f'{tmp_path}/new', f'--format={form}'])
    with monkeypatch.context() as small:
        small.setattr('albert_jax.interop.portable._MOST_BYTES', 1000)
        with pytest.raises(UserError, match='holds less than'):
            export.main([f'{tmp_path}/m', f'{tmp_path}/new', '--format=stablehlo'])
    (tmp_path / 'm/results.json').write_text('{')
    with pytest.raises(UserError, match=r'results\.json is damaged'):
        export.main([f'{tmp_path}/m', f'{tmp_path}/new', '--format=stablehlo'])
    assert sorted(path.name for path in tmp_path.iterdir()) == ['m', 'out']
