"""Holds out some of a file's examples where it comes without a validation file."""

import hashlib
from collections.abc import Callable, Sequence

from albert_jax.cli.errors import UserError
from albert_jax.cli.notes import note
from albert_jax.tasks.task import ExampleT


def hold_out(
    examples: Sequence[ExampleT],
    fraction: float,
    labels_of: Callable[[ExampleT], Sequence[str]] = lambda example: (),
) -> tuple[list[ExampleT], list[ExampleT]]:
    """Training and held-out examples, by a digest of their group.

    All questions about a passage, and all passages of an article, fall on the same side. A label
    that training would not see takes one of its groups back there, which a note tells.

    Args:
      examples: of a task.
      fraction: of the groups to hold out.
      labels_of: the labels that training on an example teaches.

    Raises:
      UserError: if one side would be empty.
    """
    places = {example.group: _place(example.group) for example in examples}
    held_out = {group for group, place in places.items() if place < fraction * 2**64}
    moved = _groups_of_untrained_labels(examples, places, held_out, labels_of)
    train = [e for e in examples if e.group not in held_out or e.group in moved]
    kept_out = [e for e in examples if e.group in held_out and e.group not in moved]
    if moved:
        num_moved = sum(example.group in moved for example in examples)
        note(
            f'{num_moved} examples that data.validation_fraction would hold out stay in '
            f'training, which has no others of their label.'
        )
    if not train or not kept_out:
        raise UserError(
            f'data.validation_fraction is {fraction}, which leaves {len(train)} examples for '
            f'training and {len(kept_out)} for validation; choose another.'
        )
    return train, kept_out


def _place(group: str) -> int:
    """A number below 2**64 that depends on the text alone."""
    digest = hashlib.sha256(group.encode('utf-8', 'surrogatepass')).digest()
    return int.from_bytes(digest[:8], 'big')


def _groups_of_untrained_labels(
    examples: Sequence[ExampleT],
    places: dict[str, int],
    held_out: set[str],
    labels_of: Callable[[ExampleT], Sequence[str]],
) -> set[str]:
    """Of what is held out, one group for each label that no other group would teach.

    The last group by its place is taken: the one that a smaller fraction would leave in training.
    """
    trained: set[str] = set()
    labels_in: dict[str, set[str]] = {}
    for example in examples:
        labels = labels_of(example)
        if example.group in held_out:
            labels_in.setdefault(example.group, set()).update(labels)
        else:
            trained.update(labels)
    moved: set[str] = set()
    for group in sorted(labels_in, key=lambda group: (-places[group], group)):
        if not labels_in[group] <= trained:
            moved.add(group)
            trained |= labels_in[group]
    return moved
