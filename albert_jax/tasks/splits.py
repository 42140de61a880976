"""Holds out some of a file's examples where it comes without a validation file."""

import hashlib
from collections.abc import Sequence
from typing import Any

from albert_jax.cli.errors import UserError


def hold_out(examples: Sequence[Any], fraction: float) -> tuple[list[Any], list[Any]]:
    """Training and held-out examples, by a digest of their text or, for questions, their title.

    All questions about a passage, and all passages of an article, fall on the same side.

    Args:
      examples: of a task.
      fraction: of the groups to hold out.

    Raises:
      UserError: if one side would be empty.
    """
    train, held = [], []
    for example in examples:
        digest = hashlib.sha256(_group(example).encode('utf-8', 'surrogatepass')).digest()
        is_held = int.from_bytes(digest[:8], 'big') < fraction * 2**64
        (held if is_held else train).append(example)
    if not train or not held:
        raise UserError(
            f'data.validation_fraction is {fraction}, which leaves {len(train)} examples for '
            f'training and {len(held)} for validation; choose another.'
        )
    return train, held


def _group(example: Any) -> str:
    for name in ('title', 'passage', 'first', 'words'):
        value = getattr(example, name, None)
        if value:
            return str(value)
    return str(example)
