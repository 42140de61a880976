"""Fine-tunes a pretrained model on a task: `python -m albert_jax.finetune --help`."""

import functools
from collections.abc import Sequence

from albert_jax.cli import command, next_steps
from albert_jax.interop.run_inputs import missing
from albert_jax.runs.reading import read_run
from albert_jax.runs.runs import FinetuneRun

_DESCRIPTION = """\
Fine-tune ALBERT or BERT on a task, keep the checkpoint that is best on the validation file, and
write its predictions. Resumes where it was when it is started again."""
_EPILOG = """\
configs:
  configs/finetune.py:TASK  with TASK one of
    cola sst2 mrpc stsb qqp mnli qnli rte wnli, squad1 squad2, race, ner upos tags, roles,
    classification regression (your own TSV, CSV or JSON Lines),
    translation summarization splitting, generation (your own pairs, from text to text)

examples:
  python -m albert_jax.finetune --config=configs/finetune.py:sst2 --workdir=runs/sst2 \\
      --config.init_from=runs/base --config.data.path=GLUE/SST-2
  python -m albert_jax.finetune --config=configs/finetune.py:classification --workdir=runs/mine \\
      --config.init_from=albert-base-v2 --config.data.train=train.csv \\
      --config.data.validation=dev.csv --config.task.text=review --config.task.label=stars
  python -m albert_jax.predict --checkpoint=runs/sst2 --input=texts.txt

init_from takes anything that albert_jax.load takes. docs/FINETUNING.md has the tasks and files.
"""


def main(arguments: Sequence[str]) -> int:
    """Reads the config, then trains, once for each seed."""
    parser = command.parser('albert_jax.finetune', _DESCRIPTION, _EPILOG, FinetuneRun)
    command.add_run_flags(parser)
    flags, overrides = parser.parse_known_args(arguments)
    run = read_run(
        FinetuneRun, flags.config, overrides, functools.partial(missing, workdir=flags.workdir)
    )

    from albert_jax.tasks.job import finetune, seed_folders, show_next
    from albert_jax.tasks.prepared import prepare

    further = next_steps.train_further(
        'albert_jax.finetune', arguments, seed_folders(flags.workdir, run.seeds)[0]
    )
    status = finetune(prepared := prepare(run), flags.workdir, further=further)
    if not status:
        show_next(prepared, flags.workdir)
    return status


if __name__ == '__main__':
    command.run(main, trains=True)
