"""What a run needs on a TPU slice, before paying: `python -m albert_jax.plan --help`."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from albert_jax import command
from albert_jax.errors import UserError
from albert_jax.topologies import CHIPS, Slice, parse

if TYPE_CHECKING:
    from albert_jax.data.pretraining import PretrainingSettings
    from albert_jax.planning import Compiled, OnPaper, TooBig
    from albert_jax.pretrain import Sections

_DESCRIPTION = """\
Plan a pretraining run: does it fit on a TPU slice, what does it send, how long and how much?

Compiles the real train step for the slice with the TPU compiler, which needs no TPU but the extra
`plan`. No time below was measured on hardware: bounds follow from the chip's published numbers,
and the estimate is the compiler's own.
"""
_EPILOG = f"""\
topologies: KIND:SHAPE, with KIND one of {', '.join(CHIPS)}; a wrong shape is answered with a list

examples:
  python -m albert_jax.plan --config=configs/pretrain.py:base --topology=v5e:2x4
  python -m albert_jax.plan --config=configs/pretrain.py:xxlarge --topology=v5e:4x4 \\
      --config.loop.num_microbatches=0 --json=plan.json
  python -m albert_jax.plan --config=configs/pretrain.py:large --topology=v4:4x4x4 --analytic

With loop.num_microbatches=0 the fewest that fit are looked for. --fast compiles in a third of the
time; its memory is right to a few per cent, its collectives and estimate are left out.
"""
_DAY = 24 * 3600


def main(arguments: Sequence[str]) -> int:
    """Prints the plan as a table, and writes it as JSON if asked."""
    parser = command.parser('albert_jax.plan', _DESCRIPTION, _EPILOG)
    parser.add_argument(
        '--config', required=True, metavar='FILE:NAME', help='the run, as for pretrain'
    )
    parser.add_argument('--topology', required=True, help='the slice, as in v5e:4x4')
    parser.add_argument('--fast', action='store_true', help='compile without optimisation')
    parser.add_argument('--analytic', action='store_true', help='do not compile at all')
    parser.add_argument('--price', type=float, help='money for one chip-hour, for the whole cost')
    parser.add_argument('--json', type=Path, metavar='FILE', help='also write all numbers there')
    flags, overrides = parser.parse_known_args(arguments)
    where = parse(flags.topology)
    if flags.price is not None and flags.price < 0:
        raise UserError(f'--price={flags.price}: it must be 0 or above.')
    config = command.read_config(flags.config, overrides).to_dict()

    from albert_jax import planning

    planning.prepare_to_compile(flags.fast)
    from albert_jax.pretrain import read_sections

    sections = read_sections(config)
    paper = planning.on_paper(sections, where)
    compiled = None if flags.analytic else planning.compile_step(sections, where)
    _show(sections, where, paper, compiled, flags)
    if flags.json:
        _write(flags.json, sections, where, paper, compiled)
        print(f'Wrote {flags.json}.')
    return 0


def _show(
    sections: 'Sections',
    where: Slice,
    paper: 'OnPaper',
    compiled: 'Compiled | TooBig | None',
    flags: Any,
) -> None:
    from rich.console import Console
    from rich.table import Table

    from albert_jax.planning import Compiled, TooBig

    loop, length = sections.loop, sections.pretraining.sequence_length
    table = Table(
        title=f'{loop.batch_size} × {length} tokens a step on {where.name}', show_header=False
    )
    table.add_column()
    table.add_column(justify='right')
    table.add_column()

    def row(name: str, value: str, note: str = '') -> None:
        table.add_row(name, value, note)

    row('parameters', f'{paper.num_params / 1e6:,.1f} M', f'{_size(paper.params_bytes)} in float32')
    split = f', split over {paper.num_fsdp} devices' if paper.num_fsdp > 1 else ' on each device'
    row('optimizer state', _size(paper.optimizer_bytes), f'two moments{split}')
    row('arithmetic a step', f'{paper.model_flops / 1e15:,.2f} PFLOP', 'of the model')
    row('  again, by remat', f'{paper.recomputed_flops / 1e15:,.2f} PFLOP', sections.model.remat)
    row('no step faster than', _time(paper.flops_seconds), 'by arithmetic')
    row('', _time(paper.memory_seconds), 'by memory bandwidth')
    row('', _time(paper.network_seconds), 'by the network between chips')
    seconds, source = paper.bound_seconds, 'at the bound; no run reaches it'
    if isinstance(compiled, Compiled):
        table.add_section()
        share = compiled.peak_bytes / where.chip.memory_bytes
        row('microbatches', str(compiled.num_microbatches), 'one after the other on each device')
        row(
            'peak memory a device',
            _size(compiled.peak_bytes),
            f'{share:.0%} of {_size(where.chip.memory_bytes)}: fits',
        )
        if not flags.fast:
            for kind, count in sorted(compiled.num_collectives.items()):
                row(f'{kind} a step', str(count), _size(compiled.collective_bytes[kind]))
            row('gradients reduced in', ', '.join(compiled.reduced_types) or '-')
            if compiled.estimated_seconds is not None:
                seconds = compiled.estimated_seconds + compiled.kernel_seconds
                source = "by the compiler's estimate"
                ratio = seconds / max(paper.flops_seconds, 1e-12)
                row(
                    'estimated step',
                    _time(seconds),
                    f"the compiler's, never measured; {ratio:.2f} × the arithmetic",
                )
                if compiled.kernel_seconds:
                    row('  attention kernel', _time(compiled.kernel_seconds), 'at its bound')
        row('compiled in', f'{compiled.compile_seconds:.0f} s')
    table.add_section()
    if isinstance(compiled, TooBig):
        row('does not fit', compiled.message, f'in {compiled.num_microbatches} microbatches')
    else:
        days = seconds * full_steps(sections) / _DAY
        chip_hours = days * 24 * where.num_chips
        row(f'{loop.num_steps:,} steps', f'{days:,.2f} days', source)
        row('', f'{chip_hours:,.0f} chip-hours', f'{where.num_chips} chips')
        if flags.price is not None:
            row('', f'{chip_hours * flags.price:,.2f}', f'at {flags.price:g} a chip-hour')
    Console().print(table)
    if isinstance(compiled, TooBig):
        print(_advice(sections, where, compiled))


def full_steps(sections: 'Sections') -> float:
    """Steps of the run, those of a phase on short sequences by their share of the arithmetic."""
    from albert_jax.flops import train_flops

    model, pretraining, _, loop = sections
    num_short = pretraining.short_phase_steps
    if not num_short:
        return loop.num_steps
    short = pretraining.short_phase

    def flops(settings: 'PretrainingSettings') -> float:
        return train_flops(model, settings.sequence_length, settings.max_masked)

    return loop.num_steps - num_short * (1 - flops(short) / flops(pretraining))


def _advice(sections: 'Sections', where: Slice, found: 'TooBig') -> str:
    rows = sections.loop.batch_size // where.num_devices
    hints = []
    if found.num_microbatches < rows:
        hints.append('--config.loop.num_microbatches=0 (looks for the fewest that fit)')
    if sections.model.remat != 'full':
        hints.append('--config.model.remat=full')
    if sections.model.compute_dtype != 'bfloat16':
        hints.append('--config.model.compute_dtype=bfloat16')
    hints.append('more chips')
    return f'It does not fit. Try {", or ".join(hints)}.'


def _write(
    path: Path,
    sections: 'Sections',
    where: Slice,
    paper: 'OnPaper',
    compiled: 'Compiled | TooBig | None',
) -> None:
    from albert_jax.planning import Compiled

    content = {
        'topology': where.name,
        'num_chips': where.num_chips,
        'memory_bytes': where.chip.memory_bytes,
        'batch_size': sections.loop.batch_size,
        'sequence_length': sections.pretraining.sequence_length,
        'num_steps': sections.loop.num_steps,
        'on_paper': dataclasses.asdict(paper),
        'fits': isinstance(compiled, Compiled) if compiled else None,
        'compiled': dataclasses.asdict(compiled) if compiled else None,
    }
    try:
        path.write_text(json.dumps(content, indent=2) + '\n')
    except OSError as error:
        raise UserError(f'--json={path} cannot be written: {error.strerror}.') from error


def _size(num_bytes: float) -> str:
    if num_bytes < 2**20:
        return f'{num_bytes / 2**10:,.1f} KiB'
    return (
        f'{num_bytes / 2**30:,.2f} GiB' if num_bytes >= 2**30 else f'{num_bytes / 2**20:,.1f} MiB'
    )


def _time(seconds: float) -> str:
    return f'{seconds:,.2f} s' if seconds >= 1 else f'{seconds * 1000:,.1f} ms'


if __name__ == '__main__':
    command.run(main)
