"""Trains a small model to answer like a large one: `python -m albert_jax.distill --help`."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from albert_jax import command, distributed
from albert_jax.errors import UserError

if TYPE_CHECKING:
    from albert_jax.distillation import DistillationSettings
    from albert_jax.teacher import Measured

_DESCRIPTION = """\
Distil a teacher into a smaller student: on a task, from a fine-tuned teacher, or on raw text, from
a pretrained one. The student learns the teacher's softened answers, its hidden states through a
learned map, its self-attention relations (MiniLM v2), and the labels, as the config weighs them.
Goes on where it was when it is started again."""
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
_OF_TEACHER = ('teacher', 'distillation')


def main(arguments: Sequence[str]) -> int:
    """Reads the config, then trains the student."""
    parser = command.parser('albert_jax.distill', _DESCRIPTION, _EPILOG)
    parser.add_argument(
        '--config', required=True, metavar='FILE:NAME', help='what to train, and how'
    )
    parser.add_argument(
        '--workdir', required=True, type=Path, help='where checkpoints and metrics go'
    )
    distributed.add_flags(parser)
    flags, overrides = parser.parse_known_args(arguments)
    config = command.read_config(flags.config, overrides).to_dict()
    missing = [name for name in _OF_TEACHER if name not in config]
    if missing:
        raise UserError(
            f'--config={flags.config} has no {" and no ".join(missing)}; give '
            f'configs/distill.py:NAME.'
        )
    if 'task' in config:
        if flags.coordinator or flags.num_processes or flags.process_id is not None:
            raise UserError(
                'A task is distilled by one process; --coordinator, --num_processes and '
                '--process_id are for raw text.'
            )
        return run_task(config, flags.workdir)
    distributed.start(flags)
    return distributed.guarded(lambda: run_text(config, flags.workdir))


def run_task(config: Mapping[str, Any], workdir: Path) -> int:
    """Distils a fine-tuned teacher on a task; returns the exit status.

    Raises:
      UserError: if the config, the data, teacher, student or workdir cannot be used.
    """
    from albert_jax import finetune, teacher
    from albert_jax.pretrained import read
    from albert_jax.train import LoopSettings

    settings = _settings(config)
    name = config['teacher']
    model = teacher.read_teacher(name)
    assert model.tokenizer is not None
    ways = _without_teacher(config) | {'from_scratch': not config.get('init_from')}
    finetune.check_sections(ways)
    prepared = finetune.prepare(ways, model.tokenizer)
    family, head, tokenizer = prepared.family, prepared.head, prepared.start.tokenizer
    assert tokenizer is not None
    lesson = teacher.lesson_for_task(
        name, model, settings, prepared.start.config, tokenizer, head, family.settings.max_length
    )
    cache = Path(config['data']['cache'] or finetune.default_cache())
    assert not isinstance(prepared.train, teacher.PairedFeatures)
    both = teacher.paired(
        family, model.tokenizer, tokenizer, prepared.train_examples, head, prepared.train, cache
    )
    status = finetune.train_seeds(ways, dataclasses.replace(prepared, train=both), workdir, lesson)
    if status:
        return status
    # The teacher's labels may be in another order than the student's.
    assert model.head is not None
    validation = {
        suffix: (
            examples,
            finetune.encoded(family, model.tokenizer, model.head, examples, False, cache),
        )
        for suffix, (examples, _) in prepared.validation.items()
    }
    loop = LoopSettings.from_dict(config['loop'])
    student = read(finetune.seed_folders(workdir, config['seeds'])[0])
    measured = {
        name: teacher.measure(one, family, examples, loop.num_devices, loop.batch_size)
        for name, one, examples in (
            ('teacher', model, validation), ('student', student, prepared.validation),
        )
    }  # fmt: skip
    _compare(measured, family.best_metric, workdir)
    return 0


def _settings(config: Mapping[str, Any]) -> 'DistillationSettings':
    """The section `distillation`, which must not be at odds with where the student starts."""
    from albert_jax.distillation import DistillationSettings

    settings = DistillationSettings.from_dict(config['distillation'])
    if settings.words_from_teacher and config['init_from']:
        raise UserError(
            f'init_from={config["init_from"]} has word embeddings already; set '
            f'distillation.words_from_teacher to False, or leave init_from empty.'
        )
    return settings


def _without_teacher(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the student's training alone."""
    return {part: section for part, section in config.items() if part not in _OF_TEACHER}


def _compare(measured: Mapping[str, 'Measured'], best: str, workdir: Path) -> None:
    """Prints student beside teacher, and writes the same as JSON."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title='Validation, in this process')
    for column in ('', best, 'parameters', 'examples a second'):
        table.add_column(column, justify='right' if column else 'left')
    for name, found in measured.items():
        table.add_row(
            name,
            f'{found.metrics[best]:.4f}',
            f'{found.parameters / 1e6:.1f} M',
            f'{found.examples_per_second:.0f}',
        )
    Console().print(table)
    content = {name: found.to_json() for name, found in measured.items()}
    path = workdir / 'distilled.json'
    path.write_text(json.dumps(content, indent=2) + '\n')
    print(f'Wrote {path}.')


def run_text(config: Mapping[str, Any], workdir: Path) -> int:
    """Distils a pretrained teacher on a prepared corpus; returns the exit status.

    Raises:
      UserError: if the config, the corpus, teacher, student or workdir cannot be used.
    """
    from albert_jax import pretrain, teacher
    from albert_jax.digests import digest_of_all
    from albert_jax.distillation import Lesson

    settings = _settings(config)
    ways = _without_teacher(config)

    def teach(sections: pretrain.Sections, tokenizer: Any) -> Lesson:
        model = teacher.read_teacher(config['teacher'])
        length = sections.pretraining.sequence_length
        lesson = teacher.lesson_for_text(
            config['teacher'], model, settings, sections.model, tokenizer, length
        )
        words = {} if lesson.words is None else {'words': digest_of_all(lesson.words)}
        distributed.check_same({**lesson.identity, **words})
        return lesson

    return pretrain.run(ways, workdir, teach=teach)


if __name__ == '__main__':
    command.run(main)
