"""What a model does with a text, as a picture."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from albert_jax.interpretability.encoding import word_scores
from albert_jax.interpretability.inspector import Attribution
from albert_jax.interpretability.layers import Activations, rollout, similarity_by_depth

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GREEN, _ORANGE = '#009e73', '#d55e00'
_MAX_TITLE_CHARACTERS = 120


def draw(activations: Activations, attribution: Attribution | None, text: str) -> 'Figure':
    """A figure with attention by depth, rollout, words, and how much each layer changes.

    Args:
      activations: of the text.
      attribution: of an output, if there is one to explain.
      text: as it is shown.
    """
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    attention = activations.attention
    layers = attention.shape[0]
    figure, axes = pyplot.subplots(2, 3, figsize=(13, 8.5), dpi=110, layout='constrained')
    pieces = [piece.replace('▁', '') or '␣' for piece in activations.encoded.pieces]
    for axis, depth in zip(axes[0], (0, layers // 2, layers - 1), strict=True):
        title = f'attention at depth {depth + 1}, mean of heads'
        _draw_matrix(axis, attention[depth].mean(0), pieces, title)
    _draw_matrix(axes[1, 0], rollout(attention)[-1], pieces, f'rollout over {layers} layers')
    if attribution is None:
        axes[1, 1].axis('off')
    else:
        _draw_words(axes[1, 1], attribution)
    _draw_similarity(axes[1, 2], activations.hidden)
    figure.suptitle(text[:_MAX_TITLE_CHARACTERS])
    return figure


def _draw_matrix(
    axis: 'Axes', values: Float[np.ndarray, 'length length'], pieces: list[str], title: str
) -> None:
    axis.imshow(values, vmin=0, cmap='Blues')
    axis.set_title(title, fontsize=10)
    axis.set_xticks(range(len(pieces)), pieces, rotation=90, fontsize=7)
    axis.set_yticks(range(len(pieces)), pieces, fontsize=7)


def _draw_words(axis: 'Axes', attribution: Attribution) -> None:
    encoded = attribution.encoded
    words = word_scores(encoded.pieces, attribution.scores, encoded.added_tokens)
    colours = [_GREEN if score > 0 else _ORANGE for _, score in words]
    axis.barh(range(len(words)), [score for _, score in words], color=colours)
    axis.set_yticks(range(len(words)), [word for word, _ in words], fontsize=8)
    axis.invert_yaxis()
    axis.set_title(f'contributions to {attribution.output!r}', fontsize=10)


def _draw_similarity(
    axis: 'Axes', hidden: Float[np.ndarray, 'layers_and_one length hidden']
) -> None:
    distances, angles = similarity_by_depth(hidden)
    depths = range(1, len(distances) + 1)
    axis.plot(depths, distances, marker='.', label='distance')
    axis.plot(depths, angles, marker='.', label='angle (degrees)')
    axis.set(xlabel='depth', ylim=(0, None))
    axis.set_title("a layer's input against its output", fontsize=10)
    axis.legend()
