"""Finds out what a source holds and reads it: what `albert_jax.load` does."""

import sys
import tarfile
import tempfile
from pathlib import Path

from albert_jax import pretrained
from albert_jax.errors import UserError
from albert_jax.interop import google, hub, huggingface, huggingface_tokenizer
from albert_jax.pretrained import Pretrained

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
      UserError: if it is none of these, or cannot be read whole.
    """
    found = pretrained.complete(read(source, vocabulary))
    for note in found.notes:
        print(f'note: {source}: {note}', file=sys.stderr)
    return found


def read(source: str | Path, vocabulary: str | Path | None = None) -> Pretrained:
    """As `load`, without drawing the parts that the source lacks and without a word.

    Raises:
      UserError: as `load`.
    """
    path = Path(source)
    words = None if vocabulary is None else Path(vocabulary)
    if path.is_dir():
        return _read_directory(path, words)
    if Path(f'{path}.index').is_file():
        return google.read(path, words)
    if path.is_file():
        if path.name.endswith('.index'):
            return google.read(path.with_suffix(''), words)
        if tarfile.is_tarfile(path):
            return _read_archive(path, words)
        raise UserError(f'{path} is a file, and no tar archive; give {_FORMATS}.')
    if hub.is_name(str(source)):
        return _read_directory(hub.locate(str(source)), words)
    raise UserError(f'There is no file or directory {path}; give {_FORMATS}.')


def _read_directory(path: Path, vocabulary: Path | None) -> Pretrained:
    checkpoints = google.checkpoints(path)
    is_hub_module = (path / 'variables').is_dir()
    formats = {
        'albert_jax': pretrained.is_checkpoint(path),
        'Hugging Face': huggingface.is_directory(path),
        'TensorFlow': bool(checkpoints) or is_hub_module,
    }
    found = [name for name, is_there in formats.items() if is_there]
    if len(found) > 1:
        raise UserError(
            f'{path} holds models in two formats ({" and ".join(found)}); give a directory with '
            f'one of them.'
        )
    if not found:
        children = [child for child in path.iterdir() if child.is_dir()]
        if len(children) == 1:
            return _read_directory(children[0], vocabulary)
        raise UserError(f'{path} holds no model; give {_FORMATS}.')
    if found == ['albert_jax']:
        model = pretrained.read(path)
        if vocabulary is None:
            return model
        words = huggingface_tokenizer.from_file(vocabulary, {})
        return pretrained.with_tokenizer(model, words, str(path))
    if found == ['Hugging Face']:
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
            with tarfile.open(path) as archive:
                for member in archive:
                    if not (member.isfile() or member.isdir()):
                        raise UserError(
                            f'{path}: {member.name} is neither a file nor a folder; the archive is '
                            f'not unpacked.'
                        )
                    # Refuses what would leave the folder.
                    archive.extract(member, folder, filter='data')
        except tarfile.FilterError as error:
            raise UserError(
                f'{path}: {error.tarinfo.name} would leave the folder that the archive is unpacked '
                f'to; it is not read.'
            ) from error
        except (tarfile.TarError, OSError, EOFError) as error:
            raise UserError(f'{path} cannot be unpacked: {error}.') from error
        return _read_directory(Path(folder), vocabulary)
