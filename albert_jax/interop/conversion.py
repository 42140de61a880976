"""Writes a model in a format of ours or of others, complete or not at all."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from albert_jax.cli import next_steps
from albert_jax.cli.errors import UserError, reason
from albert_jax.cli.files import check_is_free, new_directory
from albert_jax.cli.phase import phase
from albert_jax.interop import huggingface, native
from albert_jax.interop.native import OPTIONAL_PARTS, Pretrained
from albert_jax.model.paths import num_params

FORMATS = ('albert_jax', 'huggingface')


def convert(model: Pretrained, destination: Path, to: str) -> tuple[str, ...]:
    """Writes a model in one of FORMATS, complete or not at all; gives notes, a sentence each.

    Raises:
      UserError: if the destination exists, cannot be written, or the format cannot hold the model.
    """
    if to == 'huggingface' and model.decoder is not None:
        raise UserError(
            'The model goes from text to text with an ALBERT as decoder, which transformers does '
            'not have: only --to=albert_jax can hold it.'
        )
    with phase(f'Writing {destination} …'), output_directory(destination) as folder:
        if to == 'huggingface':
            return huggingface.write(model, folder)
        native.write(model, folder)
        return ()


@contextmanager
def output_directory(destination: Path) -> Iterator[Path]:
    """Gives an empty directory that becomes `destination`, or is removed on an error.

    Raises:
      UserError: if the destination exists or cannot be written.
    """
    check_is_free(destination)
    try:
        # Conversions to one destination may run at the same time, and nothing else is in the way.
        with new_directory(destination.absolute(), is_private=True) as folder:
            yield folder
    except UserError:
        raise
    except Exception as error:  # each writer has errors of its own for a full disk
        raise UserError(f'{destination} cannot be written: {reason(error)}.') from error


def missing_parts(model: Pretrained) -> str | None:
    """A note of what a pretrained model lacks and so is not written; None where there is nothing.

    A fine-tuned model needs none of it.
    """
    missing = [name for part, name in OPTIONAL_PARTS.items() if part not in model.own_params()]
    if model.head is not None or not missing:
        return None
    return f'the source has no {", ".join(missing)}; nor has what is written.'


def show(model: Pretrained, destination: Path, to: str) -> None:
    """Prints what was written, and what to do with it."""
    config = model.config
    table = Table(show_header=False, title=escape(str(destination)), title_justify='left')
    table.add_row('parameters', f'{num_params(model.own_params()):,}')
    table.add_row(
        'model',
        f'{config.num_hidden_layers} layers of {config.hidden_size}, embeddings of '
        f'{config.embedding_size}, sharing {config.sharing}, {config.hidden_act}',
    )
    parts = [name for part, name in OPTIONAL_PARTS.items() if part in model.own_params()]
    if model.head is not None:
        parts.append(
            f'{model.head.kind} head ({", ".join(map(escape, model.head.labels)) or "no labels"})'
        )
    if model.decoder is not None:
        parts.append(f'decoder (decoder_sharing {model.decoder.decoder_sharing})')
    table.add_row('parts', ', '.join(parts) or 'encoder only')
    kind = type(model.tokenizer).__name__
    vocabulary = f'{model.tokenizer.vocab_size:,} pieces ({kind})' if model.tokenizer else 'none'
    table.add_row('vocabulary', vocabulary)
    Console(emoji=False).print(table)
    next_steps.show(_next(model, destination, to))


def _next(model: Pretrained, destination: Path, to: str) -> str:
    """A command that uses what was written."""
    if to == 'huggingface':
        name = json.loads((destination / 'config.json').read_text())['architectures'][0]
        return next_steps.load_with_transformers(destination, name)
    if model.decoder is not None:
        return next_steps.predict(destination, '')
    if 'mlm' in model.own_params() and model.tokenizer is not None:
        return next_steps.fill_mask(destination)
    return next_steps.load(destination)
