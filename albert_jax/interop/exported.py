"""The folder of an exported model: the model, its vocabulary, its signature and its card."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from albert_jax.cli.errors import UserError, reason
from albert_jax.cli.files import check_is_free, new_directory
from albert_jax.cli.phase import phase
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.interop import model_card, portable, source
from albert_jax.interop.native import Pretrained
from albert_jax.interop.writing import writing_of

_MIN_LENGTH = 8
_SPECIAL = ('pad_id', 'cls_id', 'sep_id', 'mask_id', 'unk_id')


def export(checkpoint: str, output: Path, form: str) -> None:
    """Writes the folder, complete or not at all.

    Args:
      checkpoint: anything that `albert_jax.load` takes.
      output: not there, or empty.
      form: stablehlo, savedmodel or onnx.

    Raises:
      UserError: if the checkpoint cannot be read, or the folder cannot be written.
    """
    check_is_free(output)
    model = source.read(checkpoint)
    if model.decoder is not None and form != 'stablehlo':
        raise UserError(
            f'{checkpoint} goes from text to text, which --format={form} cannot hold: its decoding '
            f'is a loop; give --format=stablehlo.'
        )
    try:
        with phase(f'Tracing the model and writing {output} …'), new_directory(output) as folder:
            _write(model, checkpoint, form, folder)
    except OSError as error:
        raise UserError(f'{output} cannot be written: {reason(error)}.') from error


def _write(model: Pretrained, checkpoint: str, form: str, folder: Path) -> None:
    match form:
        case 'stablehlo':
            (folder / 'model.stablehlo').write_bytes(portable.stablehlo(model))
        case 'savedmodel':
            portable.savedmodel(model, folder / 'savedmodel')
        case _:
            portable.onnx(model, folder / 'model.onnx')
    vocabulary = _write_vocabulary(model, folder)
    signature = _signature(model, portable.portable(model))
    (folder / 'signature.json').write_text(json.dumps(signature, indent=2) + '\n')
    card = model_card.render(model, checkpoint, form, signature, vocabulary)
    (folder / 'README.md').write_text(card, encoding='utf-8')


def _write_vocabulary(model: Pretrained, folder: Path) -> list[str]:
    """Gives the names of the files: one, or none where the model has no vocabulary."""
    if isinstance(model.tokenizer, Tokenizer):
        (folder / 'vocabulary.model').write_bytes(model.tokenizer.model)
        return ['vocabulary.model']
    if model.tokenizer is not None:
        (folder / 'tokenizer.json').write_text(model.tokenizer.definition, encoding='utf-8')
        return ['tokenizer.json']
    return []


def _signature(model: Pretrained, function: portable.Portable) -> dict[str, Any]:
    """Inputs, labels and special pieces, for JSON."""
    tokenizer = model.tokenizer
    normalization = getattr(tokenizer, 'normalization', None)
    shape = list(function.axes)
    # What a model with a decoder writes, and how.
    writing = model.decoder and writing_of(model)
    decoder = writing and {
        'max_new_tokens': writing.max_new_tokens,
        'decoding': writing.settings.to_dict(),
    }
    return {
        'inputs': {name: {'type': 'int32', 'shape': shape} for name in function.inputs},
        'head': model.head and model.head.kind,
        'labels': list(model.head.labels) if model.head else [],
        'activation': model.head and model.head.activation,
        'max_length': function.max_length,
        'min_length': _MIN_LENGTH,
        'special': {name: int(getattr(tokenizer, name)) for name in _SPECIAL} if tokenizer else {},
        'normalization': normalization and dataclasses.asdict(normalization),
        'added_tokens': [
            dataclasses.asdict(token) for token in getattr(tokenizer, 'added_tokens', ())
        ],
    } | (decoder or {})
