"""A prepared corpus on disk: a TFDS data set in ArrayRecord, written once and read by index.

A record is a chunk: consecutive sentences of one document, as piece ids, with the boundaries
between them. Masks, segments and their order are decided when a batch is read (pretraining.py), so
nothing is stored twice. Beside the records lie the vocabulary, `corpus.json` (how the corpus was
made and what came of it) and the count of every piece in the training split.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Int64, UInt

from albert_jax.cli.errors import UserError, first_line
from albert_jax.data.normalization import Normalization
from albert_jax.data.tokenizer import Tokenizer

FORMAT = 1
SPLITS = ('train', 'validation')
MANIFEST = 'corpus.json'
_VOCABULARY = 'vocabulary.model'
_TOKEN_COUNTS = 'token_counts.npy'
_SHARD_BYTES = 256 * 2**20


@dataclasses.dataclass(frozen=True)
class Chunks:
    """Records read together, their tokens laid end to end."""

    tokens: UInt[np.ndarray, 'tokens']
    # Where each chunk's tokens start, and one more entry for the end.
    starts: Int64[np.ndarray, 'chunks_and_one']
    # Sentence boundaries inside each chunk: 0, the end of each sentence, then the last repeated.
    edges: Int[np.ndarray, 'chunks edges']
    num_sentences: Int64[np.ndarray, 'chunks']
    documents: Int64[np.ndarray, 'chunks']


def id_dtype(vocab_size: int) -> np.dtype:
    """The smallest unsigned type that holds every piece id."""
    return np.dtype('<u2') if vocab_size <= 2**16 else np.dtype('<u4')


def _example_type() -> Any:
    """`tf.train.Example`, as TFDS carries it: no TensorFlow is needed."""
    from tensorflow_datasets.proto import tf_example_pb2

    return tf_example_pb2.Example  # pyright: ignore[reportAttributeAccessIssue]


def encode_chunk(tokens: np.ndarray, sentence_ends: Sequence[int], document: int) -> bytes:
    """One record, as a serialised `tf.train.Example`, the same bytes every time.

    Args:
      tokens: piece ids in `id_dtype`.
      sentence_ends: number of tokens up to the end of each sentence.
      document: number of the document in the corpus.
    """
    example = _example_type()()
    feature = example.features.feature
    feature['tokens'].bytes_list.value.append(tokens.tobytes())
    ends = np.asarray(sentence_ends, '<u4').tobytes()
    feature['sentence_ends'].bytes_list.value.append(ends)
    feature['document'].int64_list.value.append(document)
    return example.SerializeToString(deterministic=True)


@contextlib.contextmanager
def _writing(directory: Path) -> Iterator[None]:
    """Makes ArrayRecord's errors what they are: errors of the disk."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition(';')[0]
        raise OSError(errno.EIO, reason, str(directory)) from error


def _open_shard(path: Path) -> Any:
    # Batches can be made of other sources without this package (benchmarks.accelerator).
    from array_record.python import (
        array_record_module,  # pyright: ignore[reportAttributeAccessIssue]
    )

    # Groups of one record make a random read cost one record.
    with _writing(path.parent):
        return array_record_module.ArrayRecordWriter(str(path), 'group_size:1')


def shard_name(split: str, index: int, count: int) -> str:
    """The name that TFDS expects of a shard."""
    return f'corpus-{split}.array_record-{index:05d}-of-{count:05d}'


def write_shard(path: Path, records: Iterable[bytes]) -> None:
    """Writes one shard, the same bytes as `SplitWriter` for the same records."""
    writer = _open_shard(path)
    with _writing(path.parent):
        for record in records:
            writer.write(record)
        writer.close()


def shard_bounds(lengths: Int64[np.ndarray, 'records']) -> list[tuple[int, int]]:
    """First and last (excluded) record of each shard that `SplitWriter` makes of such records."""
    ends, first = lengths.cumsum(), 0
    bounds = []
    while first < len(lengths):
        before = int(ends[first - 1]) if first else 0
        last = int(np.searchsorted(ends, before + _SHARD_BYTES)) + 1
        bounds.append((first, min(last, len(lengths))))
        first = bounds[-1][1]
    return bounds


@dataclasses.dataclass(frozen=True)
class Written:
    """What is on disk of a split."""

    shard_lengths: list[int]
    num_bytes: int


class SplitWriter:
    """Writes the records of one split in the order they come, in shards of bounded size."""

    def __init__(self, directory: Path, split: str) -> None:
        self._directory, self._split = directory, split
        self._paths: list[Path] = []
        # An ArrayRecordWriter, while a shard is open.
        self._writer: Any = None
        self.shard_lengths: list[int] = []
        self.num_bytes = 0
        self._bytes_in_shard = 0

    def write(self, record: bytes) -> None:
        """Appends a record."""
        if self._writer is None or self._bytes_in_shard >= _SHARD_BYTES:
            self._next_shard()
        assert self._writer is not None
        with _writing(self._directory):
            self._writer.write(record)
        self.shard_lengths[-1] += 1
        self._bytes_in_shard += len(record)
        self.num_bytes += len(record)

    def _next_shard(self) -> None:
        self._close_shard()
        path = self._directory / f'shard-{self._split}-{len(self._paths)}'
        self._writer = _open_shard(path)
        self._paths.append(path)
        self.shard_lengths.append(0)
        self._bytes_in_shard = 0

    def _close_shard(self) -> None:
        if self._writer is not None:
            with _writing(self._directory):
                self._writer.close()
            self._writer = None

    def close(self) -> None:
        """Closes the last shard and gives all of them the names that TFDS expects."""
        self._close_shard()
        for index, path in enumerate(self._paths):
            path.rename(self._directory / shard_name(self._split, index, len(self._paths)))


def write_metadata(
    directory: Path,
    writers: Mapping[str, SplitWriter | Written],
    manifest: dict[str, Any],
    vocabulary: bytes,
    token_counts: Int64[np.ndarray, 'vocab'],
) -> None:
    """Writes all but the records: TFDS's metadata, vocabulary, counts and, last, the manifest."""
    import tensorflow_datasets as tfds

    tfds.folder_dataset.write_metadata(
        data_dir=directory,
        features=tfds.features.FeaturesDict(
            {
                'tokens': tfds.features.Scalar(np.object_, doc='piece ids, little-endian'),
                'sentence_ends': tfds.features.Scalar(np.object_, doc='uint32, little-endian'),
                'document': tfds.features.Scalar(np.int64),
            }
        ),
        split_infos=[
            tfds.core.SplitInfo(
                name=split, shard_lengths=writer.shard_lengths, num_bytes=writer.num_bytes
            )
            for split, writer in writers.items()
            if writer.shard_lengths
        ],
        description='Chunks of consecutive sentences for ALBERT, as piece ids.',
        check_data=False,
    )
    (directory / _VOCABULARY).write_bytes(vocabulary)
    np.save(directory / _TOKEN_COUNTS, token_counts)
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=2) + '\n')


class PreparedCorpus:
    """A corpus that `albert_jax.prepare` has written.

    Raises:
      UserError: if the directory holds none, an unfinished one, or one of another format.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self.manifest = read_manifest(self.directory)
        settings = self.manifest['settings']
        self.sequence_length: int = settings['sequence_length']
        self.tokenizer = Tokenizer.from_file(
            self.directory / _VOCABULARY,
            Normalization(settings['keep_case'], settings['keep_accents']),
        )
        if self.tokenizer.sha256 != self.manifest['vocabulary_sha256']:
            raise UserError(
                f'{self.directory / _VOCABULARY} is not the vocabulary that this corpus was '
                f'prepared with; prepare the corpus again.'
            )

    @property
    def fingerprint(self) -> str:
        """Digest of everything that decides what the records are."""
        return self.manifest['fingerprint']

    @property
    def token_counts(self) -> Int64[np.ndarray, 'vocab']:
        """How often each piece occurs in the training split."""
        return np.load(self.directory / _TOKEN_COUNTS)

    def check_split(self, name: str) -> None:
        """Refuses a corpus without records of `train` or `validation`.

        Raises:
          UserError: if there are none.
        """
        if not self.manifest['counts']['chunks'].get(name):
            raise UserError(
                f'{self.directory} has no {name} split; prepare the corpus again with a larger '
                f'--validation_fraction.'
            )

    def split(self, name: str) -> 'Split':
        """The records of `train` or `validation`.

        Raises:
          UserError: if there are none.
        """
        self.check_split(name)
        return Split(self.directory, name, id_dtype(self.tokenizer.vocab_size))


class Split:
    """The records of one split, by index."""

    def __init__(self, directory: Path, name: str, dtype: np.dtype) -> None:
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core import decode

        self._parse = _example_type().FromString
        self._dtype, self._directory = dtype, directory
        try:
            # Decoding by TFDS costs five times what it takes to read a record.
            self._source = tfds.builder_from_directory(directory).as_data_source(
                split=name,  # pyright: ignore[reportCallIssue]
                deserialize_method=decode.DeserializeMethod.RAW_BYTES,
            )
        except Exception as error:
            raise UserError(
                f'{directory} cannot be read as a prepared corpus ({error}); prepare it again.'
            ) from error

    def __len__(self) -> int:
        return len(self._source)

    def read(self, indices: Int64[np.ndarray, 'chunks']) -> Chunks:
        """The chunks of these indices, in this order; an index may come twice."""
        try:
            records = self._source.__getitems__(indices.tolist())
            features = [self._parse(record).features.feature for record in records]
        except Exception as error:  # whatever ArrayRecord or protobuf raise, a file is damaged
            raise UserError(
                f'{self._directory}: a record cannot be read ({first_line(error)}); prepare the '
                f'corpus again.'
            ) from error
        tokens = [feature['tokens'].bytes_list.value[0] for feature in features]
        ends = [feature['sentence_ends'].bytes_list.value[0] for feature in features]
        lengths = np.fromiter(map(len, tokens), np.int64, len(tokens)) // self._dtype.itemsize
        num_sentences = np.fromiter(map(len, ends), np.int64, len(ends)) // 4
        edges = np.repeat(lengths[:, None].astype(np.int32), num_sentences.max() + 1, axis=1)
        edges[:, 0] = 0
        is_end = np.arange(edges.shape[1] - 1) < num_sentences[:, None]
        edges[:, 1:][is_end] = np.frombuffer(b''.join(ends), '<u4')
        return Chunks(
            tokens=np.frombuffer(b''.join(tokens), self._dtype),
            starts=np.concatenate([[0], lengths.cumsum()]),
            edges=edges,
            num_sentences=num_sentences,
            documents=np.array([f['document'].int64_list.value[0] for f in features]),
        )


def fingerprint(content: Any) -> str:
    """A short digest of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def read_manifest(directory: Path) -> dict[str, Any]:
    """What `corpus.json` says.

    Raises:
      UserError: if there is no finished corpus of this format in the directory.
    """
    try:
        manifest = json.loads((directory / MANIFEST).read_text())
    except FileNotFoundError as error:
        raise UserError(
            f'{directory} holds no prepared corpus (there is no {MANIFEST}); make one with '
            f'python -m albert_jax.prepare --output={directory} ….'
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f'{directory / MANIFEST} cannot be read ({error}).') from error
    if manifest.get('format') != FORMAT:
        raise UserError(
            f'{directory} has a corpus of format {manifest.get("format")}, and this version reads '
            f'format {FORMAT}; prepare it again.'
        )
    return manifest


def is_prepared(directory: Path) -> bool:
    """Whether the directory holds a finished corpus of any format."""
    return (directory / MANIFEST).exists()
