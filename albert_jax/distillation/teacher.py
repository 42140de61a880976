"""The teacher of a distillation: read, checked against its student, made part of its training."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from albert_jax.cli.errors import UserError
from albert_jax.data.hub_tokenizer import AnyTokenizer
from albert_jax.distillation.losses import (
    TEACHER,
    Distillation,
    DistillationLoss,
    principal_components,
)
from albert_jax.interop import source
from albert_jax.interop.checksums import digest_of_all
from albert_jax.interop.native import Pretrained, check_no_decoder, complete
from albert_jax.model.config import AlbertConfig
from albert_jax.model.heads import Head
from albert_jax.runs.distillation import DistillationSettings


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
    check_no_decoder(teacher, f'teacher={name}', 'distillation')
    if teacher.tokenizer is None:
        raise UserError(f'teacher={name} has no vocabulary, so its tokens cannot be told.')
    return teacher


def has_same_vocabulary(one: AnyTokenizer, other: AnyTokenizer) -> bool:
    """Whether both cut every text into the same pieces."""
    return one.sha256 == other.sha256 and all(
        getattr(one, name, None) == getattr(other, name, None)
        for name in ('normalization', 'added_tokens')
    )


def distillation_on_task(
    name: str,
    teacher: Pretrained,
    settings: DistillationSettings,
    student: AlbertConfig,
    tokenizer: AnyTokenizer,
    head: Head,
    max_length: int,
) -> Distillation:
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
        if head.definition.is_token_level:
            raise UserError(
                f'teacher={name} has another vocabulary than the student, whose tokens would not '
                f'be its own; for this task both need the same.'
            )
        if settings.compares_tokens:
            raise UserError(
                f'teacher={name} has another vocabulary than the student; hidden states and '
                f'relations are compared token by token: set distillation.hidden_weight and '
                f'distillation.relation_weight to 0, or give the student the same vocabulary.'
            )
        if settings.init_embeddings_from_teacher:
            raise UserError(
                f'teacher={name} has another vocabulary than the student, whose words it has no '
                f'embeddings for; set distillation.init_embeddings_from_teacher to False, or give '
                f'the student the same vocabulary.'
            )
    order = tuple(teacher.head.labels.index(label) for label in head.labels)
    is_ordered = order == tuple(range(len(order)))
    parts = ('embeddings', 'encoder', 'pooler', 'head')
    return _make(teacher, parts, settings, student, head, () if is_ordered else order)


def distillation_on_text(
    name: str,
    teacher: Pretrained,
    settings: DistillationSettings,
    student: AlbertConfig,
    tokenizer: AnyTokenizer,
    sequence_length: int,
) -> Distillation:
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
    completed = complete(teacher)
    if settings.soft_weight and 'mlm' in completed.initialised:
        raise UserError(
            f'teacher={name} has no masked-LM head to ask; set --config.distillation.soft_weight=0 '
            f'and hidden_weight or relation_weight above it.'
        )
    parts = ('embeddings', 'encoder', 'pooler', 'mlm', 'sentence')
    return _make(completed, parts, settings, student, None, ())


def _make(
    teacher: Pretrained,
    parts: Sequence[str],
    settings: DistillationSettings,
    student: AlbertConfig,
    head: Head | None,
    order: tuple[int, ...],
) -> Distillation:
    config = dataclasses.replace(
        teacher.config, compute_dtype=student.compute_dtype, remat='none', attention='auto'
    )
    kept = {part: teacher.params[part] for part in parts if part in teacher.params}
    # On the host: every process of a pod has the same.
    params = jax.tree.map(np.asarray, kept)
    word_embeddings = None
    if settings.init_embeddings_from_teacher:
        table = params['embeddings']['word']['embedding']
        if len(table) != student.vocab_size:
            raise UserError(
                f'distillation.init_embeddings_from_teacher is True, but the teacher has '
                f'{len(table)} word embeddings, the student {student.vocab_size}; set '
                f'--config.model.vocab_size={len(table)}.'
            )
        if table.shape[1] < student.embedding_size:
            raise UserError(
                f"distillation.init_embeddings_from_teacher is True, but the teacher's word "
                f"embeddings are of {table.shape[1]} numbers, the student's of "
                f'{student.embedding_size}; set '
                f'--config.model.embedding_size={table.shape[1]} or less.'
            )
        word_embeddings = principal_components(table, student.embedding_size)
    return Distillation(
        DistillationLoss(settings, student, config, head, order),
        {TEACHER: params},
        {'distillation': settings.to_dict() | {'teacher': digest_of_all(params)}},
        word_embeddings,
    )


def _listed(labels: Sequence[str]) -> str:
    return ', '.join(labels) or 'numbers'
