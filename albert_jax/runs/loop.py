"""Section `loop` of a config: how long, how often, how much at once."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, ClassVar

from albert_jax.cli.settings import NonNegative, Positive, Settings, below, one_of

TRACKERS = ('none', 'wandb')


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopSettings(Settings):
    """What every training has. Durations are in steps.

    Raises:
      UserError: if a value is impossible.
    """

    SECTION: ClassVar[str] = 'loop'

    num_steps: Annotated[int, Positive, 'steps of the run'] = 125_000
    batch_size: Annotated[int, Positive, 'examples of a step, over all devices'] = 4096
    num_microbatches: Annotated[
        int, NonNegative, "parts of a device's rows, one after the other; 0: the fewest that fit"
    ] = 1
    num_devices: Annotated[int, NonNegative, 'devices of all processes; 0: all there are'] = 0
    num_fsdp: Annotated[
        int, NonNegative, 'devices that share each copy of the state; 0: by its size'
    ] = 0
    seed: Annotated[int, NonNegative, below(2**32, '2³²'), 'of weights, data and dropout'] = 0
    log_every: Annotated[int, Positive, 'steps between lines of the log'] = 100
    eval_every: Annotated[int, Positive, 'steps between evaluations'] = 1000
    checkpoint_every: Annotated[int, Positive, 'steps between checkpoints'] = 1000
    keep_last: Annotated[int, Positive, 'latest checkpoints kept, beside the best'] = 3
    max_skipped_in_a_row: Annotated[
        int, Positive, 'steps with a loss or gradient that is not finite, which end the run'
    ] = 20
    patience: Annotated[
        int, NonNegative, 'evaluations without a better one, which end the run; 0: never'
    ] = 0

    tracker: Annotated[
        str, one_of(*TRACKERS), "where metrics go beside the run's own file and TensorBoard"
    ] = 'none'

    def conflicts(self) -> Iterator[str]:
        """Of the intervals."""
        # Longer ones than the run come to its last step alone.
        is_whole = max(self.checkpoint_every, self.eval_every) >= self.num_steps
        shorter, longer = sorted((self.checkpoint_every, self.eval_every))
        if longer % shorter and not is_whole:
            yield (
                f'loop.checkpoint_every is {self.checkpoint_every} and loop.eval_every is '
                f'{self.eval_every}; make one a multiple of the other, so that the best checkpoint '
                f'can be told.'
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainLoopSettings(LoopSettings):
    """The loop of a pretraining, which also says how it is evaluated.

    A task brings its own metric and evaluates its whole validation file.
    """

    num_eval_batches: Annotated[
        int, NonNegative, 'held-out batches of an evaluation; 0: the whole held-out split'
    ] = 0
    best_metric: Annotated[str, 'held-out metric of the best checkpoint'] = 'mlm_loss'
    is_lower_better: Annotated[bool, 'whether its lowest value is the best'] = True
