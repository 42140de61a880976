"""What a model does with a text, as a picture."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from albert_jax.interpretability.answer import NO_ANSWER, Answer
from albert_jax.interpretability.inspector import Attribution
from albert_jax.interpretability.layers import Activations, rollout, similarity_by_depth

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

_GREEN, _ORANGE = '#009e73', '#d55e00'
_MAX_TITLE_CHARACTERS = 120
_SMALLEST_LIMIT = 0.1


def draw(
    activations: Activations, attribution: Attribution | None, answer: Answer | None, text: str
) -> 'Figure':
    """A figure with attention by depth, rollout, words, and how much each layer changes.

    Args:
      activations: of the text.
      attribution: of an output, if there is one to explain.
      answer: of the model, if it has one.
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
    image = _draw_matrix(
        axes[1, 0], rollout(attention)[-1], pieces, f'rollout over {layers} layers'
    )
    # One scale for all four: a model that looks everywhere alike is pale.
    figure.colorbar(image, ax=axes[0], label='share of the attention of a row', fraction=0.02)
    if attribution is None:
        axes[1, 1].axis('off')
    else:
        _draw_words(axes[1, 1], attribution)
    _draw_similarity(axes[1, 2], activations.hidden)
    said = NO_ANSWER if answer is None else answer.sentence
    title = '\n'.join(part[:_MAX_TITLE_CHARACTERS] for part in (text, said))
    # A $ is no formula.
    figure.suptitle(title, parse_math=False)
    return figure


def _draw_matrix(
    axis: 'Axes', values: Float[np.ndarray, 'length length'], pieces: list[str], title: str
) -> 'AxesImage':
    image = axis.imshow(values, vmin=0, vmax=1, cmap='Blues')
    axis.set_title(title, fontsize=10)
    axis.set_xticks(range(len(pieces)), pieces, rotation=90, fontsize=7, parse_math=False)
    axis.set_yticks(range(len(pieces)), pieces, fontsize=7, parse_math=False)
    return image


def _draw_words(axis: 'Axes', attribution: Attribution) -> None:
    words = attribution.words
    colours = [_GREEN if score > 0 else _ORANGE for _, score in words]
    axis.barh(range(len(words)), [score for _, score in words], color=colours)
    axis.set_yticks(range(len(words)), [word for word, _ in words], fontsize=8, parse_math=False)
    axis.invert_yaxis()
    # What is next to nothing is drawn as next to nothing.
    limit = 1.05 * max([_SMALLEST_LIMIT, *(abs(score) for _, score in words)])
    name = attribution.output
    axis.set_xlim(-limit, limit)
    label = f'against (−) or for (+) {name}, in its {attribution.unit}'
    axis.set_xlabel(label, parse_math=False)
    value, baseline = attribution.value, attribution.baseline_value
    title = f'{name}: {value:.2f}, {baseline:.2f} without the words'
    axis.set_title(title, fontsize=10, parse_math=False)


def _draw_similarity(
    axis: 'Axes', hidden: Float[np.ndarray, 'layers_and_one length hidden']
) -> None:
    distances, angles = similarity_by_depth(hidden)
    depths = range(1, len(distances) + 1)
    axis.plot(depths, distances, marker='.', color='C0')
    axis.set(xlabel='depth', ylim=(0, None), xticks=list(depths))
    axis.set_ylabel('distance', color='C0')
    other = axis.twinx()
    other.plot(depths, angles, marker='.', color='C1')
    other.set(ylim=(0, None))
    other.set_ylabel('angle (degrees)', color='C1')
    axis.set_title("a layer's input against its output", fontsize=10)
