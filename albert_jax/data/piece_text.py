"""Pieces of a vocabulary as a person writes them."""

import unicodedata

from albert_jax.cli.errors import UserError
from albert_jax.data.hub_tokenizer import AnyTokenizer
from albert_jax.data.tokenizer import Tokenizer

_SPACE = '▁'
_CONTINUES = '##'


def piece_text(tokenizer: AnyTokenizer, index: int) -> str:
    """A piece without the marks of SentencePiece: a word, or ## and the rest of one.

    Punctuation, and letters of scripts without case, such as Chinese, have no ##. A space alone is
    shown as ␣.

    Args:
      tokenizer: SentencePiece or WordPiece, whose own marks stay.
      index: the piece's id.
    """
    return _text(tokenizer, index, _has_marks(tokenizer))


def piece_texts(tokenizer: AnyTokenizer) -> list[str]:
    """All pieces of a vocabulary as `piece_text` shows them."""
    has_marks = _has_marks(tokenizer)
    return [_text(tokenizer, index, has_marks) for index in range(len(tokenizer.pieces))]


def _text(tokenizer: AnyTokenizer, index: int, has_marks: bool) -> str:
    piece = str(tokenizer.pieces[index])
    is_added = index >= tokenizer.num_model_pieces or (
        isinstance(tokenizer, Tokenizer)
        and any(token.id == index for token in tokenizer.added_tokens)
    )
    if is_added or not has_marks:
        return piece
    if piece.startswith(_SPACE):
        return piece.replace(_SPACE, ' ').strip() or '␣'
    continues = piece[:1].isalnum() and unicodedata.category(piece[0]) != 'Lo'
    return f'{_CONTINUES}{piece}' if continues else piece


def find_piece(tokenizer: AnyTokenizer, text: str) -> int:
    """The id of a piece, by what `piece_text` makes of it, or as the vocabulary has it.

    Raises:
      UserError: if there is none.
    """
    pieces = [str(piece) for piece in tokenizer.pieces]
    word = f'{_SPACE}{text}'.removesuffix('␣').replace(' ', _SPACE)
    names = dict.fromkeys([text, word, text.removeprefix(_CONTINUES)])
    found = [pieces.index(name) for name in names if name in pieces]
    if not found:
        raise UserError(f'{text!r} is no piece of the vocabulary; give one that fill_mask shows.')
    return next((index for index in found if piece_text(tokenizer, index) == text), found[0])


def _has_marks(tokenizer: AnyTokenizer) -> bool:
    return any(piece.startswith(_SPACE) for piece in tokenizer.pieces)
