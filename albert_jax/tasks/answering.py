"""A fine-tuned checkpoint ready to answer: what evaluation, prediction and services share."""

import collections
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from albert_jax.cli.errors import UserError
from albert_jax.cli.json_text import is_visible
from albert_jax.data.hub_tokenizer import AnyTokenizer
from albert_jax.interop import source
from albert_jax.interop.native import Pretrained
from albert_jax.model.decoder import Seq2SeqModel
from albert_jax.model.decoding_settings import DecodingSettings
from albert_jax.model.heads import Head
from albert_jax.runs.task import TaskSettings
from albert_jax.tasks.generation import DECODER, GenerationTask
from albert_jax.tasks.generator import Generator
from albert_jax.tasks.given import check_is_text, listed, text_or_fields
from albert_jax.tasks.inputs import parse_lines
from albert_jax.tasks.prediction import Predictor, nothing
from albert_jax.tasks.registry import default_task, make_task
from albert_jax.tasks.role_files import PredicateMarks
from albert_jax.tasks.roles import RolesTask
from albert_jax.tasks.squad import SquadTask
from albert_jax.tasks.task import Task, check_no_others
from albert_jax.training.sharding import make_mesh, replicated

# Tokens of a sequence, where the checkpoint does not say.
_DEFAULT_LENGTH = 512


class Answerer:
    """A fine-tuned model with its task.

    Args:
      checkpoint: anything that `albert_jax.load` takes, with a head, or what it gave.
      task: its name, where the checkpoint does not say or another is meant.
      batch_size: examples a batch.
      num_devices: 0 for all.
      labels: names of the classes, in the order of the model's outputs, in place of its own.
      max_length: tokens of a sequence, where fewer than the task's are wanted; 0 for the task's.
      null_score_diff_threshold: of SQuAD 2.0: the odds above which a question has no answer.
      predicates: of semantic roles: the column of a file that marks them, and perhaps the values
        there, as COLUMN or COLUMN:VALUE,VALUE.
      decoding: changes of the settings that a model with a decoder writes texts with, by field.
      num_loops: how often a model that is read goes through its layers; None: as in training.

    Raises:
      UserError: if it cannot be read, has no head, decoder or vocabulary, the task wants another
        head, or labels, a threshold, predicates or the settings of the decoding do not fit.
    """

    def __init__(
        self,
        checkpoint: str | Path | Pretrained,
        task: str | None = None,
        batch_size: int = 32,
        num_devices: int = 0,
        labels: Sequence[str] | None = None,
        max_length: int = 0,
        null_score_diff_threshold: float | None = None,
        predicates: str | None = None,
        decoding: Mapping[str, Any] | None = None,
        num_loops: int | None = None,
    ) -> None:
        if isinstance(checkpoint, Pretrained):
            self.model, origin = checkpoint, 'the model'
        else:
            self.model, origin = source.read_at_depth(checkpoint, num_loops), str(checkpoint)
        self.head: Head = _head_of(self.model, origin, task, decoding)
        if self.model.tokenizer is None:
            raise UserError(f'{origin} has no vocabulary.')
        if labels is not None:
            labels = _checked_labels(labels)
            if len(labels) != len(self.head.labels):
                raise UserError(
                    f'--labels names {len(labels)} classes; {origin} has '
                    f'{len(self.head.labels)}: {", ".join(self.head.labels)}.'
                )
            self.head = Head(self.head.kind, labels)
        self.tokenizer: AnyTokenizer = self.model.tokenizer
        self.task: Task = make_task(_task_settings(self.model, self.head, task, max_length))
        self.task.use_head(self.head, origin if labels is None else f'{origin} with --labels')
        if null_score_diff_threshold is not None:
            _set_threshold(self.task, null_score_diff_threshold)
        if predicates is not None:
            _set_predicates(self.task, predicates)
        mesh = make_mesh(num_devices)
        if self.model.decoder is None:
            self.predictor = Predictor(
                self.model.config, self.head, mesh, batch_size, self.task.settings.max_length,
                self.tokenizer.pad_id,
            )  # fmt: skip
        else:
            self.predictor = Generator(
                Seq2SeqModel(self.model.config, self.model.decoder), self.tokenizer, mesh,
                batch_size, self.task.settings, _decoding_settings(self.model, decoding or {}),
            )  # fmt: skip
        self.params = jax.device_put(self.model.params, replicated(mesh))

    def evaluate(
        self, examples: Sequence[Any], on_batch: Callable[[int], None] = nothing
    ) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """The metrics of labelled examples, none if there are none, and every answer.

        Args:
          examples: at least one.
          on_batch: called with the number of examples of each batch that is done.
        """
        features = self.task.encode(examples, self.tokenizer, self.head, False)
        features = self.task.finish(features, examples)
        outputs = self.predictor(self.params, features, on_batch=on_batch)
        assert outputs is not None
        return (
            self.task.metrics(examples, features, outputs, self.head),
            self.task.predictions(examples, features, outputs, self.head),
        )

    def answer(self, lines: Iterable[str], origin: str) -> list[dict[str, Any]]:
        """An answer for each line of text or JSON.

        Raises:
          UserError: if a line is not what the task wants.
        """
        examples = list(self.examples(lines, origin))
        return self.evaluate(examples)[1] if examples else []

    def examples(self, lines: Iterable[str], origin: str) -> Iterator[Any]:
        """An example for each line that is not empty, as `Task.parse_line` takes it.

        Raises:
          UserError: if a line is not what the task wants.
        """
        lines = listed(lines, 'lines')
        for number, line in enumerate(lines, 1):
            check_is_text(line, f'{origin}, line {number}')
        return iter(parse_lines(self.task, lines, origin))

    @property
    def fields(self) -> tuple[str, ...]:
        """What an example must have; empty where it may be a text and nothing else."""
        return self.task.fields

    def example(self, given: Any, where: str, key: str) -> Any:
        """The example of a text, or of an object with the task's fields.

        Args:
          given: a text for tasks of one text, and words with spaces between for tagging; else a
            mapping, or a row of a table of pandas.
          where: what to call it in messages.
          key: its name, unless an object has an `id`.

        Raises:
          UserError: if it is not what the task wants.
        """
        return self.task.parse(text_or_fields(given, where), where, key)

    def check_all_is_read(self, given: str | Mapping[str, Any], where: str) -> None:
        """Refuses an object with a field of which `example` takes no notice.

        Args:
          given: a text or an object.
          where: what to call it in messages.

        Raises:
          UserError: if it has one.
        """
        if not isinstance(given, str):
            check_no_others(given, where, (*self.task.fields, *self.task.other_fields))


def _head_of(
    model: Pretrained, origin: str, task: str | None, decoding: Mapping[str, Any] | None
) -> Head:
    """The head of a model, or what stands for one where it has a decoder.

    Raises:
      UserError: if it has neither, or has no decoder where one is asked for.
    """
    if model.decoder is not None:
        return DECODER
    is_generation = task is not None and isinstance(
        make_task(TaskSettings(name=task)), GenerationTask
    )
    if decoding or is_generation:
        asked = f'--task={task}' if is_generation else f'--{next(iter(decoding or ()))}'
        raise UserError(
            f'{origin} has no decoder, which {asked} is for: it was not trained from text to text '
            f'(python -m albert_jax.finetune --config=configs/finetune.py:generation).'
        )
    if model.head is None:
        raise UserError(
            f'{origin} has no head: it is not fine-tuned; see python -m albert_jax.finetune --help.'
        )
    return model.head


def _decoding_settings(model: Pretrained, changes: Mapping[str, Any]) -> DecodingSettings:
    """The settings that the model was evaluated with in its training, with some changes."""
    stored = model.run_section(DecodingSettings) or DecodingSettings()
    return DecodingSettings.from_dict({**stored.to_dict(), **changes})


def _checked_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """The names without white space around them; all are to be seen, and none is there twice."""
    if isinstance(labels, str):
        raise UserError(f'labels is one text, {labels!r}; give a list of names, a class each.')
    for place, label in enumerate(labels, 1):
        check_is_text(label, f'name {place} of --labels')
    names = tuple(label.strip() for label in labels)
    empty = [place for place, name in enumerate(names, 1) if not is_visible(name)]
    if empty:
        raise UserError(f'--labels has an empty name in place {empty[0]}.')
    repeated = [name for name, count in collections.Counter(names).items() if count > 1]
    if repeated:
        raise UserError(f'--labels names {repeated[0]!r} twice; each class has a name of its own.')
    return names


def _set_threshold(task: Task, threshold: float) -> None:
    """Sets above which odds a question has no answer."""
    if not isinstance(task, SquadTask) or not task.has_impossible:
        raise UserError(
            f'--null_score_diff_threshold is for questions that may have no answer (task squad2), '
            f'not for the task {task.settings.name}.'
        )
    if math.isnan(threshold):
        raise UserError('--null_score_diff_threshold is nan; it must be a number.')
    task.no_answer_threshold = threshold


def _set_predicates(task: Task, text: str) -> None:
    """Sets where the predicates of a file are."""
    if not isinstance(task, RolesTask):
        raise UserError(
            f'--predicates is for semantic roles (task roles), not for the task '
            f'{task.settings.name}.'
        )
    task.predicate_marks = PredicateMarks.parse(text)


def _task_settings(
    model: Pretrained, head: Head, name: str | None, max_length: int
) -> TaskSettings:
    """The settings that the model was fine-tuned with, or those of its head's default task."""
    settings = model.run_section(TaskSettings)
    if settings is None:
        longest = min(_DEFAULT_LENGTH, model.config.max_position_embeddings)
        settings = TaskSettings(
            name=default_task(head),
            max_length=longest,
            max_target_length=min(TaskSettings().max_target_length, longest),
        )
    if name is not None:
        # The names are of the labels of the task that it was trained on.
        names = settings.label_names if name == settings.name else ''
        settings = dataclasses.replace(settings, name=name, label_names=names)
    if max_length:
        length = min(max_length, settings.max_length)
        settings = dataclasses.replace(settings, max_length=length)
    return settings
