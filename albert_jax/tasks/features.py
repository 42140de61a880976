"""Encoded examples, ragged on the host; `batches` makes padded batches of them."""

import dataclasses
import functools
import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64

from albert_jax.cli.errors import reason
from albert_jax.cli.files import new_file
from albert_jax.cli.notes import note
from albert_jax.data.batch import HostBatch
from albert_jax.data.hub_tokenizer import AnyTokenizer
from albert_jax.tasks.batches import fitting_length


@dataclasses.dataclass(frozen=True)
class Features:
    """Encoded examples: flat ids and where each sequence starts among them.

    An example is `num_choices` sequences one after the other. `targets` has a row an example,
    `token_targets` a value a token; `token_type_ids` among them stand in place of those by which
    the second segment is 1.
    """

    ids: Int32[np.ndarray, 'tokens']
    starts: Int64[np.ndarray, 'sequences_and_one']
    # Where the second segment begins in its sequence; the sequence's length where there is none.
    seconds: Int32[np.ndarray, 'sequences']
    targets: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    token_targets: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    num_choices: int = 1
    # Examples of which tokens were left out, because they are longer than they may be.
    num_cut: int = 0

    @property
    def num_examples(self) -> int:
        """How many examples there are."""
        return len(self.seconds) // self.num_choices

    @functools.cached_property
    def lengths(self) -> Int64[np.ndarray, 'examples']:
        """Tokens of each example's longest sequence."""
        return np.diff(self.starts).reshape(-1, self.num_choices).max(1)

    def length_keys(self) -> Int64[np.ndarray, 'examples']:
        """As in BatchedExamples."""
        return self.lengths

    @property
    def num_without_text(self) -> int:
        """Sequences of special pieces alone: of their texts nothing is left after normalisation."""
        lengths = np.diff(self.starts)
        num_special = 2 + (self.seconds < lengths)
        return int((lengths == num_special).sum())

    def sequence(self, index: int) -> Int32[np.ndarray, 'length']:
        """The ids of one sequence."""
        return self.ids[self.starts[index] : self.starts[index + 1]]

    def batch(
        self, examples: Int64[np.ndarray, 'batch'], weights: np.ndarray, length: int, pad_id: int
    ) -> HostBatch:
        """Some examples, padded to a length.

        Args:
          examples: which.
          weights: of each; 0 for one that only fills the batch.
          length: at least that of the longest.
          pad_id: of the vocabulary.
        """
        sequences = (examples[:, None] * self.num_choices + np.arange(self.num_choices)).ravel()
        lengths = np.diff(self.starts)[sequences][:, None]
        positions = np.arange(length)
        is_token = positions < lengths
        tokens = np.where(is_token, self.starts[sequences][:, None] + positions, 0)
        batch = {
            'input_ids': np.where(is_token, self.ids[tokens], np.int32(pad_id)),
            'attention_mask': is_token.astype(np.int32),
            'token_type_ids': (is_token & (positions >= self.seconds[sequences][:, None])).astype(
                np.int32
            ),
            'weights': weights.astype(np.float32),
        }
        for name, values in self.targets.items():
            batch[name] = values[examples]
        for name, values in self.token_targets.items():
            # Padding is no token's label, and cannot answer.
            empty = -1 if name == 'token_labels' else 0
            batch[name] = np.where(is_token, values[tokens], np.int32(empty))
        return batch

    def padded_batch(
        self,
        examples: Int64[np.ndarray, 'batch'],
        weights: np.ndarray,
        longest: Int64[np.ndarray, 'some'],
        lengths: Sequence[int],
        pad_id: int,
    ) -> HostBatch:
        """As in BatchedExamples."""
        length = fitting_length(self.lengths[longest], lengths)
        return self.batch(examples, weights, length, pad_id)


@dataclasses.dataclass(frozen=True)
class PairedFeatures:
    """The same examples as two vocabularies have them: for a student and its teacher.

    Args:
      own: of the student.
      other: of the teacher, with as many choices.
      prefix: before the names of the teacher's fields in a batch.
      other_pad_id: of the teacher's vocabulary.
    """

    own: Features
    other: Features
    prefix: str
    other_pad_id: int

    @property
    def num_examples(self) -> int:
        """How many examples there are."""
        return self.own.num_examples

    @property
    def num_choices(self) -> int:
        """Sequences an example."""
        return self.own.num_choices

    @functools.cached_property
    def lengths(self) -> Int64[np.ndarray, 'examples']:
        """Tokens of each example's longest sequence in either vocabulary."""
        return np.maximum(self.own.lengths, self.other.lengths)

    def length_keys(self) -> Int64[np.ndarray, 'examples']:
        """As in BatchedExamples."""
        return self.lengths

    def batch(
        self, examples: Int64[np.ndarray, 'batch'], weights: np.ndarray, length: int, pad_id: int
    ) -> HostBatch:
        """As of Features, with the teacher's inputs beside the student's."""
        other = self.other.batch(examples, weights, length, self.other_pad_id)
        inputs = ('input_ids', 'attention_mask', 'token_type_ids')
        return {
            **self.own.batch(examples, weights, length, pad_id),
            **{f'{self.prefix}{name}': other[name] for name in inputs},
        }

    def padded_batch(
        self,
        examples: Int64[np.ndarray, 'batch'],
        weights: np.ndarray,
        longest: Int64[np.ndarray, 'some'],
        lengths: Sequence[int],
        pad_id: int,
    ) -> HostBatch:
        """As in BatchedExamples."""
        length = fitting_length(self.lengths[longest], lengths)
        return self.batch(examples, weights, length, pad_id)


def tell_empty(features: Features) -> None:
    """Notes on standard error how many sequences have no text, if there are any."""
    if features.num_without_text:
        note(
            f'{features.num_without_text:,} of {len(features.seconds):,} texts are empty after '
            f'normalisation; the model sees [CLS] and [SEP] alone.'
        )


class FeaturesWriter:
    """Collects sequences, then makes Features of them.

    Args:
      tokenizer: for its special pieces.
      num_choices: sequences an example.
    """

    def __init__(self, tokenizer: AnyTokenizer, num_choices: int = 1) -> None:
        # Examples of which tokens were left out.
        self.num_cut = 0
        self._cls, self._sep = [tokenizer.cls_id], [tokenizer.sep_id]
        self._num_choices = num_choices
        self._ids: list[int] = []
        self._starts = [0]
        self._seconds: list[int] = []

    def add(self, first: Sequence[int], second: Sequence[int] | None = None) -> int:
        """Adds `[CLS] first [SEP]` or `[CLS] first [SEP] second [SEP]`; gives its length."""
        self._ids += self._cls
        self._ids += first
        self._ids += self._sep
        self._seconds.append(len(self._ids) - self._starts[-1])
        if second is not None:
            self._ids += second
            self._ids += self._sep
        self._starts.append(len(self._ids))
        return self._starts[-1] - self._starts[-2]

    def finish(
        self,
        targets: Mapping[str, np.ndarray] | None = None,
        token_targets: Mapping[str, np.ndarray] | None = None,
    ) -> Features:
        """All that was added."""
        return Features(
            np.array(self._ids, np.int32),
            np.array(self._starts, np.int64),
            np.array(self._seconds, np.int32),
            targets or {},
            token_targets or {},
            self._num_choices,
            self.num_cut,
        )


def note_cut(features: Features, origin: str, max_length: int, other: str = '') -> None:
    """Notes how many examples were cut to the length of a sequence.

    Args:
      features: of the examples.
      origin: where the examples begin, for the note.
      max_length: of a sequence.
      other: a setting that may cut them too, with its value.
    """
    if features.num_cut:
        also = f' and {other}' if other else ''
        note(
            f'{origin} and what follows: {features.num_cut} of {features.num_examples} examples '
            f'were cut, because task.max_length is {max_length}{also} tokens.'
        )


def truncate_pair(
    first: list[int], second: list[int] | None, max_length: int
) -> tuple[list[int], list[int] | None]:
    """Cuts from the end of the longer one, a token at a time, until both fit with their [SEP]s.

    Args:
      first: piece ids.
      second: piece ids, or None where there is one segment.
      max_length: of the whole sequence, special pieces included.
    """
    if second is None:
        return first[: max_length - 2], None
    room = max_length - 3
    keep_first = min(len(first), max(room - room // 2, room - len(second)))
    return first[:keep_first], second[: room - keep_first]


def cached(path: Path, key: Mapping[str, object], make: Callable[[], Features]) -> Features:
    """Features from a file of an earlier run, or made and kept there.

    Args:
      path: folder of the cache.
      key: all that the features depend on.
      make: makes them.
    """
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    file = path / f'{digest}.npz'
    if file.is_file():
        try:
            return _load(file)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            file.unlink()
    features = make()
    try:
        _save(features, file)
    except OSError as error:
        note(f'{path} keeps no encoded examples: {reason(error)}.')
    return features


def _save(features: Features, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {
        'ids': features.ids,
        'starts': features.starts,
        'seconds': features.seconds,
        'num_choices': np.array(features.num_choices),
        'num_cut': np.array(features.num_cut),
    }
    arrays |= {f'target:{name}': values for name, values in features.targets.items()}
    arrays |= {f'token:{name}': values for name, values in features.token_targets.items()}
    with new_file(file) as partial, partial.open('wb') as stream:
        np.savez(stream, **arrays)


def _load(file: Path) -> Features:
    with np.load(file) as arrays:
        names = list(arrays)
        return Features(
            arrays['ids'],
            arrays['starts'],
            arrays['seconds'],
            {n.removeprefix('target:'): arrays[n] for n in names if n.startswith('target:')},
            {n.removeprefix('token:'): arrays[n] for n in names if n.startswith('token:')},
            int(arrays['num_choices']),
            # Not in the files of earlier versions.
            int(arrays['num_cut']) if 'num_cut' in names else 0,
        )
