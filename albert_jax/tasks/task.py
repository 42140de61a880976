"""What the loop, evaluation and prediction know of a task family."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from albert_jax.data.hub_tokenizer import AnyTokenizer
from albert_jax.model.heads import Head
from albert_jax.runs.task import TaskSettings
from albert_jax.tasks.features import Features

# One array for each example, or each window of a passage, in order.
Outputs = Mapping[str, Sequence[np.ndarray]]


@runtime_checkable
class Task(Protocol):
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


def is_labelled(example: Any) -> bool:
    """Whether an example of any task has its label, tags or answers."""
    names = ('label', 'tags', 'answers', 'answer')
    return any(getattr(example, name, None) is not None for name in names)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis, in float64."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)
