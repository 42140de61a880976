"""Attention by cuDNN's fused kernel for NVIDIA GPUs, which never writes scores to memory.

The kernel has padding by lengths: each row of the mask must be ones and then zeros. A dense mask
would become a bias in memory. It has no dropout here, and no float32.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from albert_jax.model import target


def is_right_padded(
    attention_mask: Int[Array, 'batch length'] | Int[np.ndarray, 'batch length'] | None,
    is_promised: bool,
) -> bool | None:
    """Whether each row is tokens and then padding; None if that is not known.

    Args:
      attention_mask: 1 for a token, 0 for padding; None for no padding.
      is_promised: what the caller says of a mask that has no values yet.
    """
    if attention_mask is None:
        return True
    # Only a GPU's kernel asks, and to look costs a copy from the device.
    if isinstance(attention_mask, Tracer) or target.backend() != 'gpu':
        return is_promised or None
    return bool(np.all(_rows_are_right_padded(np.asarray(attention_mask))))


def spoil_wrong_rows(
    hidden: Float[Array, 'batch length hidden'], attention_mask: Int[Array, 'batch length']
) -> Float[Array, 'batch length hidden']:
    """NaN in the rows whose mask is not tokens and then padding: the kernel would misread it.

    So a caller's broken promise cannot go unnoticed: a loss of NaN is no training step.

    Args:
      hidden: what the encoder starts with.
      attention_mask: 1 for a token, 0 for padding.
    """
    is_right = _rows_are_right_padded(attention_mask)
    return jnp.where(is_right[:, None, None], hidden, jnp.nan)


def _rows_are_right_padded(mask: Any) -> Bool[Any, 'batch']:
    is_token = mask > 0
    return (is_token[:, 1:] <= is_token[:, :-1]).all(1)


def attend(
    query: Float[Array, 'batch heads length head'],
    key: Float[Array, 'batch heads length head'],
    value: Float[Array, 'batch heads length head'],
    attention_mask: Int[Array, 'batch length'],
    implementation: Any = 'cudnn',
) -> Float[Array, 'batch heads length head']:
    """softmax(q kᵀ / √head) v over the keys whose mask is 1.

    Args:
      query: of every token, in bfloat16, not scaled.
      key: of every token, in bfloat16.
      value: of every token, in bfloat16.
      attention_mask: in each row ones and then zeros; a row without ones attends its first token.
      implementation: 'cudnn', or 'xla' for the same function without the kernel.
    """
    batch, _, length, _ = query.shape
    # cuDNN before 9.25 gives NaN for a row without keys.
    key_lengths = jnp.maximum((attention_mask > 0).sum(1, dtype=jnp.int32), 1)
    # Padded queries attend too: what the kernel leaves in rows that it skips may be anything, and
    # NaN times a probability of 0 is NaN. Both lengths, always: the kernel for batches without
    # padding has had NaN in gradients of lengths that are no multiple of its tiles.
    query_lengths = jnp.full(batch, length, jnp.int32)
    context = jax.nn.dot_product_attention(
        *(x.swapaxes(1, 2) for x in (query, key, value)),
        query_seq_lengths=query_lengths,
        key_value_seq_lengths=key_lengths,
        implementation=implementation,
    )
    return context.swapaxes(1, 2)
