"""Writes a model that runs without this package: `python -m albert_jax.export --help`."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from albert_jax.cli import command
from albert_jax.cli.errors import UserError

if TYPE_CHECKING:
    from albert_jax.interop.native import Pretrained

FORMATS = ('stablehlo', 'savedmodel', 'onnx')
_DESCRIPTION = """\
Write a model, fine-tuned or pretrained, for places where this package is not: any batch, any length
up to its positions (eight pieces at least: pad shorter texts), every head.
"""
_EPILOG = """\
formats:
  stablehlo   one file for CPU, CUDA and TPU, read with jax.export.deserialize
  savedmodel  TensorFlow's, with the signature serving_default (extra tensorflow)
  onnx        for ONNX Runtime and whatever else reads opset 23 (extra onnx, in an environment of
              its own: it wants an older orbax-checkpoint than the lock)

example:
  python -m albert_jax.export runs/sst2 runs/sst2-stablehlo --format=stablehlo

Beside the model lie its vocabulary, signature.json (inputs, labels, special pieces) and README.md,
a card with the numbers of its evaluation, an example that runs, and how text becomes pieces.
"""


def main(arguments: Sequence[str]) -> int:
    """Writes the folder."""
    parser = command.parser('albert_jax.export', _DESCRIPTION, _EPILOG)
    parser.add_argument('checkpoint', help='anything that albert_jax.load takes')
    parser.add_argument('output', type=Path, help='folder that is not there or empty')
    parser.add_argument('--format', choices=FORMATS, required=True, help='see below')
    return run(parser.parse_args(arguments))


def run(flags: argparse.Namespace) -> int:
    """Exports, then moves the whole folder into place.

    Raises:
      UserError: if the checkpoint cannot be read, or the folder cannot be written.
    """
    import shutil

    from albert_jax.interop import portable, source

    output: Path = flags.output
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f'{output} exists and is not empty; choose another folder.')
    model = source.read(flags.checkpoint)
    partial = output.with_name(f'{output.name}.incomplete')
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        if flags.format == 'stablehlo':
            (partial / 'model.stablehlo').write_bytes(portable.stablehlo(model))
        elif flags.format == 'savedmodel':
            portable.savedmodel(model, partial / 'savedmodel')
        else:
            portable.onnx(model, partial / 'model.onnx')
        found = portable.portable(model)
        vocabulary = _write_vocabulary(model, partial)
        signature = _signature(model, found)
        (partial / 'signature.json').write_text(json.dumps(signature, indent=2) + '\n')
        card = _card(model, flags.checkpoint, flags.format, signature, vocabulary)
        (partial / 'README.md').write_text(card, encoding='utf-8')
        partial.replace(output)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise UserError(f'{output} cannot be written: {error.strerror}.') from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    print(f'Wrote {output}; its README.md has an example.')
    return 0


def _write_vocabulary(model: 'Pretrained', folder: Path) -> list[str]:
    """Gives the names of the files: one, or none where the model has no vocabulary."""
    from albert_jax.data.tokenizer import Tokenizer

    if isinstance(model.tokenizer, Tokenizer):
        (folder / 'vocabulary.model').write_bytes(model.tokenizer.model)
        return ['vocabulary.model']
    if model.tokenizer is not None:
        (folder / 'tokenizer.json').write_text(model.tokenizer.definition, encoding='utf-8')
        return ['tokenizer.json']
    return []


def _signature(model: 'Pretrained', found: Any) -> dict[str, Any]:
    import dataclasses

    tokenizer = model.tokenizer
    normalization = getattr(tokenizer, 'normalization', None)
    special = ('pad_id', 'cls_id', 'sep_id', 'mask_id', 'unk_id')
    return {
        'inputs': {name: {'type': 'int32', 'shape': list(found.axes)} for name in found.inputs},
        'head': model.head and model.head.kind,
        'labels': list(model.head.labels) if model.head else [],
        'max_length': model.config.max_position_embeddings,
        'min_length': 8,
        'special': {name: int(getattr(tokenizer, name)) for name in special} if tokenizer else {},
        'normalization': normalization and dataclasses.asdict(normalization),
    }


_TEXT = 'A text of a few words, to try the model with.'
_EXAMPLES = {
    'stablehlo': """\
from jax import export

call = export.deserialize(open('model.stablehlo', 'rb').read()).call
outputs = call(*inputs.values())  # by name""",
    'savedmodel': """\
import tensorflow as tf

call = tf.saved_model.load('savedmodel').signatures['serving_default']
outputs = call(**{name: tf.constant(array) for name, array in inputs.items()})""",
    'onnx': """\
import onnxruntime

session = onnxruntime.InferenceSession('model.onnx')
names = [output.name for output in session.get_outputs()]
outputs = dict(zip(names, session.run(names, inputs)))""",
}
_WAYS_TO_IDS = {
    'tokenizer.json': 'The pieces of a text, by the package tokenizers: '
    "`Tokenizer.from_file('tokenizer.json')`, then its `no_padding()` and `no_truncation()`, or it "
    'may fill texts up and cut them; normalising is part of it.',
    'vocabulary.model': 'The pieces of a text, by the package sentencepiece: '
    "`SentencePieceProcessor(model_file='vocabulary.model')`, for text normalised as "
    '`signature.json` says.',
}


def _example(model: 'Pretrained', form: str, signature: dict[str, Any]) -> list[str]:
    """A program that asks the model for one text, whose pieces are written out."""
    ids = list(range(1, 1 + signature['min_length']))
    lines = ['import numpy as np', '']
    if model.tokenizer is not None:
        tokenizer = model.tokenizer
        pieces = tokenizer.encode([_TEXT])[0][: signature['max_length'] - 2]
        ids = [tokenizer.cls_id, *pieces, tokenizer.sep_id]
        lines.append(f"# '{_TEXT}' as pieces, with [CLS] and [SEP]")
    lines += [f'ids = np.array([{ids}], np.int32)', 'inputs = {']
    # Of one segment; where there can be an answer, it can be anywhere.
    values = {'input_ids': 'ids', 'token_type_ids': 'np.zeros_like(ids)'}
    for name in signature['inputs']:
        lines.append(f"    '{name}': {values.get(name, 'np.ones_like(ids)')},")
    lines.append('}')
    if '4' in signature['inputs']['input_ids']['shape']:
        lines += [
            '# Four options, here the same',
            'inputs = {name: np.repeat(array[:, None], 4, 1) for name, array in inputs.items()}',
        ]
    return [*lines, *_EXAMPLES[form].splitlines(), 'print(outputs)']


_UNCHECKED = {'onnx': 'ONNX Runtime does not check it: longer ones give not-a-number.'}


def _card(
    model: 'Pretrained',
    origin: str,
    form: str,
    signature: dict[str, Any],
    vocabulary: Sequence[str],
) -> str:
    config = model.config
    kind = model.head.kind.replace('_', ' ') if model.head else 'pretraining heads'
    rows = [
        ('made from', f'`{Path(origin).name}`, step {model.step}'),
        ('head', kind),
        ('layers × width', f'{config.num_hidden_layers} × {config.hidden_size}, sharing '
                           f'{config.sharing}'),
        ('vocabulary', f'{config.vocab_size} pieces'),
        ('longest text', f'{config.max_position_embeddings} pieces'),
    ]  # fmt: skip
    if signature['labels']:
        rows.append(('labels', ', '.join(signature['labels'])))
    lines = ['# An ALBERT model', '', '| | |', '|---|---|']
    lines += [f'| {name} | {value} |' for name, value in rows]
    lines += ['', '## Evaluation', '', *_evaluation(origin)]
    lines += ['', '## Example', '', '```python', *_example(model, form, signature), '```', '']
    lines += [_WAYS_TO_IDS[file] + '\n' for file in vocabulary]
    shortest, longest = signature['min_length'], signature['max_length']
    lines.append(
        f'Texts of {shortest} to {longest} pieces, with [CLS] and [SEP]; pad shorter ones. '
        f'{_UNCHECKED.get(form, "Other lengths are refused.")} Outputs are float32, positions '
        f'int32. `signature.json` has shapes, labels and special pieces.'
    )
    return '\n'.join(lines) + '\n'


def _evaluation(origin: str) -> list[str]:
    path = Path(origin) / 'results.json'
    if not path.exists():
        return ['Not known: there is no results.json beside the checkpoint.']
    try:
        found = dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise UserError(f'{path} is damaged ({error}); evaluate the model again.') from error
    lines = ['On the validation file of its fine-tuning:', '', '| metric | value |', '|---|---|']
    for name, value in found.items():
        if name != 'step' and isinstance(value, int | float):
            lines.append(f'| {name} | {value:.4f} |')
    return lines


if __name__ == '__main__':
    command.run(main)
