"""Documents → sentences → piece ids → chunks → a prepared corpus.

The parent reads documents and writes records; workers do the rest, a block of documents at a time,
and their results are taken in the order of the documents. So the bytes written depend on the input
and the settings only, and memory on the number of workers only. The corpus is built beside its
destination and renamed when whole: an interrupted run leaves nothing that looks finished.
"""

import collections
import concurrent.futures
import dataclasses
import hashlib
import itertools
import multiprocessing
import multiprocessing.connection
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from albert_jax.cli.errors import UserError, reason
from albert_jax.cli.files import new_directory
from albert_jax.data import dataset
from albert_jax.data.corpus import Source
from albert_jax.data.documents import clean, pack, split_sentences
from albert_jax.data.preparation_settings import PreparationSettings
from albert_jax.data.source_reader import SourceReader
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.data.vocabulary import train_vocabulary

_BLOCK_CHARACTERS = 500_000
_NUM_SPECIAL = 3  # [CLS] A [SEP] B [SEP]


@dataclasses.dataclass
class Block:
    """What a worker makes of a block of documents."""

    records: dict[str, list[bytes]]
    counts: collections.Counter[str]
    token_counts: Int64[np.ndarray, 'vocab']


class Worker:
    """State of a worker process: the tokenizer, opened once."""

    def __init__(self, model: bytes, settings: PreparationSettings) -> None:
        self.settings = settings
        self.tokenizer = Tokenizer(model, settings.normalization)
        self.dtype = dataset.id_dtype(self.tokenizer.vocab_size)

    def process(self, block: list[tuple[int, str]]) -> Block:
        """Records and counts of numbered documents."""
        settings, tokenizer = self.settings, self.tokenizer
        counts: collections.Counter[str] = collections.Counter()
        documents = []
        for number, text in block:
            cleaned = clean(text, settings, counts)
            if cleaned:
                split = _split_of(text, settings)
                documents.append((number, split, split_sentences(cleaned)))
        encoded = iter(tokenizer.encode([s for document in documents for s in document[2]]))
        records: dict[str, list[bytes]] = {split: [] for split in dataset.SPLITS}
        token_counts = np.zeros(tokenizer.vocab_size, np.int64)
        capacity = settings.sequence_length - _NUM_SPECIAL
        for number, split, sentences in documents:
            ids = list(itertools.islice(encoded, len(sentences)))
            num_empty = sum(not sentence for sentence in ids)
            # Of white space and characters without width nothing is left after normalisation.
            if num_empty == len(ids):
                counts['documents_empty'] += 1
                continue
            counts['sentences_empty'] += num_empty
            counts['documents'] += 1
            counts[f'documents/{split}'] += 1
            for tokens, ends in pack(ids, capacity, tokenizer.starts_word):
                array = np.array(tokens, self.dtype)
                records[split].append(dataset.encode_chunk(array, ends, number))
                counts[f'sentences/{split}'] += len(ends)
                counts[f'tokens/{split}'] += len(tokens)
                counts['tokens_unknown'] += int((array == tokenizer.unk_id).sum())
                if split == 'train':
                    token_counts += np.bincount(array, minlength=len(token_counts))
        return Block(records, counts, token_counts)


_worker: Worker | None = None


def _start_worker(model: bytes, settings: PreparationSettings) -> None:
    global _worker  # noqa: PLW0603 (a process has no other place for it)
    _worker = Worker(model, settings)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends this worker when the parent is killed: nothing else would tell it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _work(block: list[tuple[int, str]]) -> Block:
    assert _worker is not None
    return _worker.process(block)


def _split_of(text: str, settings: PreparationSettings) -> str:
    salt = settings.seed.to_bytes(8, 'little', signed=True)
    digest = hashlib.blake2b(text.encode('utf-8', 'replace'), digest_size=8, salt=salt).digest()
    share = int.from_bytes(digest, 'little') / 2**64
    return 'validation' if share < settings.validation_fraction else 'train'


def blocks_of(documents: Iterable[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    """Numbered documents, as many at a time as are worth a message."""
    block, size = [], 0
    for number, text in documents:
        block.append((number, text))
        size += len(text) + 1
        if size >= _BLOCK_CHARACTERS:
            yield block
            block, size = [], 0
    if block:
        yield block


def vocabulary_for(sources: list[Source], settings: PreparationSettings, vocab_size: int) -> bytes:
    """Trains a vocabulary on the sources' sentences (reads them once).

    Raises:
      UserError: if there is no text, or too little for so many pieces.
    """
    reader = SourceReader(sources, drop_duplicates=False, on_text=lambda _: None)
    ignored: collections.Counter[str] = collections.Counter()
    sentences = (
        settings.normalization(sentence)
        for text in reader.documents()
        for sentence in split_sentences(clean(text, settings, ignored))
    )
    first = next(sentences, None)
    if first is None:
        raise empty(sources, {})
    return train_vocabulary(itertools.chain([first], sentences), vocab_size)


def empty(sources: Sequence[Source], counts: Mapping[str, int]) -> UserError:
    """Why there is nothing to train on.

    Args:
      sources: of the corpus.
      counts: of its documents, by split.
    """
    num_held_out = counts.get('documents/validation', 0)
    if num_held_out:
        documents = f'all {num_held_out:,} documents' if num_held_out > 1 else 'the only document'
        return UserError(
            f'The corpus has nothing to train on: {documents} of {", ".join(map(str, sources))} '
            f'went into validation; lower --validation_fraction or give more documents.'
        )
    return UserError(
        f'The corpus is empty: no text was left of {", ".join(map(str, sources))} after cleaning.'
    )


def _ordered_results(
    executor: concurrent.futures.Executor, blocks: Iterable[Any], num_ahead: int
) -> Iterator[Block]:
    """Results in the order of the blocks, with at most `num_ahead` of them waiting."""
    pending: collections.deque[concurrent.futures.Future[Block]] = collections.deque()
    for block in blocks:
        pending.append(executor.submit(_work, block))
        if len(pending) >= num_ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def prepare(
    sources: list[Source],
    output: Path,
    vocabulary: bytes,
    settings: PreparationSettings,
    num_workers: int,
    on_text: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Writes the prepared corpus and returns its manifest.

    Args:
      sources: read in this order.
      output: a directory that does not exist or is empty.
      vocabulary: a serialised SentencePiece model.
      settings: what decides the records.
      num_workers: processes that tokenise.
      on_text: called with the number of bytes of each document that is read.

    Raises:
      UserError: if there is no text, or it cannot be read or written; `output` is then untouched.
    """
    try:
        with new_directory(output) as directory:
            return _write(sources, directory, vocabulary, settings, num_workers, on_text)
    except (OSError, sqlite3.Error) as error:
        raise UserError(
            f'{output} cannot be written ({reason(error)}); make room or choose another --output.'
        ) from error


def _write(
    sources: list[Source],
    directory: Path,
    vocabulary: bytes,
    settings: PreparationSettings,
    num_workers: int,
    on_text: Callable[[int], None],
) -> dict[str, Any]:
    tokenizer = Tokenizer(vocabulary, settings.normalization)
    writers = {split: dataset.SplitWriter(directory, split) for split in dataset.SPLITS}
    reader = SourceReader(sources, settings.drop_duplicates, on_text, scratch=directory)
    counts: collections.Counter[str] = collections.Counter()
    token_counts = np.zeros(tokenizer.vocab_size, np.int64)
    # Forked workers would inherit the threads' locks of whatever the parent has imported.
    with concurrent.futures.ProcessPoolExecutor(
        num_workers,
        mp_context=multiprocessing.get_context('forkserver'),
        initializer=_start_worker,
        initargs=(vocabulary, settings),
    ) as executor:
        for block in _ordered_results(
            executor, blocks_of(enumerate(reader.documents())), 2 * num_workers + 1
        ):
            for split, records in block.records.items():
                for record in records:
                    writers[split].write(record)
            counts += block.counts
            token_counts += block.token_counts
    for writer in writers.values():
        writer.close()
    if not writers['train'].shard_lengths:
        raise empty(sources, counts)
    manifest = manifest_of(
        sources, settings, tokenizer, reader.fingerprint, counts + reader.counts,
        {split: sum(writer.shard_lengths) for split, writer in writers.items()},
    )  # fmt: skip
    dataset.write_metadata(directory, writers, manifest, vocabulary, token_counts)
    return manifest


def manifest_of(
    sources: list[Source],
    settings: PreparationSettings,
    tokenizer: Tokenizer,
    source_fingerprint: str,
    counts: collections.Counter[str],
    num_chunks: dict[str, int],
) -> dict[str, Any]:
    """What a prepared corpus says of itself."""
    identity = {
        'settings': settings.to_dict(),
        'vocabulary_sha256': tokenizer.sha256,
        'source_fingerprint': source_fingerprint,
    }
    return {
        'format': dataset.FORMAT,
        'fingerprint': dataset.fingerprint(identity),
        **identity,
        'sources': [str(source) for source in sources],
        'counts': dict(sorted(counts.items())) | {'chunks': num_chunks},
    }
