"""Files on this machine or on any storage that Apache Beam reads (gs://…), by their paths."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from albert_jax.cli.errors import UserError, reason


def remove(path: str) -> None:
    """Removes a folder, if it is there."""
    if '://' not in path:
        shutil.rmtree(path, ignore_errors=True)
        return
    # What has failed matters more than that there was nothing to remove.
    with contextlib.suppress(BeamIOError):
        # A folder ends in a slash, or object stores take it for a file.
        FileSystems.delete([path + '/'])


def make_folder(path: str) -> None:
    """Makes a folder, before hours are spent on what cannot be written.

    Raises:
      UserError: if it cannot be made.
    """
    try:
        if '://' in path:
            FileSystems.mkdirs(path)
        else:
            Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'--output={path} cannot be written: {reason(error)}.') from error


@contextlib.contextmanager
def local(path: str) -> Iterator[str]:
    """Gives the path of a copy on this worker's disk, or of the file itself if it is there."""
    if '://' not in path:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        # Its ending tells how it is compressed.
        copy = Path(folder) / path.rpartition('/')[2]
        with (
            FileSystems.open(path, compression_type='uncompressed') as source,
            copy.open('wb') as f,
        ):
            while block := source.read(2**22):
                f.write(block)
        yield str(copy)


def write(path: str, content: bytes) -> None:
    """Writes a file."""
    with FileSystems.create(path, compression_type='uncompressed') as file:
        file.write(content)


def read(path: str) -> bytes:
    """The content of a file."""
    with FileSystems.open(path, compression_type='uncompressed') as file:
        return file.read()
