"""What a model from text to text did with a source, as one HTML file that needs no network."""

import html
from pathlib import Path

import numpy as np
from jaxtyping import Float

from albert_jax.cli.json_output import to_json
from albert_jax.interpretability.page import fill, shared_parts
from albert_jax.interpretability.pair_inspector import Contributions, EncodedPair


def render(
    pair: EncodedPair,
    attention: Float[np.ndarray, 'layers heads target source'],
    contributions: Contributions,
    text: str,
    origin: str,
) -> str:
    """The page.

    Args:
      pair: the two texts.
      attention: the cross-attention.
      contributions: of the source's words to the target's.
      text: the source as it is shown.
      origin: the checkpoint.
    """
    layers, heads = attention.shape[:2]
    data = {
        'source': pair.source_pieces,
        'target': pair.target_pieces,
        'attention': _rounded(attention),
        'sourceWords': contributions.source_words,
        'targetWords': contributions.target_words,
        'logProbs': _rounded(contributions.log_probs),
        'scores': _rounded(contributions.scores),
    }
    parts = shared_parts() | {
        'TEXT': html.escape(text),
        'TARGET': html.escape(pair.target or '(an empty text)'),
        'ABOUT': html.escape(f'{origin}: a decoder of {layers} layers with {heads} heads'),
        # What ends the element early would be a tag; JSON can say < otherwise.
        'DATA': to_json(data).replace('<', '\\u003c'),
    }
    template = Path(__file__).with_suffix('.html').read_text(encoding='utf-8')
    return fill(template, parts)


def _rounded(values: np.ndarray) -> list[object]:
    return values.astype(float).round(5).tolist()
