"""Section `optimizer` of a config; the defaults are the paper's (section 4.1)."""

import dataclasses
from typing import Annotated, ClassVar

from albert_jax.cli.errors import UserError
from albert_jax.cli.settings import NonNegative, Positive, Probability, Settings, one_of

OPTIMIZERS = ('lamb', 'adamw', 'muon')
SCHEDULES = (
    'linear',
    'google_linear',
    'polynomial',
    'cosine',
    'cosine_restarts',
    'constant',
    'wsd',
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerSettings(Settings):
    """How gradients become updates.

    Raises:
      UserError: if a value is impossible.
    """

    SECTION: ClassVar[str] = 'optimizer'

    name: Annotated[
        str,
        one_of(*OPTIMIZERS),
        "the update rule; 'muon' for the kernels of encoder, decoder, embedding projection and "
        'pooler, and AdamW for the rest',
    ] = 'lamb'
    learning_rate: Annotated[float, Positive, 'peak of the schedule'] = 0.00176
    schedule: Annotated[
        str,
        one_of(*SCHEDULES),
        "the learning rate after the warm-up; 'wsd' is constant up to its decay in the last steps",
    ] = 'linear'
    warmup_steps: Annotated[int, NonNegative, 'steps of a linear rise from 0; 0 for none'] = 3125
    end_learning_rate: Annotated[float, NonNegative, 'where the schedule ends'] = 0.0
    power: Annotated[float, Positive, 'exponent of the polynomial schedule'] = 1.0
    num_decay_steps: Annotated[
        int, NonNegative, "last steps, in which the rate of 'wsd' falls; 0: it does not"
    ] = 0
    num_cycles: Annotated[int, Positive, 'equal parts of the cosine with restarts'] = 1
    beta1: Annotated[float, Probability, 'decay of the first moment'] = 0.9
    beta2: Annotated[float, Probability, 'decay of the second moment'] = 0.999
    eps: Annotated[float, Positive, 'added to the root of the second moment'] = 1e-6
    weight_decay: Annotated[float, NonNegative, 'decoupled; norms and biases are left out'] = 0.01
    l1: Annotated[float, NonNegative, 'decoupled: l1 · sign(p) is added to the update'] = 0.0
    clip_norm: Annotated[float, NonNegative, 'largest global norm of the gradient; 0: any'] = 1.0
    bias_correction: Annotated[
        bool, "divide Adam's moments by 1 − βᵗ, which Google's LAMB does not"
    ] = False
    muon_learning_rate: Annotated[
        float, Positive, "peak of Muon's rate, which has the course of the other"
    ] = 0.02
    muon_momentum: Annotated[float, Probability, "decay of Muon's only moment"] = 0.95
    muon_weight_decay: Annotated[float, NonNegative, "decoupled, of Muon's kernels"] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_decay_steps and self.schedule != 'wsd':
            raise UserError(
                f'optimizer.num_decay_steps is {self.num_decay_steps}, which is for '
                f'optimizer.schedule=wsd; {self.schedule} falls over the whole run or not at all: '
                f'leave it at 0.'
            )

    def check_num_steps(self, num_steps: int) -> None:
        """Checks the parts of the schedule against the length of the run.

        Raises:
          UserError: if the warm-up does not end before the run does, or the decay would have to
            begin before the warm-up ends.
        """
        if self.warmup_steps >= num_steps:
            raise UserError(
                f'optimizer.warmup_steps is {self.warmup_steps}; it must be below loop.num_steps, '
                f'which is {num_steps}.'
            )
        longest = num_steps - self.warmup_steps
        if self.num_decay_steps > longest:
            raise UserError(
                f'optimizer.num_decay_steps is {self.num_decay_steps}; it must be at most '
                f'{longest}, the steps of loop.num_steps ({num_steps}) after the warm-up '
                f'({self.warmup_steps}).'
            )
