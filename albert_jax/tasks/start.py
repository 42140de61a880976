"""What a fine-tuning starts from: a checkpoint without its heads, or random weights."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from albert_jax.cli.errors import UserError
from albert_jax.cli.notes import note as print_note
from albert_jax.data.hub_tokenizer import AnyTokenizer
from albert_jax.interop import huggingface_tokenizer, source
from albert_jax.interop.native import Pretrained, expected_shapes
from albert_jax.interop.run_inputs import check_start
from albert_jax.model.albert import init_params
from albert_jax.model.config import SIZES, AlbertConfig
from albert_jax.model.decoder import PRETRAINED_PARTS
from albert_jax.model.decoder_config import DecoderConfig
from albert_jax.model.paths import select
from albert_jax.runs.runs import FinetuneRun

_ENCODER_PARTS = ('embeddings', 'encoder', 'pooler')
# Of a model from text to text; the masked-LM head writes its text.
_SEQ2SEQ_PARTS = (*PRETRAINED_PARTS, 'decoder')


def starting_point(
    run: FinetuneRun, tokenizer: AnyTokenizer | None = None, has_decoder: bool = False
) -> Pretrained:
    """The model to fine-tune, without pretraining heads, with the config's changes to it.

    Args:
      run: of the fine-tuning.
      tokenizer: of a model from scratch for which the config names no vocabulary.
      has_decoder: the model is to go from text to text: it has a decoder, and the masked-LM head.

    Returns:
      The model, its parameters on the host; none where each seed draws its own.

    Raises:
      UserError: if there is none, or it does not fit.
    """
    vocabulary = run.data.vocabulary or None
    check_start(run)
    if run.init_from:
        start = source.read(run.init_from, vocabulary)
    else:
        if vocabulary:
            tokenizer = huggingface_tokenizer.from_vocabulary(Path(vocabulary))
        if run.model.size not in SIZES or tokenizer is None:
            raise UserError(
                f'A model from scratch needs --config.init_from for its shape and vocabulary, or '
                f'--config.model.size (one of {", ".join(SIZES)}) and '
                f'--config.data.vocabulary=FILE.'
            )
        base = dataclasses.replace(SIZES[run.model.size], vocab_size=tokenizer.vocab_size)
        start = Pretrained(base, {}, tokenizer)
    for note in start.notes:
        print_note(f'{run.init_from}: {note}')
    base = start.config
    model = run.model.resolve(start.config)
    decoder = _decoder(run, start) if has_decoder else None
    start = dataclasses.replace(start, config=model, decoder=decoder)
    if run.from_scratch:
        return dataclasses.replace(start, params={}, head=None, run={})
    params = _on_host(start.params, _SEQ2SEQ_PARTS if has_decoder else _ENCODER_PARTS)
    _check_weights(run, base, model)
    if has_decoder and 'mlm' not in params:
        print_note(
            f'{run.init_from} has no masked-LM head; the head that writes the text is drawn at '
            f'random.'
        )
    if not has_decoder and 'pooler' not in params:
        params['pooler'] = jax.device_get(
            jax.jit(lambda: init_params(model, jax.random.key(0))['pooler'])()
        )
        print(
            f'note: {run.init_from} has no pooler; it is drawn at random and trained with the head.'
        )
    return dataclasses.replace(start, params=params)


def _decoder(run: FinetuneRun, start: Pretrained) -> DecoderConfig:
    """The decoder of the run: that of `init_from`, if it has one and its weights are taken.

    Raises:
      UserError: if the config wants another one.
    """
    if start.decoder is None or run.from_scratch or start.decoder == run.decoder:
        return run.decoder
    if run.decoder != DecoderConfig():
        raise UserError(
            f'init_from={run.init_from} has a decoder with {_fields(start.decoder)}, but the '
            f'config says {_fields(run.decoder)}; leave that out, or set '
            f'--config.from_scratch=True.'
        )
    print_note(f'the decoder is that of {run.init_from}: {_fields(start.decoder)}.')
    return start.decoder


def _fields(decoder: DecoderConfig) -> str:
    return ', '.join(f'{name}={value}' for name, value in decoder.to_dict().items())


def _check_weights(run: FinetuneRun, source: AlbertConfig, model: AlbertConfig) -> None:
    """Refuses changes of the model that the weights of `init_from` are not of.

    Args:
      run: of the fine-tuning.
      source: the model of `init_from`.
      model: the same with the config's changes.
    """
    if model == source or expected_shapes(model) == expected_shapes(source):
        return
    changed = {
        name: value
        for name, value in run.model.changes().items()
        if value != getattr(source, name) and _changes_weights(source, name, value)
    }
    there = ', '.join(f'{name}={getattr(source, name)}' for name in changed)
    here = ', '.join(f'{name}={value}' for name, value in changed.items())
    raise UserError(
        f'The weights of init_from={run.init_from} are of a model with {there}, but the config '
        f'says {here}; leave that out, or set --config.from_scratch=True.'
    )


def _changes_weights(source: AlbertConfig, name: str, value: Any) -> bool:
    """Whether a field alone asks for other weights, or is impossible alone."""
    try:
        changed = dataclasses.replace(source, **{name: value})
    except UserError:
        return True
    return expected_shapes(changed) != expected_shapes(source)


def random_params(config: AlbertConfig, seed: int) -> dict[str, Any]:
    """Fresh parameters of the encoder, on the host."""
    fresh = jax.jit(lambda: init_params(config, jax.random.key(seed)))()
    return _on_host(fresh, _ENCODER_PARTS)


def _on_host(params: Mapping[str, Any], parts: tuple[str, ...]) -> dict[str, Any]:
    """Some parts of the parameters; the devices of the run are chosen later."""
    return jax.tree.map(np.asarray, select(params, parts))
