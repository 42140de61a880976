"""Trains a small model to answer like a large one: `python -m albert_jax.distill --help`."""

import functools
from collections.abc import Sequence

from albert_jax.cli import command
from albert_jax.cli.errors import UserError
from albert_jax.interop.run_inputs import missing
from albert_jax.runs.reading import read_run
from albert_jax.runs.runs import DistillRun, FinetuneRun, PretrainRun, TeacherFields
from albert_jax.training import cluster

_DESCRIPTION = """\
Distil a teacher into a smaller student: on a task, from a fine-tuned teacher, or on raw text, from
a pretrained one. The student learns the teacher's softened answers, its hidden states through a
learned map, its self-attention relations (MiniLM v2), and the labels, as the config weighs them.
Resumes where it was when it is started again."""
_EPILOG = """\
configs:
  configs/distill.py:TASK+small   a random student of 2.8 M parameters, on a task
  configs/distill.py:TASK         the student is --config.init_from, or --config.model.size=…
  configs/distill.py:NAME         raw text; NAME one of tiny, mini, base, large, … is the student

examples:
  python -m albert_jax.distill --config=configs/distill.py:sst2+small --workdir=runs/student \\
      --config.teacher=runs/sst2 --config.data.path=GLUE/SST-2 --config.seeds=3
  python -m albert_jax.distill --config=configs/distill.py:mini --workdir=runs/small \\
      --config.teacher=runs/base --config.data.path=runs/corpus \\
      --config.distillation.relation_weight=1

teacher takes anything that albert_jax.load takes. docs/FINETUNING.md tells more.
"""


def main(arguments: Sequence[str]) -> int:
    """Reads the config, then trains the student."""
    parser = command.parser(
        'albert_jax.distill', _DESCRIPTION, _EPILOG, TeacherFields, FinetuneRun, PretrainRun
    )
    command.add_run_flags(parser)
    cluster.add_flags(parser)
    flags, overrides = parser.parse_known_args(arguments)
    run = read_run(
        DistillRun, flags.config, overrides, functools.partial(missing, workdir=flags.workdir)
    )
    is_task = isinstance(run.student, FinetuneRun)
    if is_task and (flags.coordinator or flags.num_processes or flags.process_id is not None):
        raise UserError(
            'A task is distilled by one process; --coordinator, --num_processes and --process_id '
            'are for raw text.'
        )
    cluster.start(flags)

    from albert_jax.distillation.job import distill
    from albert_jax.training.distributed import exit_on_lost_peer

    return exit_on_lost_peer(lambda: distill(run, flags.workdir))


if __name__ == '__main__':
    command.run(main, trains=True)
