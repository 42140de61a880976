"""Documents from the builtin corpus, text files, JSON Lines and TFDS, one after the other.

Nothing here holds more than one document, but to tell that a file is no JSON Lines.
"""

import ast
import dataclasses
import glob
import gzip
import importlib.util
import inspect
import io
import itertools
import pydoc_data.topics
import re
import stat
import sysconfig
import warnings
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

from albert_jax.cli.errors import UserError, reason
from albert_jax.cli.json_text import check_lines, check_text, parse_json
from albert_jax.cli.utf16 import NUM_BYTES, check_is_not_utf16
from albert_jax.data.tfds_reader import decode_text, open_data_set

# The packages, beside the standard library, whose documentation is the builtin corpus.
_DOCUMENTED_PACKAGES = (
    'flax', 'jax', 'numpy', 'optax', 'orbax', 'scipy', 'tensorflow_datasets',
)  # fmt: skip
_MIN_DOCSTRING = 80
# Read at a time to see how the lines of a file end: the first such part says it, but for a file of
# very long lines, or without any.
_CHUNK_BYTES = 2**16
# In which JSON that is no JSON Lines is looked for, to say so.
_MOST_LINES = 100_000


@dataclasses.dataclass(frozen=True)
class Source:
    """One `--input`: a kind (`builtin`, `text`, `jsonl`, `tfds`) and what it applies to."""

    kind: str
    target: str = ''
    # The key of a JSON line, or the feature of a TFDS example, that holds the text.
    text_key: str = 'text'
    # Of text files: each is one document, instead of blank lines between documents.
    is_file_document: bool = False

    def __str__(self) -> str:
        return f'{self.kind}:{self.target}' if self.target else self.kind

    def files(self) -> list[str]:
        """The files to read, sorted; folders and pipes that match too are left out.

        Raises:
          UserError: if there are none, or one is a link to nothing.
        """
        paths = [path for path in self.matches() if _is_file(path)]
        if not paths and self.kind in ('text', 'jsonl'):
            raise UserError(f'No file matches {self.target!r} of --input={self}.')
        return paths

    def matches(self) -> list[str]:
        """Whatever the target names, sorted: files, and folders with them."""
        if self.kind not in ('text', 'jsonl'):
            return []
        paths = sorted(glob.glob(self.target, recursive=True))  # noqa: PTH207 (absolute globs)
        # As a pattern, data[1].txt is data1.txt.
        is_name = self.target not in paths and Path(self.target).is_file()
        return [self.target] if is_name else paths

    def documents(self) -> Iterator[str]:
        """The documents, in an order that depends on nothing but the source.

        Raises:
          UserError: naming file and line, if something there is not a document.
        """
        match self.kind:
            case 'builtin':
                yield from _builtin_documents()
            case 'tfds':
                yield from _tfds_documents(self.target, self.text_key)
            case 'text':
                for path in self.files():
                    yield from _text_documents(path, self.is_file_document)
            case _:
                for path in self.files():
                    yield from _json_documents(path, self.text_key)


def _is_file(path: str) -> bool:
    """Whether a path is a file, and no folder, pipe or socket.

    Raises:
      UserError: if nobody can tell, as of a link to nothing.
    """
    try:
        return stat.S_ISREG(Path(path).stat().st_mode)
    except OSError as error:
        raise UserError(
            f'{path} cannot be read ({reason(error)}); remove it, or the link that it is.'
        ) from error


def parse_source(spec: str, text_key: str = 'text', is_file_document: bool = False) -> Source:
    """A source from `builtin`, `text:GLOB`, `jsonl:GLOB` or `tfds:NAME[/CONFIG][:SPLIT]`.

    Raises:
      UserError: if the spec is none of these.
    """
    kind, _, target = spec.partition(':')
    if kind == 'builtin' and not target:
        return Source('builtin')
    if kind in ('text', 'jsonl', 'tfds') and target:
        return Source(kind, target, text_key, is_file_document)
    raise UserError(
        f'--input={spec} is not a source; give builtin, text:GLOB, jsonl:GLOB or '
        f'tfds:NAME[/CONFIG][:SPLIT].'
    )


def numbered_lines(path: str) -> Iterator[tuple[int, str]]:
    """Numbered lines of a file of UTF-8, gzipped or not, as `tables.split_lines` takes them."""
    number = 0
    try:
        opener = gzip.open if path.endswith('.gz') else open
        with cast('io.BufferedIOBase', opener(path, 'rb')) as file:
            check_is_not_utf16(file.read(NUM_BYTES), path)
            file.seek(0)
            for number, line in enumerate(_byte_lines(file), 1):
                yield number, line.decode('utf-8-sig' if number == 1 else 'utf-8')
    except UnicodeDecodeError as error:
        raise UserError(
            f'{path}, line {number}: not UTF-8 (byte 0x{error.object[error.start]:02x} at '
            f'column {error.start + 1}); convert the file to UTF-8 first.'
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(
            f'{path}, after line {number}: cannot be read ({reason(error)}).'
        ) from error


def _byte_lines(file: io.BufferedIOBase) -> Iterable[bytes]:
    r"""The lines of a file from its start, which end in \n; in \r if no \n is before the end."""
    end = b''
    while chunk := file.read(_CHUNK_BYTES):
        end = (end + chunk)[-2:]
        if (place := chunk.find(b'\n')) >= 0:
            # At the end alone it is of another program than the lines.
            is_last = place == len(chunk) - 1 and end != b'\r\n' and not file.read(1)
            file.seek(0)
            return _lines_of_chunks(file) if is_last else file
    file.seek(0)
    return _lines_of_chunks(file)


def _lines_of_chunks(file: io.BufferedIOBase) -> Iterator[bytes]:
    r"""The lines of a file without any \n within, not more than one of them in memory."""
    rest: list[bytes] = []
    while chunk := file.read(_CHUNK_BYTES):
        first, *others = chunk.split(b'\r')
        rest.append(first)
        for other in others:
            yield b''.join(rest) + b'\r'
            rest = [other]
    if last := b''.join(rest):
        yield last


def _text_documents(path: str, is_file_document: bool) -> Iterator[str]:
    paragraph: list[str] = []
    for _, line in numbered_lines(path):
        if line.strip() or is_file_document:
            paragraph.append(line)
        elif paragraph:
            yield ''.join(paragraph)
            paragraph = []
    if paragraph:
        yield ''.join(paragraph)


def _json_documents(path: str, text_key: str) -> Iterator[str]:
    is_first = True
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        where = f'{path}, line {number}'
        try:
            document = parse_json(line, where, (text_key,))
        except UserError:
            if is_first:
                _check_json_lines(path)
            raise
        text = document.get(text_key) if isinstance(document, dict) else None
        if not isinstance(text, str):
            if is_first:
                _check_json_lines(path)
            raise UserError(
                f'{where}: a document without text; each line must be an object with a string '
                f'under the key {text_key!r}.'
            )
        is_first = False
        # Decoded from UTF-8, only an escape can be one.
        yield check_text(text, where) if '\\u' in line else text


def _check_json_lines(path: str) -> None:
    """Refuses a file of one list, or of objects over several lines, as such."""
    check_lines([line for _, line in itertools.islice(numbered_lines(path), _MOST_LINES)], path)


def _tfds_documents(target: str, text_key: str) -> Iterator[str]:
    name, _, split = target.partition(':')
    data_set = open_data_set(name)
    data_set.check_text(text_key, 'choose another --text_key')
    for where, row in data_set.rows(split or 'train'):
        yield decode_text(row[text_key], where, text_key)


def _builtin_documents() -> Iterator[str]:
    """The documentation inside this Python installation, a docstring or help topic each."""
    yield from (pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics))
    standard_library = Path(sysconfig.get_path('stdlib'))
    packages = (folder for name in _DOCUMENTED_PACKAGES for folder in _package_folders(name))
    for root in (standard_library, *packages):
        for path in sorted(root.rglob('*.py')):
            parts = path.relative_to(root).parts
            is_foreign = root == standard_library and 'site-packages' in parts
            if not is_foreign and not _is_test(parts):
                yield from _docstrings(path)


def _package_folders(name: str) -> Iterator[Path]:
    """Where a package is imported from, which need not be this environment's own folder."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f'builtin reads the documentation of {name}, which is not installed; install '
            f'albert_jax with pip, or name text of your own.'
        )
    yield from map(Path, spec.submodule_search_locations)


def _is_test(parts: tuple[str, ...]) -> bool:
    return parts[-1].endswith('_test.py') or not {'test', 'tests', 'idle_test'}.isdisjoint(parts)


def _docstrings(path: Path) -> Iterator[str]:
    source = path.read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', SyntaxWarning)
            pending: list[ast.AST] = [ast.parse(source)]
    except (SyntaxError, ValueError):  # a template of some tool, not a module
        return
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=False)
            if docstring and len(docstring) > _MIN_DOCSTRING:
                yield _prose(inspect.cleandoc(docstring))
        # Only statements that hold statements can hold definitions: much less than ast.walk sees.
        blocks = [getattr(node, name, ()) for name in ('orelse', 'body')]
        pending += [
            child for block in blocks for child in reversed(block) if hasattr(child, 'body')
        ]


def _prose(docstring: str) -> str:
    """Joins the lines of each paragraph, and leaves out sessions with the interpreter."""
    paragraphs = re.split(r'\n\s*\n', docstring)
    return '\n'.join(
        ' '.join(paragraph.split())
        for paragraph in paragraphs
        if not paragraph.lstrip().startswith('>>>')
    )
