"""A plan as a table and as JSON, and what to change where it does not fit."""

import dataclasses
from pathlib import Path

from rich.console import Console
from rich.table import Table

from albert_jax.cli.errors import UserError, reason
from albert_jax.cli.json_output import to_json
from albert_jax.planning.arithmetic import full_steps, run_flops
from albert_jax.planning.estimate import Compiled, OnPaper, TooBig
from albert_jax.planning.topologies import Slice
from albert_jax.runs.runs import PretrainRun

_DAY = 24 * 3600


def show(
    run: PretrainRun,
    where: Slice,
    paper: OnPaper,
    compiled: Compiled | TooBig | None,
    *,
    price: float | None,
    is_fast: bool,
) -> None:
    """Prints a plan as a table.

    Args:
      run: that is planned.
      where: the slice.
      paper: what follows from numbers alone.
      compiled: what the compiler says, if it was asked.
      price: of a chip-hour, for the cost of the whole run; None for no cost.
      is_fast: whether it was compiled without optimisation.
    """
    loop, length = run.loop, run.pretraining.sequence_length
    table = Table(
        title=f'{loop.batch_size} × {length} tokens a step on {where.name}', show_header=False
    )
    table.add_column()
    table.add_column(justify='right')
    table.add_column()
    _add_paper(table, run, paper)
    seconds, source = paper.bound_seconds, 'at the bound; no run reaches it'
    if isinstance(compiled, Compiled):
        table.add_section()
        _add_compiled(table, where, paper, compiled, is_fast)
        if not is_fast and compiled.estimated_seconds is not None:
            seconds = compiled.estimated_seconds + compiled.kernel_seconds
            source = "by the compiler's estimate"
    table.add_section()
    if isinstance(compiled, TooBig):
        note = f'in {compiled.num_microbatches} microbatches'
        table.add_row('does not fit', compiled.message, note)
    else:
        days = seconds * full_steps(run) / _DAY
        chip_hours = days * 24 * where.num_chips
        steps = f'{loop.num_steps:,} steps'
        table.add_row(steps, _flops(run_flops(run)), 'of the model and of the update')
        table.add_row('', f'{days:,.2f} days', source)
        table.add_row('', f'{chip_hours:,.0f} chip-hours', f'{where.num_chips} chips')
        if price is not None:
            table.add_row(
                '',
                f'{chip_hours * price:,.2f}',
                f'at {price:g} a chip-hour, in the currency of --price',
            )
    Console().print(table)
    if isinstance(compiled, TooBig):
        print(_advice(run, where, compiled))


def _add_paper(table: Table, run: PretrainRun, paper: OnPaper) -> None:
    """Adds what follows from numbers alone."""
    split = f', split over {paper.num_fsdp} devices' if paper.num_fsdp > 1 else ' on each device'
    again = _flops(paper.recomputed_flops)
    for row in (
        ('parameters', f'{paper.num_params / 1e6:,.1f} M',
         f'{_size(paper.params_bytes)} in float32'),
        ('optimizer state', _size(paper.optimizer_bytes), f'moments{split}'),
        ('arithmetic a step', _flops(paper.model_flops), 'of the model'),
        ('  again, by remat', again, run.albert.remat),
        *_update_rows(run, paper),
        ('no step faster than', _time(paper.flops_seconds), 'by arithmetic'),
        ('', _time(paper.memory_seconds), 'by memory bandwidth'),
        ('', _time(paper.network_seconds), 'by the network between chips'),
    ):  # fmt: skip
        table.add_row(*row)


def _update_rows(run: PretrainRun, paper: OnPaper) -> list[tuple[str, str, str]]:
    """The products of an update, where the optimizer has any."""
    if not paper.update_flops:
        return []
    note = f"{run.optimizer.name}'s, on each copy of the state"
    return [('  of the update', _flops(paper.update_flops), note)]


def _add_compiled(
    table: Table, where: Slice, paper: OnPaper, compiled: Compiled, is_fast: bool
) -> None:
    """Adds what the compiler says; its memory alone where it did not optimise."""
    memory = where.chip.memory_bytes
    microbatches = str(compiled.num_microbatches)
    table.add_row('microbatches', microbatches, 'one after the other on each device')
    fits = f'{compiled.peak_bytes / memory:.0%} of {_size(memory)}: fits'
    table.add_row('peak memory a device', _size(compiled.peak_bytes), fits)
    if not is_fast:
        for kind, count in sorted(compiled.num_collectives.items()):
            table.add_row(f'{kind} a step', str(count), _size(compiled.collective_bytes[kind]))
        table.add_row('gradients reduced in', ', '.join(compiled.reduced_types) or '-', '')
        if compiled.estimated_seconds is not None:
            seconds = compiled.estimated_seconds + compiled.kernel_seconds
            ratio = seconds / max(paper.flops_seconds, 1e-12)
            note = f"the compiler's, never measured; {ratio:.2f} × the arithmetic"
            table.add_row('estimated step', _time(seconds), note)
            if compiled.kernel_seconds:
                kernel = _time(compiled.kernel_seconds)
                note = f'at its bound, by the {compiled.kernel_limit}'
                table.add_row('  attention kernels', kernel, note)
    table.add_row('compiled in', f'{compiled.compile_seconds:.0f} s', '')


def _advice(run: PretrainRun, where: Slice, too_big: TooBig) -> str:
    rows = run.loop.batch_size // where.num_devices
    hints = []
    if too_big.num_microbatches < rows:
        hints.append('--config.loop.num_microbatches=0 (looks for the fewest that fit)')
    if run.albert.remat != 'full':
        hints.append('--config.model.remat=full')
    if run.albert.compute_dtype != 'bfloat16':
        hints.append('--config.model.compute_dtype=bfloat16')
    hints.append('more chips')
    return f'It does not fit. Try {", or ".join(hints)}.'


def write(
    path: Path,
    run: PretrainRun,
    where: Slice,
    paper: OnPaper,
    compiled: Compiled | TooBig | None,
) -> None:
    """Writes a plan as JSON.

    Raises:
      UserError: if the file cannot be written.
    """
    content = {
        'topology': where.name,
        'num_chips': where.num_chips,
        'memory_bytes': where.chip.memory_bytes,
        'batch_size': run.loop.batch_size,
        'sequence_length': run.pretraining.sequence_length,
        'num_steps': run.loop.num_steps,
        'on_paper': dataclasses.asdict(paper),
        'fits': isinstance(compiled, Compiled) if compiled else None,
        'compiled': dataclasses.asdict(compiled) if compiled else None,
    }
    try:
        path.write_text(to_json(content, indent=2) + '\n')
    except OSError as error:
        raise UserError(f'--json={path} cannot be written: {reason(error)}.') from error


def _size(num_bytes: float) -> str:
    if num_bytes < 2**20:
        return f'{num_bytes / 2**10:,.1f} KiB'
    return (
        f'{num_bytes / 2**30:,.2f} GiB' if num_bytes >= 2**30 else f'{num_bytes / 2**20:,.1f} MiB'
    )


def _flops(number: float) -> str:
    for scale, unit in ((1e18, 'EFLOP'), (1e15, 'PFLOP'), (1e12, 'TFLOP')):
        if number >= scale:
            return f'{number / scale:,.2f} {unit}'
    return f'{number / 1e9:,.2f} GFLOP'


def _time(seconds: float) -> str:
    return f'{seconds:,.2f} s' if seconds >= 1 else f'{seconds * 1000:,.1f} ms'
