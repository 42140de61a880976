"""What a sweep is made of: named changes to a parent config, and ways to combine them.

A field is addressed as in a command: `pretrain.model.hidden_size` is --config.model.hidden_size of
the pretraining, `finetune.loop.seed` that of every fine-tuning, `sst2.loop.num_steps` of one.
"""

import dataclasses
import functools
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence

from albert_jax.cli.errors import UserError

FieldValue = str | int | float | bool
# A name becomes a folder and a part of a machine's name.
_NAME = re.compile(r'[a-z0-9]([a-z0-9._-]*[a-z0-9])?')


@dataclasses.dataclass(frozen=True)
class Change:
    """A member of a sweep: what differs from the parent.

    Args:
      name: of the member, its folder and its machine: small letters, digits, dots and dashes.
      fields: values by address, as in `pretrain.model.hidden_size`.
      after: the member whose pretrained weights this one starts from; empty for none.
      row: of the table, shared with the other seeds of the member; `name` if empty.

    Raises:
      UserError: if the name has other characters.
    """

    name: str
    fields: Mapping[str, FieldValue] = dataclasses.field(default_factory=dict)
    after: str = ''
    row: str = ''

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UserError(
                f'A member of the sweep is called {self.name!r}; a name has small letters, digits, '
                f'dots and dashes only.'
            )
        if not self.row:
            object.__setattr__(self, 'row', self.name)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Runs that belong into one table.

    Args:
      title: of the table.
      pretrain: the parent of all pretrainings, FILE:NAME; empty if there are only fine-tunings.
      members: what differs from the parent, one for each run.
      tasks: fine-tuned from each, of configs/finetune.py.
      common: fields that differ from the parents in all members.
      columns: what the table shows of a member, by the metric's address, `TASK.METRIC` or
        `pretrain.METRIC`; a title for each.
      published: numbers of the paper, by row and title of the column.
      source: the publication, and the table in it.
      reference: the row to whose final masked-LM loss a column `compute_to_reach` measures the
        compute of the others; empty for none.

    Raises:
      UserError: if there are no members, a name occurs twice, a member starts from one that is not
        before it, or the reference is no row.
    """

    title: str
    pretrain: str
    members: Sequence[Change]
    tasks: Sequence[str] = ()
    common: Mapping[str, FieldValue] = dataclasses.field(default_factory=dict)
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    published: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    source: str = ''
    reference: str = ''

    def __post_init__(self) -> None:
        names = [member.name for member in chain(self.members)]
        if not names:
            raise UserError('The sweep has no members.')
        for position, member in enumerate(self.members):
            if member.after and member.after not in names[:position]:
                raise UserError(
                    f'{member.name} starts from {member.after!r}, which is no member before it.'
                )
        rows = [member.row for member in self.members]
        if self.reference and self.reference not in rows:
            raise UserError(f'The reference {self.reference!r} is no row of the sweep.')


def product(*groups: Iterable[Change]) -> list[Change]:
    """Every combination of one change of each group, the last group running fastest.

    Raises:
      UserError: if two groups set one field, or a member starts from another.
    """
    return [functools.reduce(_combine, changes) for changes in itertools.product(*groups)]


def zipped(*groups: Iterable[Change]) -> list[Change]:
    """The first of each group together, then the second, and so on.

    Raises:
      UserError: if the groups differ in length, two set one field, or a member starts from another.
    """
    lists = [list(group) for group in groups]
    if len({len(group) for group in lists}) > 1:
        raise UserError(f'zipped groups have {[len(group) for group in lists]} members.')
    return [functools.reduce(_combine, changes) for changes in zip(*lists, strict=True)]


def chain(*groups: Iterable[Change]) -> list[Change]:
    """All members of all groups, one after the other.

    Raises:
      UserError: if a name occurs twice.
    """
    members = [member for group in groups for member in group]
    names = [member.name for member in members]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f'Two members of the sweep are called {twice!r}.')
    return members


def each_from_the_last(members: Iterable[Change]) -> list[Change]:
    """Each member starts from the pretrained weights of the one before it."""
    result: list[Change] = []
    for member in members:
        result.append(dataclasses.replace(member, after=result[-1].name if result else ''))
    return result


def seeds(members: Iterable[Change], number: int, first: int = 0) -> list[Change]:
    """Each member once for each seed, which is that of its pretraining and its fine-tunings.

    Args:
      members: of the sweep.
      number: of seeds.
      first: seed; the others follow it.
    """
    result = []
    for member in members:
        for seed in range(first, first + number):
            fields = {**member.fields, 'pretrain.loop.seed': seed, 'finetune.loop.seed': seed}
            after = f'{member.after}-seed{seed}' if member.after else ''
            result.append(Change(f'{member.name}-seed{seed}', fields, after, member.row))
    return result


def _combine(left: Change, right: Change) -> Change:
    for field in left.fields:
        if field in right.fields:
            raise UserError(f'{left.name} and {right.name} both set {field}.')
    if left.after or right.after:
        raise UserError(f'{left.name} and {right.name}: combine first, then each_from_the_last.')
    return Change(f'{left.name}-{right.name}', {**left.fields, **right.fields})
