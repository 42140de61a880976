"""What a sweep takes, by albert_jax.plan's own arithmetic, before anything starts."""

import math
from collections.abc import Sequence
from pathlib import Path

from albert_jax.cli.errors import UserError
from configs.changes import Sweep
from launch.record import FINISHED, read_record
from launch.stages import PRETRAIN, Member

_HOUR = 3600.0


def show(
    sweep: Sweep,
    members: Sequence[Member],
    root: Path,
    topology: str | None,
    price: float | None,
) -> None:
    """Prints the members, what of each is finished, and the cost of their pretraining.

    Args:
      sweep: what is run.
      members: of it.
      root: its folder.
      topology: a TPU slice, for hours and chip-hours at the bound; None for arithmetic alone.
      price: money for one chip-hour.

    Raises:
      UserError: if there is no such slice, or a batch does not divide over it.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from albert_jax.model.flops import train_flops
    from albert_jax.planning import topologies
    from albert_jax.planning.estimate import on_paper
    from albert_jax.planning.report import full_steps

    where = topologies.parse(topology) if topology else None
    names = ['member', 'parameters', 'steps', 'batch × length', 'FLOP']
    if where:
        names += ['hours', 'chip-hours'] + (['cost'] if price is not None else [])
    names += ['finished']
    table = Table(title=sweep.title, box=box.SIMPLE_HEAD)
    for name in names:
        is_name = name == 'member'
        table.add_column(name, justify='left' if is_name else 'right', no_wrap=is_name)
    total_flops = total_hours = 0.0
    for member in members:
        stages = member.stages
        cells = [''] * (len(names) - 2)
        if member.run is not None:
            model, pretraining, loop = member.run.albert, member.run.pretraining, member.run.loop
            length, steps = pretraining.sequence_length, full_steps(member.run)
            flops = (
                train_flops(model, length, pretraining.max_predictions_per_sequence)
                * loop.batch_size
                * steps
            )
            cells = [
                f'{(num_params(member) or 0) / 1e6:,.2f} M',
                f'{loop.num_steps:,}',
                f'{loop.batch_size} × {length}',
                f'{flops:.2e}',
            ]
            is_done = read_record(root, f'{member.change.name}/{PRETRAIN}').state == FINISHED
            total_flops += 0 if is_done else flops
            if where:
                try:
                    hours = on_paper(member.run, where).bound_seconds * steps / _HOUR
                except UserError as error:
                    raise UserError(f'{member.change.name}: {error}') from error
                total_hours += 0 if is_done else hours
                chip_hours = hours * where.num_chips
                cells += [f'{hours:,.1f}', f'{chip_hours:,.0f}']
                cells += [f'{chip_hours * price:,.0f}'] if price is not None else []
        done = sum(read_record(root, stage.key).state == FINISHED for stage in stages)
        table.add_row(member.change.name, *cells, f'{done}/{len(stages)}')
    Console().print(table)
    if sweep.tasks:
        print(f'Each is fine-tuned on {", ".join(sweep.tasks)}.')
    if not sweep.pretrain:
        return
    print(f'Left to pretrain: {total_flops:.2e} FLOP.', end=' ')
    if where:
        chip_hours = total_hours * where.num_chips
        money = f', {chip_hours * price:,.0f} at {price:g} a chip-hour' if price is not None else ''
        print(
            f'On {where.name} no less than {total_hours:,.1f} hours, {chip_hours:,.0f} chip-hours'
            f'{money}, one member after the other; fine-tunings not counted.'
        )
    else:
        print('--topology=v5e:4x4 tells hours and chip-hours there.')


def num_params(member: Member) -> int | None:
    """Of its pretrained model; None if it has none."""
    from albert_jax.interop.native import expected_shapes

    if member.run is None:
        return None
    return sum(math.prod(x) for x in expected_shapes(member.run.albert).values())
