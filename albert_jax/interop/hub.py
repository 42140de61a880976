"""Models by their name on the Hugging Face Hub: from the local cache, or downloaded."""

import re
from pathlib import Path

from albert_jax.cli.errors import UserError

_NAME = re.compile(r'[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?')
# Nothing else of a repository is fetched; a pickle never is.
_FILES = ['*.json', '*.safetensors', 'spiece.model', 'vocab.txt']
# The short names of the first models, as transformers resolves them.
_OWNERS = {'albert-': 'albert', 'bert-': 'google-bert'}


def is_name(source: str) -> bool:
    """Whether this could be the name of a model and not a path."""
    return _NAME.fullmatch(source) is not None


def locate(name: str) -> Path:
    """The directory of a model in the local cache, downloaded if need be.

    Raises:
      UserError: if it is not in the cache and cannot be downloaded.
    """
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise UserError(
            f'There is no file or directory {name}; to look it up as a model of the Hugging Face '
            f"Hub install the extra: pip install -e '.[huggingface]'."
        ) from error
    owner = next((o for prefix, o in _OWNERS.items() if name.startswith(prefix)), None)
    candidates = [name] if '/' in name or owner is None else [f'{owner}/{name}', name]
    for candidate in candidates:
        try:
            path = Path(huggingface_hub.snapshot_download(candidate, local_files_only=True))
        except errors.LocalEntryNotFoundError:
            continue
        except errors.HFValidationError as error:
            raise UserError(
                f'There is no file or directory {name}, and no model can have this name.'
            ) from error
        if any(path.glob('*.safetensors')):
            return path
    try:
        path = Path(huggingface_hub.snapshot_download(candidates[0], allow_patterns=_FILES))
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f'There is no file or directory {name}, and no such model on the Hugging Face Hub.'
        ) from error
    except Exception as error:  # every HTTP library and proxy has errors of its own
        raise UserError(
            f'There is no file or directory {name}, no such model in the local Hugging Face cache, '
            f'and it could not be downloaded ({type(error).__name__}); download it on a machine '
            f'with a network and give its directory.'
        ) from error
    if not any(path.glob('*.safetensors')):
        raise UserError(
            f'{name} has no safetensors on the Hugging Face Hub; load it with transformers and '
            f'save it with save_pretrained(DIR, safe_serialization=True).'
        )
    return path
