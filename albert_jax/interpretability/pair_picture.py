"""What a model from text to text did with a source, as a picture."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from albert_jax.interpretability.pair_inspector import Contributions, EncodedPair

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_TITLE_CHARACTERS = 120
_SMALLEST_LIMIT = 0.1


def draw(
    pair: EncodedPair,
    attention: Float[np.ndarray, 'layers heads target source'],
    contributions: Contributions,
    text: str,
) -> 'Figure':
    """A figure with the contributions and the cross-attention, the target downwards.

    Args:
      pair: the two texts.
      attention: the cross-attention.
      contributions: of the source's words to the target's.
      text: the source as it is shown.
    """
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 6.5), dpi=110, layout='constrained')
    limit = max(_SMALLEST_LIMIT, float(np.abs(contributions.scores).max(initial=0)))
    image = left.imshow(contributions.scores, vmin=-limit, vmax=limit, cmap='BrBG', aspect='auto')
    _label(left, contributions.source_words, contributions.target_words)
    left.set_title('contribution of each source word to each target word', fontsize=10)
    figure.colorbar(image, ax=left, label='nats of the log-probability')
    image = right.imshow(attention.mean((0, 1)), vmin=0, cmap='Blues', aspect='auto')
    source, target = (
        [piece.replace('▁', '') or '␣' for piece in pieces]
        for pieces in (pair.source_pieces, pair.target_pieces)
    )
    _label(right, source, target)
    right.set_title('cross-attention, mean of all depths and heads', fontsize=10)
    figure.colorbar(image, ax=right, label='share of the attention of a row')
    figure.suptitle(f'{text[:_MAX_TITLE_CHARACTERS]} → {pair.target[:_MAX_TITLE_CHARACTERS]}')
    return figure


def _label(axis: 'Axes', source: Sequence[str], target: Sequence[str]) -> None:
    axis.set_xticks(range(len(source)), source, rotation=90, fontsize=8)
    axis.set_yticks(range(len(target)), target, fontsize=8)
    axis.set(xlabel='source', ylabel='target')
