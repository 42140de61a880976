"""Configs: a Python file and what the command line sets in it."""

import dataclasses
import difflib
import importlib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from albert_jax.cli.errors import UserError, first_line
from albert_jax.cli.paths import expand
from albert_jax.cli.python_file import error_in_file, load_python_file
from albert_jax.cli.sections import flatten_sections

if TYPE_CHECKING:
    from ml_collections import ConfigDict

CHECKOUT = Path(__file__).parents[2]
_CONFIGS = 'configs'
# Shown for a field that is not there.
_MOST_NAMES = 3


@dataclasses.dataclass
class Config:
    """A config as it was read, and what is wrong with the command line.

    Args:
      argument: FILE.py:NAME.
      parent: the sections of the file.
      values: the same with the overrides that could be set.
      given: addresses of the fields that are set on the command line.
      errors: of the overrides that could not.
    """

    argument: str
    parent: dict[str, Any]
    values: dict[str, Any]
    given: frozenset[str]
    errors: list[UserError]


def read(argument: str, overrides: Sequence[str]) -> Config:
    """The config of `FILE.py:NAME` after overrides of the form `--config.FIELD=VALUE`.

    A value of a misspelled field is set in the field that is nearest, so that the rest can be
    checked as it is meant.

    Args:
      argument: FILE.py:NAME.
      overrides: arguments that the command itself does not know.

    Raises:
      UserError: if the file or the name does not exist or fails.
    """
    config = _load(argument)
    parent = config.to_dict()
    fields = flatten_sections(parent)
    errors: list[UserError] = []
    given = set()
    for override in overrides:
        flag, equals, text = override.partition('=')
        try:
            if not flag.startswith('--config.'):
                raise UserError(
                    f'{override} is not an argument of this command; a field of the config is set '
                    f'with --config.FIELD=VALUE.'
                )
            address = flag.removeprefix('--config.')
            given.add(address)
            if not _is_field(address, fields):
                near = nearest(address, fields)
                errors.append(_unknown(flag, fields, near))
                if len(near) != 1 or not equals:
                    continue
                address = near[0]
                given.add(address)
            _set(config, address, text if equals else None, fields)
        except UserError as error:
            errors.append(error)
    return Config(argument, parent, config.to_dict(), frozenset(given), errors)


def nearest(address: str, fields: Mapping[str, Any]) -> list[str]:
    """The fields that an address may be meant for, the likeliest first.

    Args:
      address: of no field.
      fields: by their addresses.
    """
    name = address.rpartition('.')[2]
    same = [field for field in fields if field.rpartition('.')[2] == name]
    if same:
        return same[:_MOST_NAMES]
    near = difflib.get_close_matches(address, fields, n=_MOST_NAMES, cutoff=0.8)
    if near:
        # The spelling of the best may be that of a few.
        return near[:1] if _likeness(address, near[0]) > 0.9 else near
    by_name = {field.rpartition('.')[2]: field for field in fields}
    return [by_name[x] for x in difflib.get_close_matches(name, by_name, n=_MOST_NAMES, cutoff=0.7)]


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def _is_field(address: str, fields: Mapping[str, Any]) -> bool:
    """Whether there is such a field, or such a section."""
    return any(f'{field}.'.startswith(f'{address}.') for field in fields)


def _unknown(flag: str, fields: Mapping[str, Any], near: Sequence[str]) -> UserError:
    sections = dict.fromkeys(field.rpartition('.')[0] for field in fields if '.' in field)
    section = flag.removeprefix('--config.').rpartition('.')[0]
    if section not in sections and near:
        section = near[0].rpartition('.')[0]
    meant = f'did you mean {" or ".join(near)}? ' if near else ''
    listed = (
        f'--help={section} lists the fields there.'
        if section in sections
        else f'--help=SECTION lists the fields of {", ".join(sections)}.'
    )
    return UserError(f'{flag} is not a field of the config; {meant}{listed}')


def _set(config: 'ConfigDict', address: str, text: str | None, fields: Mapping[str, Any]) -> None:
    """Sets a field to the value on the command line, None where there is none behind its name.

    Raises:
      UserError: if it is a section, or the value is of another type.
    """
    from absl import flags
    from ml_collections import config_flags

    flag = f'--config.{address}'
    if address not in fields:
        raise UserError(
            f'{flag} is a section; set one of its fields with {flag}.FIELD=VALUE '
            f'(--help={address} lists them).'
        )
    if text is None and not isinstance(fields[address], bool):
        raise UserError(f'{flag} has no value; write {flag}=VALUE.')
    values = flags.FlagValues()
    arguments = ['command', flag if text is None else f'{flag}={text}']
    try:
        config_flags.DEFINE_config_dict('config', config, flag_values=values, sys_argv=arguments)
        values(arguments)
    except Exception as error:  # flags and ml_collections raise errors of many types
        kind = type(fields[address]).__name__
        wanted = {'int': 'a whole number', 'float': 'a number', 'bool': 'True or False'}.get(kind)
        told = f'it must be {wanted}' if wanted else _plain(first_line(error))
        raise UserError(f'{flag} is {text!r}; {told}.') from error


def _plain(message: str) -> str:
    """A message without the flag that it begins with."""
    return re.sub(r'^flag \S+: ', '', message).rstrip('.')


def _load(argument: str) -> 'ConfigDict':
    """What `get_config` of the file gives for the name, or without one for nothing.

    The file is run here and not by ml_collections, which loads it in a way that Python 3.15 does
    not have.
    """
    from ml_collections import ConfigDict

    path, colon, name = expand(argument).partition(':')
    if not Path(path).is_file():
        raise UserError(f'--config={argument}: there is no file {path}.')
    try:
        _make_importable(Path(path).resolve().parent.parent)
        get_config = load_python_file(path, 'config_config').get_config
        config = get_config(name) if colon else get_config()
    except Exception as error:  # a person's own file can raise anything
        raise UserError(f'--config={argument}: {error_in_file(error, path)}') from error
    if not isinstance(config, ConfigDict):
        raise UserError(
            f'--config={argument}: get_config gives {type(config).__name__}, not a ConfigDict.'
        )
    return config


def _make_importable(root: Path) -> None:
    """Lets a config build on its neighbours and on this checkout's, wherever the command is run.

    Args:
      root: the folder above that of the config.
    """
    roots = [root, CHECKOUT] if (CHECKOUT / _CONFIGS).is_dir() else [root]
    for folder in roots:
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    # A folder of one's own may have the name of the checkout's.
    folders = [str(folder / _CONFIGS) for folder in roots if (folder / _CONFIGS).is_dir()]
    if folders:
        package = importlib.import_module(_CONFIGS)
        for folder in folders:
            if folder not in list(package.__path__):
                package.__path__.append(folder)
