"""The examples of a task: read from where a run says, and encoded once for all runs."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from albert_jax.cli.errors import UserError
from albert_jax.cli.paths import user_cache
from albert_jax.cli.phase import phase
from albert_jax.data.hub_tokenizer import AnyTokenizer
from albert_jax.interop.run_inputs import NO_VALIDATION, nothing_to_train_on
from albert_jax.model.heads import Head
from albert_jax.runs.data import FinetuneDataSettings
from albert_jax.tasks import tfds_source
from albert_jax.tasks.features import Features, cached
from albert_jax.tasks.registry import find_files
from albert_jax.tasks.splits import hold_out
from albert_jax.tasks.task import Task, check_keys, digest_of

# Changes when the same settings encode the same text otherwise, or count what was cut otherwise.
_ENCODING_VERSION = 2


class Examples(NamedTuple):
    """Those to train on, and those of validation and test by the suffix of their metrics."""

    train: list[Any]
    validation: dict[str, list[Any]]
    test: dict[str, list[Any]]


def read_examples(data: FinetuneDataSettings, task: Task) -> Examples:
    """The examples of a run's files.

    Raises:
      UserError: if a file cannot be read, there is nothing to train on, or no labelled validation.
    """
    with phase('Reading the examples …'):
        examples = _read(data, task)
    if not examples.validation:
        raise UserError(NO_VALIDATION)
    for held_out in examples.validation.values():
        if not any(example.is_labelled for example in held_out):
            raise UserError(
                f'{held_out[0].where} and all that follows has no label; the best checkpoint is '
                f'chosen by the validation file.'
            )
    return examples


def _read(data: FinetuneDataSettings, task: Task) -> Examples:
    fraction = data.validation_fraction
    if data.path.startswith('tfds:'):
        train, validation, test = tfds_source.read(data.path, task)
        if fraction:
            train, held_out = _hold_out(train, fraction, task)
            validation = {'': held_out}
        if data.validation:
            validation = {'': task.read(Path(data.validation), False)}
        return Examples(train, validation, test)
    train_file: Path | None = None
    validation_files: dict[str, Path] = {}
    test_files: dict[str, Path] = {}
    if data.path:
        named = {'train': data.train, 'validation': data.validation or fraction, 'test': data.test}
        train_file, validation_files, test_files = find_files(
            task.settings.name,
            Path(data.path),
            task.settings.source,
            unread=[split for split, given in named.items() if given],
        )
    train_file = Path(data.train) if data.train else train_file
    validation_files = {'': Path(data.validation)} if data.validation else validation_files
    test_files = {'': Path(data.test)} if data.test else test_files
    if train_file is None:
        raise nothing_to_train_on(data.path)
    train = task.read(train_file, True)
    test = {
        suffix: task.read(file, False, is_labelled=False) for suffix, file in test_files.items()
    }
    if fraction:
        train, held_out = _hold_out(train, fraction, task)
        return Examples(train, {'': held_out}, test)
    validation = {suffix: task.read(file, False) for suffix, file in validation_files.items()}
    return Examples(train, validation, test)


def _hold_out(examples: Sequence[Any], fraction: float, task: Task) -> tuple[list[Any], list[Any]]:
    """As `hold_out`; refuses ids that are there again where predictions go by them."""
    train, held_out = hold_out(examples, fraction, task.labels_of)
    if task.writes_by_key:
        check_keys(held_out, 'data.validation_fraction', is_refused=True)
    return train, held_out


@dataclasses.dataclass(frozen=True)
class Encoder:
    """Encodes a task's examples; the same text, vocabulary and settings are encoded once.

    Args:
      task: of the examples.
      tokenizer: of the model.
      head: whose labels the targets are numbered by.
      cache: folder of what was encoded before.
    """

    task: Task
    tokenizer: AnyTokenizer
    head: Head
    cache: Path

    def __call__(self, examples: Sequence[Any], is_training: bool) -> Features:
        """The features of some examples."""
        normalization = getattr(self.tokenizer, 'normalization', None)
        key = {
            'encoding': _ENCODING_VERSION,
            'task': self.task.settings.to_dict(),
            'labels': self.head.labels,
            'examples': digest_of(examples),
            'vocabulary': self.tokenizer.sha256,
            'normalization': normalization and dataclasses.asdict(normalization),
            'is_training': is_training,
        }
        if added := getattr(self.tokenizer, 'added_tokens', ()):
            key['added_tokens'] = [dataclasses.asdict(token) for token in added]
        encode = functools.partial(
            self.task.encode, examples, self.tokenizer, self.head, is_training
        )
        with phase(f'Encoding {len(examples):,} examples …'):
            features = cached(self.cache, key, encode)
        return self.task.finish(features, examples)

    def each(
        self, splits: Mapping[str, Sequence[Any]]
    ) -> dict[str, tuple[Sequence[Any], Features]]:
        """The examples of each split with their features, as for evaluation."""
        return {suffix: (examples, self(examples, False)) for suffix, examples in splits.items()}


def cache_folder(data: FinetuneDataSettings) -> Path:
    """Where encoded examples are kept: where the run says, or in the user's cache."""
    return Path(data.cache) if data.cache else user_cache() / 'encoded'
