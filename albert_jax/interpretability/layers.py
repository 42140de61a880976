"""What the layers of a model did with a text: attention rollout, and how much each layer changes.

Attention rollout is arXiv 2005.00928; distance and angle by depth are Figure 1 of the ALBERT paper.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from albert_jax.interpretability.encoding import EncodedText


@dataclasses.dataclass(frozen=True)
class Activations:
    """Attention and hidden states of every layer for a text."""

    encoded: EncodedText
    attention: Float[np.ndarray, 'layers heads length length']
    # The embeddings, projected, and after each layer.
    hidden: Float[np.ndarray, 'layers_and_one length hidden']


def rollout(
    attention: Float[np.ndarray, 'layers heads length length'],
) -> Float[np.ndarray, 'layers length length']:
    """How much of each input piece reaches each position, after each layer.

    Heads are averaged, the residual connection counts for half, and layers are multiplied
    (arXiv 2005.00928, section 3). Rows sum to 1.
    """
    length = attention.shape[-1]
    mixed = 0.5 * attention.mean(1) + 0.5 * np.eye(length)
    mixed /= mixed.sum(-1, keepdims=True)
    products = [mixed[0]]
    for layer in mixed[1:]:
        products.append(layer @ products[-1])
    return np.stack(products)


def similarity_by_depth(
    hidden: Float[np.ndarray, 'layers_and_one length hidden'],
) -> tuple[Float[np.ndarray, 'layers'], Float[np.ndarray, 'layers']]:
    """Distance and angle between input and output of each layer (Figure 1 of the paper).

    Returns:
      The Euclidean distance and the angle in degrees, means over the pieces.
    """
    before, after = hidden[:-1].astype(np.float64), hidden[1:].astype(np.float64)
    distances = np.linalg.norm(after - before, axis=-1).mean(-1)
    norms = np.linalg.norm(before, axis=-1) * np.linalg.norm(after, axis=-1)
    cosines = (before * after).sum(-1) / np.maximum(norms, 1e-12)
    return distances, np.degrees(np.arccos(np.clip(cosines, -1, 1))).mean(-1)
