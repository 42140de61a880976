"""What a model does with a text, as one HTML file that needs no network."""

import html
import re
from pathlib import Path

import numpy as np

from albert_jax.cli.json_output import to_json
from albert_jax.interpretability.encoding import word_scores
from albert_jax.interpretability.inspector import Attribution
from albert_jax.interpretability.layers import Activations, rollout, similarity_by_depth

_GREEN, _ORANGE = '0 158 115', '213 94 0'
_MAX_OPACITY = 0.7


def render(
    activations: Activations, attribution: Attribution | None, text: str, origin: str
) -> str:
    """The page.

    Args:
      activations: of the text.
      attribution: of an output, if there is one to explain.
      text: as it is shown.
      origin: the checkpoint.
    """
    distances, angles = similarity_by_depth(activations.hidden)
    layers, heads = activations.attention.shape[:2]
    data = {
        'pieces': activations.encoded.pieces,
        'attention': _rounded(activations.attention),
        'rollout': _rounded(rollout(activations.attention)),
        'distances': _rounded(distances),
        'angles': _rounded(angles),
    }
    parts = {
        'TEXT': html.escape(text),
        'ABOUT': html.escape(f'{origin}: {layers} layers, {heads} heads'),
        'WORDS': '' if attribution is None else _words(attribution),
        # What ends the element early would be a tag; JSON can say < otherwise.
        'DATA': to_json(data).replace('<', '\\u003c'),
    }
    template = Path(__file__).with_suffix('.html').read_text(encoding='utf-8')
    return re.sub('__([A-Z]+)__', lambda mark: parts[mark[1]], template)


def _rounded(values: np.ndarray) -> list[object]:
    return values.astype(float).round(5).tolist()


def _words(attribution: Attribution) -> str:
    encoded = attribution.encoded
    words = word_scores(encoded.pieces, attribution.scores, encoded.added_tokens)
    largest = max((abs(score) for _, score in words), default=1.0) or 1.0
    spans = [
        f'<span title="{score:+.3f}" style="background: rgb({_GREEN if score > 0 else _ORANGE} / '
        f'{_MAX_OPACITY * abs(score) / largest:.3f})">{html.escape(word)}</span>'
        for word, score in words
    ]
    return (
        f'<h2>Contribution of each word to “{html.escape(attribution.output)}”</h2>'
        f'<p>From {attribution.baseline_value:.2f} with every word masked to '
        f'{attribution.value:.2f}: green words raise it, orange words lower it (integrated '
        f'gradients; they account for {1 - attribution.gap:.1%} of the difference).</p>'
        f'<div class="card words">{" ".join(spans)}</div>'
    )
