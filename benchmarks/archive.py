"""Small files that keep what was measured or trained."""

import gzip
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

from albert_jax.cli.errors import UserError, reason


def packed(root: Path, files: Iterable[Path]) -> bytes:
    """A tar archive of files under the name of their folder; the same files, the same bytes."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode='w') as archive:
        for file in sorted(files):
            member = tarfile.TarInfo(f'{root.name}/{file.relative_to(root).as_posix()}')
            member.size = file.stat().st_size
            with file.open('rb') as opened:
                archive.addfile(member, opened)
    return gzip.compress(content.getvalue(), mtime=0)


def write(content: bytes, output: Path) -> None:
    """Writes an archive and says so.

    Raises:
      UserError: if it cannot be written.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(content)
    except OSError as error:
        raise UserError(f'{output} cannot be written: {reason(error)}.') from error
    print(f'Wrote {output}, {len(content):,} bytes.')
