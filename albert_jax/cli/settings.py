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
from typing import Any, ClassVar, NamedTuple, Self

from albert_jax.cli.errors import UserError
from albert_jax.cli.paths import expand


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
        for field in declared(type(self)):
            if field.kind is float and type(getattr(self, field.name)) is int:
                object.__setattr__(self, field.name, float(getattr(self, field.name)))
            value = getattr(self, field.name)
            if value is None and field.is_optional:
                continue
            if type(value) is not field.kind:
                raise UserError(
                    f'{self.address(field.name)} is {value!r} ({type(value).__name__}); it must be '
                    f'of type {field.kind.__name__}.'
                )
            for bound in field.bounds:
                if not bound.holds(value):
                    raise UserError(
                        f'{self.address(field.name)} is {value!r}; it must be {bound.phrase}.'
                    )
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(
                    f'{self.address(field.name)} is {value!r}; it must be a finite number.'
                )
            if field.is_path and isinstance(value, str):
                object.__setattr__(self, field.name, expand(value))

    @classmethod
    def address(cls, name: str) -> str:
        """A field's name in the config, as in `loop.num_steps`."""
        return f'{cls.SECTION}.{name}' if cls.SECTION else name

    def to_dict(self) -> dict[str, Any]:
        """All fields, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Settings from a mapping of field names; fields left out keep their defaults.

        Raises:
          UserError: if a name is not a field or a value is impossible.
        """
        fields = {field.name: field for field in declared(cls)}
        read: dict[str, Any] = {}
        for name, value in values.items():
            if name not in fields:
                raise UserError(f'{cls.address(name)} is not a field; {_hint(name, fields)}')
            read[name] = cls._read(fields[name], value)
        return cls(**read)

    @classmethod
    def _read(cls, field: 'Declared', value: Any) -> Any:
        if not issubclass(field.kind, Settings):
            return value
        if not isinstance(value, Mapping):
            raise UserError(
                f'{cls.address(field.name)} is {value!r}; it must be a section of fields.'
            )
        return field.kind.from_dict(value)


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
