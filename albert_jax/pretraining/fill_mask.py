"""What a pretrained model finds likely for each `[MASK]` of a text."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from albert_jax.cli.errors import UserError
from albert_jax.cli.json_text import check_text
from albert_jax.cli.phase import phase
from albert_jax.data.piece_text import piece_text
from albert_jax.interop.native import Pretrained, check_no_decoder
from albert_jax.model.albert import PretrainingModel
from albert_jax.model.config import AlbertConfig
from albert_jax.model.heads.definition import Params


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A piece for a mask.

    Args:
      piece: as the vocabulary has it.
      probability: of the piece.
      text: the piece as one writes it.
    """

    piece: str
    probability: float
    text: str


def fill_mask(model: Pretrained, text: str, top: int) -> list[list[Candidate]]:
    """The likeliest pieces for each `[MASK]` in the text, best first.

    Raises:
      UserError: if the model has no vocabulary or no trained masked-LM head, or goes from text to
        text, or the text is longer than its positions, has no `[MASK]` or half a surrogate pair.
    """
    check_no_decoder(model, 'The checkpoint', 'filling of masks')
    tokenizer, config = model.tokenizer, model.config
    if tokenizer is None or 'mlm' in model.initialised:
        missing = 'vocabulary' if tokenizer is None else 'masked-LM head'
        raise UserError(f'The checkpoint has no {missing}; masks need both.')
    check_text(text, 'The text')
    if '[MASK]' not in text:
        raise UserError(f'There is no [MASK] in {text!r}; write it where a piece is missing.')
    ids = [tokenizer.cls_id, *tokenizer.encode_with_masks(text), tokenizer.sep_id]
    if len(ids) > config.max_position_embeddings:
        raise UserError(
            f'The text has {len(ids)} tokens; the model has {config.max_position_embeddings} '
            f'positions: shorten it.'
        )
    input_ids = np.array([ids], np.int32)
    positions = np.flatnonzero(input_ids[0] == tokenizer.mask_id)[None].astype(np.int32)
    num_pieces = tokenizer.vocab_size
    with phase('Compiling for texts of this length …'):
        probabilities, pieces = _likeliest(
            config, num_pieces, min(top, num_pieces), model.params, input_ids, positions
        )
    return [
        [
            Candidate(tokenizer.pieces[index], float(probability), piece_text(tokenizer, index))
            for index, probability in zip(map(int, row_pieces), row_probabilities, strict=True)
        ]
        for row_pieces, row_probabilities in zip(
            np.asarray(pieces), np.asarray(probabilities), strict=True
        )
    ]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _likeliest(
    config: AlbertConfig,
    num_pieces: int,
    top: int,
    params: Params,
    input_ids: Int[Array, '1 length'],
    positions: Int[Array, '1 masks'],
) -> tuple[Float[Array, 'masks top'], Int[Array, 'masks top']]:
    """Probabilities and ids of the likeliest pieces at each position, best first."""
    output: Any = PretrainingModel(config).apply(
        {'params': params}, input_ids, masked_positions=positions
    )
    chances = jax.nn.softmax(output.mlm_logits[0, :, :num_pieces])
    probabilities, pieces = jax.lax.top_k(chances, top)
    return probabilities, pieces


def show(text: str, masks: Sequence[Sequence[Candidate]]) -> None:
    """Prints a text, and a table of words and probabilities for each mask of it."""
    console = Console(emoji=False)
    console.print(f'\n{text}', markup=False, highlight=False, soft_wrap=True)
    table = Table()
    for number in range(len(masks)):
        table.add_column('word' if len(masks) == 1 else f'mask {number + 1}')
        table.add_column('probability', justify='right')
    for rank in range(len(masks[0])):
        cells = [(escape(m[rank].text), f'{m[rank].probability:.1%}') for m in masks]
        table.add_row(*[cell for pair in cells for cell in pair])
    console.print(table)
