"""A text as the model reads it, and scores of its pieces as scores of its words."""

import dataclasses
from collections.abc import Sequence, Set

import numpy as np
from jaxtyping import Bool, Float, Int

from albert_jax.cli.errors import UserError
from albert_jax.cli.json_text import check_text
from albert_jax.data.hub_tokenizer import AnyTokenizer
from albert_jax.data.predicate import NO_ROLE, encode_predicate, find_predicate
from albert_jax.interop.native import Pretrained

# Pieces that stand for no text.
SPECIAL = ('[CLS]', '[SEP]')


@dataclasses.dataclass(frozen=True)
class EncodedText:
    """A text as the model reads it: `[CLS] first [SEP]`, or `[CLS] first [SEP] second [SEP]`."""

    pieces: tuple[str, ...]
    input_ids: Int[np.ndarray, '1 length']
    token_type_ids: Int[np.ndarray, '1 length']
    # Those of the pieces that were added to the vocabulary; each is a word.
    added_tokens: frozenset[str] = frozenset()

    @property
    def is_special(self) -> Bool[np.ndarray, 'length']:
        """Which pieces stand for no text: [CLS] and [SEP]."""
        return np.array([piece in SPECIAL for piece in self.pieces])


def encode(model: Pretrained, first: str, second: str | None = None) -> EncodedText:
    """A text, or a pair, with `[MASK]` as a piece of its own.

    Of a model of semantic roles the second text is the predicate, a word of the first or its
    number.

    Raises:
      UserError: if the model has no vocabulary or too few positions, the text has half a surrogate
        pair, nothing is left of it after normalisation, or there is no such predicate.
    """
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise UserError('The model has no vocabulary.')
    for text in (first, second or ''):
        check_text(text, 'The text')
    if model.head is not None and NO_ROLE in model.head.labels:
        return _encoded(model, *_predicate_ids(tokenizer, first, second))
    segments = [tokenizer.encode_with_masks(text) for text in (first, second) if text is not None]
    if not segments[0]:
        raise UserError('The text is empty; give some words to look at.')
    ids, types = [tokenizer.cls_id], [0]
    for number, segment in enumerate(segments):
        ids += [*segment, tokenizer.sep_id]
        types += [number] * (len(segment) + 1)
    return _encoded(model, ids, types)


def _predicate_ids(
    tokenizer: AnyTokenizer, sentence: str, predicate: str | None
) -> tuple[list[int], list[int]]:
    """The ids of a sentence with a predicate, however long, and their token types."""
    words = sentence.split()
    if not words:
        raise UserError('The text is empty; give some words to look at.')
    if predicate is None:
        raise UserError(
            'The model finds the roles for one predicate; give it as the second text: a word of '
            'the first, or the number of one, from 1.'
        )
    place = find_predicate(words, predicate, 'The text')
    return encode_predicate(tokenizer, words, place)


def _encoded(model: Pretrained, ids: list[int], types: list[int]) -> EncodedText:
    tokenizer = model.tokenizer
    assert tokenizer is not None
    if len(ids) > model.config.max_position_embeddings:
        raise UserError(
            f'The text has {len(ids)} pieces; the model has '
            f'{model.config.max_position_embeddings} positions: shorten it.'
        )
    pieces = tuple(str(tokenizer.pieces[i]) for i in ids)
    added = frozenset(token.content for token in getattr(tokenizer, 'added_tokens', ()))
    return EncodedText(
        pieces, np.array([ids], np.int32), np.array([types], np.int32), added & set(pieces)
    )


def word_places(
    pieces: Sequence[str], added_tokens: Set[str] = frozenset()
) -> list[tuple[str, list[int]]]:
    """Words with the places of their pieces, for SentencePiece or WordPiece.

    Args:
      pieces: of a text.
      added_tokens: those of the pieces that are words whatever is beside them.
    """
    has_spaces = any(piece.startswith('▁') for piece in pieces)
    words: list[tuple[str, list[int]]] = []
    was_special = True
    for place, piece in enumerate(pieces):
        is_special = piece in added_tokens or (piece.startswith('[') and piece.endswith(']'))
        starts = piece.startswith('▁') if has_spaces else not piece.startswith('##')
        if starts or is_special or was_special:
            words.append((piece.removeprefix('▁'), [place]))
        else:
            word, places = words[-1]
            words[-1] = (word + piece.removeprefix('##'), [*places, place])
        was_special = is_special
    return [(word, places) for word, places in words if word]


def word_scores(
    pieces: Sequence[str],
    scores: Float[np.ndarray, 'length'],
    added_tokens: Set[str] = frozenset(),
) -> list[tuple[str, float]]:
    """Words with the sums of their pieces' scores, for SentencePiece or WordPiece.

    Args:
      pieces: of a text.
      scores: of each.
      added_tokens: those of the pieces that are words whatever is beside them.
    """
    values = scores.tolist()
    return [
        (word, sum(values[place] for place in places))
        for word, places in word_places(pieces, added_tokens)
    ]
