"""Frozen dataclasses that check themselves: what a section of a config becomes before it is used.

A field declares everything about itself in one place: its name, type, bounds, meaning and default,
as in `num_steps: Annotated[int, Positive, 'optimizer updates'] = 125_000`.
"""

import dataclasses
import difflib
import functools
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar

from albert_jax.cli.errors import UserError, is_about, raise_all
from albert_jax.cli.paths import expand

SettingsT = TypeVar('SettingsT')


@dataclasses.dataclass(frozen=True)
class Bound:
    """What a value of a field must satisfy.

    Args:
      phrase: what the value must be, to follow 'it must be'.
      holds: whether a value is so.
    """

    phrase: str
    holds: Callable[[Any], bool]


Positive = Bound('above 0', lambda value: value > 0)
NonNegative = Bound('0 or above', lambda value: value >= 0)
Probability = Bound('at least 0 and below 1', lambda value: 0 <= value < 1)


class LocalPath:
    """Marks a text field that is a path, or may be one: a leading ~ is the home folder."""


def at_least(lowest: int) -> Bound:
    """The bound of a number that has a lowest value."""
    return Bound(f'{lowest} or above', lambda value: value >= lowest)


def below(limit: int, shown: str) -> Bound:
    """The bound of a number that has to stay below a limit, which is written as `shown`."""
    return Bound(f'below {shown}', lambda value: value < limit)


def one_of(*allowed: str) -> Bound:
    """The bound of a name that is one of a few."""
    return Bound(f'one of {", ".join(allowed)}', lambda value: value in allowed)


class Declared(NamedTuple):
    """A field as its class declares it."""

    name: str
    # int, float, bool, str, or a class of settings.
    kind: type
    # Whether None, for 'not given', is a value.
    is_optional: bool
    bounds: tuple[Bound, ...]
    # Whether its text may be a path.
    is_path: bool
    # Meaning and unit.
    doc: str
    default: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of the sections of a config, and of a whole config as a section of sections.

    Raises:
      UserError: if a value has another type than its field, or is outside its bounds.
    """

    # Where the fields stand in a config; empty for the config itself.
    SECTION: ClassVar[str] = ''

    def __post_init__(self) -> None:
        errors: list[UserError] = []
        for field in declared(type(self)):
            try:
                value = checked(self.address(field.name), field, getattr(self, field.name))
            except UserError as error:
                errors.append(error)
            else:
                object.__setattr__(self, field.name, value)
        raise_all(errors or self.all_conflicts())

    def conflicts(self) -> Iterator[str]:
        """A sentence for each set of fields that do not fit together.

        Subclasses override it. It may also raise the UserError of what is made from the fields.
        """
        return iter(())

    def all_conflicts(self) -> list[UserError]:
        """The conflicts as errors, up to one that was raised."""
        errors: list[UserError] = []
        try:
            for sentence in self.conflicts():
                errors.append(UserError(sentence))
        except UserError as error:
            errors.append(error)
        return errors

    @classmethod
    def address(cls, name: str) -> str:
        """A field's name in the config, as in `loop.num_steps`."""
        return f'{cls.SECTION}.{name}' if cls.SECTION else name

    def to_dict(self) -> dict[str, Any]:
        """All fields, for JSON."""
        return dataclasses.asdict(self)

    def effective(self) -> dict[str, Any]:
        """The fields by their names, with what those that are left open stand for.

        Subclasses override it.
        """
        return {field.name: getattr(self, field.name) for field in declared(type(self))}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Settings from a mapping of field names; fields left out keep their defaults.

        Raises:
          UserError: if a name is not a field or a value is impossible, with all that is wrong.
        """
        reading = cls.read(values)
        raise_all(reading.errors)
        return reading.settings

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> 'Reading[Self]':
        """As `from_dict`, with what is wrong beside the settings: nothing is raised."""
        fields = {field.name: field for field in declared(cls)}
        read: dict[str, Any] = {}
        errors: list[UserError] = []
        wrong: list[str] = []
        for name, value in values.items():
            try:
                if name not in fields:
                    raise UserError(f'{cls.address(name)} is not a field; {_hint(name, fields)}')
                field = fields[name]
                if not issubclass(field.kind, Settings):
                    read[name] = checked(cls.address(name), field, value)
                    continue
                if not isinstance(value, Mapping):
                    raise UserError(
                        f'{cls.address(name)} is {value!r}; it must be a section of fields.'
                    )
                section = field.kind.read(value)
                read[name] = section.settings
                errors += section.errors
                wrong += section.wrong
            except UserError as error:
                errors.append(error)
                wrong.append(cls.address(name))
        # Not by __init__, which raises what is collected here.
        settings = object.__new__(cls)
        for field in declared(cls):
            object.__setattr__(settings, field.name, read.get(field.name, field.default))
        conflicts = [part for error in settings.all_conflicts() for part in error.parts]
        errors += [e for e in conflicts if not any(is_about(e, address) for address in wrong)]
        return Reading(settings, errors, wrong)


@dataclasses.dataclass(frozen=True)
class Reading(Generic[SettingsT]):
    """What was read, and what is wrong with it."""

    # Fields that are wrong have their defaults.
    settings: SettingsT
    # All that is wrong, but what follows from a field that is.
    errors: list[UserError]
    # Addresses of the fields that are wrong by themselves.
    wrong: list[str]


def checked(address: str, field: Declared, value: Any) -> Any:
    """The value of a field as the settings keep it.

    Args:
      address: of the field, for messages.
      field: as it is declared.
      value: that is given.

    Raises:
      UserError: if it has another type than the field, or is outside its bounds.
    """
    if field.kind is float and type(value) is int:
        value = float(value)
    if value is None and field.is_optional:
        return value
    if type(value) is not field.kind:
        raise UserError(
            f'{address} is {value!r} ({type(value).__name__}); it must be of type '
            f'{field.kind.__name__}.'
        )
    for bound in field.bounds:
        if not bound.holds(value):
            raise UserError(f'{address} is {value!r}; it must be {bound.phrase}.')
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f'{address} is {value!r}; it must be a finite number.')
    return expand(value) if field.is_path and isinstance(value, str) else value


@functools.cache
def declared(settings: type[Settings]) -> tuple[Declared, ...]:
    """The fields of a class of settings, in order."""
    hints = typing.get_type_hints(settings, include_extras=True)
    return tuple(_declared(field, hints[field.name]) for field in dataclasses.fields(settings))


def _declared(field: dataclasses.Field[Any], hint: Any) -> Declared:
    extras: tuple[Any, ...] = ()
    if typing.get_origin(hint) is typing.Annotated:
        hint, *extras_list = typing.get_args(hint)
        extras = tuple(extras_list)
    is_optional = typing.get_origin(hint) in (typing.Union, types.UnionType)
    if is_optional:
        hint = next(kind for kind in typing.get_args(hint) if kind is not type(None))
    default = field.default
    if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    return Declared(
        field.name,
        hint,
        is_optional,
        tuple(extra for extra in extras if isinstance(extra, Bound)),
        LocalPath in extras,
        ' '.join(extra for extra in extras if isinstance(extra, str)),
        default,
    )


def _hint(name: str, fields: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, fields, n=1)
    return f'did you mean {close[0]}?' if close else f'there are {", ".join(fields)}.'


class Field(NamedTuple):
    """A field of a whole config, for a list of them."""

    # As on the command line, `loop.num_steps`.
    address: str
    kind: str
    default: Any
    bounds: str
    doc: str


def all_fields(settings: type[Settings], defaults: Settings | None = None) -> Iterator[Field]:
    """Every field of a config, those of its sections included.

    Args:
      settings: the class of the config.
      defaults: where the defaults are taken from; the class's own where left out.
    """
    for field in declared(settings):
        default = field.default if defaults is None else getattr(defaults, field.name)
        if issubclass(field.kind, Settings):
            yield from all_fields(field.kind, default)
            continue
        bounds = ', '.join(bound.phrase for bound in field.bounds)
        yield Field(settings.address(field.name), field.kind.__name__, default, bounds, field.doc)
