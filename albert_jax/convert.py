"""Reads and writes everyone's checkpoints: `python -m albert_jax.convert --help`."""

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from albert_jax.cli import command
from albert_jax.cli.errors import UserError

if TYPE_CHECKING:
    from albert_jax.interop.native import Pretrained

_DESCRIPTION = """\
Convert a model: from what it holds SRC is recognised as

  a run or checkpoint of albert_jax,
  a directory of Hugging Face (ALBERT or BERT with any head; config.json and safetensors),
  a TensorFlow checkpoint of google-research/albert, its tar.gz, or a TF-Hub module
    (extra 'tensorflow'),
  a name on the Hugging Face Hub, such as albert-base-v2 (extra 'huggingface').

Every tensor of SRC is used, skipped by a named rule, or an error. DST is written whole or not at
all. Fine-tuned models keep their head and its labels."""
_EPILOG = """\
examples:
  python -m albert_jax.convert albert_base_v2.tar.gz runs/albert-base
  python -m albert_jax.convert albert-base-v2 runs/albert-base
  python -m albert_jax.convert runs/mine runs/mine-hf --to=huggingface

docs/CHECKPOINTS.md says what maps to what, what each format loses, and how to check.
"""
FORMATS = ('albert_jax', 'huggingface')


def main(arguments: Sequence[str]) -> int:
    """Converts, and says what was read and written."""
    parser = command.parser('albert_jax.convert', _DESCRIPTION, _EPILOG)
    parser.add_argument('source', metavar='SRC', help='file, directory or name')
    parser.add_argument('destination', metavar='DST', help='directory that does not exist yet')
    parser.add_argument('--to', choices=FORMATS, default='albert_jax', help='format of DST')
    parser.add_argument(
        '--vocabulary',
        metavar='FILE',
        help="use this .model, vocab.txt or tokenizer.json in place of SRC's own",
    )
    flags = parser.parse_args(arguments)
    destination = Path(flags.destination)
    check_destination(destination)

    from albert_jax.interop.source import load

    model = load(flags.source, flags.vocabulary)
    for note in convert(model, destination, flags.to):
        print(f'note: {destination}: {note}')
    _report(model, destination, flags.to)
    return 0


def check_destination(destination: Path) -> None:
    """Refuses a destination that something would be lost at.

    Raises:
      UserError: if it exists and is not an empty directory.
    """
    try:
        is_free = not destination.exists() or not any(destination.iterdir())
    except NotADirectoryError:
        is_free = False
    except OSError as error:
        raise UserError(f'{destination} cannot be written: {error.strerror}.') from error
    if not is_free:
        raise UserError(f'{destination} exists already; choose another destination or remove it.')


def convert(model: 'Pretrained', destination: Path, to: str) -> tuple[str, ...]:
    """Writes a model in one of FORMATS, whole or not at all; gives notes, a sentence each.

    Raises:
      UserError: if the destination exists, cannot be written, or the format cannot hold the model.
    """
    from albert_jax.interop import huggingface, native

    with whole_directory(destination) as folder:
        if to == 'huggingface':
            return huggingface.write(model, folder)
        native.write(model, folder)
        return ()


@contextlib.contextmanager
def whole_directory(destination: Path) -> Iterator[Path]:
    """An empty directory that becomes `destination` if all goes well, and vanishes if not.

    Raises:
      UserError: if the destination exists or cannot be written.
    """
    check_destination(destination)
    parent = destination.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f'.{destination.name}-', dir=parent))
        try:
            whole = folder / 'whole'
            whole.mkdir()
            yield whole
            whole.rename(destination)
        except BaseException:
            _remove(folder)
            raise
        folder.rmdir()
    except UserError:
        raise
    except Exception as error:  # each writer has errors of its own for a full disk
        reason = getattr(error, 'strerror', None) or str(error).strip().split('\n')[0][:200]
        raise UserError(f'{destination} cannot be written: {reason}.') from error


def _remove(folder: Path) -> None:
    """Removes a directory that failed writes may still be making files in, for ten seconds.

    The first of Orbax's writes to fail ends its saving; the others go on beside us, and make the
    directories that they miss.
    """
    end = time.monotonic() + 10
    while folder.exists() and time.monotonic() < end:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.2)


def _report(model: 'Pretrained', destination: Path, to: str) -> None:
    import jax
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from albert_jax.interop.native import OPTIONAL_PARTS

    config = model.config
    count = sum(leaf.size for leaf in jax.tree.leaves(model.own_params()))
    table = Table(show_header=False, title=escape(str(destination)), title_justify='left')
    table.add_row('parameters', f'{count:,}')
    table.add_row(
        'model',
        f'{config.num_hidden_layers} layers of {config.hidden_size}, embeddings of '
        f'{config.embedding_size}, sharing {config.sharing}, {config.hidden_act}',
    )
    parts = [name for part, name in OPTIONAL_PARTS.items() if part not in model.initialised]
    if model.head is not None:
        parts.append(
            f'{model.head.kind} head ({", ".join(map(escape, model.head.labels)) or "no labels"})'
        )
    table.add_row('parts', ', '.join(parts) or 'encoder only')
    kind = type(model.tokenizer).__name__
    words = f'{model.tokenizer.vocab_size:,} pieces ({kind})' if model.tokenizer else 'none'
    table.add_row('vocabulary', words)
    Console().print(table)
    if to == 'huggingface':
        name = json.loads((destination / 'config.json').read_text())['architectures'][0]
        print(f"Next, in Python: transformers.{name}.from_pretrained('{destination}')")
    elif 'mlm' in model.initialised or model.tokenizer is None:
        print(f"Next, in Python: albert_jax.load('{destination}')")
    else:
        print(
            f'Next: python -m albert_jax.fill_mask --checkpoint={destination} '
            f"'A text with a [MASK] in it.'"
        )


if __name__ == '__main__':
    command.run(main)
