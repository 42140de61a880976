"""Frozen dataclasses that check themselves: what a section of a config becomes at the door."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from albert_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of the sections. Subclasses give every field a default of the field's type."""

    SECTION: ClassVar[str]

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            self._check_type(field.name, type(field.default))

    def _check_type(self, name: str, expected: type) -> None:
        value = getattr(self, name)
        if expected is float and type(value) is int:
            object.__setattr__(self, name, float(value))
        elif type(value) is not expected:
            raise UserError(
                f'{self.SECTION}.{name} is {value!r} ({type(value).__name__}); it must be of type '
                f'{expected.__name__}.'
            )

    def check_positive(self, *names: str) -> None:
        """Refuses a value of zero or below in any of the named fields."""
        for name in names:
            if not getattr(self, name) > 0:
                raise UserError(
                    f'{self.SECTION}.{name} is {getattr(self, name)}; it must be above 0.'
                )

    def check_not_negative(self, *names: str) -> None:
        """Refuses a value below zero in any of the named fields."""
        for name in names:
            if not getattr(self, name) >= 0:
                raise UserError(
                    f'{self.SECTION}.{name} is {getattr(self, name)}; it must be 0 or above.'
                )

    def check_probability(self, *names: str) -> None:
        """Refuses a value outside [0, 1) in any of the named fields."""
        for name in names:
            if not 0 <= getattr(self, name) < 1:
                raise UserError(
                    f'{self.SECTION}.{name} is {getattr(self, name)}; it must be at least 0 and '
                    f'below 1.'
                )

    def check_choice(self, name: str, allowed: tuple[str, ...]) -> None:
        """Refuses a value that is not among the allowed ones."""
        if getattr(self, name) not in allowed:
            raise UserError(
                f'{self.SECTION}.{name} is {getattr(self, name)!r}; it must be one of '
                f'{", ".join(allowed)}.'
            )

    def to_dict(self) -> dict[str, Any]:
        """All fields, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Settings from a mapping of field names; fields left out keep their defaults.

        Raises:
          UserError: if a name is not a field or a value is impossible.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in names:
                close = difflib.get_close_matches(key, names, n=1)
                hint = f'did you mean {close[0]}?' if close else f'there are {", ".join(names)}.'
                raise UserError(f'{cls.SECTION}.{key} is not a field; {hint}')
        return cls(**values)
