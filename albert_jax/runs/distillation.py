"""Section `distillation` of a config: the factor of each loss, and how it is made."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, ClassVar

from albert_jax.cli.settings import NonNegative, Positive, Settings, one_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillationSettings(Settings):
    """What a student learns from its teacher.

    Raises:
      UserError: if a value is impossible, or nothing would come from the teacher.
    """

    SECTION: ClassVar[str] = 'distillation'

    label_weight: Annotated[float, NonNegative, "factor of the labels' own loss"] = 0.5
    soft_weight: Annotated[
        float, NonNegative, 'factor of the softened answers (arXiv 1503.02531)'
    ] = 0.5
    temperature: Annotated[float, Positive, 'of the softened answers'] = 2.0
    hidden_weight: Annotated[
        float, NonNegative, 'factor of the hidden states, through a learned map (arXiv 1909.10351)'
    ] = 0.0
    hidden_layers: Annotated[
        str, one_of('all', 'last'), "'all' spreads them evenly over the teacher's"
    ] = 'all'
    relation_weight: Annotated[
        float, NonNegative, 'factor of the self-attention relations (MiniLM v2, arXiv 2012.15828)'
    ] = 0.0
    relation_heads: Annotated[int, Positive, 'relation heads; must divide both widths'] = 16
    relation_layer: Annotated[int, NonNegative, 'layer of the teacher, from 1; 0: its last'] = 0
    init_embeddings_from_teacher: Annotated[
        bool, "a random student's word embeddings start from the teacher's principal components"
    ] = False

    def conflicts(self) -> Iterator[str]:
        """Nothing to learn from the teacher."""
        if not (self.soft_weight or self.hidden_weight or self.relation_weight):
            yield (
                'distillation.soft_weight, hidden_weight and relation_weight are all 0, so nothing '
                'would come from the teacher; set one of them.'
            )

    @property
    def compares_tokens(self) -> bool:
        """Whether student and teacher must see the same tokens."""
        return bool(self.hidden_weight or self.relation_weight)
