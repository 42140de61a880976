"""A fine-tuned checkpoint ready to answer: what evaluation, prediction and services share."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from albert_jax.cli.errors import UserError
from albert_jax.data.hub_tokenizer import AnyTokenizer
from albert_jax.interop import source
from albert_jax.interop.native import Pretrained
from albert_jax.model.heads import Head
from albert_jax.runs.task import TaskSettings
from albert_jax.tasks import race, squad
from albert_jax.tasks.classification import TextExample, TextTask
from albert_jax.tasks.families import make_task
from albert_jax.tasks.prediction import Predictor
from albert_jax.tasks.race import RaceTask
from albert_jax.tasks.squad import SquadTask
from albert_jax.tasks.tagging import Sentence
from albert_jax.tasks.task import Task
from albert_jax.training.sharding import make_mesh, replicated

# The task of a checkpoint that does not say, by its head.
_DEFAULT_TASKS = {
    'sequence_classification': 'classification',
    'token_classification': 'tags',
    'question_answering': 'squad1',
    'conditional_question_answering': 'squad2',
    'multiple_choice': 'race',
}


class Answerer:
    """A fine-tuned model with its task.

    Args:
      checkpoint: anything that `albert_jax.load` takes, with a head, or what it gave.
      task: its name, where the checkpoint does not say or another is meant.
      batch_size: examples a batch.
      num_devices: 0 for all.
      labels: names of the classes, in the order of the model's outputs, in place of its own.
      max_length: tokens of a sequence, where fewer than the task's are wanted; 0 for the task's.

    Raises:
      UserError: if it cannot be read, has no head or vocabulary, or the task wants another head.
    """

    def __init__(
        self,
        checkpoint: str | Path | Pretrained,
        task: str | None = None,
        batch_size: int = 32,
        num_devices: int = 0,
        labels: Sequence[str] | None = None,
        max_length: int = 0,
    ) -> None:
        if isinstance(checkpoint, Pretrained):
            self.model, checkpoint = checkpoint, 'the model'
        else:
            self.model = source.read(checkpoint)
        if self.model.head is None:
            raise UserError(
                f'{checkpoint} has no head: it is not fine-tuned; see python -m '
                f'albert_jax.finetune --help.'
            )
        if self.model.tokenizer is None:
            raise UserError(f'{checkpoint} has no vocabulary.')
        self.head: Head = self.model.head
        if labels is not None:
            if len(labels) != len(self.head.labels):
                raise UserError(
                    f'--labels names {len(labels)} classes; {checkpoint} has '
                    f'{len(self.head.labels)}: {", ".join(self.head.labels)}.'
                )
            self.head = Head(self.head.kind, tuple(labels))
        self.tokenizer: AnyTokenizer = self.model.tokenizer
        self.family = self._family(task, str(checkpoint), max_length)
        mesh = make_mesh(num_devices)
        self.predictor = Predictor(
            self.model.config, self.head, mesh, batch_size, self.family.settings.max_length,
            self.tokenizer.pad_id,
        )  # fmt: skip
        self.params = jax.device_put(self.model.params, replicated(mesh))

    def _family(self, task: str | None, origin: str, max_length: int) -> Task:
        fields: dict[str, Any] = dict(self.model.run.get('task', {}))
        positions = self.model.config.max_position_embeddings
        if not fields:
            name = _DEFAULT_TASKS[self.head.kind]
            if name == 'classification' and len(self.head.labels) == 1:
                name = 'regression'
            fields = {'name': name, 'max_length': min(512, positions)}
        if task is not None:
            fields['name'] = task
        if max_length:
            fields['max_length'] = min(max_length, fields['max_length'])
        family = make_task(TaskSettings.from_dict(fields))
        if isinstance(family, TextTask) and not family.is_regression and family.labels is None:
            family.labels = self.head.labels
        wanted = family.head([_EXAMPLE]).kind if not isinstance(family, TextTask) else None
        if (wanted or 'sequence_classification') != self.head.kind:
            raise UserError(
                f'{origin} has a {self.head.kind.replace("_", " ")} head, which the task '
                f'{fields["name"]} cannot use; give another with --task.'
            )
        if isinstance(family, TextTask):
            self._check_labels(family, fields['name'], origin)
        return family

    def _check_labels(self, family: TextTask, name: str, origin: str) -> None:
        found = self.head.labels
        if family.is_regression != (len(found) == 1):
            raise UserError(
                f'{origin} has {len(found)} output(s), which do not fit the task {name}.'
            )
        if not family.is_regression and set(found) != set(family.labels or ()):
            raise UserError(
                f'{origin} has the labels {", ".join(found)}, the task {name} '
                f'{", ".join(family.labels or ())}; name them in the order of the outputs with '
                f'--labels=A,B.'
            )

    def evaluate(self, examples: Sequence[Any]) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """The metrics of labelled examples, none if there are none, and every answer."""
        features = self.family.encode(examples, self.tokenizer, self.head, False)
        outputs = self.predictor(self.params, features)
        assert outputs is not None
        return (
            self.family.metrics(examples, features, outputs, self.head),
            self.family.predictions(examples, features, outputs, self.head),
        )

    def answer(self, lines: Iterable[str], origin: str) -> list[dict[str, Any]]:
        """An answer for each line of text or JSON.

        Raises:
          UserError: if a line is not what the task wants.
        """
        examples = list(self.examples(lines, origin))
        return self.evaluate(examples)[1] if examples else []

    def examples(self, lines: Iterable[str], origin: str) -> Iterator[Any]:
        """An example for each line that is not empty.

        Texts: the text, a pair with a tab between, or JSON with the task's columns. Tagging: words
        with spaces between. Questions: JSON with question and passage, for RACE also options.

        Raises:
          UserError: if a line is not what the task wants.
        """
        for number, line in enumerate(lines):
            if line.strip():
                where = f'{origin}, line {number + 1}'
                yield self._of_line(line.rstrip('\r\n'), where, str(number))

    def _of_line(self, line: str, where: str, key: str) -> Any:
        family = self.family
        is_object = line.lstrip().startswith('{')
        if isinstance(family, TextTask) and not is_object:
            second = family.columns(Path(), False)[2]
            texts = line.split('\t') if second else [line, None]
            if len(texts) != 2:
                raise UserError(f'{where}: the task wants two texts with a tab between them.')
            return TextExample(where, key, texts[0], texts[1], None)
        if isinstance(family, TextTask | SquadTask | RaceTask):
            return self.example(_json(line, where), where, key)
        return self.example(line, where, key)

    @property
    def fields(self) -> tuple[str, ...]:
        """What an example must have; empty where it may be a text and nothing else."""
        family = self.family
        if isinstance(family, TextTask):
            _, first, second, _ = family.columns(Path(), False)
            return (first, second) if second else ()
        if isinstance(family, SquadTask):
            return ('question', 'passage')
        return ('question', 'passage', 'options') if isinstance(family, RaceTask) else ()

    def example(self, given: str | dict[str, Any], where: str, key: str) -> Any:
        """The example of a text, or of an object with the task's fields.

        Args:
          given: a text for tasks of one text, and words with spaces between for tagging; else an
            object.
          where: what to call it in messages.
          key: its name, unless an object has an `id`.

        Raises:
          UserError: if it is not what the task wants.
        """
        family = self.family
        if isinstance(family, TextTask):
            _, first, second, _ = family.columns(Path(), False)
            if isinstance(given, str) and not second:
                return TextExample(where, key, given, None, None)
            fields = _checked(given, where, [first, *([second] if second else [])])
            return TextExample(where, key, fields[first], fields[second] if second else None, None)
        if isinstance(family, SquadTask):
            fields = _checked(given, where, ['question', 'passage'])
            return squad.Question(
                where, fields.get('id', key), '', fields['question'], fields['passage'], None
            )
        if isinstance(family, RaceTask):
            fields = _checked(given, where, ['question', 'passage', 'options'])
            options = fields['options']
            if not isinstance(options, list) or len(options) != 4:
                raise UserError(f'{where}: options must be a list of four texts.')
            return race.Question(
                where, fields.get('id', key), '', fields['passage'], fields['question'],
                tuple(map(str, options)), None,
            )  # fmt: skip
        if not isinstance(given, str):
            raise UserError(f'{where} must be words with spaces between them.')
        return Sentence(where, key, tuple(given.split()), None)


_EXAMPLE = Sentence('', '', (), ())


def _json(line: str, where: str) -> dict[str, Any]:
    try:
        return json.loads(line)
    except ValueError as error:
        raise UserError(f'{where} is not JSON: {error}.') from error


def _checked(content: Any, where: str, names: Sequence[str]) -> dict[str, Any]:
    missing = [name for name in names if not isinstance(content, dict) or name not in content]
    if missing:
        raise UserError(f'{where} lacks {", ".join(missing)}.')
    for name in names:
        if name != 'options' and not isinstance(content[name], str):
            raise UserError(f'{where}: {name} must be a text.')
    return content
