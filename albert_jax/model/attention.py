"""Scaled dot-product attention with a padding mask, in four implementations.

'einsum' computes all scores at once. 'chunked' computes those of a few heads at a time, so that
they stay in a CPU's cache. 'splash' is JAX's Pallas kernel for TPUs and 'cudnn' a kernel for NVIDIA
GPUs, which never write them to memory.
"""

import functools
import logging
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from albert_jax.cli.errors import UserError
from albert_jax.model import cudnn, matmul, target
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
      dropout: of the probabilities; None for none, as 'splash' and 'cudnn' require.
      implementation: 'einsum', 'chunked', 'splash' or 'cudnn'.

    Raises:
      ValueError: if the implementation is 'splash' or 'cudnn' and there is dropout.
    """
    if implementation == 'cudnn':
        if dropout is not None:
            raise ValueError("cuDNN's kernel has no dropout here; use the einsum.")
        query, key, value = query.astype(dtype), key.astype(dtype), value.astype(dtype)
        return cudnn.attend(query, key, value, attention_mask)
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
        return matmul.matmul(probs, value, dtype, dtype)

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


compiling_for, backend = target.compiling_for, target.backend


def choose(
    wanted: str,
    backend: str,
    length: Any,
    has_dropout: bool,
    cudnn_problem: str = '',
    is_right_padded: bool | None = True,
) -> str:
    """The implementation to use.

    The length is an int, or the symbol of a dimension that an export leaves open.

    'auto' is 'splash' on TPUs, 'cudnn' on GPUs and 'chunked' on CPUs. Where the kernel cannot do
    what is asked, 'auto' takes the einsum and says so in the log.

    Args:
      wanted: `AlbertConfig.attention`.
      backend: the platform that the model is compiled for.
      length: tokens of a sequence.
      has_dropout: whether attention probabilities have dropout.
      cudnn_problem: `AlbertConfig.cudnn_problem`.
      is_right_padded: whether each row of the mask is tokens and then padding; None if that is not
        known, which 'cudnn' takes for yes and 'auto' for no.

    Raises:
      UserError: if 'splash' or 'cudnn' is wanted and not supported.
    """
    kernel = {'tpu': 'splash', 'gpu': 'cudnn'}.get(backend) if wanted == 'auto' else wanted
    if kernel == 'splash':
        problem = _splash_problem(backend, length, has_dropout)
    elif kernel == 'cudnn':
        problem = cudnn_problem or _cudnn_problem(backend, has_dropout, is_right_padded)
        if wanted == 'auto' and not problem:
            problem = _why_not_by_itself(length, is_right_padded)
    else:
        return kernel or ('chunked' if backend == 'cpu' else 'einsum')
    if not problem:
        return kernel
    if wanted == kernel:
        raise UserError(
            f'model.attention is {wanted}, but {problem}; use auto or einsum, or change that.'
        )
    _note(f'Attention is computed without the {kernel} kernel: {problem}.')
    return 'einsum'


_NO_DROPOUT = 'it has no dropout of attention probabilities'


def _splash_problem(backend: str, length: Any, has_dropout: bool) -> str:
    if backend != 'tpu':
        return f'that kernel needs a TPU, and this is a {backend}'
    if has_dropout:
        return _NO_DROPOUT
    if length % _LANES:
        return f'sequences of {length} tokens are no multiple of {_LANES}'
    return ''


def _cudnn_problem(backend: str, has_dropout: bool, is_right_padded: bool | None) -> str:
    if backend != 'gpu':
        return f'that kernel needs an NVIDIA GPU, and this is a {backend}'
    if has_dropout:
        return _NO_DROPOUT
    if is_right_padded is False:
        return 'a row of attention_mask is not tokens and then padding'
    return target.nvidia_problem()


def _why_not_by_itself(length: Any, is_right_padded: bool | None) -> str:
    """Why 'auto' does not take cuDNN's kernel though it could be had."""
    if is_right_padded is None:
        return 'nobody says that the batch is padded at the right (is_right_padded)'
    # Of other lengths cuDNN's gradients have been NaN (github.com/pytorch/pytorch/issues/196678),
    # and of shorter ones the scores are few.
    if length % _LANES:
        return f'sequences are no multiple of {_LANES} tokens long'
    return ''


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
