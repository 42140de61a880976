"""Finds out what a source holds and reads it: what `albert_jax.load` does."""

import bz2
import dataclasses
import gzip
import lzma
import shutil
import sys
import tarfile
import tempfile
import zlib
from pathlib import Path

from albert_jax.cli.errors import UserError, first_line, reason
from albert_jax.cli.paths import expand, local_path
from albert_jax.cli.phase import phase
from albert_jax.data.normalization import Normalization
from albert_jax.interop import google, hub, huggingface, huggingface_tokenizer, native
from albert_jax.interop.finite import check_finite
from albert_jax.interop.native import Pretrained
from albert_jax.model.loops import with_num_loops

# Of an unpacked archive: ten times the largest of the release, with its optimizer's moments.
_LARGEST = 30 << 30
_FORMATS = (
    'a run or checkpoint of albert_jax, a directory of Hugging Face (config.json and '
    'safetensors), a TensorFlow checkpoint of google-research/albert, a TF-Hub module, or a '
    'tar archive of one of them'
)


def load(source: str | Path, vocabulary: str | Path | None = None) -> Pretrained:
    """Config, parameters and tokenizer of a model, whoever wrote it.

    Args:
      source: a run (its --workdir) or checkpoint of albert_jax, a directory of Hugging Face
        (ALBERT or BERT), a TensorFlow checkpoint of google-research/albert or its archive, a
        TF-Hub module, or a name on the Hugging Face Hub.
      vocabulary: a file to use in place of the source's own.

    Returns:
      The model; parts that the source lacks are drawn from a fixed seed and named in
      `initialised`. What a person should know goes to standard error, a line each.

    Raises:
      UserError: if it is none of these, cannot be read whole, or a weight is NaN or infinite.
    """
    pretrained = read(source, vocabulary)
    # One from text to text has all that it needs.
    if pretrained.decoder is None:
        pretrained = native.complete(pretrained)
    for note in pretrained.notes:
        print(f'note: {source}: {note}', file=sys.stderr)
    return pretrained


def read(source: str | Path, vocabulary: str | Path | None = None) -> Pretrained:
    """As `load`, without drawing the parts that the source lacks and without a word.

    Raises:
      UserError: as `load`.
    """
    try:
        words = None if vocabulary is None else local_path(str(vocabulary))
        with phase(f'Reading {source} …'):
            model = _read(expand(str(source)), words)
            check_finite(model, str(source))
            return model
    except UserError:
        raise
    except OSError as error:
        raise UserError(f'{error.filename or source} cannot be read: {reason(error)}.') from error
    except Exception as error:  # JSON that holds anything; libraries that raise anything
        raise UserError(
            f'{source} cannot be read as a model ({type(error).__name__}: {first_line(error)}).'
        ) from error


def read_at_depth(source: str | Path, num_loops: int | None) -> Pretrained:
    """As `read`, with the shared layers gone through so many times; None: as in training.

    Raises:
      UserError: as `read` and `with_num_loops`, and of a model with a decoder.
    """
    model = read(source)
    if num_loops is None:
        return model
    if model.decoder is not None:
        raise UserError(f'--num_loops is for models without a decoder, and {source} has one.')
    try:
        config, params = with_num_loops(model.config, model.params, num_loops)
    except UserError as error:
        raise UserError(f'{source}: {error}') from error
    return dataclasses.replace(model, config=config, params=params)


def _read(source: str, words: Path | None) -> Pretrained:
    path = Path(source)
    if path.is_dir():
        return _read_directory(path, words)
    if Path(f'{path}.index').is_file():
        return google.read(path, words)
    if path.is_file():
        if path.name.endswith('.index'):
            return google.read(path.with_suffix(''), words)
        if _is_archive(path):
            return _read_archive(path, words)
        raise UserError(f'{path} is a file, and no tar archive; give {_FORMATS}.')
    if hub.is_name(source):
        return _read_directory(hub.locate(source), words)
    raise UserError(f'There is no file or directory {path}; give {_FORMATS}.')


def _is_archive(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except (OSError, EOFError, lzma.LZMAError, zlib.error):
        return False


def _read_directory(path: Path, vocabulary: Path | None) -> Pretrained:
    checkpoints = google.checkpoints(path)
    formats = {
        'albert_jax': native.is_checkpoint(path),
        'Hugging Face': huggingface.is_directory(path),
        'TensorFlow': bool(checkpoints),
    }
    present = [name for name, is_there in formats.items() if is_there]
    if len(present) > 1:
        raise UserError(
            f'{path} holds models in two formats ({" and ".join(present)}); give a directory with '
            f'one of them.'
        )
    if not present:
        children = [child for child in path.iterdir() if child.is_dir()]
        if len(children) == 1:
            return _read_directory(children[0], vocabulary)
        raise UserError(f'{path} holds no model; give {_FORMATS}.')
    if present == ['albert_jax']:
        model = native.read(path)
        if vocabulary is None:
            return model
        if model.tokenizer is None:
            words = huggingface_tokenizer.from_vocabulary(vocabulary)
            return native.with_tokenizer(model, words, str(path))
        normalization = getattr(model.tokenizer, 'normalization', Normalization())
        settings = {
            'do_lower_case': not normalization.keep_case,
            'keep_accents': normalization.keep_accents,
        }
        words = huggingface_tokenizer.from_file(vocabulary, settings)
        added = getattr(model.tokenizer, 'added_tokens', ())
        notes = (*model.notes, *huggingface_tokenizer.lost_tokens(added, words))
        model = native.with_tokenizer(model, words, str(path))
        return dataclasses.replace(model, notes=notes)
    if present == ['Hugging Face']:
        return huggingface.read(path, vocabulary)
    if len(checkpoints) != 1:
        raise UserError(
            f'{path} holds {len(checkpoints)} checkpoints'
            f'{"" if not checkpoints else ": " + ", ".join(c.name for c in checkpoints)}; name one '
            f'of them, without the ending .index.'
        )
    return google.read(checkpoints[0], vocabulary)


def _read_archive(path: Path, vocabulary: Path | None) -> Pretrained:
    with tempfile.TemporaryDirectory() as folder:
        try:
            plain = Path(folder) / 'archive.tar'
            _decompress(path, plain)
            inside = Path(folder) / 'content'
            inside.mkdir()
            _unpack(plain, inside, path)
            plain.unlink()
            return _read_directory(inside, vocabulary)
        except UserError as error:
            # The place where it was unpacked is of no use to anyone.
            raise UserError(str(error).replace(str(Path(folder) / 'content'), str(path))) from error
        except (tarfile.TarError, lzma.LZMAError, zlib.error, OSError, EOFError) as error:
            raise UserError(f'{path} cannot be unpacked: {error}.') from error


def _decompress(path: Path, plain: Path) -> None:
    """Writes what is compressed in a file, to its end, so that its checksum is compared."""
    with path.open('rb') as file:
        magic = file.read(6)
    openers = {b'\x1f\x8b': gzip.open, b'BZh': bz2.open, b'\xfd7zXZ\x00': lzma.open}
    opener = next((o for start, o in openers.items() if magic.startswith(start)), open)
    size = 0
    with opener(path, 'rb') as source, plain.open('wb') as target:
        while chunk := source.read(1 << 20):
            size += len(chunk)
            if size > _LARGEST:
                raise UserError(f'{path} unpacks to more than {_LARGEST >> 30} GiB.')
            target.write(chunk)


def _unpack(plain: Path, folder: Path, origin: Path) -> None:
    with tarfile.open(plain, 'r:') as archive:
        for member in archive:
            target = (folder / member.name).resolve()
            if not target.is_relative_to(folder.resolve()):
                raise UserError(
                    f'{origin}: {member.name} would leave the folder that the archive is unpacked '
                    f'to; it is not read.'
                )
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            content = archive.extractfile(member) if member.isfile() else None
            if content is None:
                raise UserError(
                    f'{origin}: {member.name} is neither a file nor a folder; the archive is not '
                    f'unpacked.'
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open('wb') as file:
                shutil.copyfileobj(content, file)
        end = archive.offset
    # tarfile takes a damaged header for the end.
    with plain.open('rb') as file:
        file.seek(end)
        rest = file.read()
    if len(rest) < tarfile.BLOCKSIZE or any(rest):
        raise UserError(f'{origin} is damaged: it does not end where its files do.')
