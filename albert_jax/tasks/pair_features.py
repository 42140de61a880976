"""Encoded pairs of a source and a target, and the batches that are made of them."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int32, Int64

from albert_jax.data.batch import HostBatch
from albert_jax.data.hub_tokenizer import AnyTokenizer
from albert_jax.tasks.batches import bucket_lengths, fitting_length
from albert_jax.tasks.features import Features

# Targets of an example, by their names in `Features.targets`.
SOURCE_IS_CUT, TARGET_IS_CUT = 'source_is_cut', 'target_is_cut'


@dataclasses.dataclass(frozen=True)
class PairFeatures(Features):
    """Features whose second segment is the target: `[CLS] source [SEP]` and `[CLS] target [SEP]`.

    A target that is not known has no tokens; one that was cut has no `[SEP]`, so that nothing is
    learnt of where it ends.
    """

    max_target_length: int = 0

    @functools.cached_property
    def source_lengths(self) -> Int64[np.ndarray, 'examples']:
        """Tokens of each source."""
        return self.seconds.astype(np.int64)

    @functools.cached_property
    def target_lengths(self) -> Int64[np.ndarray, 'examples']:
        """Tokens of each target."""
        return self.lengths - self.seconds

    @property
    def num_without_text(self) -> int:
        """Sources of which nothing is left after normalisation."""
        return int((self.source_lengths == 2).sum())

    @property
    def num_targets_without_text(self) -> int:
        """Targets that are known and of which nothing is left after normalisation."""
        return int((self.target_lengths == 2).sum())

    def target(self, index: int) -> Int32[np.ndarray, 'length']:
        """The ids of one target."""
        return self.sequence(index)[self.seconds[index] :]

    def subset(self, indices: Sequence[int]) -> 'PairFeatures':
        """Some of the pairs, in the given order."""
        spans = [(self.starts[index], self.starts[index + 1]) for index in indices]
        return dataclasses.replace(
            self,
            ids=np.concatenate([self.ids[begin:end] for begin, end in spans]),
            starts=np.cumsum([0, *(end - begin for begin, end in spans)]),
            seconds=self.seconds[list(indices)],
            targets={name: values[list(indices)] for name, values in self.targets.items()},
        )

    def length_keys(self) -> Int64[np.ndarray, 'examples']:
        """By the padded length of the source, then by the length of the target.

        Targets ascend and descend in turn, so that where a batch has sources of two padded lengths
        its targets are of like lengths.
        """
        place = np.searchsorted(bucket_lengths(int(self.source_lengths.max())), self.source_lengths)
        longest = int(self.target_lengths.max()) + 1
        targets = np.where(place % 2, longest - 1 - self.target_lengths, self.target_lengths)
        return place * longest + targets

    def padded_batch(
        self,
        examples: Int64[np.ndarray, 'batch'],
        weights: np.ndarray,
        longest: Int64[np.ndarray, 'some'],
        lengths: Sequence[int],
        pad_id: int,
    ) -> HostBatch:
        """As in BatchedExamples; sources and targets are padded to lengths of their own."""
        source_length = fitting_length(self.source_lengths[longest], lengths)
        target_lengths = bucket_lengths(self.max_target_length)
        target_length = fitting_length(self.target_lengths[longest], target_lengths)
        starts = self.starts[examples]
        input_ids, attention_mask = self._padded(
            starts, self.source_lengths[examples], source_length, pad_id
        )
        target_ids, target_mask = self._padded(
            starts + self.seconds[examples], self.target_lengths[examples], target_length, pad_id
        )
        return {
            'input_ids': input_ids,
            'attention_mask': attention_mask,
            'target_ids': target_ids,
            'target_mask': target_mask,
            'weights': weights.astype(np.float32),
            'numbers': examples.astype(np.int32),
        }

    def _padded(
        self,
        starts: Int64[np.ndarray, 'batch'],
        own_lengths: np.ndarray,
        length: int,
        pad_id: int,
    ) -> tuple[Int32[np.ndarray, 'batch length'], Int32[np.ndarray, 'batch length']]:
        """Slices of the ids, padded, and where they have tokens."""
        positions = np.arange(length)
        is_token = positions < own_lengths[:, None]
        tokens = np.where(is_token, starts[:, None] + positions, 0)
        return np.where(is_token, self.ids[tokens], np.int32(pad_id)), is_token.astype(np.int32)


def encode_pairs(
    sources: Sequence[str],
    targets: Sequence[str | None],
    tokenizer: AnyTokenizer,
    max_length: int,
    max_target_length: int,
) -> Features:
    """Pairs as PairFeatures have them, in a form that the cache of features takes.

    Args:
      sources: texts.
      targets: what is to be made of each; None where it is not known.
      tokenizer: of both.
      max_length: tokens of a source, special pieces included; what is beyond is cut.
      max_target_length: tokens of a target, likewise.
    """
    source_ids, source_is_cut = _cut(tokenizer.encode(sources), max_length)
    known = iter(tokenizer.encode([target for target in targets if target is not None]))
    all_target_ids = [[] if target is None else next(known) for target in targets]
    target_ids, target_is_cut = _cut(all_target_ids, max_target_length)
    ids: list[int] = []
    starts, seconds = [0], []
    for source, target, known_target, is_cut in zip(
        source_ids, target_ids, targets, target_is_cut, strict=True
    ):
        ids += [tokenizer.cls_id, *source, tokenizer.sep_id]
        seconds.append(len(source) + 2)
        if known_target is not None:
            ids += [tokenizer.cls_id, *target]
            ids += [] if is_cut else [tokenizer.sep_id]
        starts.append(len(ids))
    flags = {SOURCE_IS_CUT: np.array(source_is_cut), TARGET_IS_CUT: np.array(target_is_cut)}
    return Features(
        np.array(ids, np.int32),
        np.array(starts, np.int64),
        np.array(seconds, np.int32),
        flags,
        num_cut=sum(source_is_cut),
    )


def _cut(
    encoded: Iterable[Sequence[int]], max_length: int
) -> tuple[list[Sequence[int]], list[bool]]:
    """The texts without the pieces that are too many, and which texts have lost some."""
    room = max_length - 2
    texts = list(encoded)
    return [ids[:room] for ids in texts], [len(ids) > room for ids in texts]


def as_pairs(features: Features, max_target_length: int) -> PairFeatures:
    """Features of `encode_pairs` as what they are."""
    return PairFeatures(
        features.ids,
        features.starts,
        features.seconds,
        features.targets,
        features.token_targets,
        features.num_choices,
        features.num_cut,
        max_target_length,
    )
