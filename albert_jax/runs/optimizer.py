"""Section `optimizer` of a config; the defaults are the paper's (section 4.1)."""

import dataclasses
from typing import Annotated, ClassVar

from albert_jax.cli.errors import UserError
from albert_jax.cli.settings import NonNegative, Positive, Probability, Settings, one_of

OPTIMIZERS = ('lamb', 'adamw', 'muon')
SCHEDULES = ('linear', 'google_linear', 'polynomial', 'cosine', 'cosine_restarts', 'constant')


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
        "the update rule; 'muon' for the kernels of encoder, embedding projection and pooler, and "
        'AdamW for the rest',
    ] = 'lamb'
    learning_rate: Annotated[float, Positive, 'peak of the schedule'] = 0.00176
    schedule: Annotated[str, one_of(*SCHEDULES), 'the learning rate after the warm-up'] = 'linear'
    warmup_steps: Annotated[int, NonNegative, 'steps of a linear rise from 0; 0 for none'] = 3125
    end_learning_rate: Annotated[float, NonNegative, 'where the schedule ends'] = 0.0
    power: Annotated[float, Positive, 'exponent of the polynomial schedule'] = 1.0
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

    def check_warmup(self, num_steps: int) -> None:
        """Checks the warm-up against the length of the run.

        Raises:
          UserError: if it does not end before the run does.
        """
        if self.warmup_steps >= num_steps:
            raise UserError(
                f'optimizer.warmup_steps is {self.warmup_steps}; it must be below loop.num_steps, '
                f'which is {num_steps}.'
            )
