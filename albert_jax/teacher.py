"""The teacher of a distillation: read, checked against its student, and measured beside it."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from albert_jax.about import Head
from albert_jax.config import AlbertConfig
from albert_jax.data.hub_tokenizer import AnyTokenizer
from albert_jax.digests import digest_of_all
from albert_jax.distillation import (
    PREFIX,
    TEACHER,
    DistillationSettings,
    Guide,
    Lesson,
    principal_words,
)
from albert_jax.errors import UserError
from albert_jax.finetune import encoded
from albert_jax.interop import source
from albert_jax.pretrained import Pretrained, complete
from albert_jax.sharding import make_mesh, replicated
from albert_jax.tasks.features import Features, PairedFeatures
from albert_jax.tasks.prediction import Predictor
from albert_jax.tasks.task import Family

# Their answers are about whole sequences, so that teacher and student may cut them otherwise.
_OF_SEQUENCES = ('sequence_classification', 'multiple_choice')


@dataclasses.dataclass(frozen=True)
class Measured:
    """A model beside another: how good, how large, how fast."""

    metrics: Mapping[str, float]
    parameters: int
    examples_per_second: float

    def to_json(self) -> dict[str, Any]:
        """For a file."""
        return dataclasses.asdict(self)


def read_teacher(name: str) -> Pretrained:
    """The teacher, its weights not completed.

    Args:
      name: anything that `albert_jax.load` takes.

    Raises:
      UserError: if there is none, it cannot be read, or it has no vocabulary.
    """
    if not name:
        raise UserError('teacher is empty; set --config.teacher=CHECKPOINT.')
    teacher = source.read(name)
    if teacher.tokenizer is None:
        raise UserError(f'teacher={name} has no vocabulary, so its tokens cannot be told.')
    return teacher


def has_same_vocabulary(one: AnyTokenizer, other: AnyTokenizer) -> bool:
    """Whether both cut every text into the same pieces."""
    normalizations = [getattr(tokenizer, 'normalization', None) for tokenizer in (one, other)]
    return one.sha256 == other.sha256 and normalizations[0] == normalizations[1]


def lesson_for_task(
    name: str,
    teacher: Pretrained,
    settings: DistillationSettings,
    student: AlbertConfig,
    tokenizer: AnyTokenizer,
    head: Head,
    max_length: int,
) -> Lesson:
    """What a fine-tuned teacher adds to a fine-tuning.

    Raises:
      UserError: if it answers another question, or cannot be compared with the student.
    """
    if teacher.head is None:
        raise UserError(
            f'teacher={name} is not fine-tuned; give a model that python -m albert_jax.finetune '
            f'has trained on the task.'
        )
    if teacher.head.kind != head.kind:
        raise UserError(
            f'teacher={name} has a head for {teacher.head.kind}, the task needs {head.kind}.'
        )
    if set(teacher.head.labels) != set(head.labels):
        raise UserError(
            f'teacher={name} answers with {_listed(teacher.head.labels)}, the task with '
            f'{_listed(head.labels)}.'
        )
    if max_length > teacher.config.max_position_embeddings:
        raise UserError(
            f'task.max_length is {max_length}, but teacher={name} has '
            f'{teacher.config.max_position_embeddings} positions; set --config.task.max_length='
            f'{teacher.config.max_position_embeddings} or less.'
        )
    assert teacher.tokenizer is not None
    if not has_same_vocabulary(tokenizer, teacher.tokenizer):
        if head.kind not in _OF_SEQUENCES:
            raise UserError(
                f'teacher={name} has another vocabulary than the student, whose tokens would not '
                f'be its own; for this task both need the same.'
            )
        if settings.reads_tokens:
            raise UserError(
                f'teacher={name} has another vocabulary than the student; hidden states and '
                f'relations are compared token by token: set distillation.hidden_weight and '
                f'distillation.relation_weight to 0, or give the student the same vocabulary.'
            )
        if settings.words_from_teacher:
            raise UserError(
                f'teacher={name} has another vocabulary than the student, whose words it has no '
                f'embeddings for; set distillation.words_from_teacher to False, or give the '
                f'student the same vocabulary.'
            )
    order = tuple(teacher.head.labels.index(label) for label in head.labels)
    is_ordered = order == tuple(range(len(order)))
    parts = ('embeddings', 'encoder', 'pooler', 'head')
    return _lesson(teacher, parts, settings, student, head, () if is_ordered else order)


def lesson_for_text(
    name: str,
    teacher: Pretrained,
    settings: DistillationSettings,
    student: AlbertConfig,
    tokenizer: AnyTokenizer,
    sequence_length: int,
) -> Lesson:
    """What a pretrained teacher adds to a pretraining.

    Raises:
      UserError: if it has another vocabulary, is too short, or has no masked-LM head to ask.
    """
    assert teacher.tokenizer is not None
    if not has_same_vocabulary(tokenizer, teacher.tokenizer):
        raise UserError(
            f'teacher={name} has another vocabulary than the corpus; prepare the corpus with '
            f'--vocabulary=FILE of the teacher.'
        )
    if settings.soft_weight and teacher.config.vocab_size != student.vocab_size:
        raise UserError(
            f'teacher={name} has {teacher.config.vocab_size} scores for each masked piece, the '
            f'student {student.vocab_size}; set --config.model.vocab_size='
            f'{teacher.config.vocab_size}.'
        )
    if sequence_length > teacher.config.max_position_embeddings:
        raise UserError(
            f'pretraining.sequence_length is {sequence_length}, but teacher={name} has '
            f'{teacher.config.max_position_embeddings} positions.'
        )
    whole = complete(teacher)
    if settings.soft_weight and 'mlm' in whole.initialised:
        raise UserError(
            f'teacher={name} has no masked-LM head to ask; set --config.distillation.soft_weight=0 '
            f'and hidden_weight or relation_weight above it.'
        )
    parts = ('embeddings', 'encoder', 'pooler', 'mlm', 'sentence')
    return _lesson(whole, parts, settings, student, None, ())


def _lesson(
    teacher: Pretrained,
    parts: Sequence[str],
    settings: DistillationSettings,
    student: AlbertConfig,
    head: Head | None,
    order: tuple[int, ...],
) -> Lesson:
    config = dataclasses.replace(
        teacher.config, compute_dtype=student.compute_dtype, remat='none', attention='auto'
    )
    kept = {part: teacher.params[part] for part in parts if part in teacher.params}
    # On the host: every process of a pod has the same.
    params = jax.tree.map(np.asarray, kept)
    named, words = settings.to_dict(), None
    if not settings.words_from_teacher:
        # Runs from before there was a choice go on.
        del named['words_from_teacher']
    else:
        table = params['embeddings']['word']['embedding']
        if len(table) != student.vocab_size:
            raise UserError(
                f'distillation.words_from_teacher is True, but the teacher has {len(table)} word '
                f'embeddings, the student {student.vocab_size}; set --config.model.vocab_size='
                f'{len(table)}.'
            )
        if table.shape[1] < student.embedding_size:
            raise UserError(
                f"distillation.words_from_teacher is True, but the teacher's word embeddings are "
                f"of {table.shape[1]} numbers, the student's of {student.embedding_size}; set "
                f'--config.model.embedding_size={table.shape[1]} or less.'
            )
        words = principal_words(table, student.embedding_size)
    return Lesson(
        Guide(settings, student, config, head, order),
        {TEACHER: params},
        {'distillation': named | {'teacher': digest_of_all(params)}},
        words,
    )


def _listed(labels: Sequence[str]) -> str:
    return ', '.join(labels) or 'numbers'


def paired(
    family: Family,
    teacher: AnyTokenizer,
    student: AnyTokenizer,
    examples: Sequence[Any],
    head: Head,
    own: Features,
    cache: Path,
) -> Features | PairedFeatures:
    """The training examples, also as the teacher has them where its vocabulary is another."""
    if has_same_vocabulary(teacher, student):
        return own
    other = encoded(family, teacher, head, examples, True, cache)
    return PairedFeatures(own, other, PREFIX, teacher.pad_id)


def measure(
    model: Pretrained,
    family: Family,
    validation: Mapping[str, tuple[Sequence[Any], Features]],
    num_devices: int,
    batch_size: int,
) -> Measured:
    """A fine-tuned model on the validation examples, timed once everything is compiled.

    Args:
      model: with its head and vocabulary.
      family: of the task.
      validation: examples and features by the suffix of their metrics.
      num_devices: to run on; 0 for all.
      batch_size: examples at once.
    """
    assert model.head is not None and model.tokenizer is not None
    mesh = make_mesh(num_devices)
    predictor = Predictor(
        model.config, model.head, mesh, max(batch_size, 32), family.settings.max_length,
        model.tokenizer.pad_id,
    )  # fmt: skip
    parts = ('embeddings', 'encoder', 'pooler', 'head')
    params = {part: model.params[part] for part in parts if part in model.params}
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
        found = family.metrics(examples, features, outputs, model.head)
        metrics |= {f'{key}{suffix}': value for key, value in found.items()}
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    return Measured(metrics, parameters, count / seconds)
