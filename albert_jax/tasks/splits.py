"""Holds out some of a file's examples where it comes without a validation file."""

import hashlib
from collections.abc import Sequence

from albert_jax.cli.errors import UserError
from albert_jax.tasks.task import ExampleT


def hold_out(
    examples: Sequence[ExampleT], fraction: float
) -> tuple[list[ExampleT], list[ExampleT]]:
    """Training and held-out examples, by a digest of their group.

    All questions about a passage, and all passages of an article, fall on the same side.

    Args:
      examples: of a task.
      fraction: of the groups to hold out.

    Raises:
      UserError: if one side would be empty.
    """
    train, held_out = [], []
    for example in examples:
        digest = hashlib.sha256(example.group.encode('utf-8', 'surrogatepass')).digest()
        is_held_out = int.from_bytes(digest[:8], 'big') < fraction * 2**64
        (held_out if is_held_out else train).append(example)
    if not train or not held_out:
        raise UserError(
            f'data.validation_fraction is {fraction}, which leaves {len(train)} examples for '
            f'training and {len(held_out)} for validation; choose another.'
        )
    return train, held_out
