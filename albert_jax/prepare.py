"""Turns text into a prepared corpus: `python -m albert_jax.prepare --help`."""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from albert_jax.cli import command
from albert_jax.cli.errors import UserError
from albert_jax.data.preparation_settings import (
    PreparationSettings,
    add_flags,
    sources_from_flags,
)

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
  python -m albert_jax.prepare --input=text:pairs.en --input=text:pairs.de --output=runs/pairs \\
      --vocabulary=train --vocab_size=8000 --keep_case --keep_accents
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
    signal.signal(signal.SIGTERM, _exit)
    settings, sources = PreparationSettings.from_flags(flags), sources_from_flags(flags)
    if flags.workers < 0:
        raise UserError(f'--workers is {flags.workers}; it must be 0 or above.')
    num_workers = flags.workers or os.cpu_count() or 1

    from albert_jax.data import preparation_job

    preparation_job.run(
        sources, Path(flags.output), flags.vocabulary, flags.vocab_size, settings, num_workers
    )
    return 0


def _exit(number: int, frame: FrameType | None) -> None:
    """Exits as after Ctrl-C, so that what was begun is removed."""
    del frame
    sys.exit(128 + number)


if __name__ == '__main__':
    command.run(main)
