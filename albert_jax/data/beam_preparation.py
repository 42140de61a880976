"""The preparation of `preparation.py` as Apache Beam pipelines, for text beyond one machine.

The same bytes as on one machine. Each input file is read by one worker, in three pipelines: the
first counts documents (and finds duplicates), so that each has its number; the second makes the
records, a file of them for each input file; the third lays these end to end in shards. Between
them only numbers come back: 16 bytes a document, 8 a record.
"""

import collections
import contextlib
import dataclasses
import hashlib
import json
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from albert_jax.cli.errors import UserError
from albert_jax.data import beam_storage, dataset, source_notes
from albert_jax.data.corpus import Source
from albert_jax.data.preparation import Worker, blocks_of, empty, manifest_of
from albert_jax.data.preparation_settings import PreparationSettings
from albert_jax.data.source_reader import DIGEST_BYTES, text_digest
from albert_jax.data.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Part:
    """One input file, with its place in the order of all."""

    number: int
    source: Source
    path: str


def prepare(
    sources: list[Source],
    output: str,
    vocabulary: bytes,
    settings: PreparationSettings,
    scratch: str,
    options: Sequence[str] = (),
) -> dict[str, Any]:
    """Writes the prepared corpus and returns its manifest.

    Args:
      sources: of files, text or jsonl; local, or on any storage that Beam reads (gs://…).
      output: folder that is not there, or holds no finished corpus.
      vocabulary: a serialised SentencePiece model.
      settings: what decides the records.
      scratch: folder for what passes from one pipeline to the next, about the size of the corpus,
        in a folder of its own, which is removed at the end.
      options: of Beam, as on its command line.

    Raises:
      UserError: if there is no text, or a source has no files.
    """
    parts = find_parts(sources)
    beam_storage.make_folder(output)
    # What an earlier run has left there is not this one's.
    own = f'{scratch.rstrip("/")}/{uuid.uuid4().hex}'
    FileSystems.mkdirs(own)
    try:
        return _prepare(parts, sources, output, vocabulary, settings, own, options)
    finally:
        beam_storage.remove(own)


def check_is_free(output: str) -> None:
    """Refuses to prepare a corpus where there is one.

    Raises:
      UserError: if there is one.
    """
    if FileSystems.exists(f'{output}/{dataset.MANIFEST}'):
        raise UserError(f'{output} holds a corpus already; choose another --output or delete it.')


def _prepare(
    parts: Sequence[Part],
    sources: Sequence[Source],
    output: str,
    vocabulary: bytes,
    settings: PreparationSettings,
    scratch: str,
    options: Sequence[str],
) -> dict[str, Any]:
    tokenizer = Tokenizer(vocabulary, settings.normalization)
    with _pipeline(options) as scanning:
        scanned = _each(scanning, parts, _Scan(scratch, settings.drop_duplicates))
        if settings.drop_duplicates:
            _ = (
                scanned
                | 'by text' >> beam.GroupByKey()
                | beam.FlatMap(_repeated)
                | 'by file' >> beam.GroupByKey()
                | beam.Map(_write_dropped, scratch)
            )
    fingerprint, counts, offsets = _number(parts, scratch, settings.drop_duplicates)

    with _pipeline(options) as encoding:
        _each(
            encoding,
            [(part, offsets[part.number]) for part in parts],
            _Encode(scratch, vocabulary, settings),
        )
    token_counts = np.zeros(tokenizer.vocab_size, np.int64)
    for part in parts:
        counts.update(json.loads(beam_storage.read(f'{scratch}/{part.number}.counts')))
        token_counts += np.frombuffer(
            beam_storage.read(f'{scratch}/{part.number}.tokens'), np.int64
        )

    written, shards = _plan_shards(parts, output, scratch)
    if not written['train'].shard_lengths:
        raise empty(sources, counts)
    with _pipeline(options) as laying:
        _each(laying, shards, _WriteShard())
    manifest = manifest_of(
        list(sources), settings, tokenizer, fingerprint, counts,
        {split: sum(on_disk.shard_lengths) for split, on_disk in written.items()},
    )  # fmt: skip
    _write_metadata(output, written, manifest, vocabulary, token_counts)
    return manifest


def _pipeline(options: Sequence[str]) -> beam.Pipeline:
    return beam.Pipeline(options=PipelineOptions(list(options)))


def _plan_shards(
    parts: Sequence[Part], output: str, scratch: str
) -> tuple[dict[str, dataset.Written], list[tuple[str, list['_Extent']]]]:
    """What will be on disk of each split; and each shard's path, with the records it is made of."""
    written, shards = {}, []
    for split in dataset.SPLITS:
        lengths = [
            np.frombuffer(beam_storage.read(f'{scratch}/{part.number}.{split}.lengths'), np.int64)
            for part in parts
        ]
        bounds = dataset.shard_bounds(np.concatenate(lengths))
        for index, bound in enumerate(bounds):
            name = dataset.shard_name(split, index, len(bounds))
            shards.append((f'{output}/{name}', _extents(scratch, split, lengths, *bound)))
        written[split] = dataset.Written(
            [last - first for first, last in bounds], int(sum(x.sum() for x in lengths))
        )
    return written, shards


def find_parts(sources: Sequence[Source]) -> list[Part]:
    """The input files in the order in which one machine would read them.

    Raises:
      UserError: if a source is not made of files, or has none.
    """
    files: list[tuple[Source, str]] = []
    for source in sources:
        if source.kind not in ('text', 'jsonl'):
            raise UserError(
                f'--input={source} is not made of files that workers could share; give text:GLOB '
                f'or jsonl:GLOB.'
            )
        if '://' in source.target:
            (match,) = FileSystems.match([source.target])
            paths = sorted(metadata.path for metadata in match.metadata_list)
        else:
            source_notes.tell_of(source)
            paths = source.files()
        if not paths:
            raise UserError(f'No file matches {source.target!r} of --input={source}.')
        files += [(source, path) for path in paths]
    return [Part(number, source, path) for number, (source, path) in enumerate(files)]


def _each(pipeline: beam.Pipeline, items: Sequence[Any], work: beam.DoFn) -> Any:
    """Applies a function to each item, spread over the workers."""
    return pipeline | beam.Create(list(items)) | beam.Reshuffle() | beam.ParDo(work)


def _documents(part: Part) -> Iterator[str]:
    with beam_storage.local(part.path) as path:
        try:
            yield from dataclasses.replace(part.source, target=_escaped(path)).documents()
        except UserError as error:
            raise UserError(str(error).replace(path, part.path)) from error


def _escaped(path: str) -> str:
    """A pattern that matches this path alone."""
    return ''.join(f'[{letter}]' if letter in '*?[' else letter for letter in path)


class _Scan(beam.DoFn):
    """Digests of a file's documents; each with its place, if duplicates are looked for."""

    def __init__(self, scratch: str, drop_duplicates: bool) -> None:
        self._scratch, self._drop_duplicates = scratch, drop_duplicates

    def process(self, element: Part) -> Iterable[tuple[bytes, tuple[int, int]]]:
        num_bytes, digests = 0, bytearray()
        for index, text in enumerate(_documents(element)):
            encoded = text.encode('utf-8', 'replace')
            num_bytes += len(encoded)
            digest = text_digest(encoded)
            digests += digest
            if self._drop_duplicates:
                yield digest, (element.number, index)
        beam_storage.write(f'{self._scratch}/{element.number}.digests', bytes(digests))
        beam_storage.write(f'{self._scratch}/{element.number}.bytes', str(num_bytes).encode())


def _repeated(item: tuple[bytes, Iterable[tuple[int, int]]]) -> Iterable[tuple[int, int]]:
    """All occurrences of a text but the first."""
    return sorted(item[1])[1:]


def _write_dropped(item: tuple[int, Iterable[int]], scratch: str) -> None:
    number, indices = item
    beam_storage.write(f'{scratch}/{number}.dropped', np.array(sorted(indices), np.int64).tobytes())


def _dropped(scratch: str, number: int) -> set[int]:
    path = f'{scratch}/{number}.dropped'
    if not FileSystems.exists(path):
        return set()
    return set(np.frombuffer(beam_storage.read(path), np.int64).tolist())


def _number(
    parts: Sequence[Part], scratch: str, drop_duplicates: bool
) -> tuple[str, collections.Counter[str], list[int]]:
    """The digest of all text, what was read, and the first document's number of each file."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    counts: collections.Counter[str] = collections.Counter()
    offsets = [0]
    for part in parts:
        digests = beam_storage.read(f'{scratch}/{part.number}.digests')
        digest.update(digests)
        num_documents = len(digests) // DIGEST_BYTES
        num_dropped = len(_dropped(scratch, part.number)) if drop_duplicates else 0
        counts['documents_read'] += num_documents
        counts['bytes_read'] += int(beam_storage.read(f'{scratch}/{part.number}.bytes'))
        if num_dropped:
            counts['documents_duplicate'] += num_dropped
        offsets.append(offsets[-1] + num_documents - num_dropped)
    return digest.hexdigest(), counts, offsets


class _Encode(beam.DoFn):
    """The records of a file, end to end, and their lengths."""

    def __init__(self, scratch: str, vocabulary: bytes, settings: PreparationSettings) -> None:
        self._scratch, self._vocabulary, self._settings = scratch, vocabulary, settings

    def setup(self) -> None:
        self._worker = Worker(self._vocabulary, self._settings)

    def process(self, element: tuple[Part, int]) -> None:
        part, offset = element
        name = f'{self._scratch}/{part.number}'
        dropped = _dropped(self._scratch, part.number) if self._settings.drop_duplicates else set()
        kept = (text for index, text in enumerate(_documents(part)) if index not in dropped)
        counts: collections.Counter[str] = collections.Counter()
        token_counts = np.zeros(self._worker.tokenizer.vocab_size, np.int64)
        lengths: dict[str, list[int]] = {split: [] for split in dataset.SPLITS}
        with contextlib.ExitStack() as stack:
            files = {
                split: stack.enter_context(FileSystems.create(f'{name}.{split}.records'))
                for split in dataset.SPLITS
            }
            for block in blocks_of(enumerate(kept, offset)):
                encoded = self._worker.process(block)
                for split, records in encoded.records.items():
                    for record in records:
                        files[split].write(record)
                        lengths[split].append(len(record))
                counts += encoded.counts
                token_counts += encoded.token_counts
        for split, record_lengths in lengths.items():
            beam_storage.write(
                f'{name}.{split}.lengths', np.array(record_lengths, np.int64).tobytes()
            )
        beam_storage.write(f'{name}.counts', json.dumps(counts).encode())
        beam_storage.write(f'{name}.tokens', token_counts.tobytes())


@dataclasses.dataclass(frozen=True)
class _Extent:
    """Consecutive records of a file of records."""

    # Without its ending: .records, and .lengths of them.
    path: str
    first: int
    last: int


def _extents(
    scratch: str, split: str, lengths: Sequence[np.ndarray], first: int, last: int
) -> list[_Extent]:
    """Where the records from `first` to `last` (excluded) of a split lie."""
    extents = []
    begin = 0
    for number, own in enumerate(lengths):
        low, high = max(first - begin, 0), min(last - begin, len(own))
        if low < high:
            extents.append(_Extent(f'{scratch}/{number}.{split}', low, high))
        begin += len(own)
    return extents


class _WriteShard(beam.DoFn):
    """Writes the records of some extents, end to end, as a shard."""

    def process(self, element: tuple[str, list[_Extent]]) -> None:
        path, extents = element
        with tempfile.TemporaryDirectory() as folder:
            shard = Path(folder) / 'shard'
            dataset.write_shard(shard, _records(extents))
            with shard.open('rb') as source, FileSystems.create(path) as target:
                while block := source.read(2**22):
                    target.write(block)


def _records(extents: Sequence[_Extent]) -> Iterator[bytes]:
    for extent in extents:
        # Read here, for the description of a job has no room for them.
        lengths = np.frombuffer(beam_storage.read(f'{extent.path}.lengths'), np.int64)
        records = f'{extent.path}.records'
        with FileSystems.open(records, compression_type='uncompressed') as file:
            file.seek(int(lengths[: extent.first].sum()))
            for length in lengths[extent.first : extent.last].tolist():
                yield file.read(length)


def _write_metadata(
    output: str,
    written: dict[str, dataset.Written],
    manifest: dict[str, Any],
    vocabulary: bytes,
    token_counts: np.ndarray,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        # TFDS looks for the names of the shards, which are elsewhere.
        shards = {
            dataset.shard_name(split, index, len(on_disk.shard_lengths))
            for split, on_disk in written.items()
            for index in range(len(on_disk.shard_lengths))
        }
        for name in shards:
            (Path(folder) / name).touch()
        dataset.write_metadata(Path(folder), written, manifest, vocabulary, token_counts)
        # The manifest last: without it, nothing takes the folder for a corpus.
        for file in sorted(Path(folder).iterdir(), key=lambda path: path.name == dataset.MANIFEST):
            if file.name not in shards:
                beam_storage.write(f'{output}/{file.name}', file.read_bytes())
