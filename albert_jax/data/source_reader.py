"""Reads all documents of the inputs once, and notices duplicates."""

import collections
import contextlib
import hashlib
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from albert_jax.data.corpus import Source

DIGEST_BYTES = 16


def text_digest(encoded: bytes) -> bytes:
    """The digest of a document's text: 16 bytes."""
    return hashlib.blake2b(encoded, digest_size=DIGEST_BYTES).digest()


class SourceReader:
    """Reads the sources once, and keeps the counts and the digest of what it has read.

    Args:
      sources: read in this order.
      drop_duplicates: leave out exact duplicates of documents.
      on_text: called with the number of bytes of each document.
      scratch: folder for the digests of documents; the system's if left out.
    """

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
        self._digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self.counts: collections.Counter[str] = collections.Counter()

    def documents(self) -> Iterator[str]:
        """The documents, in their order.

        Raises:
          UserError: if something there is not a document.
        """
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
                    digest = text_digest(encoded)
                    self._digest.update(digest)
                    if self._drop_duplicates:
                        insert = 'INSERT OR IGNORE INTO seen VALUES (?)'
                        if not seen.execute(insert, (digest,)).rowcount:
                            self.counts['documents_duplicate'] += 1
                            continue
                    yield text

    @property
    def fingerprint(self) -> str:
        """The digest of all documents that have been read."""
        return self._digest.hexdigest()
