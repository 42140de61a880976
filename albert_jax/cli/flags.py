"""Settings as flags of a command: the dataclass is the command line."""

import argparse
import dataclasses
from typing import Self

from albert_jax.cli.settings import Settings, declared

NUM_LOOPS_HELP = (
    'how often the model goes through its shared layers, fewer or more times than in training'
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlagSettings(Settings):
    """Base of settings whose fields are flags.

    Raises:
      UserError: if a value has another type than its field, or is outside its bounds.
    """

    @classmethod
    def address(cls, name: str) -> str:
        """A field's name on the command line, as in `--seed`."""
        return f'--{name}'

    @classmethod
    def add_flags(cls, parser: argparse.ArgumentParser) -> None:
        """Adds a flag for each field. A bool is a flag without a value."""
        for field in declared(cls):
            if field.kind is bool:
                parser.add_argument(f'--{field.name}', action='store_true', help=field.doc)
                continue
            shown = f' ({field.default})' if field.default != '' else ''
            parser.add_argument(
                f'--{field.name}', type=field.kind, default=field.default,
                metavar=field.kind.__name__.upper(), help=f'{field.doc}{shown}',
            )  # fmt: skip

    @classmethod
    def from_flags(cls, flags: argparse.Namespace) -> Self:
        """The settings that flags give.

        Raises:
          UserError: if a value is impossible.
        """
        return cls(**{field.name: getattr(flags, field.name) for field in declared(cls)})
