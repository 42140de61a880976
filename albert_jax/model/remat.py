"""Which intermediate values of a layer are saved for the backward pass (`AlbertConfig.remat`)."""

from collections.abc import Callable

import jax

from albert_jax.model import attention

# The name by which the output of a dense map is saved.
DENSE_OUTPUT_NAME = 'dense_output'

_POLICIES: dict[str, Callable[..., bool]] = {
    'full': jax.checkpoint_policies.nothing_saveable,
    'attention': jax.checkpoint_policies.save_only_these_names(attention.OUTPUT_NAME),
    'dense': jax.checkpoint_policies.save_only_these_names(
        attention.OUTPUT_NAME, DENSE_OUTPUT_NAME
    ),
}


def policy(remat: str) -> Callable[..., bool] | None:
    """The policy for `jax.checkpoint`.

    Args:
      remat: 'full' saves nothing, 'attention' the attention's output, 'dense' that and the outputs
        of the dense maps.

    Returns:
      The policy, or None for 'none': all intermediate values are saved.
    """
    return None if remat == 'none' else _POLICIES[remat]
