"""What is said of a run whose steps are skipped, because a number in them is not finite."""

import numpy as np

from albert_jax.cli.errors import UserError

# What may be at fault, by the first number of a step that is not finite, and what may help.
_ADVICE = {
    'loss': 'look for very large numbers among the labels or weights that it starts from',
    'gradient': 'lower optimizer.learning_rate, or train with model.compute_dtype=float32',
    'update': 'lower optimizer.learning_rate or optimizer.weight_decay',
}


def too_many_in_a_row(step: int, num_in_a_row: int, norms: np.ndarray) -> UserError:
    """The error of a run that no longer learns.

    Args:
      step: the last one.
      num_in_a_row: skipped steps up to it.
      norms: its loss, and the norms of its gradient and update.
    """
    what, advice = _cause(norms)
    return UserError(
        f'Step {step}: the loss or gradient of {num_in_a_row} steps in a row was not finite; none '
        f'of them reached the parameters, and the last checkpoint, if there is one, is good '
        f'({what}). Start in another --workdir with a lower optimizer.learning_rate, or {advice}.'
    )


def nothing_learnt(num_steps: int, norms: np.ndarray | None) -> UserError:
    """The error of a run that ends with the parameters that it has started from.

    Args:
      num_steps: all of them, all skipped.
      norms: loss, gradient and update of the last; None where they are not known any more.
    """
    what, advice = _cause(norms)
    return UserError(
        f'All {num_steps} steps were skipped, from step 1 on, because the loss, gradient or update '
        f'of each was not finite, so nothing was learnt ({what}); {advice}, and start in another '
        f'--workdir.'
    )


def _cause(norms: np.ndarray | None) -> tuple[str, str]:
    if norms is None:
        return 'by its checkpoint', _ADVICE['loss']
    for (name, advice), value in zip(_ADVICE.items(), norms, strict=True):
        if not np.isfinite(value):
            return f'the {name} of the last step is {value:g}', advice
    return 'the last step', _ADVICE['loss']
