"""Section `model` of a config: a named size, and the fields in which the model differs from it."""

import dataclasses
import typing
from typing import Annotated, Any, ClassVar, Optional

from albert_jax.cli.errors import UserError, raise_all
from albert_jax.cli.settings import Reading, Settings
from albert_jax.model.config import SIZES, AlbertConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Sized(Settings):
    SECTION: ClassVar[str] = 'model'

    size: Annotated[str | None, f'one of {", ".join(SIZES)}'] = None

    def changes(self) -> dict[str, Any]:
        """The fields that are given, the size aside."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del given['size']
        return {name: value for name, value in given.items() if value is not None}

    def effective(self) -> dict[str, Any]:
        """As of every section; of a named size, its values."""
        size = SIZES[self.size].to_dict() if self.size in SIZES else {}
        return super().effective() | size | self.changes()

    def resolve(self, base: AlbertConfig | None = None) -> AlbertConfig:
        """The model: `base`, or the named size, with the fields that are given.

        Raises:
          UserError: if there is no such size, or the fields do not fit together.
        """
        reading = self.reading(base)
        raise_all(reading.errors)
        return reading.settings

    def reading(self, base: AlbertConfig | None = None) -> Reading[AlbertConfig]:
        """As `resolve`, with what does not fit together beside the model.

        Raises:
          UserError: if there is no such size.
        """
        if base is None:
            if self.size not in SIZES:
                raise UserError(
                    f'model.size is {self.size!r}; it must be one of {", ".join(SIZES)}.'
                )
            base = SIZES[self.size]
        return AlbertConfig.read(base.to_dict() | self.changes())


def _optional_fields() -> list[tuple[str, Any, Any]]:
    """The fields of AlbertConfig, each with None for what the size has."""
    fields = []
    for name, hint in typing.get_type_hints(AlbertConfig, include_extras=True).items():
        if typing.get_origin(hint) is ClassVar:
            continue
        kind, *extras = typing.get_args(hint)
        fields.append((name, Annotated[(Optional[kind], *extras)], None))  # noqa: UP045
    return fields


# Made from AlbertConfig, so that a field of the model is declared there and nowhere else.
_Fields: Any = dataclasses.make_dataclass(
    '_Fields', _optional_fields(), bases=(_Sized,), frozen=True, kw_only=True
)


class ModelSettings(_Fields):
    """A size, and every field of AlbertConfig; None stands for the size's value."""
