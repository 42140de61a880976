"""The kinds of heads by name. A new kind is a class and a row here."""

import dataclasses
from typing import Any

from jaxtyping import Array, Key

from albert_jax.model.config import AlbertConfig
from albert_jax.model.heads.classification import (
    MultiLabelClassification,
    MultipleChoice,
    SequenceClassification,
    TokenClassification,
)
from albert_jax.model.heads.definition import HeadDefinition
from albert_jax.model.heads.question_answering import (
    ConditionalQuestionAnswering,
    QuestionAnswering,
)

HEADS: dict[str, HeadDefinition] = {
    'sequence_classification': SequenceClassification(),
    'multi_label_classification': MultiLabelClassification(),
    'token_classification': TokenClassification(),
    'question_answering': QuestionAnswering(),
    'multiple_choice': MultipleChoice(),
    'conditional_question_answering': ConditionalQuestionAnswering(),
}


@dataclasses.dataclass(frozen=True)
class Head:
    """What a fine-tuned model answers; its weights are under `head` in the parameters."""

    # A key of HEADS.
    kind: str
    # Names of the outputs, in order; none where the kind fixes the outputs.
    labels: tuple[str, ...]

    @property
    def definition(self) -> HeadDefinition:
        """How this kind of head computes."""
        return HEADS[self.kind]

    @property
    def name(self) -> str:
        """The kind as a reader writes it: 'question answering'."""
        return self.kind.replace('_', ' ')

    @property
    def activation(self) -> str:
        """What makes probabilities of the logits: 'softmax', 'sigmoid', or '' for a number."""
        is_regression = self.kind == 'sequence_classification' and len(self.labels) == 1
        return '' if is_regression else self.definition.activation

    def init(self, config: AlbertConfig, key: Key[Array, '']) -> dict[str, Any]:
        """Fresh parameters for an encoder of this config."""
        return self.definition.init(max(len(self.labels), 1), config, key)
