"""What a run needs on a TPU slice, before paying: `python -m albert_jax.plan --help`."""

from collections.abc import Sequence

from albert_jax.cli import command
from albert_jax.cli.errors import UserError
from albert_jax.cli.paths import expand, local_path
from albert_jax.planning.topologies import CHIPS, parse
from albert_jax.runs.reading import read_run
from albert_jax.runs.runs import PretrainRun

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


def main(arguments: Sequence[str]) -> int:
    """Prints the plan as a table, and writes it as JSON if asked."""
    parser = command.parser('albert_jax.plan', _DESCRIPTION, _EPILOG, PretrainRun)
    parser.add_argument(
        '--config', required=True, type=expand, metavar='FILE:NAME',
        help='the run, as for pretrain',
    )  # fmt: skip
    parser.add_argument('--topology', required=True, help='the slice, as in v5e:4x4')
    parser.add_argument('--fast', action='store_true', help='compile without optimisation')
    parser.add_argument('--analytic', action='store_true', help='do not compile at all')
    parser.add_argument(
        '--price',
        type=float,
        help='of one chip-hour, in any currency: adds the cost of the whole run in it',
    )
    parser.add_argument(
        '--json', type=local_path, metavar='FILE', help='also write all numbers there'
    )
    flags, overrides = parser.parse_known_args(arguments)
    where = parse(flags.topology)
    if flags.price is not None and flags.price < 0:
        raise UserError(f'--price={flags.price}: it must be 0 or above.')
    run = read_run(PretrainRun, flags.config, overrides)

    from albert_jax.planning.environment import prepare_to_compile

    # Before anything imports JAX.
    prepare_to_compile(flags.fast)
    from albert_jax.planning import estimate, report

    paper = estimate.on_paper(run, where)
    compiled = None if flags.analytic else estimate.compile_step(run, where)
    report.show(run, where, paper, compiled, price=flags.price, is_fast=flags.fast)
    if flags.json:
        report.write(flags.json, run, where, paper, compiled)
        print(f'Wrote {flags.json}.')
    return 0


if __name__ == '__main__':
    command.run(main)
