"""Pretraining batches of a corpus that is made up, through the code that makes real ones.

No file and no package to read one is needed: ids are drawn as words are distributed in text, and
cut into sentences and chunks as `albert_jax.prepare` would. Segments, masks and padding are made by
`albert_jax.data`.
"""

import functools
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Int64

from albert_jax.data.dataset import Chunks, PreparedCorpus, Split
from albert_jax.data.normalization import Normalization
from albert_jax.data.pretraining import PretrainingData
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.runs.pretraining import PretrainingSettings

DESCRIPTION = (
    'synthetic: ids of a Zipf distribution in sentences of 5 to 40, segments and n-gram masks by '
    'albert_jax.data'
)
_NUM_CHUNKS = 4096
_SPECIAL = ('<pad>', '<unk>', '[CLS]', '[SEP]', '[MASK]')
# Of pieces that start a word, as in English.
_WORD_FRACTION = 0.8


class SyntheticTokenizer(Tokenizer):
    """The pieces that masking asks of a vocabulary, without a model to encode text with."""

    def __init__(self, vocab_size: int) -> None:
        num_words = int(_WORD_FRACTION * vocab_size)
        names = [f'{"▁" if i < num_words else ""}w' for i in range(len(_SPECIAL), vocab_size)]
        self.model, self.normalization, self.added_tokens = b'', Normalization(), ()
        self.pieces = [*_SPECIAL, *names]
        self.vocab_size = self.num_model_pieces = vocab_size
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = range(len(_SPECIAL))

    @functools.cached_property
    def ordinary_ids(self) -> Int32[np.ndarray, 'ordinary']:
        """All but the special pieces."""
        return np.arange(len(_SPECIAL), self.vocab_size, dtype=np.int32)


class SyntheticSplit(Split):
    """Chunks of random sentences, by index."""

    def __init__(self, vocab_size: int, length: int) -> None:
        rng = np.random.default_rng(0)
        ranks = np.arange(1, vocab_size - len(_SPECIAL) + 1)
        weights = 1 / ranks
        ids = rng.choice(ranks - 1, _NUM_CHUNKS + length, p=weights / weights.sum())
        self._ids = (ids + len(_SPECIAL)).astype(np.uint16)
        self._length = length

    def __len__(self) -> int:
        return _NUM_CHUNKS

    def _ends(self, index: int) -> Int64[np.ndarray, 'sentences']:
        """Where the sentences of a chunk end; now and then a document ends with it."""
        rng = np.random.default_rng(index)
        length = self._length if index % 10 else int(rng.integers(4, self._length))
        ends = rng.integers(5, 41, self._length // 5 + 1).cumsum()
        return np.append(ends[ends < length - 2], length)

    def read(self, indices: Int64[np.ndarray, 'chunks']) -> Chunks:
        """The chunks of these indices."""
        ends = [self._ends(int(index)) for index in indices]
        lengths = np.array([x[-1] for x in ends])
        num_sentences = np.array([len(x) for x in ends])
        edges = np.repeat(lengths[:, None].astype(np.int32), num_sentences.max() + 1, axis=1)
        edges[:, 0] = 0
        for row, x in zip(edges, ends, strict=True):
            row[1 : len(x) + 1] = x
        tokens = [self._ids[i : i + n] for i, n in zip(indices, lengths, strict=True)]
        return Chunks(
            tokens=np.concatenate(tokens),
            starts=np.concatenate([[0], lengths.cumsum()]),
            edges=edges,
            num_sentences=num_sentences,
            documents=np.asarray(indices),
        )


class SyntheticCorpus(PreparedCorpus):
    """A prepared corpus that is nowhere on disk."""

    def __init__(self, vocab_size: int, length: int) -> None:
        self.directory = Path('synthetic')
        self.manifest = {'counts': {'documents/train': _NUM_CHUNKS}}
        self.sequence_length = length
        self.tokenizer = SyntheticTokenizer(vocab_size)
        self._split = SyntheticSplit(vocab_size, length)

    def split(self, name: str) -> Split:
        """The same records whatever the split."""
        return self._split


def make_batches(vocab_size: int, length: int, batch_size: int) -> PretrainingData:
    """batch(step) of random text.

    Args:
      vocab_size: pieces.
      length: tokens of a sequence.
      batch_size: sequences of a batch.
    """
    corpus = SyntheticCorpus(vocab_size, length)
    settings = PretrainingSettings(sequence_length=length)
    return PretrainingData(corpus, 'train', settings, batch_size, 0)
