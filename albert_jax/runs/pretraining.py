"""Section `pretraining` of a config; the defaults are the paper's (sections 3.1 and 4.1)."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Annotated, ClassVar

from albert_jax.cli.settings import NonNegative, Positive, Probability, Settings, at_least, one_of
from albert_jax.model.config import SENTENCE_LOSSES

SHORTEST_SEQUENCE = 8
# Predictions come in whole words, so that a row may need a few more positions than the mean.
_PREDICTIONS_MULTIPLE = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainingSettings(Settings):
    """What a pretraining makes of the text, and how it weighs its losses.

    Raises:
      UserError: if a value is impossible.
    """

    SECTION: ClassVar[str] = 'pretraining'

    sequence_length: Annotated[
        int, at_least(SHORTEST_SEQUENCE), 'tokens, special pieces included'
    ] = 512
    sentence_loss: Annotated[
        str,
        one_of(*SENTENCE_LOSSES),
        "'sop' swaps the two segments, 'nsp' takes the second from another document",
    ] = 'sop'
    mlm_weight: Annotated[float, NonNegative, 'factor of the masked-LM loss'] = 1.0
    sentence_weight: Annotated[float, NonNegative, 'factor of the sentence loss'] = 1.0
    masked_fraction: Annotated[
        float, Positive, Probability, 'share of the tokens that is predicted'
    ] = 0.15
    final_masked_fraction: Annotated[
        float | None,
        Positive,
        Probability,
        'that share in the last step, to which it changes by the same amount in each step '
        '(arXiv 2305.15096); None: the same in all',
    ] = None
    eval_masked_fraction: Annotated[
        float | None,
        Positive,
        Probability,
        'that share in held-out batches; None: as in the last step',
    ] = None
    max_ngram: Annotated[int, Positive, 'whole words masked together at most, p(n) ∝ 1/n'] = 3
    short_fraction: Annotated[
        float, Probability, 'share of the sequences that is cut to a random length'
    ] = 0.1
    short_phase_steps: Annotated[
        int,
        NonNegative,
        'first steps, on shorter sequences (arXiv 1810.04805, appendix A.2); 0: none',
    ] = 0
    short_phase_length: Annotated[int, 'tokens of those sequences'] = 128

    def conflicts(self) -> Iterator[str]:
        """Of the short phase with the rest."""
        shortest = SHORTEST_SEQUENCE
        if (
            self.short_phase_steps
            and not shortest <= self.short_phase_length < self.sequence_length
        ):
            yield (
                f'pretraining.short_phase_length is {self.short_phase_length}; it must be at least '
                f'{shortest} and below sequence_length, which is {self.sequence_length}.'
            )

    @property
    def short_phase(self) -> 'PretrainingSettings':
        """The settings of the first steps."""
        return dataclasses.replace(
            self, sequence_length=self.short_phase_length, short_phase_steps=0
        )

    @property
    def held_out(self) -> 'PretrainingSettings':
        """The settings of held-out batches, of which all have the same share of predictions."""
        fraction = self.eval_masked_fraction or self.final_masked_fraction or self.masked_fraction
        return dataclasses.replace(
            self, masked_fraction=fraction, final_masked_fraction=None, eval_masked_fraction=None
        )

    def masked_fraction_at(self, step: int, num_steps: int) -> float:
        """The share of the tokens that is predicted in a step.

        Args:
          step: from 0.
          num_steps: of the run.
        """
        first, last = self.masked_fraction, self.final_masked_fraction
        if last is None:
            return first
        done = min(step / max(num_steps - 1, 1), 1.0)
        return (1 - done) * first + done * last

    @property
    def max_predictions_per_sequence(self) -> int:
        """Places for predictions in each row: those of a full one, up to a multiple of 8.

        They are as many in every step: those of the step with the most predictions.
        """
        largest = max(self.masked_fraction, self.final_masked_fraction or 0.0)
        full = largest * self.sequence_length
        return math.ceil((full + 1) / _PREDICTIONS_MULTIPLE) * _PREDICTIONS_MULTIPLE
