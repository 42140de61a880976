"""What a report must know of a sweep, as it stands in `sweep.json` in the sweep's folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NotRequired, TypedDict

from configs.changes import Sweep
from launch import record
from launch.stages import PAIRS, Member


class Uses(TypedDict):
    """How often a model's parameters are used, embedding tables aside."""

    num_once: int
    num_core: int
    num_loops: int


class PlannedStage(TypedDict):
    """A stage: one process of a member."""

    name: str
    # Its folder below the sweep's.
    key: str
    num_steps: int


class PlannedMember(TypedDict):
    """A member and its stages, in order."""

    name: str
    # The row of the table that it belongs to, with the other seeds of it.
    row: str
    num_params: int | None
    # Of the matrix products of its pretraining; none in plans of version 0.1.0.
    flops: NotRequired[float | None]
    # How often its parameters are used, where a law speaks of that, and the text it is trained on.
    uses: NotRequired[Uses | None]
    num_tokens: NotRequired[int | None]
    # Fields in which it differs from the parent config.
    fields: Mapping[str, str]
    stages: Sequence[PlannedStage]


class Plan(TypedDict):
    """A sweep: its table and its members."""

    sweep: str
    title: str
    source: str
    columns: Mapping[str, str]
    published: Mapping[str, Mapping[str, float]]
    # The row whose final loss the others' compute is measured to; empty for none.
    reference: NotRequired[str]
    members: Sequence[PlannedMember]


def make_plan(
    argument: str,
    sweep: Sweep,
    members: Sequence[Member],
    num_params: Mapping[str, int],
    flops: Mapping[str, float] = MappingProxyType({}),
    uses: Mapping[str, Uses] = MappingProxyType({}),
    num_tokens: Mapping[str, int] = MappingProxyType({}),
) -> Plan:
    """The plan of a sweep.

    Args:
      argument: of `--sweep`, as in `configs/sweeps/sharing.py:mini`.
      sweep: what is run.
      members: of the sweep.
      num_params: parameters of each member's pretrained model, by the member's name; a member that
        is only fine-tuned is left out.
      flops: of each member's pretraining, likewise.
      uses: of each member's parameters, likewise.
      num_tokens: of each member's pretraining, likewise.
    """
    names = {stage.name for member in members for stage in member.stages}
    return {
        'sweep': argument,
        'title': sweep.title,
        'source': sweep.source,
        'columns': {
            address: title
            for address, title in sweep.columns.items()
            # Minimal pairs are scored where a file of them is named.
            if address.partition('.')[0] != PAIRS or PAIRS in names
        },
        'published': {row: dict(cells) for row, cells in sweep.published.items()},
        'reference': sweep.reference,
        'members': [
            {
                'name': member.change.name,
                'row': member.change.row,
                'num_params': num_params.get(member.change.name),
                'flops': flops.get(member.change.name),
                'uses': uses.get(member.change.name),
                'num_tokens': num_tokens.get(member.change.name),
                'fields': {name: str(value) for name, value in member.change.fields.items()},
                'stages': [
                    {'name': stage.name, 'key': stage.key, 'num_steps': stage.num_steps}
                    for stage in member.stages
                ],
            }
            for member in members
        ],
    }


def write_plan(root: Path, plan: Plan) -> None:
    """Writes the plan into the sweep's folder, where it differs from the one that is there.

    Raises:
      UserError: if it cannot be written.
    """
    path = root / record.PLAN_FILE
    if not path.exists() or record.read_json(path) != plan:
        record.write_json(path, plan)
