"""Prepares a corpus on one machine: trains a vocabulary if asked, writes records, shows them."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import DownloadColumn, TransferSpeedColumn
from rich.table import Table

from albert_jax.cli import next_steps
from albert_jax.cli.errors import UserError, reason
from albert_jax.cli.files import incomplete
from albert_jax.cli.notes import note
from albert_jax.cli.progress import Progress
from albert_jax.data import dataset, source_notes, vocabulary_normalization
from albert_jax.data.corpus import Source
from albert_jax.data.preparation import prepare, vocabulary_for
from albert_jax.data.preparation_settings import PreparationSettings
from albert_jax.data.tokenizer import Tokenizer

# About as much as the documentation in a Python installation.
_BUILTIN_BYTES = 11_000_000
# Text is about so many times as large as its compressed file.
_GZIP_RATIO = 3
# A share of unknown tokens that a user must know of.
_MANY_UNKNOWN = 0.01


def run(
    sources: list[Source],
    output: Path,
    vocabulary: str,
    vocab_size: int,
    settings: PreparationSettings,
    num_workers: int,
) -> None:
    """Prepares the corpus unless it is there already, and prints what it holds.

    Args:
      sources: read in this order.
      output: a directory that does not exist, is empty, or holds this very corpus.
      vocabulary: file of a SentencePiece model, or 'train'.
      vocab_size: pieces of a trained vocabulary.
      settings: what decides the records.
      num_workers: processes that tokenise.

    Raises:
      UserError: if there is other content in `output`, or the text or vocabulary cannot be used.
    """
    for source in sources:
        source_notes.tell_of(source)  # before hours are spent on it
    given, asked = None, settings
    if vocabulary != 'train':
        given = Tokenizer.from_file(vocabulary)
        settings = vocabulary_normalization.settings_for(Path(vocabulary), given, settings)
    if dataset.is_prepared(output):
        _check_same(output, sources, vocabulary, vocab_size, asked, settings)
        print(f'{output} is prepared already; delete it to prepare it anew.')
        there = dataset.PreparedCorpus(output)
        _show_next(there.manifest, output, there.tokenizer.vocab_size)
        return
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f'{output} exists and is no prepared corpus; choose another --output.')
    _check_writable(output)
    if given is None:
        print(f'Training a vocabulary of {vocab_size} pieces …', flush=True)
        model = vocabulary_for(sources, settings, vocab_size)
    else:
        model = given.model
    with _progress(sum(map(_input_bytes, sources))) as progress:
        manifest = prepare(sources, output, model, settings, num_workers, progress.advance)
    show(manifest, output, Tokenizer(model).vocab_size)


def _check_same(
    output: Path,
    sources: Sequence[Source],
    vocabulary: str,
    vocab_size: int,
    asked: PreparationSettings,
    settings: PreparationSettings,
) -> None:
    """Compares a corpus with what is asked for.

    Earlier versions prepared it as it was asked for, without what the vocabulary needs.

    Raises:
      UserError: if anything differs.
    """
    manifest = dataset.read_manifest(output)
    present_tokenizer = dataset.PreparedCorpus(output).tokenizer
    if vocabulary == 'train':
        is_same = present_tokenizer.vocab_size == vocab_size
    else:
        is_same = Tokenizer.from_file(vocabulary).sha256 == present_tokenizer.sha256
    present = manifest['settings']
    used, named = settings.to_dict(), asked.to_dict()
    differing = [name for name in used if present.get(name) not in (used[name], named[name])]
    if manifest['sources'] != [str(source) for source in sources]:
        differing.append('sources')
    differing += [] if is_same else ['vocabulary']
    if differing:
        raise UserError(
            f'{output} holds a corpus with another {", ".join(differing)}; choose another --output '
            f'or delete it.'
        )


def _check_writable(output: Path) -> None:
    """Refuses a destination that nothing can be written to, before hours are spent on it."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        probe = incomplete(output)
        probe.mkdir(exist_ok=True)
        (probe / 'probe').touch()
        shutil.rmtree(probe)
    except ValueError as error:
        raise UserError(f'{output} cannot be written: give it a name.') from error
    except OSError as error:
        raise UserError(f'{output} cannot be written: {reason(error)}.') from error


def _input_bytes(source: Source) -> int:
    """About how much text there is."""
    if source.kind == 'builtin':
        return _BUILTIN_BYTES
    paths = source.files()
    return sum(
        Path(path).stat().st_size * (_GZIP_RATIO if path.endswith('.gz') else 1) for path in paths
    )


def _progress(num_bytes: int) -> Progress:
    return Progress(
        'preparing', DownloadColumn(), TransferSpeedColumn(), line=_progress_line, total=num_bytes
    )


def _progress_line(done: float, total: float, seconds: float) -> str:
    speed = done / seconds
    eta = f', ETA {(total - done) / speed:.0f} s' if total else ''
    return f'prepared {done / 1e6:.0f} MB, {speed / 1e6:.1f} MB/s{eta}'


def show(manifest: Mapping[str, Any], output: Path | str, vocab_size: int) -> None:
    """Prints what a corpus holds, and what to do with it.

    Args:
      manifest: of the corpus.
      output: where it is.
      vocab_size: of its vocabulary.
    """
    table = Table(title=f'Prepared corpus {output}', show_header=False)
    counts = manifest['counts']
    num_tokens = sum(counts.get(f'tokens/{split}', 0) for split in dataset.SPLITS)
    unknown_share = counts.get('tokens_unknown', 0) / max(num_tokens, 1)
    for name, value in counts.items():
        if isinstance(value, dict):
            for split, number in value.items():
                table.add_row(f'{name}/{split}', f'{number:,}')
        elif name == 'tokens_unknown':
            table.add_row(name, f'{value:,} ({unknown_share:.2%})')
        else:
            table.add_row(name, f'{value:,}')
    table.add_row('fingerprint', manifest['fingerprint'])
    Console().print(table)
    if unknown_share > _MANY_UNKNOWN:
        note(
            f'{unknown_share:.1%} of the tokens are unknown: the vocabulary lacks characters of '
            f'this text; train one of it with --vocabulary=train.'
        )
    print(f'Wrote {output}.')
    _show_next(manifest, output, vocab_size)


def _show_next(manifest: Mapping[str, Any], output: Path | str, vocab_size: int) -> None:
    if not manifest['counts']['chunks'].get('validation'):
        note(
            f'{output} has no documents in validation, on which pretraining evaluates; prepare '
            f'the text again with a larger --validation_fraction, or with more documents.'
        )
        return
    length = manifest['settings']['sequence_length']
    next_steps.show(next_steps.pretrain(output, vocab_size, length))
