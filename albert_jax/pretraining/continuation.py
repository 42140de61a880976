"""A pretraining that goes on with the state of another run: its weights, moments and step.

So several decays of the learning rate, of several lengths, start from one trunk. Up to its step the
trunk must have been what the run itself would have been: the same model, data, optimizer, masked
fraction and learning rate.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from albert_jax.cli.errors import UserError, first_line
from albert_jax.interop import native, old_names
from albert_jax.runs.optimizer import OptimizerSettings
from albert_jax.runs.pretraining import PretrainingSettings
from albert_jax.runs.runs import PretrainRun
from albert_jax.training.checkpoint import STATE_ITEM
from albert_jax.training.optimizer import schedule

# Fields that may differ: what was logged and called best, and how long the run is; and those of
# which the value in each step is compared in their place.
_FREE = frozenset(
    {
        *(f'loop.{name}' for name in (
            'num_steps', 'log_every', 'eval_every', 'num_eval_batches', 'best_metric',
            'is_lower_better', 'patience',
        )),
        *(f'optimizer.{name}' for name in (
            'schedule', 'warmup_steps', 'end_learning_rate', 'power', 'num_decay_steps',
            'num_cycles',
        )),
        *(f'pretraining.{name}' for name in (
            'masked_fraction', 'final_masked_fraction', 'eval_masked_fraction',
        )),
    }
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Trunk:
    """A checkpoint of a pretraining, with its state."""

    # As the run names it, for what is told to people.
    name: str
    checkpoint: Path
    step: int
    # Section → field → value, under today's names.
    fingerprint: Mapping[str, Any]
    # Of all arrays of the state.
    digest: str


def read_trunk(init_from: str) -> Trunk:
    """The latest checkpoint of a run, or the one that is named.

    Args:
      init_from: the folder of a run, or of one of its checkpoints.

    Raises:
      UserError: if it is none of a pretraining, or has no state.
    """
    alone = 'set continue_training to False to start from its weights alone'
    path = Path(init_from)
    if not (path.is_dir() and native.is_checkpoint(path)):
        raise UserError(
            f'init_from={init_from} is no run of albert_jax.pretrain, whose training could '
            f'continue; give its --workdir or one of its checkpoints, or {alone}.'
        )
    checkpoint = native.latest_checkpoint(path)
    try:
        content = native.read_content(checkpoint)
        fingerprint, step = old_names.fingerprint_of(content), int(content['step'])
        digest = hashlib.sha256(json.dumps(content['digests'], sort_keys=True).encode())
    except Exception as error:  # whatever the storage raises
        raise UserError(
            f'init_from={init_from} cannot be read as a checkpoint: {first_line(error)}.'
        ) from error
    if 'pretraining' not in fingerprint or not (checkpoint / STATE_ITEM).is_dir():
        raise UserError(
            f'init_from={init_from} has weights but no state of a pretraining, which could '
            f'continue; {alone}.'
        )
    return Trunk(init_from, checkpoint, step, fingerprint, digest.hexdigest())


def check(trunk: Trunk, run: PretrainRun, fingerprint: Mapping[str, Any]) -> None:
    """Checks that a run could have had the state of a trunk.

    Args:
      trunk: whose state it goes on with.
      run: that is to go on.
      fingerprint: its resume fingerprint.

    Raises:
      UserError: if it is of another recipe, or has no step left.
    """
    if trunk.step >= run.loop.num_steps:
        raise UserError(
            f'init_from={trunk.name} is at step {trunk.step}; to continue it, loop.num_steps must '
            f'be above, and is {run.loop.num_steps}.'
        )
    there, here = (old_names.flatten_fingerprint(f) for f in (trunk.fingerprint, fingerprint))
    differing = [
        f'{name} (there {there.get(name)!r}, here {here.get(name)!r})'
        for name in sorted(there.keys() | here.keys())
        if there.get(name) != here.get(name) and name not in _FREE and not name.startswith('start.')
    ]
    if differing:
        raise UserError(
            f'init_from={trunk.name} was trained by another recipe, which differs in '
            f'{"; ".join(differing)}: give the same values, or set continue_training to False to '
            f'start from its weights alone.'
        )
    _check_course(trunk, run)


def _check_course(trunk: Trunk, run: PretrainRun) -> None:
    """Compares what changes from step to step."""
    num_steps = int(trunk.fingerprint['loop']['num_steps'])
    optimizer = OptimizerSettings.from_dict(trunk.fingerprint['optimizer'])
    pretraining = PretrainingSettings.from_dict(trunk.fingerprint['pretraining'])
    steps = np.arange(trunk.step)
    there = _rates(optimizer, num_steps, steps)
    here = _rates(run.optimizer, run.loop.num_steps, steps)
    _check_same(trunk, 'learning rate', steps, there, here)
    # Two points say all of a line.
    steps = steps[[0, -1]]
    there = _masked_fractions(pretraining, num_steps, steps)
    here = _masked_fractions(run.pretraining, run.loop.num_steps, steps)
    _check_same(trunk, 'masked fraction', steps, there, here)


def _rates(
    settings: OptimizerSettings, num_steps: int, steps: Int[np.ndarray, 'steps']
) -> Float[np.ndarray, 'steps']:
    rates = schedule(settings, num_steps)(jnp.asarray(steps, jnp.int32))
    return np.broadcast_to(np.asarray(rates), steps.shape)


def _masked_fractions(
    settings: PretrainingSettings, num_steps: int, steps: Int[np.ndarray, 'steps']
) -> Float[np.ndarray, 'steps']:
    return np.array([settings.masked_fraction_at(int(step), num_steps) for step in steps])


def _check_same(
    trunk: Trunk,
    name: str,
    steps: Int[np.ndarray, 'steps'],
    there: Float[np.ndarray, 'steps'],
    here: Float[np.ndarray, 'steps'],
) -> None:
    if (there == here).all():
        return
    first = int((there != here).argmax())
    raise UserError(
        f'init_from={trunk.name} had another {name} in step {steps[first]} of its {trunk.step} '
        f'(there {there[first]:.6g}, here {here[first]:.6g}); to continue it, both must be the '
        f'same up to there, as with optimizer.schedule=wsd before its decay.'
    )
