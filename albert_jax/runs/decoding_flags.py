"""Flags of the commands that have a model with a decoder write texts."""

import argparse
from typing import Any

from albert_jax.cli.settings import declared
from albert_jax.model.decoding_settings import DecodingSettings


def add_decoding_flags(parser: argparse.ArgumentParser) -> None:
    """Adds a flag for each of the DecodingSettings, which is None where it is not given."""
    group = parser.add_argument_group(
        'models from text to text', 'in place of what their training was evaluated with'
    )
    for field in declared(DecodingSettings):
        group.add_argument(
            f'--{field.name}', type=field.kind, metavar=field.kind.__name__.upper(), help=field.doc
        )


def given_decoding(flags: argparse.Namespace) -> dict[str, Any]:
    """The flags of `add_decoding_flags` that are given, by their fields."""
    names = [field.name for field in declared(DecodingSettings)]
    return {name: getattr(flags, name) for name in names if getattr(flags, name) is not None}
