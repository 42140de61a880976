"""Refuses weights that are no numbers, before anything is computed with them."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from albert_jax.cli.errors import UserError
from albert_jax.interop.checksums import is_in_memory
from albert_jax.interop.native import Pretrained
from albert_jax.model.paths import flatten


def check_finite(model: Pretrained, origin: str) -> None:
    """Refuses a model with a value that is NaN or infinite.

    Minus infinity may be in the bias of the pieces, or of the classes: it forbids one of them.

    Args:
      model: as it was read.
      origin: what to call it in the message.

    Raises:
      UserError: if there is such a value.
    """
    named = flatten(model.params)
    forbidding = {'mlm/bias', *(['head/bias'] if model.head and model.head.labels else [])}
    counts = {
        path: count
        for path in _suspects(named)
        if (count := _num_not_finite(np.asarray(named[path]), path in forbidding))
    }
    if not counts:
        return
    path, count = next(iter(counts.items()))
    more = f', as are some of {len(counts) - 1} more parameter(s)' if len(counts) > 1 else ''
    raise UserError(
        f'{origin}: {count:,} of the {named[path].size:,} values of {path} are NaN or infinite'
        f'{more}; its weights are damaged, so take another checkpoint.'
    )


def _suspects(named: dict[str, Array | np.ndarray]) -> list[str]:
    """The paths of arrays that may have a value that is not finite: a pass over each, no copy."""
    if all(map(is_in_memory, named.values())):
        # Such a value makes the sum another, as may the sum of large ones.
        with np.errstate(all='ignore'):
            are_finite = [np.isfinite(np.asarray(array).sum()) for array in named.values()]
    else:
        are_finite = jax.device_get(jax.jit(_are_finite)(list(named.values())))
    return [path for path, is_finite in zip(named, are_finite, strict=True) if not is_finite]


def _are_finite(arrays: list[Array]) -> list[Array]:
    return [jnp.isfinite(array).all() for array in arrays]


def _num_not_finite(array: np.ndarray, may_forbid: bool) -> int:
    """How many values of an array are NaN or infinite, where that is wrong."""
    is_wrong = ~np.isfinite(array)
    is_minus_infinity = np.isneginf(array)
    if may_forbid and not is_minus_infinity.all():
        is_wrong &= ~is_minus_infinity
    return int(is_wrong.sum())
