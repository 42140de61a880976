"""Distillation as a job: prepare → train → report, on a task or on raw text."""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from albert_jax.cli.errors import UserError
from albert_jax.cli.json_output import to_json
from albert_jax.distillation.losses import TEACHER_PREFIX, Distillation
from albert_jax.distillation.teacher import (
    distillation_on_task,
    distillation_on_text,
    has_same_vocabulary,
    read_teacher,
)
from albert_jax.interop.checksums import digest_of_all
from albert_jax.interop.native import Pretrained, read
from albert_jax.model.paths import num_params, select
from albert_jax.pretraining import job as pretraining
from albert_jax.runs.runs import DistillRun, FinetuneRun, PretrainRun
from albert_jax.tasks import job as finetuning
from albert_jax.tasks.encoded import Encoder, cache_folder
from albert_jax.tasks.features import Features, PairedFeatures
from albert_jax.tasks.generation import GenerationTask
from albert_jax.tasks.prediction import Predictor
from albert_jax.tasks.prepared import Prepared, Splits, prepare
from albert_jax.tasks.registry import make_task
from albert_jax.tasks.task import Task
from albert_jax.training import distributed
from albert_jax.training.sharding import make_mesh, replicated

_FINETUNED_PARTS = ('embeddings', 'encoder', 'pooler', 'head')


@dataclasses.dataclass(frozen=True)
class Measured:
    """A model beside another: how good, how large, how fast."""

    metrics: Mapping[str, float]
    parameters: int
    examples_per_second: float

    def to_json(self) -> dict[str, Any]:
        """For a file."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class PreparedTask:
    """A distillation on a task that can start: the student's fine-tuning, and its teacher."""

    student: Prepared
    teacher: Pretrained
    distillation: Distillation


def distill(run: DistillRun, workdir: Path) -> int:
    """Trains a student on what the run says; returns the exit status.

    Raises:
      UserError: if the data, teacher, student or workdir cannot be used.
    """
    if isinstance(run.student, FinetuneRun):
        prepared = prepare_task(run, run.student)
        status = finetuning.finetune(prepared.student, workdir, prepared.distillation)
        if not status:
            print('Measuring the student and its teacher on the validation file …', flush=True)
            _report(prepared, workdir)
            finetuning.show_next(prepared.student, workdir)
        return status
    student, distillation = prepare_text(run, run.student)
    return pretraining.pretrain(student, workdir, distillation=distillation)


def prepare_task(run: DistillRun, student: FinetuneRun) -> PreparedTask:
    """Reads a fine-tuned teacher, the student and the task's data.

    Raises:
      UserError: if one cannot be read, or they do not fit together.
    """
    if isinstance(make_task(student.task), GenerationTask):
        raise UserError(
            f'task.name is {student.task.name}, and there is no distillation from text to text; '
            f'train the small model with python -m albert_jax.finetune.'
        )
    teacher = read_teacher(run.teacher)
    prepared = prepare(student, teacher.tokenizer)
    if teacher.head is not None:
        # A teacher of an earlier version may have the labels of the files.
        teacher = dataclasses.replace(teacher, head=prepared.task.named(teacher.head))
    assert teacher.tokenizer is not None
    distillation = distillation_on_task(
        run.teacher,
        teacher,
        run.distillation,
        prepared.start.config,
        prepared.tokenizer,
        prepared.head,
        prepared.task.settings.max_length,
    )
    if not has_same_vocabulary(teacher.tokenizer, prepared.tokenizer):
        encode = Encoder(
            prepared.task, teacher.tokenizer, prepared.head, cache_folder(student.data)
        )
        assert isinstance(prepared.train, Features)
        paired = PairedFeatures(
            prepared.train,
            encode(prepared.train_examples, True),
            TEACHER_PREFIX,
            teacher.tokenizer.pad_id,
        )
        prepared = dataclasses.replace(prepared, train=paired)
    return PreparedTask(prepared, teacher, distillation)


def prepare_text(
    run: DistillRun, student: PretrainRun
) -> tuple[pretraining.Prepared, Distillation]:
    """Opens the student's corpus and reads a pretrained teacher.

    Raises:
      UserError: if one cannot be read, or they do not fit together.
    """
    prepared = pretraining.prepare(student)
    distillation = distillation_on_text(
        run.teacher,
        read_teacher(run.teacher),
        run.distillation,
        student.albert,
        prepared.corpus.tokenizer,
        student.pretraining.sequence_length,
    )
    words = distillation.word_embeddings
    distributed.check_same(
        {
            **distillation.resume_fingerprint,
            **({} if words is None else {'words': digest_of_all(words)}),
        }
    )
    return prepared, distillation


def _report(prepared: PreparedTask, workdir: Path) -> None:
    """Prints the student beside its teacher, and writes the same as JSON."""
    student, teacher = prepared.student, prepared.teacher
    assert teacher.head is not None and teacher.tokenizer is not None
    # The teacher's labels may be in another order than the student's.
    encode = Encoder(student.task, teacher.tokenizer, teacher.head, cache_folder(student.run.data))
    splits = {suffix: examples for suffix, (examples, _) in student.validation.items()}
    best = read(finetuning.seed_folders(workdir, student.run.seeds)[0])
    loop = student.run.loop
    measured = {
        'teacher': measure(
            teacher, student.task, encode.each(splits), loop.num_devices, loop.batch_size
        ),
        'student': measure(
            best, student.task, student.validation, loop.num_devices, loop.batch_size
        ),
    }
    best_metric = student.task.best_metric
    table = Table(title='Validation, in this process')
    for column in ('', best_metric, 'parameters', 'examples a second'):
        table.add_column(column, justify='right' if column else 'left')
    for name, one in measured.items():
        table.add_row(
            name,
            f'{one.metrics[best_metric]:.4f}',
            f'{one.parameters / 1e6:.1f} M',
            f'{one.examples_per_second:.0f}',
        )
    Console().print(table)
    path = workdir / 'distilled.json'
    content = {name: one.to_json() for name, one in measured.items()}
    path.write_text(to_json(content, indent=2) + '\n')
    print(f'Wrote {path}.')


def measure(
    model: Pretrained, task: Task, validation: Splits, num_devices: int, batch_size: int
) -> Measured:
    """A fine-tuned model on the validation examples, timed once everything is compiled.

    Args:
      model: with its head and vocabulary.
      task: of the examples.
      validation: examples and features by the suffix of their metrics.
      num_devices: to run on; 0 for all.
      batch_size: examples at once.
    """
    assert model.head is not None and model.tokenizer is not None
    mesh = make_mesh(num_devices)
    predictor = Predictor(
        model.config,
        model.head,
        mesh,
        max(batch_size, 32),
        task.settings.max_length,
        model.tokenizer.pad_id,
    )
    params = select(model.params, _FINETUNED_PARTS)
    placed = jax.device_put(params, replicated(mesh))
    metrics: dict[str, float] = {}
    seconds, count = 0.0, 0
    for suffix, (examples, features) in validation.items():
        predictor(placed, features)
        started = time.monotonic()
        outputs = predictor(placed, features)
        seconds += time.monotonic() - started
        count += features.num_examples
        assert outputs is not None
        scores = task.metrics(examples, features, outputs, model.head)
        metrics |= {f'{name}{suffix}': value for name, value in scores.items()}
    return Measured(metrics, num_params(params), count / seconds)
