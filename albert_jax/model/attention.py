"""Scaled dot-product attention with a padding mask, in three implementations.

'einsum' computes all scores at once. 'chunked' computes those of a few heads at a time, so that
they stay in a CPU's cache. 'splash' is JAX's Pallas kernel for TPUs, which never writes them to
memory. A fourth, 'fused', is in `fused_attention`.
"""

import contextlib
import contextvars
import functools
import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from albert_jax.cli.errors import UserError
from albert_jax.model import matmul
from albert_jax.model.dropout import drop

# Scores that fit into a core's cache beside their gradients; short sequences do not gain by it.
_NUM_SCORES_A_CHUNK = 2**20
_MIN_LENGTH_TO_CHUNK = 256


# The name by which remat policies save the output: all that the kernel's backward pass needs.
OUTPUT_NAME = 'attention_output'
_LANES = 128


class Dropout(NamedTuple):
    """Dropout of the probabilities: every head of every example has a mask of its own."""

    rate: float
    key: Key[Array, '']
    example_ids: Int[Array, 'batch']


def attend(
    query: Float[Array, 'batch heads length head'],
    key: Float[Array, 'batch heads length head'],
    value: Float[Array, 'batch heads length head'],
    attention_mask: Int[Array, 'batch length'],
    dtype: jnp.dtype,
    dropout: Dropout | None = None,
    implementation: str = 'einsum',
) -> Float[Array, 'batch heads length head']:
    """softmax(q kᵀ / √head) v over the keys whose mask is 1 (arXiv 1706.03762, section 3.2.1).

    Args:
      query: of every token.
      key: of every token.
      value: of every token.
      attention_mask: 1 for a token, 0 for padding.
      dtype: of the operands of both products, and of the result; softmax is float32.
      dropout: of the probabilities; None for none, as 'splash' requires.
      implementation: 'einsum', 'chunked' or 'splash'.

    Raises:
      ValueError: if the implementation is 'splash' and there is dropout.
    """
    query = query * query.shape[-1] ** -0.5
    if implementation == 'splash':
        if dropout is not None:
            raise ValueError('The splash kernel has no dropout; use the einsum.')
        query, key, value = query.astype(dtype), key.astype(dtype), value.astype(dtype)
        return _splash(query, key, value, attention_mask).astype(dtype)

    batch, heads, length, size = query.shape
    query_rows, key_rows, value_rows = (x.reshape(-1, length, size) for x in (query, key, value))
    masks = jnp.repeat(attention_mask, heads, axis=0)
    head_ids = None if dropout is None else _head_ids(dropout, heads)

    def attend_rows(
        query: Array, key: Array, value: Array, masks: Array, head_ids: Array | None
    ) -> Float[Array, 'rows length head']:
        probs = _probabilities(query, key, masks, dtype)
        if dropout is not None and head_ids is not None:
            probs = drop(probs, dropout.rate, dropout.key, head_ids)
        return matmul.matmul(probs, value, dtype).astype(dtype)

    # Only the operands are kept for the backward pass: scores and probabilities grow with the
    # square of the length, and to compute them again costs less than to write and read them.
    attend_rows = jax.checkpoint(attend_rows, prevent_cse=False)
    num_rows = batch * heads
    is_chunked = implementation == 'chunked' and length >= _MIN_LENGTH_TO_CHUNK
    chunk = _chunk(num_rows, length) if is_chunked else num_rows
    arguments = query_rows, key_rows, value_rows, masks, head_ids
    if chunk == num_rows:
        context = attend_rows(*arguments)
    else:
        chunks = jax.tree.map(lambda x: x.reshape(-1, chunk, *x.shape[1:]), arguments)
        context = jax.lax.map(lambda rows: attend_rows(*rows), chunks)
    return context.reshape(query.shape)


def probabilities(
    query: Float[Array, 'batch heads length head'],
    key: Float[Array, 'batch heads length head'],
    attention_mask: Int[Array, 'batch length'],
    dtype: jnp.dtype,
) -> Float[Array, 'batch heads length length']:
    """softmax(q kᵀ / √head) over the keys whose mask is 1, before dropout, in float32.

    Args:
      query: of every token.
      key: of every token.
      attention_mask: 1 for a token, 0 for padding.
      dtype: of the operands of the product.
    """
    scaled = query * query.shape[-1] ** -0.5
    return _probabilities(scaled, key, attention_mask[:, None], dtype)


def _probabilities(
    query: Float[Array, '*rows length head'],
    key: Float[Array, '*rows length head'],
    # Broadcast against the rows.
    masks: Int[Array, '... length'],
    dtype: jnp.dtype,
) -> Float[Array, '*rows length length']:
    scores = matmul.matmul_transposed(query, key, dtype)
    return jax.nn.softmax(jnp.where(masks[..., None, :] > 0, scores, jnp.finfo(jnp.float32).min))


def _head_ids(dropout: Dropout, num_heads: int) -> Int[Array, 'rows']:
    first = dropout.example_ids * num_heads
    return (first[:, None] + jnp.arange(num_heads, dtype=first.dtype)[None]).reshape(-1)


def _chunk(num_rows: int, length: int) -> int:
    """The largest divisor of `num_rows` for which the scores of a chunk fit into the cache."""
    limit = max(1, _NUM_SCORES_A_CHUNK // length**2)
    return next(size for size in range(min(limit, num_rows), 0, -1) if num_rows % size == 0)


# What programs are compiled for, where that is not the default backend.
_target: contextvars.ContextVar[str | None] = contextvars.ContextVar('target', default=None)


@contextlib.contextmanager
def compiling_for(backend: str) -> Iterator[None]:
    """Inside the context, `backend()` is the given platform, which need not be attached.

    Args:
      backend: 'cpu', 'gpu' or 'tpu'.
    """
    token = _target.set(backend)
    try:
        yield
    finally:
        _target.reset(token)


def backend() -> str:
    """The platform that the model is compiled for."""
    return _target.get() or jax.default_backend()


def choose(
    wanted: str, backend: str, length: Any, has_dropout: bool, fused_problem: str = ''
) -> str:
    """The implementation to use.

    The length is an int, or the symbol of a dimension that an export leaves open.

    'auto' is 'fused' or else 'splash' on TPUs, 'chunked' on CPUs and 'einsum' elsewhere. Where no
    kernel can do what is asked, 'auto' takes the einsum and says so in the log.

    Args:
      wanted: `AlbertConfig.attention`.
      backend: the platform that the model is compiled for.
      length: tokens of a sequence.
      has_dropout: whether attention probabilities have dropout.
      fused_problem: `fused_attention.problem` of the model and the length.

    Raises:
      UserError: if 'fused' or 'splash' is wanted and not supported.
    """
    if wanted not in ('auto', 'fused', 'splash'):
        return wanted
    if wanted == 'auto' and backend != 'tpu':
        return 'chunked' if backend == 'cpu' else 'einsum'
    problem = ''
    if backend != 'tpu':
        problem = f'that kernel needs a TPU, and this is a {backend}'
    elif wanted != 'splash' and not fused_problem:
        return 'fused'
    elif wanted == 'fused':
        problem = fused_problem
    elif has_dropout:
        problem = 'it has no dropout of attention probabilities'
    elif length % _LANES:
        problem = f'sequences of {length} tokens are no multiple of {_LANES}'
    if not problem:
        return 'splash'
    if wanted != 'auto':
        raise UserError(
            f'model.attention is {wanted}, but {problem}; use auto or einsum, or change that.'
        )
    _note(f'Attention is computed without the splash kernel: {problem}.')
    return 'einsum'


@functools.cache
def _note(text: str) -> None:
    """One line in the log, once."""
    logging.getLogger('albert_jax').warning(text)


def _splash(
    query: Float[Array, 'batch heads length head'],
    key: Float[Array, 'batch heads length head'],
    value: Float[Array, 'batch heads length head'],
    attention_mask: Int[Array, 'batch length'],
) -> Float[Array, 'batch heads length head']:
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel as kernels,
    )
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    _, heads, length, _ = query.shape
    block = next(size for size in (512, 384, 256, 128) if length % size == 0)
    kernel = kernels.make_splash_mha_single_device(
        masks.MultiHeadMask([masks.FullMask((length, length))] * heads),
        block_sizes=kernels.BlockSizes(
            block_q=block,
            block_kv=block,
            block_q_dkv=block,
            block_kv_dkv=block,
            use_fused_bwd_kernel=True,
        ),
        residual_checkpoint_name=OUTPUT_NAME,
    )
    # All queries belong to segment 1, and so do the keys that are not padding.
    keys = attention_mask.astype(jnp.int32)
    segments = kernels.SegmentIds(q=jnp.ones_like(keys), kv=keys)
    context: Any = jax.vmap(kernel)(query, key, value, segment_ids=segments)
    return context
