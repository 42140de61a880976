"""What the loop, evaluation and prediction know of a task family."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from albert_jax.about import Head
from albert_jax.data.hub_tokenizer import AnyTokenizer
from albert_jax.errors import UserError
from albert_jax.settings import Settings
from albert_jax.tasks.features import Features

# One array for each example, or each window of a passage, in order.
Outputs = Mapping[str, Sequence[np.ndarray]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskSettings(Settings):
    """Section `task` of a config.

    Raises:
      UserError: if a value is impossible.
    """

    SECTION: ClassVar[str] = 'task'

    # A name of tasks.families.TASKS.
    name: str = 'sst2'
    # Tokens of a sequence, special pieces included.
    max_length: int = 512
    # Dropout of the classifier's input.
    head_dropout: float = 0.1
    # Columns of one's own files; text_pair may be empty.
    text: str = 'text'
    text_pair: str = ''
    label: str = 'label'
    # The labels, with commas between; empty for those of the training file.
    labels: str = ''
    # Of questions: tokens between the starts of two windows, of a question, of an answer.
    stride: int = 128
    max_query_length: int = 64
    max_answer_length: int = 30
    # Of questions: how many answers to write for each.
    num_best: int = 20
    # Of CoNLL columns: which holds the tag; -1 for the last.
    tag_column: int = -1
    # Of RACE: the tokens that are kept of question and option.
    max_option_length: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_positive(
            'max_length', 'stride', 'max_query_length', 'max_answer_length', 'num_best',
            'max_option_length',
        )  # fmt: skip
        self.check_probability('head_dropout')
        if self.max_length < 8:
            raise UserError(f'task.max_length is {self.max_length}; it must be 8 or above.')


class Family(Protocol):
    """A task: read → encode → head → metric → predictions."""

    settings: TaskSettings
    # What has to be best: a name in what `metrics` gives.
    best_metric: str
    is_lower_better: bool

    def read(self, path: Path, is_training: bool, is_labelled: bool = True) -> list[Any]:
        """The examples of a file or directory."""
        ...

    def head(self, examples: Sequence[Any]) -> Head:
        """The head that the training examples want."""
        ...

    def encode(
        self, examples: Sequence[Any], tokenizer: AnyTokenizer, head: Head, is_training: bool
    ) -> Features:
        """The examples as the model takes them."""
        ...

    def metrics(
        self, examples: Sequence[Any], features: Features, outputs: Outputs, head: Head
    ) -> dict[str, float]:
        """The official metrics; NaN for one that has no value."""
        ...

    def predictions(
        self, examples: Sequence[Any], features: Features, outputs: Outputs, head: Head
    ) -> list[dict[str, Any]]:
        """An answer for each example, as a JSON object."""
        ...

    def write(
        self, examples: Sequence[Any], predictions: Sequence[Mapping[str, Any]], folder: Path
    ) -> list[Path]:
        """Writes the predictions in the form that the benchmark's server takes."""
        ...


def digest_of(examples: Sequence[Any]) -> str:
    """What makes two lists of examples the same."""
    digest = hashlib.sha256()
    for example in examples:
        content = example
        # Not where it was found: the same text elsewhere is the same.
        if dataclasses.is_dataclass(example) and not isinstance(example, type):
            content = dataclasses.replace(example, where='')
        digest.update(repr(content).encode('utf-8', 'surrogatepass'))
        digest.update(b'\0')
    return digest.hexdigest()


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis, in float64."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)
