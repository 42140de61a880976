"""What a vocabulary expects to be done to text: stated beside its file, or shown by its pieces."""

import dataclasses
from pathlib import Path
from typing import Any

from albert_jax.cli.errors import UserError
from albert_jax.cli.json_text import parse_json
from albert_jax.cli.notes import note
from albert_jax.data.dataset import MANIFEST
from albert_jax.data.normalization import Normalization
from albert_jax.data.preparation_settings import PreparationSettings
from albert_jax.data.tokenizer import Tokenizer

# Of a folder of albert_jax.export, and of Hugging Face.
_SIGNATURE, _TOKENIZER_CONFIG = 'signature.json', 'tokenizer_config.json'


def stated_beside(vocabulary: Path, tokenizer: Tokenizer) -> Normalization | None:
    """What a corpus, an exported model or a folder of Hugging Face says of its vocabulary.

    Args:
      vocabulary: its file, whose folder is looked at.
      tokenizer: of it.

    Returns:
      None if nothing there speaks of it.

    Raises:
      UserError: if such a file is not JSON.
    """
    manifest = _read(vocabulary.with_name(MANIFEST))
    if manifest.get('vocabulary_sha256') == tokenizer.sha256:
        settings = manifest.get('settings', {})
        return Normalization(bool(settings.get('keep_case')), bool(settings.get('keep_accents')))
    stated = _read(vocabulary.with_name(_SIGNATURE)).get('normalization')
    if vocabulary.name == 'vocabulary.model' and isinstance(stated, dict):
        return Normalization(bool(stated.get('keep_case')), bool(stated.get('keep_accents')))
    config = _read(vocabulary.with_name(_TOKENIZER_CONFIG))
    if vocabulary.name == 'spiece.model' and config:
        return Normalization(
            config.get('do_lower_case') is False, config.get('keep_accents') is True
        )
    return None


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    content = parse_json(file.read_text('utf-8', 'replace'), str(file))
    return content if isinstance(content, dict) else {}


def shown_by_pieces(tokenizer: Tokenizer) -> Normalization:
    """What was kept of the text that the pieces were made of.

    No text whose case is dropped could be cut into a piece with a capital letter, so that one such
    piece shows that it was kept; accents likewise.
    """
    pieces = [tokenizer.pieces[index] for index in tokenizer.learned_ids.tolist()]
    without_case, without_accents = Normalization(False, True), Normalization(True, False)
    return Normalization(
        keep_case=any(tokenizer.changes_piece(piece, without_case) for piece in pieces),
        keep_accents=any(tokenizer.changes_piece(piece, without_accents) for piece in pieces),
    )


def of_vocabulary(vocabulary: Path, tokenizer: Tokenizer) -> Normalization:
    """What is stated beside a vocabulary's file, or else shown by its pieces, with a note of it."""
    stated = stated_beside(vocabulary, tokenizer)
    if stated is not None:
        return stated
    shown = shown_by_pieces(tokenizer)
    if shown != Normalization():
        note(
            f'{vocabulary}: nothing beside it says so, but its pieces show that '
            f'{_described(shown)}.'
        )
    return shown


def settings_for(
    vocabulary: Path, tokenizer: Tokenizer, settings: PreparationSettings
) -> PreparationSettings:
    """The settings of a corpus with the normalisation of the vocabulary it is prepared with.

    Raises:
      UserError: if the settings keep what the vocabulary is known not to have.
    """
    stated = stated_beside(vocabulary, tokenizer)
    shown = shown_by_pieces(tokenizer)
    needed = stated or shown
    for name in ('keep_case', 'keep_accents'):
        is_kept = getattr(needed, name) or getattr(shown, name)
        if stated is not None and getattr(settings, name) and not is_kept:
            raise UserError(
                f'--{name}: the vocabulary {vocabulary} was made without it, so that what is kept '
                f'would be unknown; leave --{name} out, or train a vocabulary with it.'
            )
    used = dataclasses.replace(
        settings,
        keep_case=settings.keep_case or needed.keep_case,
        keep_accents=settings.keep_accents or needed.keep_accents,
    )
    if used != settings:
        note(f'as the vocabulary {vocabulary} asks, {_described(used.normalization)}.')
    return used


def note_difference(one: str, own: Tokenizer, other: str, theirs: Tokenizer) -> None:
    """Notes if two whose vocabulary is the same do not do the same to text before it is cut.

    Args:
      one: what has the first tokenizer.
      own: the first tokenizer.
      other: what has the second.
      theirs: the second.
    """
    if own.normalization != theirs.normalization:
        note(
            f'{one} and {other} have the same vocabulary, but in {one} '
            f'{_described(own.normalization)}, in {other} {_described(theirs.normalization)}.'
        )


def _described(normalization: Normalization) -> str:
    """Which of case and accents are kept and dropped."""
    words = [
        f'{name} are {"kept" if is_kept else "dropped"}'
        for name, is_kept in (
            ('capital letters', normalization.keep_case),
            ('accents', normalization.keep_accents),
        )
    ]
    return ' and '.join(words)
