"""What a model answers for a text and how sure it is, before anything explains why."""

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Float

from albert_jax.data.piece_text import piece_text
from albert_jax.interop.native import Pretrained

NO_ANSWER = 'No answer to explain: the model is no classifier, and the text has no [MASK].'
_NUM_CANDIDATES = 5
# Above it a label of several is given.
_THRESHOLD = 0.5


@dataclasses.dataclass(frozen=True)
class Answer:
    """The labels of a classifier, or the words for the first [MASK], with their probabilities."""

    kind: Literal['class', 'labels', 'number', 'mask']
    # A name and a probability each, the likeliest first; of a regression its name and the number.
    candidates: tuple[tuple[str, float], ...]

    @property
    def text(self) -> str:
        """The answer alone."""
        name, value = self.candidates[0]
        if self.kind == 'number':
            return f'{value:.3f}'
        if self.kind == 'labels':
            given = [label for label, chance in self.candidates if chance > _THRESHOLD]
            return ', '.join(given) or 'no label'
        return name

    @property
    def sentence(self) -> str:
        """The answer, and how sure it is, in a line."""
        start = 'Answer for the first [MASK]' if self.kind == 'mask' else 'Answer'
        if self.kind == 'number':
            return f'{start}: {self.text}'
        chances = [f'{name} {chance:.1%}' for name, chance in self.candidates[:_NUM_CANDIDATES]]
        chances += ['…'] if len(self.candidates) > _NUM_CANDIDATES else []
        if self.kind == 'labels':
            return f'{start}: {self.text} ({", ".join(chances)})'
        others = f' ({", ".join(chances[1:])})' if chances[1:] else ''
        return f'{start}: {self.text}, probability {self.candidates[0][1]:.1%}{others}'


def answer_of(model: Pretrained, outputs: Float[np.ndarray, 'outputs']) -> Answer:
    """The answer that a model's outputs for a text are.

    Args:
      model: a classifier, or a pretrained model whose text has a [MASK].
      outputs: logits of its classes, or log-probabilities of the pieces at the first [MASK].
    """
    values = outputs.astype(np.float64)
    if model.head is None:
        assert model.tokenizer is not None
        best = np.argsort(-values)[:_NUM_CANDIDATES]
        words = [piece_text(model.tokenizer, int(index)) for index in best]
        return Answer('mask', tuple(zip(words, np.exp(values[best]).tolist(), strict=True)))
    labels, activation = model.head.labels, model.head.activation
    if not activation:
        return Answer('number', ((labels[0], float(values[0])),))
    if activation == 'softmax':
        exponentials = np.exp(values - values.max())
        chances = exponentials / exponentials.sum()
    else:
        chances = 1 / (1 + np.exp(-values))
    best = np.argsort(-chances, kind='stable')
    candidates = tuple((labels[index], float(chances[index])) for index in best)
    return Answer('class' if activation == 'softmax' else 'labels', candidates)
