"""Pretrains ALBERT on a prepared corpus: `python -m albert_jax.pretrain --help`."""

import functools
from collections.abc import Sequence

from albert_jax.cli import command, next_steps
from albert_jax.cli.errors import UserError
from albert_jax.interop.run_inputs import missing
from albert_jax.runs.reading import read_run
from albert_jax.runs.runs import PretrainRun
from albert_jax.training import cluster

_DESCRIPTION = """\
Pretrain ALBERT (masked language model and sentence order) on a prepared corpus.

Resumes from the latest checkpoint in --workdir, if there is one: start the same command again after
a crash, a kill or a preemption, and the run ends exactly as if it had never stopped.
"""
_EPILOG = """\
configs:
  configs/pretrain.py:NAME  with NAME one of tiny, mini, base, large, xlarge, xxlarge, bert_base;
                            NAME+modern is a recipe of today at that size, and modern is
                            base+modern

examples:
  python -m albert_jax.prepare --input=builtin --output=runs/corpus --vocabulary=train \\
      --vocab_size=4096 --sequence_length=64
  python -m albert_jax.pretrain --config=configs/pretrain.py:tiny --workdir=runs/tiny \\
      --config.data.path=runs/corpus --config.loop.num_steps=200
  python -m albert_jax.fill_mask --checkpoint=runs/tiny 'Returns a [MASK] array.'
"""


def main(arguments: Sequence[str]) -> int:
    """Reads the config, then trains."""
    parser = command.parser('albert_jax.pretrain', _DESCRIPTION, _EPILOG, PretrainRun)
    command.add_run_flags(parser)
    parser.add_argument(
        '--profile', type=int, default=0, metavar='STEPS', help='record so many for TensorBoard'
    )
    cluster.add_flags(parser)
    flags, overrides = parser.parse_known_args(arguments)
    run = read_run(
        PretrainRun, flags.config, overrides, functools.partial(missing, workdir=flags.workdir)
    )
    if flags.profile < 0:
        raise UserError(f'--profile={flags.profile}: it must be 0 or above.')
    cluster.start(flags)

    from albert_jax.pretraining.job import prepare, pretrain
    from albert_jax.training.distributed import exit_on_lost_peer

    further = next_steps.train_further('albert_jax.pretrain', arguments, flags.workdir)
    return exit_on_lost_peer(
        lambda: pretrain(prepare(run), flags.workdir, flags.profile, further=further)
    )


if __name__ == '__main__':
    command.run(main, trains=True)
