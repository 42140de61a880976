"""What a sweep takes, by albert_jax.plan's own arithmetic, before anything starts."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from albert_jax.cli.errors import UserError
from albert_jax.cli.phase import phase
from albert_jax.interop.native import expected_shapes
from albert_jax.model.config import AlbertConfig
from albert_jax.planning import topologies
from albert_jax.planning.arithmetic import full_steps, run_flops
from albert_jax.planning.estimate import on_paper
from albert_jax.planning.topologies import Slice
from albert_jax.runs.runs import PretrainRun
from configs.changes import Sweep
from launch import speed
from launch.plan import Uses
from launch.record import FINISHED, read_record
from launch.stages import PRETRAIN, Member

_SECONDS_PER_HOUR = 3600.0


@dataclasses.dataclass(frozen=True)
class _Cost:
    """What one pretraining takes."""

    flops: float
    # At the bound of the slice; 0 where no slice is given.
    hours: float


def show(
    sweep: Sweep,
    members: Sequence[Member],
    root: Path,
    topology: str | None,
    price: float | None,
    is_here: bool = False,
) -> None:
    """Prints the members, how many stages of each are finished, and what their pretraining costs.

    Args:
      sweep: what is run.
      members: of the sweep.
      root: its folder.
      topology: a TPU slice, for hours and chip-hours at the bound; None for arithmetic alone.
      price: money for one chip-hour; None for no cost.
      is_here: they are trained on this machine, so its time is estimated where no slice is named.

    Raises:
      UserError: if there is no such slice, or a batch does not divide over it.
    """
    where = topologies.parse(topology) if topology else None
    with phase('Counting what each member takes …'):
        costs = {member.change.name: _cost(member, where) for member in members}
    table = _empty_table(sweep.title, where, price)
    for member in members:
        done = sum(read_record(root, stage.key).state == FINISHED for stage in member.stages)
        cells = _cells(member, costs[member.change.name], where, price)
        blanks = [''] * (len(table.columns) - 2 - len(cells))
        table.add_row(member.change.name, *cells, *blanks, f'{done}/{len(member.stages)}')
    Console().print(table)
    if sweep.tasks:
        print(f'Each is fine-tuned on {", ".join(sweep.tasks)}.')
    if sweep.pretrain:
        left = [
            cost
            for name, cost in costs.items()
            if cost and read_record(root, f'{name}/{PRETRAIN}').state != FINISHED
        ]
        _print_total(left, where, price)
        run = next(member.run for member in members if member.run is not None)
        if is_here and where is None and left:
            flops = {name: cost.flops for name, cost in costs.items() if cost}
            _print_time_here(root, flops, sum(cost.flops for cost in left), run)


def num_params(members: Sequence[Member]) -> dict[str, int]:
    """Parameters of each member's pretrained model, by the member's name; none if it has none."""
    return {
        member.change.name: _num_params(member.run) for member in members if member.run is not None
    }


def pretraining_flops(members: Sequence[Member]) -> dict[str, float]:
    """FLOPs of the matrix products of each member's pretraining, by the member's name."""
    costs = {member.change.name: _cost(member, None) for member in members}
    return {name: cost.flops for name, cost in costs.items() if cost is not None}


def num_tokens(members: Sequence[Member]) -> dict[str, int]:
    """Tokens that each member is pretrained on, by the member's name."""
    runs = {member.change.name: member.run for member in members}
    return {
        name: round(full_steps(run) * run.loop.batch_size * run.pretraining.sequence_length)
        for name, run in runs.items()
        if run is not None
    }


def uses(members: Sequence[Member]) -> dict[str, Uses]:
    """How often the parameters of each member are used, by the member's name.

    Members that share one sublayer and not the other, or have weights of each depth, are left out.
    """
    runs = {member.change.name: member.run for member in members}
    found = {name: _uses(run.albert) for name, run in runs.items() if run is not None}
    return {name: of_member for name, of_member in found.items() if of_member is not None}


def _uses(config: AlbertConfig) -> Uses | None:
    of_depths = config.depth_adapter_rank or config.depth_norms or config.depth_embedding
    if of_depths or config.sharing not in ('all', 'none'):
        return None
    sizes = {path: math.prod(shape) for path, shape in expected_shapes(config).items()}
    core = sum(size for path, size in sizes.items() if path.startswith('encoder/layer/'))
    around = ('encoder/', 'embeddings/projection/', 'embeddings/layer_norm/', 'mlm/transform/')
    return {
        'num_once': sum(size for path, size in sizes.items() if path.startswith(around)) - core,
        'num_core': core,
        'num_loops': config.num_depths // config.num_unique_attention_layers,
    }


def _num_params(run: PretrainRun) -> int:
    return sum(math.prod(shape) for shape in expected_shapes(run.albert).values())


def _cost(member: Member, where: Slice | None) -> _Cost | None:
    """What the pretraining of a member takes; None if it has none."""
    if member.run is None:
        return None
    seconds = 0.0
    if where is not None:
        try:
            seconds = on_paper(member.run, where).bound_seconds * full_steps(member.run)
        except UserError as error:
            raise UserError(f'{member.change.name}: {error}') from error
    return _Cost(run_flops(member.run), seconds / _SECONDS_PER_HOUR)


def _empty_table(title: str, where: Slice | None, price: float | None) -> Table:
    # Short, so that all of it fits into 80 columns.
    names = ['member', 'size', 'steps', 'batch ×\nlength', 'FLOP']
    if where:
        names += ['hours', 'chip-\nhours'] + (['cost'] if price is not None else [])
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in [*names, 'done']:
        is_name = name == 'member'
        table.add_column(
            name, justify='left' if is_name else 'right', no_wrap=not is_name, overflow='fold'
        )
    return table


def _cells(
    member: Member, cost: _Cost | None, where: Slice | None, price: float | None
) -> list[str]:
    """A member's row, its name and its finished stages aside; empty if it has no pretraining."""
    if member.run is None or cost is None:
        return []
    loop = member.run.loop
    cells = [
        f'{_num_params(member.run) / 1e6:,.2f} M',
        f'{loop.num_steps:,}',
        f'{loop.batch_size} × {member.run.pretraining.sequence_length}',
        f'{cost.flops:.2e}',
    ]
    if where:
        chip_hours = cost.hours * where.num_chips
        cells += [f'{cost.hours:,.1f}', f'{chip_hours:,.0f}']
        cells += [f'{chip_hours * price:,.0f}'] if price is not None else []
    return cells


def _print_time_here(
    root: Path, flops: Mapping[str, float], flops_left: float, run: PretrainRun
) -> None:
    """What the pretrainings that are not finished take on this machine."""
    per_second, source = speed.flops_per_second(root, flops, run)
    print(
        f'On this machine about {speed.duration(flops_left / per_second)} ({source}), one member '
        f'after the other; fine-tunings not counted.'
    )


def _print_total(left: Sequence[_Cost], where: Slice | None, price: float | None) -> None:
    """What the pretrainings that are not finished take together."""
    print(f'Left to pretrain: {sum(cost.flops for cost in left):.2e} FLOP.', end=' ')
    if where is None:
        print('--topology=v5e:4x4 tells hours and chip-hours there.')
        return
    hours = sum(cost.hours for cost in left)
    chip_hours = hours * where.num_chips
    money = (
        f', {chip_hours * price:,.0f} at {price:g} a chip-hour (in the currency of --price)'
        if price is not None
        else ''
    )
    print(
        f'On {where.name} no less than {hours:,.1f} hours, {chip_hours:,.0f} chip-hours'
        f'{money}, one member after the other; fine-tunings not counted.'
    )
