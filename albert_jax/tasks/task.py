"""What the loop, evaluation, prediction and the service know of a task."""

import abc
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np

from albert_jax.cli.errors import UserError
from albert_jax.cli.json_output import to_json
from albert_jax.cli.json_text import check_text, parse_json
from albert_jax.cli.notes import note
from albert_jax.data.hub_tokenizer import AnyTokenizer
from albert_jax.model.heads import Head
from albert_jax.runs.task import TaskSettings
from albert_jax.tasks.features import Features, note_cut, tell_empty
from albert_jax.tasks.tables import text_ending

# One array for each example, or each window of a passage, in order.
Outputs = Mapping[str, Sequence[np.ndarray]]


@runtime_checkable
class Example(Protocol):
    """An example of any task."""

    @property
    def where(self) -> str:
        """'FILE, line N', for messages."""
        ...

    @property
    def key(self) -> str:
        """Its name among the predictions."""
        ...

    @property
    def is_labelled(self) -> bool:
        """Whether its label, tags or answers are known."""
        ...

    @property
    def group(self) -> str:
        """The group, if any, that is kept together when examples are held out."""
        ...


# Of a field, in messages.
_LONGEST_NAME = 60

ExampleT = TypeVar('ExampleT', bound=Example)


class Task(abc.ABC, Generic[ExampleT]):
    """A task: read → encode → head → metric → predictions.

    Args:
      settings: of the task.
    """

    # What has to be best: a name in what `metrics` gives.
    best_metric: str
    # All that `metrics` gives for some data; for other data, some of them.
    metric_names: tuple[str, ...]
    is_lower_better: bool = False
    # The kind of the head, a key of model.heads.HEADS.
    head_kind: str
    # Endings of files for `read`; any other file is lines for `parse_line`.
    file_endings: ClassVar[tuple[str, ...]] = (
        '.tsv', '.csv', '.jsonl', '.json', '.conllu', '.conll',
    )  # fmt: skip
    # Whether `read` takes files of any ending.
    reads_any_file: ClassVar[bool] = False
    # Whether predictions are written by the example's key, which then must be its own.
    writes_by_key: ClassVar[bool] = False
    # Whether the task's examples can come from tensorflow-datasets.
    reads_tfds: ClassVar[bool] = False
    # Whether an empty line among lines to predict for is an example, so that answers stay in line.
    keeps_empty_lines: ClassVar[bool] = False

    def __init__(self, settings: TaskSettings) -> None:
        self.settings = settings

    @property
    @abc.abstractmethod
    def fields(self) -> tuple[str, ...]:
        """What an object for `parse` must have; empty where a text is enough."""

    @property
    def other_fields(self) -> tuple[str, ...]:
        """What else an object for `parse` may have, read or not: its `id`, and its label."""
        return ('id',)

    @property
    def sample(self) -> str | dict[str, Any]:
        """Something short that `parse` takes, to compile for."""
        return dict.fromkeys(self.fields, 'a') or 'a'

    @abc.abstractmethod
    def parse(self, content: str | dict[str, Any], where: str, key: str) -> ExampleT:
        """The unlabelled example of a text, or of an object with the task's `fields`.

        Args:
          content: the text or the object.
          where: what to call it in messages.
          key: its name, unless the object has an `id`.

        Raises:
          UserError: if it is not what the task takes.
        """

    def parse_line(self, line: str, where: str, key: str) -> ExampleT:
        """The unlabelled example of a line of a file: JSON with the task's `fields`.

        Raises:
          UserError: if it is not what the task takes.
        """
        content = parse_json(line, where, (*self.fields, 'id'))
        if not isinstance(content, str | dict):
            raise UserError(f'{where} must be a JSON object with {", ".join(self.fields)}.')
        return self.parse(content, where, key)

    def check_lines(self, lines: Sequence[str], origin: str) -> None:
        """Refuses lines of which only all together show that they are no examples.

        Args:
          lines: with or without their line ends.
          origin: what to call them in messages.

        Raises:
          UserError: if they are something else.
        """
        del lines, origin

    def reads_file(self, path: Path) -> bool:
        """Whether `read` takes a file to predict for; if not, it is lines for `parse_line`."""
        return self.reads_any_file or text_ending(path) in self.file_endings

    @abc.abstractmethod
    def read(self, path: Path, is_training: bool, is_labelled: bool = True) -> list[ExampleT]:
        """The examples of a file or directory in the task's layout."""

    def empty_texts(self, example: ExampleT) -> tuple[str, ...]:
        """The names of those of an example's several texts of which nothing is seen."""
        del example
        return ()

    def labels_of(self, example: ExampleT) -> tuple[str, ...]:
        """The classes that training on an example teaches, where the head has classes."""
        del example
        return ()

    @abc.abstractmethod
    def head(self, examples: Sequence[ExampleT]) -> Head:
        """The head that the training examples want."""

    def suits(self, head: Head) -> bool:
        """Whether a model with this head could have been fine-tuned on such a task."""
        return head.kind == self.head_kind

    def use_head(self, head: Head, origin: str) -> None:
        """Takes a fine-tuned model's head, and its labels where the task has none of its own.

        Args:
          head: of the model.
          origin: what to call the model in messages.

        Raises:
          UserError: if the task cannot use the head.
        """
        if head.kind != self.head_kind:
            raise UserError(
                f'{origin} has a {head.name} head, which the task {self.settings.name} cannot use; '
                f'give another with --task.'
            )

    def named(self, head: Head) -> Head:
        """A model's head with its labels as the task's own head has them, where it knows better."""
        return head

    @abc.abstractmethod
    def encode(
        self, examples: Sequence[ExampleT], tokenizer: AnyTokenizer, head: Head, is_training: bool
    ) -> Features:
        """The examples as the model takes them."""

    def finish(self, features: Features, examples: Sequence[ExampleT]) -> Features:
        """Features that were encoded now or earlier, with notes of what was cut or is empty.

        Args:
          features: what `encode` gave for the examples.
          examples: at least one.
        """
        self.note_cut(features, examples)
        tell_empty(features)
        return features

    def note_cut(self, features: Features, examples: Sequence[ExampleT]) -> None:
        """Notes how many examples were cut, and by which setting."""
        note_cut(features, examples[0].where, self.settings.max_length)

    @property
    def cut_to(self) -> str:
        """What is left of an example that was cut, behind 'was cut to'."""
        return f'the {self.settings.max_length} pieces that the model reads at most'

    @abc.abstractmethod
    def metrics(
        self, examples: Sequence[ExampleT], features: Features, outputs: Outputs, head: Head
    ) -> dict[str, float]:
        """The official metrics; NaN for one that has no value, none without labels."""

    @abc.abstractmethod
    def predictions(
        self, examples: Sequence[ExampleT], features: Features, outputs: Outputs, head: Head
    ) -> list[dict[str, Any]]:
        """An answer for each example, as a JSON object."""

    def signatures(self) -> list[str]:
        """How the metrics are computed, a line each, where their library tells."""
        return []

    def shown(self, predictions: Sequence[Mapping[str, Any]], as_json: bool) -> str:
        """The predictions as the command prints them: JSON Lines.

        Args:
          predictions: of all examples.
          as_json: JSON Lines, whatever the task has else.
        """
        del as_json
        return json_lines(predictions)

    @abc.abstractmethod
    def write(
        self, examples: Sequence[ExampleT], predictions: Sequence[Mapping[str, Any]], folder: Path
    ) -> list[Path]:
        """Writes the predictions in the form that the benchmark's server takes."""


def note_empty(task: Task[ExampleT], examples: Sequence[ExampleT], origin: str) -> None:
    """Notes how many examples of several texts lack one of them.

    Args:
      task: of the examples.
      examples: that are kept.
      origin: what to call their file, or where they come from.
    """
    empty = [example for example in examples if task.empty_texts(example)]
    if empty:
        note(
            f'{origin}: {len(empty)} of {len(examples)} examples have an empty text, the first '
            f'at {empty[0].where.removeprefix(f"{origin}, ")} '
            f'({", ".join(task.empty_texts(empty[0]))}).'
        )


def json_lines(predictions: Iterable[Mapping[str, Any]]) -> str:
    """Predictions as JSON Lines."""
    return ''.join(to_json(prediction, ensure_ascii=False) + '\n' for prediction in predictions)


def digest_of(examples: Iterable[Any]) -> str:
    """What makes two lists of examples the same."""
    digest = hashlib.sha256()
    for example in examples:
        content = example
        # Not where it was read: the same text elsewhere is the same.
        if dataclasses.is_dataclass(example) and not isinstance(example, type):
            content = dataclasses.replace(example, where='')
        digest.update(repr(content).encode('utf-8', 'surrogatepass'))
        digest.update(b'\0')
    return digest.hexdigest()


def check_fields(content: Any, where: str, texts: Sequence[str], others: Sequence[str] = ()) -> Any:
    """The object, which has all the fields.

    Args:
      content: to check.
      where: what to call it in messages.
      texts: fields that must be texts.
      others: fields that must be there.

    Raises:
      UserError: if a field is missing, or is no text.
    """
    missing = [
        name for name in (*texts, *others) if not isinstance(content, dict) or name not in content
    ]
    if missing:
        raise UserError(f'{where} lacks {", ".join(missing)}.')
    for name in texts:
        if not isinstance(content[name], str):
            raise UserError(f'{where}: {name} must be a text.')
        check_text(content[name], f'{where}, {name}')
    return content


def check_no_others(content: Mapping[str, Any], where: str, names: Sequence[str]) -> None:
    """Refuses an object with a field that would not be read, such as a second text.

    Args:
      content: the object; a field without a value says nothing.
      where: what to call it in messages.
      names: of the fields that it may have.

    Raises:
      UserError: if it has another one.
    """
    for name, value in content.items():
        if name not in names and value is not None:
            raise UserError(
                f'{where}: there is no field {str(name)[:_LONGEST_NAME]!r}; the task takes '
                f'{", ".join(dict.fromkeys(names))}.'
            )


def key_of(content: Mapping[str, Any], where: str, default: str) -> str:
    """The `id` of an object, as text: what is no text as JSON, or as Python writes it.

    Args:
      content: the object.
      where: what to call it in messages.
      default: where it has none.

    Raises:
      UserError: if it has half a character.
    """
    key = content.get('id')
    if key is None:
        return default
    if not isinstance(key, str):
        try:
            key = json.dumps(key)
        except (TypeError, ValueError):  # in Python alone: a number of NumPy, a date
            key = str(key)
    return check_text(key, f'{where}, id')


def check_keys(examples: Iterable[Example], origin: str, is_refused: bool) -> None:
    """Refuses or notes examples that have the key of another.

    Args:
      examples: of a file, or of lines.
      origin: what to call it in the note.
      is_refused: whether answers would be lost, or could not be told apart by those who get them.

    Raises:
      UserError: if two examples have the same key, and this is refused.
    """
    places: dict[str, str] = {}
    num_repeated = 0
    for example in examples:
        is_repeated = example.key in places
        if is_repeated and is_refused:
            raise UserError(
                f'{example.where}: the id {example.key!r} is also at {places[example.key]}; give '
                f'each an id of its own.'
            )
        num_repeated += is_repeated
        places.setdefault(example.key, example.where)
    if num_repeated:
        note(f'{origin}: {num_repeated} examples have the id of another one before them.')


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis, in float64."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)
