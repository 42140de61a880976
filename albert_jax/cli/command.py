"""What all commands share: configs from files and overrides, one sentence for a mistake."""

import argparse
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from albert_jax.cli.errors import UserError
from albert_jax.cli.settings import Settings, all_fields


def run(main: Callable[[Sequence[str]], int | None]) -> None:
    """Runs a command and exits: 0 if it did its work, 2 with one sentence for a user's mistake."""
    # What the compiler and the checkpoint library tell is no business of the person who waits.
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    logging.set_verbosity(logging.ERROR)
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
        '--config', required=True, metavar='FILE:NAME', help='what to train, and how'
    )
    parser.add_argument(
        '--workdir', required=True, type=Path, help='where checkpoints and metrics go'
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

    Raises:
      UserError: if the file, name or field does not exist or a value is of the wrong type.
    """
    from absl import flags
    from ml_collections import config_flags

    path = argument.partition(':')[0]
    if not Path(path).is_file():
        raise UserError(f'--config={argument}: there is no file {path}.')
    # A config may build on its neighbours, wherever the command is run.
    root = str(Path(path).resolve().parents[1])
    if root not in sys.path:
        sys.path.append(root)
    for override in overrides:
        if not override.startswith('--config.'):
            raise UserError(
                f'{override} is not an argument of this command; a field of the config is set '
                f'with --config.FIELD=VALUE.'
            )
    values = flags.FlagValues()
    arguments = ['command', f'--config={argument}', *overrides]
    config_flags.DEFINE_config_file('config', flag_values=values, sys_argv=arguments)
    try:
        values(arguments)
        return values.config.to_dict()
    except UserError:
        raise
    except KeyboardInterrupt:
        raise
    except Exception as error:  # flags, ml_collections and the config file itself all raise others
        raise UserError(f'--config={argument}: {_reason(error, overrides)}') from error


def _reason(error: Exception, overrides: Sequence[str]) -> str:
    """What is wrong, of whatever ml_collections makes of it."""
    text = str(error.args[0] if error.args else error).strip()
    if text[:1] == text[-1:] == "'":
        text = text[1:-1]
    lines = text.replace('\\n', '\n').splitlines() or [type(error).__name__]
    if any(line.startswith('Traceback') for line in lines):
        # An error inside the config file: its last line has type and message.
        return lines[-1].partition(': ')[2] or lines[-1]
    if isinstance(error, KeyError | AttributeError | TypeError) or 'Did you mean' in text:
        fields = ' '.join(override.partition('=')[0] for override in overrides)
        hint = next((line for line in lines if 'Did you mean' in line), '')
        return f'one of {fields} is not a field of the config ({lines[0]}). {hint}'.strip()
    return lines[0]
