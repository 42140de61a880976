"""What all commands share: configs from files and overrides, one sentence for a mistake."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import logging

from albert_jax.cli import config_file
from albert_jax.cli.allocator import keep_freed_memory
from albert_jax.cli.compiled import keep_programs
from albert_jax.cli.config_help import ConfigParser
from albert_jax.cli.errors import UserError, first_line, raise_all
from albert_jax.cli.libtpu import silence_without_chips
from albert_jax.cli.paths import expand, local_path
from albert_jax.cli.phase import tell_of_imports
from albert_jax.cli.settings import Settings
from albert_jax.cli.streams import escape_what_cannot_be_written


def run(main: Callable[[Sequence[str]], int | None], trains: bool = False) -> None:
    """Runs a command and exits: 0 if it did its work, 2 with one sentence for a user's mistake.

    Args:
      main: takes the arguments; returns the exit status.
      trains: whether it runs one program many times.
    """
    # What the compiler and the checkpoint library tell is no business of the person who waits.
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    logging.set_verbosity(logging.ERROR)
    silence_without_chips()
    escape_what_cannot_be_written()
    if trains:
        keep_freed_memory()
    keep_programs()
    tell_of_imports()
    try:
        status = main(sys.argv[1:])
    except UserError as error:
        for part in error.parts:
            print(f'error: {part}', file=sys.stderr)
        status = 2
    except BrokenPipeError:
        status = 1
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        print(
            f'error: there is not enough memory ({first_line(error)}); take fewer examples at once '
            f'(--config.loop.num_microbatches, --batch_size), shorter ones, or a smaller model.',
            file=sys.stderr,
        )
        status = 2
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        status = 130
    sys.exit(status or 0)


def _is_out_of_memory(error: Exception) -> bool:
    """Whether Python or a device has no memory left. Without JAX, whose error it may be."""
    is_of_jax = type(error).__name__ in ('JaxRuntimeError', 'XlaRuntimeError')
    return isinstance(error, MemoryError) or (is_of_jax and 'RESOURCE_EXHAUSTED' in str(error))


def parser(
    module: str, description: str, epilog: str, *runs: type[Settings]
) -> argparse.ArgumentParser:
    """An argument parser that shows its texts as they are written.

    Args:
      module: that is run with `python -m`.
      description: what the command does.
      epilog: examples.
      runs: what its config may describe, whose fields are listed at the end.
    """
    shown: dict[str, Any] = {
        'prog': f'python -m {module}',
        'description': description,
        'epilog': epilog,
        'formatter_class': argparse.RawDescriptionHelpFormatter,
        'allow_abbrev': False,
    }
    return ConfigParser(runs, **shown) if runs else argparse.ArgumentParser(**shown)


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the two flags of every command that trains."""
    parser.add_argument(
        '--config', required=True, type=expand, metavar='FILE:NAME', help='what to train, and how'
    )
    parser.add_argument(
        '--workdir', required=True, type=local_path, help='where checkpoints and metrics go'
    )


def read_config(argument: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The config of `FILE.py:NAME` after overrides of the form `--config.FIELD=VALUE`.

    Raises:
      UserError: if the file, name or field does not exist or a value is of the wrong type.
    """
    config = config_file.read(argument, overrides)
    raise_all(config.errors)
    return config.values
