"""What all commands share: configs from files and overrides, one sentence for a mistake."""

import argparse
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from absl import logging

from albert_jax.cli import config_file
from albert_jax.cli.compiled import keep_programs
from albert_jax.cli.errors import UserError, first_line, raise_all
from albert_jax.cli.libtpu import silence_without_chips
from albert_jax.cli.paths import expand, local_path
from albert_jax.cli.phase import tell_of_imports
from albert_jax.cli.settings import Field, Settings, all_fields


def run(main: Callable[[Sequence[str]], int | None]) -> None:
    """Runs a command and exits: 0 if it did its work, 2 with one sentence for a user's mistake."""
    # What the compiler and the checkpoint library tell is no business of the person who waits.
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    logging.set_verbosity(logging.ERROR)
    silence_without_chips()
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
    if runs:
        epilog = f'{epilog}\n{_list_of_fields(_fields(runs))}'
    made = argparse.ArgumentParser(
        prog=f'python -m {module}',
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=not runs,
    )
    if runs:
        made.add_argument(
            '-h', '--help', action=_Help, nargs='?', metavar='SECTION', fields=_fields(runs),
            help='show this and all fields of the config, or those of a section alone',
        )  # fmt: skip
    return made


class _Help(argparse.Action):
    """Shows the whole help, or the fields of one section."""

    def __init__(
        self, option_strings: Sequence[str], dest: str, fields: Sequence[Field], **rest: Any
    ) -> None:
        super().__init__(option_strings, dest, **rest)
        self._fields = fields

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        del namespace, option_string
        if values is None:
            parser.print_help()
            parser.exit()
        sections = dict.fromkeys(field.address.rpartition('.')[0] for field in self._fields)
        # A field of a section, and the flag of either, ask for the section.
        name = str(values).removeprefix('--').removeprefix('config.').partition('=')[0]
        section = name if name in sections else name.rpartition('.')[0]
        if not section or section not in sections:
            names = ', '.join(filter(None, sections))
            raise UserError(f'--help={values}: there is no such section; there are {names}.')
        chosen = [field for field in self._fields if field.address.rpartition('.')[0] == section]
        print(_list_of_fields(chosen), end='')
        parser.exit()


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the two flags of every command that trains."""
    parser.add_argument(
        '--config', required=True, type=expand, metavar='FILE:NAME', help='what to train, and how'
    )
    parser.add_argument(
        '--workdir', required=True, type=local_path, help='where checkpoints and metrics go'
    )


def _fields(runs: Sequence[type[Settings]]) -> list[Field]:
    """The fields of some kinds of runs, each once."""
    return list({field.address: field for run in runs for field in all_fields(run)}.values())


def _list_of_fields(fields: Sequence[Field]) -> str:
    """Every field that --config.FIELD=VALUE can set, a line or two each."""
    lines = ['fields of the config, with their defaults (the named config may have others):']
    for field in fields:
        is_of_size = field.default is None and field.address.startswith('model.')
        default = "the size's" if is_of_size else repr(field.default)
        bounds = f'; {field.bounds}' if field.bounds else ''
        lines += [
            f'  --config.{field.address}={default}',
            *textwrap.wrap(
                f'{field.doc} ({field.kind}{bounds})', 98, initial_indent=' ' * 6,
                subsequent_indent=' ' * 6,
            ),
        ]  # fmt: skip
    return '\n'.join(lines) + '\n'


def read_config(argument: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The config of `FILE.py:NAME` after overrides of the form `--config.FIELD=VALUE`.

    Raises:
      UserError: if the file, name or field does not exist or a value is of the wrong type.
    """
    config = config_file.read(argument, overrides)
    raise_all(config.errors)
    return config.values
