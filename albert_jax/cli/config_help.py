"""--help of a command that takes a config: its fields, with the values of the named config."""

import argparse
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from albert_jax.cli import config_file
from albert_jax.cli.errors import UserError
from albert_jax.cli.notes import note
from albert_jax.cli.paths import expand
from albert_jax.cli.settings import Field, Settings, all_fields, declared


class ConfigParser(argparse.ArgumentParser):
    """A parser that answers --help and --help=SECTION before it asks for anything.

    A config and overrides beside it, in any order, give the values that are shown.
    """

    def __init__(self, runs: Sequence[type[Settings]], **rest: Any) -> None:
        super().__init__(add_help=False, **rest)
        self._runs = runs
        _add_help(self)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, once nobody asks for help."""
        arguments = sys.argv[1:] if args is None else list(args)
        asking = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        _add_help(asking)
        asking.add_argument('--config', nargs='?', type=expand)
        asked, rest = asking.parse_known_args(arguments)
        if asked.help is not None:
            config = asked.config if '--config' in self._option_string_actions else None
            self._answer(asked.help, config, [x for x in rest if x.startswith('--config.')])
        return super().parse_known_args(arguments, namespace)

    def _answer(self, section: str, config: str | None, overrides: Sequence[str]) -> None:
        if config:
            head = f'fields of the config, with their values in {config}'
            head += ' and on this command line:' if overrides else ':'
            fields = _fields_in_config(self._runs, config, overrides)
        else:
            head = 'fields of the config, with their defaults ('
            is_read = '--config' in self._option_string_actions
            head += '--config=FILE:NAME beside --help shows its values' if is_read else 'a config'
            head += '):' if is_read else ' may have others):'
            fields = _fields(self._runs)
        chosen = _in_section(section, fields) if section else fields
        if not section:
            print(self.format_help())
        print(head, *_lines(chosen), sep='\n')
        self.exit()


def _add_help(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '-h', '--help', nargs='?', const='', metavar='SECTION',
        help='show this and all fields of the config, or those of a section alone',
    )  # fmt: skip


def _fields(runs: Sequence[type[Settings]]) -> list[Field]:
    """The fields of some kinds of runs, each once, with their defaults."""
    fields = (field for run in runs for field in _with_values(run, run()))
    return list({field.address: field for field in fields}.values())


def _with_values(run: type[Settings], settings: Settings) -> Iterator[Field]:
    values = dict(_values(settings))
    return (field._replace(default=values[field.address]) for field in all_fields(run))


def _fields_in_config(
    runs: Sequence[type[Settings]], argument: str, overrides: Sequence[str]
) -> list[Field]:
    """The fields with their values in a config, of several kinds of runs those that it has.

    A note tells what is wrong with an override; the fields are what helps against it.

    Raises:
      UserError: if the file or the name does not exist or fails.
    """
    config = config_file.read(argument, overrides)
    fields: dict[str, Field] = {}
    for run in runs:
        names = [field.name for field in declared(run) if field.name in config.values]
        if len(runs) > 1 and not names:
            continue
        reading = run.read({name: config.values[name] for name in names})
        fields |= {
            field.address: field
            for field in _with_values(run, reading.settings)
            if len(runs) == 1 or field.address.partition('.')[0] in names
        }
    for error in config.errors:
        note(str(error))
    return list(fields.values())


def _values(settings: Settings) -> Iterator[tuple[str, Any]]:
    """Every value by its address, with what fields that are left open stand for."""
    for name, value in settings.effective().items():
        if isinstance(value, Settings):
            yield from _values(value)
        else:
            yield settings.address(name), value


def _in_section(asked: str, fields: Sequence[Field]) -> list[Field]:
    """The fields of a section, which a field of it and the flag of either ask for, too.

    Raises:
      UserError: if there is no such section.
    """
    sections = dict.fromkeys(field.address.rpartition('.')[0] for field in fields)
    name = asked.removeprefix('--').removeprefix('config.').partition('=')[0]
    section = name if name in sections else name.rpartition('.')[0]
    if not section or section not in sections:
        names = ', '.join(filter(None, sections))
        raise UserError(f'--help={asked}: there is no such section; there are {names}.')
    return [field for field in fields if field.address.rpartition('.')[0] == section]


def _lines(fields: Sequence[Field]) -> Iterator[str]:
    """Every field that --config.FIELD=VALUE can set, a line or two each."""
    has_size = any(field.address == 'model.size' and field.default for field in fields)
    for field in fields:
        is_of_size = field.address.startswith('model.') and field.address != 'model.size'
        is_open = field.default is None and is_of_size and not has_size
        default = "the size's" if is_open else repr(field.default)
        bounds = f'; {field.bounds}' if field.bounds else ''
        yield f'  --config.{field.address}={default}'
        yield from textwrap.wrap(
            f'{field.doc} ({field.kind}{bounds})', 98, initial_indent=' ' * 6,
            subsequent_indent=' ' * 6,
        )  # fmt: skip
