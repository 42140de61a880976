"""What of a vocabulary a decoder needs, and the text of the pieces that it has written."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from albert_jax.data.hub_tokenizer import AnyTokenizer
from albert_jax.model.decoding import SpecialIds


def special_ids(tokenizer: AnyTokenizer, vocab_size: int) -> SpecialIds:
    """Texts start with [CLS] and end with [SEP]; what stands for no text is never written.

    Args:
      tokenizer: of the texts.
      vocab_size: of the model, which may have more rows than the vocabulary has pieces.
    """
    forbidden = tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.mask_id
    without_piece = range(len(tokenizer.pieces), vocab_size)
    return SpecialIds(
        tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id, (*forbidden, *without_piece)
    )


def pieces_before_end(
    token_ids: Sequence[int] | Int[np.ndarray, 'length'], tokenizer: AnyTokenizer
) -> list[int]:
    """The pieces before the first [SEP] or padding."""
    ends = np.flatnonzero(np.isin(token_ids, (tokenizer.sep_id, tokenizer.pad_id)))
    kept = token_ids[: ends[0]] if len(ends) else token_ids
    return [int(index) for index in kept]


def target_text(
    token_ids: Sequence[int] | Int[np.ndarray, 'length'], tokenizer: AnyTokenizer
) -> str:
    """The text of the pieces before the end, on one line."""
    return ' '.join(tokenizer.decode(pieces_before_end(token_ids, tokenizer)).split())
