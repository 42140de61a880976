"""What all commands share: configs from files and overrides, one sentence for a mistake."""

import argparse
import difflib
import os
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import logging

from albert_jax.cli.errors import UserError, first_line
from albert_jax.cli.libtpu import silence_without_chips
from albert_jax.cli.paths import expand, local_path
from albert_jax.cli.python_file import error_in_file, load_python_file
from albert_jax.cli.sections import flatten_sections
from albert_jax.cli.settings import Settings, all_fields

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def run(main: Callable[[Sequence[str]], int | None]) -> None:
    """Runs a command and exits: 0 if it did its work, 2 with one sentence for a user's mistake."""
    # What the compiler and the checkpoint library tell is no business of the person who waits.
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    logging.set_verbosity(logging.ERROR)
    silence_without_chips()
    try:
        status = main(sys.argv[1:])
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        status = 2
    except BrokenPipeError:
        status = 1
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        status = 130
    sys.exit(status or 0)


def cache() -> Path:
    """Where what can be made again is kept: below XDG_CACHE_HOME, or ~/.cache."""
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(base) / 'albert_jax'


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
        epilog = f'{epilog}\n{_list_of_fields(runs)}'
    return argparse.ArgumentParser(
        prog=f'python -m {module}',
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the two flags of every command that trains."""
    parser.add_argument(
        '--config', required=True, type=expand, metavar='FILE:NAME', help='what to train, and how'
    )
    parser.add_argument(
        '--workdir', required=True, type=local_path, help='where checkpoints and metrics go'
    )


def _list_of_fields(runs: Sequence[type[Settings]]) -> str:
    """Every field that --config.FIELD=VALUE can set, a line or two each."""
    lines = ['fields of the config, with their defaults (the named config may have others):']
    fields = {field.address: field for run in runs for field in all_fields(run)}
    for field in fields.values():
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

    The file is run here and not by ml_collections, which loads it in a way that Python 3.15 does
    not have.

    Raises:
      UserError: if the file, name or field does not exist or a value is of the wrong type.
    """
    from absl import flags
    from ml_collections import config_flags

    config = _load_config(argument)
    for override in overrides:
        if not override.startswith('--config.'):
            raise UserError(
                f'{override} is not an argument of this command; a field of the config is set '
                f'with --config.FIELD=VALUE.'
            )
        _check_field(override.partition('=')[0], flatten_sections(config.to_dict()))
    values = flags.FlagValues()
    arguments = ['command', *overrides]
    try:
        config_flags.DEFINE_config_dict('config', config, flag_values=values, sys_argv=arguments)
        values(arguments)
        return values.config.to_dict()
    except Exception as error:  # flags and ml_collections raise errors of many types
        raise UserError(f'--config={argument}: {first_line(error)}') from error


def _load_config(argument: str) -> 'ConfigDict':
    """What `get_config` of the file gives for the name, or without one for nothing."""
    from ml_collections import ConfigDict

    path, colon, name = expand(argument).partition(':')
    if not Path(path).is_file():
        raise UserError(f'--config={argument}: there is no file {path}.')
    # A config may build on its neighbours, wherever the command is run.
    root = str(Path(path).resolve().parents[1])
    if root not in sys.path:
        sys.path.append(root)
    try:
        get_config = load_python_file(path, 'config_config').get_config
        config = get_config(name) if colon else get_config()
    except Exception as error:  # a person's own file can raise anything
        raise UserError(f'--config={argument}: {error_in_file(error, path)}') from error
    if not isinstance(config, ConfigDict):
        raise UserError(
            f'--config={argument}: get_config gives {type(config).__name__}, not a ConfigDict.'
        )
    return config


def _check_field(flag: str, fields: Mapping[str, Any]) -> None:
    """Refuses `--config.ADDRESS` where the config has neither such a field nor such a section."""
    address = flag.removeprefix('--config.')
    if any(f'{field}.'.startswith(f'{address}.') for field in fields):
        return
    name = address.rpartition('.')[2]
    close = [field for field in fields if field.rpartition('.')[2] == name]
    close = close or difflib.get_close_matches(address, fields, n=1)
    hint = f'did you mean {" or ".join(close)}?' if close else '--help lists all fields.'
    raise UserError(f'{flag} is not a field of the config; {hint}')
