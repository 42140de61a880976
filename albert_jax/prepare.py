"""Turns text into a prepared corpus: `python -m albert_jax.prepare --help`."""

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from albert_jax.cli import command
from albert_jax.cli.errors import UserError

if TYPE_CHECKING:
    from albert_jax.cli.progress import Progress
    from albert_jax.data.corpus import Source
    from albert_jax.data.preparation import PreparationSettings

_DESCRIPTION = """\
Turn text into a corpus for pretraining: documents, sentences, piece ids, chunks.

Segments, masks and sentence order are drawn when the corpus is read, so nothing is stored twice.
The same input and settings give the same bytes, whatever the number of workers. Memory does not
grow with the corpus; --vocabulary=train samples at most 10 million sentences of it. A run that was
killed leaves OUTPUT.incomplete, which nothing takes for a corpus; start it again.
"""
_EPILOG = """\
inputs (repeat --input to mix several):
  builtin                      the documentation inside this Python installation, about 11 MB
  text:GLOB                    UTF-8 files, a blank line between documents; .gz too
  jsonl:GLOB                   JSON Lines, an object a line with a string under --text_key; .gz too
  tfds:NAME[/CONFIG][:SPLIT]   a data set of tensorflow-datasets, e.g. tfds:wikipedia/20230601.en

examples:
  python -m albert_jax.prepare --input=builtin --output=runs/corpus --vocabulary=train \\
      --vocab_size=4096 --sequence_length=64
  python -m albert_jax.prepare --input='jsonl:books/*.jsonl.gz' --output=runs/books \\
      --vocabulary=30k-clean.model
"""


def main(arguments: Sequence[str]) -> int:
    """Parses the flags, trains a vocabulary if asked, prepares."""
    parser = command.parser('albert_jax.prepare', _DESCRIPTION, _EPILOG)
    add_flags(parser)
    parser.add_argument(
        '--vocab_size', type=int, default=30000, help='pieces of a trained vocabulary (30000)'
    )
    parser.add_argument(
        '--workers', type=int, default=0, help='processes that tokenise; 0 for one a core'
    )
    flags = parser.parse_args(arguments)
    # What was begun is then removed, as after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))

    settings, sources = settings_of(flags), sources_of(flags)
    for source in sources:
        source.files()  # a glob that matches nothing is told before anything is read
    if flags.workers < 0:
        raise UserError(f'--workers is {flags.workers}; it must be 0 or above.')
    workers = flags.workers or os.cpu_count() or 1
    output = Path(flags.output)
    return run(sources, output, flags.vocabulary, flags.vocab_size, settings, workers)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Input, output and what decides the records."""
    parser.add_argument('--input', action='append', required=True, metavar='SOURCE', help='text')
    parser.add_argument('--output', required=True, help='directory of the corpus')
    parser.add_argument(
        '--vocabulary',
        required=True,
        metavar='MODEL|train',
        help='a SentencePiece model of ALBERT, or train to make one of this text',
    )
    parser.add_argument(
        '--sequence_length', type=int, default=512, help='longest sequence to train on (512)'
    )
    parser.add_argument(
        '--validation_fraction', type=float, default=0.01, help='documents held out (0.01)'
    )
    parser.add_argument('--seed', type=int, default=0, help='of the choice of held-out documents')
    parser.add_argument('--text_key', default='text', help='where the text is (text)')
    parser.add_argument(
        '--one_document_per_file', action='store_true', help='of text: inputs; not blank lines'
    )
    parser.add_argument('--keep_case', action='store_true', help='do not lower the case')
    parser.add_argument(
        '--keep_accents',
        action='store_true',
        help='do not decompose and drop accents (use it for Japanese, Korean and the like)',
    )
    clean = parser.add_argument_group('cleaning, each counted in corpus.json')
    clean.add_argument('--html', action='store_true', help='documents are HTML: take their text')
    clean.add_argument('--drop_control_characters', action='store_true')
    clean.add_argument('--drop_duplicates', action='store_true', help='exact duplicate documents')
    clean.add_argument(
        '--min_characters', type=int, default=0, help='shorter documents are left out'
    )


def settings_of(flags: argparse.Namespace) -> 'PreparationSettings':
    """What the flags decide of the records.

    Raises:
      UserError: if a value is impossible.
    """
    from albert_jax.data.preparation import PreparationSettings

    names = (
        'sequence_length', 'validation_fraction', 'seed', 'keep_case', 'keep_accents', 'html',
        'drop_control_characters', 'drop_duplicates', 'min_characters',
    )  # fmt: skip
    return PreparationSettings(**{name: getattr(flags, name) for name in names})


def sources_of(flags: argparse.Namespace) -> 'list[Source]':
    """The inputs, in their order.

    Raises:
      UserError: if one is no source.
    """
    from albert_jax.data.corpus import parse_source

    return [parse_source(spec, flags.text_key, flags.one_document_per_file) for spec in flags.input]


def run(
    sources: 'list[Source]',
    output: Path,
    vocabulary: str,
    vocab_size: int,
    settings: 'PreparationSettings',
    num_workers: int,
) -> int:
    """Prepares the corpus unless it is there already.

    Raises:
      UserError: if there is other content in `output`, or the text or vocabulary cannot be used.
    """
    from albert_jax.data import dataset
    from albert_jax.data.preparation import prepare, vocabulary_for
    from albert_jax.data.tokenizer import Tokenizer

    if dataset.is_prepared(output):
        return _already_there(output, sources, vocabulary, vocab_size, settings)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f'{output} exists and is no prepared corpus; choose another --output.')
    _check_writable(output)
    if vocabulary == 'train':
        print(f'Training a vocabulary of {vocab_size} pieces …', flush=True)
        model = vocabulary_for(sources, settings, vocab_size)
    else:
        model = Tokenizer.from_file(vocabulary).model
    with _progress(sum(map(_input_bytes, sources))) as progress:
        manifest = prepare(sources, output, model, settings, num_workers, progress.advance)
    report(manifest, output)
    return 0


def _check_writable(output: Path) -> None:
    """Refuses a destination that nothing can be written to, before hours are spent on it."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        probe = output.with_name(f'{output.name}.incomplete')
        probe.mkdir(exist_ok=True)
        (probe / 'probe').touch()
        shutil.rmtree(probe)
    except (OSError, ValueError) as error:
        reason = getattr(error, 'strerror', None) or 'give it a name'
        raise UserError(f'{output} cannot be written: {reason}.') from error


def _already_there(
    output: Path,
    sources: 'list[Source]',
    vocabulary: str,
    vocab_size: int,
    settings: 'PreparationSettings',
) -> int:
    from albert_jax.data import dataset
    from albert_jax.data.tokenizer import Tokenizer

    manifest = dataset.read_manifest(output)
    there = dataset.PreparedCorpus(output).tokenizer
    if vocabulary == 'train':
        is_same = there.vocab_size == vocab_size
    else:
        is_same = Tokenizer.from_file(vocabulary).sha256 == there.sha256
    wanted = settings.to_dict() | {'sources': [str(source) for source in sources]}
    present = manifest['settings'] | {'sources': manifest['sources']}
    differing = [name for name in wanted if wanted[name] != present.get(name)]
    differing += [] if is_same else ['vocabulary']
    if differing:
        raise UserError(
            f'{output} holds a corpus with another {", ".join(differing)}; choose another --output '
            f'or delete it.'
        )
    print(f'{output} is prepared already; delete it to prepare it anew.')
    return 0


def _input_bytes(source: 'Source') -> int:
    """About how much text there is; compressed files are guessed to be a third of theirs."""
    if source.kind == 'builtin':
        return 11_000_000
    paths = source.files()
    return sum(Path(path).stat().st_size * (3 if path.endswith('.gz') else 1) for path in paths)


def _progress(num_bytes: int) -> 'Progress':
    from rich.progress import DownloadColumn, TransferSpeedColumn

    from albert_jax.cli.progress import Progress

    def line(done: float, total: float, seconds: float) -> str:
        speed = done / seconds
        eta = f', ETA {(total - done) / speed:.0f} s' if total else ''
        return f'prepared {done / 1e6:.0f} MB, {speed / 1e6:.1f} MB/s{eta}'

    return Progress(
        'preparing', DownloadColumn(), TransferSpeedColumn(), line=line, total=num_bytes
    )


def report(manifest: dict[str, Any], output: Path | str) -> None:
    """Prints what a corpus holds, and what to do with it."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f'Prepared corpus {output}', show_header=False)
    for name, value in manifest['counts'].items():
        if isinstance(value, dict):
            for split, number in value.items():
                table.add_row(f'{name}/{split}', f'{number:,}')
        else:
            table.add_row(name, f'{value:,}')
    table.add_row('fingerprint', manifest['fingerprint'])
    Console().print(table)
    length = manifest['settings']['sequence_length']
    print(f'Wrote {output}. Next:')
    print(
        f'  python -m albert_jax.pretrain --config=configs/pretrain.py:base --workdir=runs/base '
        f'--config.data.path={output} --config.pretraining.sequence_length={length}'
    )


if __name__ == '__main__':
    command.run(main)
