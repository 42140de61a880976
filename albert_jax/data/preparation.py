"""Documents → sentences → piece ids → chunks → a prepared corpus.

The parent reads documents and writes records; workers do the rest, a block of documents at a time,
and their results are taken in the order of the documents. So the bytes written depend on the input
and the settings only, and memory on the number of workers only. The corpus is built beside its
destination and renamed when whole: an interrupted run leaves nothing that looks finished.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import itertools
import multiprocessing
import multiprocessing.connection
import os
import re
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from sentencex import segment  # pyright: ignore[reportAttributeAccessIssue]

from albert_jax.cli.errors import UserError
from albert_jax.cli.settings import NonNegative, Probability, Settings, at_least
from albert_jax.data import dataset
from albert_jax.data.corpus import Source
from albert_jax.data.normalization import Normalization
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.data.vocabulary import train_vocabulary

_BLOCK_CHARACTERS = 500_000
_NUM_SPECIAL = 3  # [CLS] A [SEP] B [SEP]
_CONTROL = re.compile('[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u2060\ufeff\ufffd]')
_KANA = re.compile('[\u3041-\u30ff]')
_HAN = re.compile('[\u4e00-\u9fff]')
# A sentence is cut before a word if that leaves so much of the chunk filled.
_SHORT_CUT = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreparationSettings(Settings):
    """What decides the records, apart from the text and the vocabulary.

    Raises:
      UserError: if a value is impossible.
    """

    SECTION: ClassVar[str] = 'prepare'

    sequence_length: Annotated[
        int, at_least(8), 'tokens of a chunk, [CLS] and two [SEP] included'
    ] = 512
    validation_fraction: Annotated[
        float, Probability, 'share of the documents held out, chosen by content and seed'
    ] = 0.01
    seed: Annotated[int, 'of the split into training and validation'] = 0
    keep_case: Annotated[bool, 'do not lower the case'] = False
    keep_accents: Annotated[bool, 'do not drop combining marks'] = False
    # Cleaning; what each leaves out is counted in the manifest.
    html: Annotated[bool, 'take the text out of HTML'] = False
    drop_control_characters: Annotated[bool, 'leave out control characters'] = False
    drop_duplicates: Annotated[bool, 'leave out documents that were there already'] = False
    min_characters: Annotated[int, NonNegative, 'leave out shorter documents'] = 0

    @property
    def normalization(self) -> Normalization:
        """What the tokenizer does to text first."""
        return Normalization(self.keep_case, self.keep_accents)


def split_sentences(text: str) -> list[str]:
    """The sentences of a document; a line break always ends one.

    The language (English, Chinese or Japanese rules) is chosen for each paragraph by its script.
    """
    sentences = []
    for paragraph in text.splitlines():
        if not paragraph.strip():
            continue
        language = 'en'
        if not paragraph.isascii():
            is_japanese, is_chinese = _KANA.search(paragraph), _HAN.search(paragraph)
            language = 'ja' if is_japanese else 'zh' if is_chinese else 'en'
        sentences += [part for part in segment(language, paragraph) if part.strip()]
    return sentences


def clean(text: str, settings: PreparationSettings, counts: collections.Counter[str]) -> str:
    """The document's text after the optional cleaning, or '' if it is left out."""
    if settings.html:
        from selectolax.lexbor import LexborHTMLParser

        tree = LexborHTMLParser(text)
        tree.strip_tags(['script', 'style', 'template', 'noscript'])
        body = tree.body
        text = body.text(separator='\n', strip=True) if body else ''
        counts['documents_parsed_as_html'] += 1
    if settings.drop_control_characters:
        text, num_dropped = _CONTROL.subn('', text)
        counts['control_characters_dropped'] += num_dropped
    if not text.strip():
        counts['documents_empty'] += 1
        return ''
    if len(text) < settings.min_characters:
        counts['documents_too_short'] += 1
        return ''
    return text


def pack(
    sentences: Iterable[list[int]], capacity: int, starts_word: np.ndarray
) -> Iterator[tuple[list[int], list[int]]]:
    """Chunks of whole consecutive sentences: (tokens, end of each sentence).

    A sentence that is longer than a chunk is cut before a word.
    """
    tokens: list[int] = []
    ends: list[int] = []
    for sentence in sentences:
        for part in _cut(sentence, capacity, starts_word):
            if len(tokens) + len(part) > capacity:
                yield tokens, ends
                tokens, ends = [], []
            tokens = tokens + part
            ends = [*ends, len(tokens)]
    if tokens:
        yield tokens, ends


def _cut(sentence: list[int], capacity: int, starts_word: np.ndarray) -> Iterator[list[int]]:
    while len(sentence) > capacity:
        words = np.flatnonzero(starts_word[sentence[: capacity + 1]])
        last_word = int(words[-1]) if words.size else 0
        end = last_word if last_word > capacity * _SHORT_CUT else capacity
        yield sentence[:end]
        sentence = sentence[end:]
    if sentence:
        yield sentence


@dataclasses.dataclass
class Block:
    """What a worker makes of a block of documents."""

    records: dict[str, list[bytes]]
    counts: collections.Counter[str]
    token_counts: np.ndarray


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
            sentences = split_sentences(clean(text, settings, counts))
            if sentences:
                documents.append((number, _split_of(text, settings), sentences))
        encoded = iter(tokenizer.encode([s for document in documents for s in document[2]]))
        records: dict[str, list[bytes]] = {split: [] for split in dataset.SPLITS}
        token_counts = np.zeros(tokenizer.vocab_size, np.int64)
        capacity = settings.sequence_length - _NUM_SPECIAL
        for number, split, sentences in documents:
            counts['documents'] += 1
            counts[f'documents/{split}'] += 1
            ids = itertools.islice(encoded, len(sentences))
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


def digest_of(encoded: bytes) -> bytes:
    """What names a document's text: 16 bytes."""
    return hashlib.blake2b(encoded, digest_size=16).digest()


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


class _Reader:
    """Reads the sources once, and keeps count and digest of what it has seen."""

    def __init__(
        self,
        sources: list[Source],
        drop_duplicates: bool,
        on_text: Callable[[int], None],
        scratch: Path | None = None,
    ) -> None:
        self._sources, self._drop_duplicates = sources, drop_duplicates
        self._scratch = scratch
        self._on_text = on_text
        self._digest = hashlib.blake2b(digest_size=16)
        self.counts: collections.Counter[str] = collections.Counter()

    def documents(self) -> Iterator[str]:
        # On disk, so that memory does not grow with the corpus.
        with (
            tempfile.NamedTemporaryFile(dir=self._scratch) as file,
            contextlib.closing(sqlite3.connect(file.name, isolation_level=None)) as seen,
        ):
            seen.execute('PRAGMA journal_mode = OFF')
            seen.execute('PRAGMA synchronous = OFF')
            seen.execute('CREATE TABLE seen (digest BLOB PRIMARY KEY) WITHOUT ROWID')
            for source in self._sources:
                for text in source.documents():
                    encoded = text.encode('utf-8', 'replace')
                    self.counts['documents_read'] += 1
                    self.counts['bytes_read'] += len(encoded)
                    self._on_text(len(encoded))
                    digest = digest_of(encoded)
                    self._digest.update(digest)
                    if self._drop_duplicates:
                        insert = 'INSERT OR IGNORE INTO seen VALUES (?)'
                        if not seen.execute(insert, (digest,)).rowcount:
                            self.counts['documents_duplicate'] += 1
                            continue
                    yield text

    @property
    def fingerprint(self) -> str:
        return self._digest.hexdigest()


def vocabulary_for(sources: list[Source], settings: PreparationSettings, vocab_size: int) -> bytes:
    """Trains a vocabulary on the sources' sentences (reads them once).

    Raises:
      UserError: if there is no text, or too little for so many pieces.
    """
    reader = _Reader(sources, drop_duplicates=False, on_text=lambda _: None)
    ignored: collections.Counter[str] = collections.Counter()
    sentences = (
        settings.normalization(sentence)
        for text in reader.documents()
        for sentence in split_sentences(clean(text, settings, ignored))
    )
    first = next(sentences, None)
    if first is None:
        raise _empty(sources)
    return train_vocabulary(itertools.chain([first], sentences), vocab_size)


def _empty(sources: list[Source]) -> UserError:
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
    partial = output.with_name(f'{output.name}.incomplete')
    try:
        dataset.remove(partial)
        partial.mkdir(parents=True)
        manifest = _write(sources, partial, vocabulary, settings, num_workers, on_text)
        partial.replace(output)
    except (OSError, sqlite3.Error) as error:
        dataset.remove(partial)
        reason = getattr(error, 'strerror', None) or error
        raise UserError(
            f'{output} cannot be written ({reason}); make room or choose another --output.'
        ) from error
    except BaseException:
        dataset.remove(partial)
        raise
    return manifest


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
    reader = _Reader(sources, settings.drop_duplicates, on_text, scratch=directory)
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
        raise _empty(sources)
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
