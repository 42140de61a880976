"""Attention on TPUs for sequences of up to 512 tokens: one Pallas kernel forward, one backward.

All scores of a head fit into a chip's vector memory. So there is no online softmax, scores and
probabilities never reach the main memory, and the backward pass needs no more than queries, keys
and values.

These come as the dense map writes them, [batch, length, 3 · hidden], and nothing is transposed in
memory: heads of 64 lie two by two in blocks of 128 columns, as a register has lanes. For a product
of one head, all 128 columns of both operands are taken, with those of the other head set to zero in
one of them. Alone, 64 columns would keep the matrix unit busy for as long.

The columns are in the order in which the kernels take them: queries of a few heads, their keys,
their values, and then those of the next heads. `interleave` brings kernels and biases into it.

Dropout of the probabilities is inside: both kernels compute the same mask, a hash of a seed and of
the numbers of query and key (`keep_bits`). It belongs to the example and the head, like the masks
of `albert_jax.model.dropout`, but is not the one that is drawn there.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float, Int

from albert_jax.model.attention import Dropout

MAX_LENGTH = 512
LANES = 128
# Columns of queries that are processed in one step: more would not fit into 16 MB of vector memory.
_MAX_COLUMNS = 512
# Added to the scores of padding: their exponential is 0.
_PADDING = -1e30
# Random bits of a probability: its rate is exact to 2⁻¹⁷.
_NUM_BITS = 16


class _Shape(NamedTuple):
    """What the kernels are made for."""

    length: int
    num_heads: int
    head_size: int
    rate: float

    @property
    def width(self) -> int:
        """Columns of a block."""
        return max(LANES, self.head_size)

    @property
    def heads_per_block(self) -> int:
        return self.width // self.head_size


def problem(length: Any, num_heads: int, head_size: int) -> str:
    """Why the kernels cannot do attention of this shape; an empty string if they can."""
    if length % LANES:
        return f'sequences of {length} tokens are no multiple of {LANES}'
    if length > MAX_LENGTH:
        return f'it takes sequences of up to {MAX_LENGTH} tokens, not {length}'
    if head_size % LANES and (LANES % head_size or num_heads % (LANES // head_size)):
        return (
            f'{num_heads} heads of {head_size} do not fill registers of {LANES} numbers side by '
            f'side'
        )
    return ''


def interleave(
    parts: Sequence[Float[Array, '*rows hidden']], num_heads: int
) -> Float[Array, '*rows columns']:
    """The columns of kernels or biases of queries, keys and values, in the kernels' order."""
    hidden = parts[0].shape[-1]
    return _interleave(tuple(parts), _columns(num_heads, hidden // num_heads))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _interleave(parts: tuple[Array, ...], size: int) -> Array:
    # By slices, forward and backward: a reshaped gradient would be laid out for the slices, and the
    # product that makes it would have to transpose an operand.
    pieces = [
        part[..., start : start + size]
        for start in range(0, parts[0].shape[-1], size)
        for part in parts
    ]
    return jnp.concatenate(pieces, axis=-1)


def _interleave_forward(parts: tuple[Array, ...], size: int) -> tuple[Array, None]:
    return _interleave(parts, size), None


def _interleave_backward(
    size: int, residuals: None, gradient: Array
) -> tuple[tuple[Array, Array, Array]]:
    del residuals
    columns = gradient.shape[-1]
    to_query, to_key, to_value = (
        jnp.concatenate(
            [gradient[..., i : i + size] for i in range(part * size, columns, 3 * size)], axis=-1
        )
        for part in range(3)
    )
    return ((to_query, to_key, to_value),)


_interleave.defvjp(_interleave_forward, _interleave_backward)


def are_queries_or_keys(num_heads: int, head_size: int) -> Bool[np.ndarray, 'heads']:
    """Which of the 3 · num_heads heads, in the kernels' order, are queries or keys."""
    return np.arange(3 * num_heads) // (_columns(num_heads, head_size) // head_size) % 3 < 2


def _columns(num_heads: int, head_size: int) -> int:
    """Columns of queries that one step of the kernels takes: full blocks of heads."""
    width = max(LANES, head_size)
    return width * _divisor(num_heads * head_size // width, _MAX_COLUMNS // width)


def attend(
    projected: Float[Array, 'batch length columns'],
    attention_mask: Int[Array, 'batch length'],
    num_heads: int,
    bias: Float[Array, 'columns'] | None = None,
    dropout: Dropout | None = None,
) -> Float[Array, 'batch length hidden']:
    """softmax(q kᵀ / √head) v over the keys whose mask is 1, heads side by side.

    Args:
      projected: queries, keys and values in the order of `interleave`.
      attention_mask: 1 for a token, 0 for padding.
      num_heads: as `problem` allows.
      bias: what was added to every token under `stop_gradient`: its gradient, the sum over all
        tokens, comes from here, where it costs no pass over them.
      dropout: of the probabilities.
    """
    batch, length, columns = projected.shape
    rate = 0.0 if dropout is None else dropout.rate
    shape = _Shape(length, num_heads, columns // 3 // num_heads, rate)
    bias = jnp.zeros(columns) if bias is None else bias
    padding = jnp.where(attention_mask > 0, 0.0, _PADDING)[:, None]
    seeds = jnp.zeros((batch, 1, 2), jnp.int32) if dropout is None else _seeds(dropout, num_heads)
    return _attend(projected, bias, padding, seeds, shape)


def _seeds(dropout: Dropout, num_heads: int) -> Int[Array, 'batch 1 seeds']:
    """Two random numbers for each two heads of each example."""
    shape = (1, 2 * ((num_heads + 1) // 2))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(dropout.key, dropout.example_ids)
    bits = jax.vmap(lambda key: jax.random.bits(key, shape, jnp.uint32))(keys)
    return jax.lax.bitcast_convert_type(bits, jnp.int32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(projected: Array, bias: Array, padding: Array, seeds: Array, shape: _Shape) -> Array:
    del bias
    batch, _, columns = projected.shape
    grid, specs = _specs(batch, shape)
    return pl.pallas_call(
        functools.partial(_forward_kernel, shape=shape),
        grid=grid,
        in_specs=[specs.seeds, specs.padding, specs.projected],
        out_specs=specs.context,
        out_shape=jax.ShapeDtypeStruct((batch, shape.length, columns // 3), projected.dtype),
        compiler_params=_PARALLEL,
        name='fused_attention_forward',
    )(seeds, padding, projected)


def _attend_forward(
    projected: Array, bias: Array, padding: Array, seeds: Array, shape: _Shape
) -> tuple[Array, tuple[Array, ...]]:
    return _attend(projected, bias, padding, seeds, shape), (projected, padding, seeds)


def _attend_backward(
    shape: _Shape, residuals: tuple[Array, ...], gradient: Array
) -> tuple[Array, Array, None, None]:
    projected, padding, seeds = residuals
    batch, _, columns = projected.shape
    grid, specs = _specs(batch, shape)
    to_projected, sums = pl.pallas_call(
        functools.partial(_backward_kernel, shape=shape),
        grid=grid,
        in_specs=[specs.seeds, specs.padding, specs.projected, specs.context],
        out_specs=[specs.projected, specs.sums],
        out_shape=[
            jax.ShapeDtypeStruct(projected.shape, projected.dtype),
            jax.ShapeDtypeStruct((grid[0], 1, columns), jnp.float32),
        ],
        compiler_params=_PARALLEL,
        name='fused_attention_backward',
    )(seeds, padding, projected, gradient)
    return to_projected, sums.sum((0, 1)), None, None


_attend.defvjp(_attend_forward, _attend_backward)
_PARALLEL = pltpu.CompilerParams(dimension_semantics=('parallel', 'parallel'))


class _Specs(NamedTuple):
    seeds: pl.BlockSpec
    padding: pl.BlockSpec
    projected: pl.BlockSpec
    context: pl.BlockSpec
    sums: pl.BlockSpec


def _specs(batch: int, shape: _Shape) -> tuple[tuple[int, int], _Specs]:
    """The grid, over rows and columns, and what a step of it sees of each array.

    A step takes several rows where sequences are short: steps have a price of their own.
    """
    length, hidden = shape.length, shape.num_heads * shape.head_size
    rows = _divisor(batch, MAX_LENGTH // length)
    columns = _columns(shape.num_heads, shape.head_size)
    num_seeds = 2 * ((shape.num_heads + 1) // 2) if shape.rate else 2
    specs = _Specs(
        pl.BlockSpec((rows, 1, num_seeds), lambda i, j: (i, 0, 0), memory_space=pltpu.SMEM),
        pl.BlockSpec((rows, 1, length), lambda i, j: (i, 0, 0)),
        pl.BlockSpec((rows, length, 3 * columns), lambda i, j: (i, 0, j)),
        pl.BlockSpec((rows, length, columns), lambda i, j: (i, 0, j)),
        pl.BlockSpec((1, 1, 3 * columns), lambda i, j: (i, 0, j)),
    )
    return (batch // rows, hidden // columns), specs


def _divisor(number: int, limit: int) -> int:
    """The largest divisor of a number up to a limit."""
    return next(size for size in range(max(1, min(number, limit)), 0, -1) if number % size == 0)


class _Block(NamedTuple):
    """The heads that lie in one block of columns of one row."""

    # All of one row.
    query: Float[Array, 'length width']
    key: Float[Array, 'length width']
    value: Float[Array, 'length width']
    # The two numbers of each two heads, and the number of the first head.
    seeds: Any
    row: Any
    first_head: Any


def _each_block(seeds: Any, projected: Any, shape: _Shape, body: Any) -> None:
    """Calls `body(block, row, places)` for every block of a step of the grid.

    `places` are the columns of its queries, keys and values among those of the step.
    """
    rows, width = projected.shape[0], shape.width
    blocks = projected.shape[2] // 3 // width
    first_block = pl.program_id(1) * blocks

    def step(number: Any, carry: Any) -> Any:
        row, index = jax.lax.div(number, blocks), jax.lax.rem(number, blocks)
        places = [pl.ds(_start(part * blocks + index, width), width) for part in range(3)]
        query, key, value = (projected[row, :, place] for place in places)
        query = (query * shape.head_size**-0.5).astype(query.dtype)
        first_head = (first_block + index) * shape.heads_per_block
        body(_Block(query, key, value, seeds, row, first_head), row, places)
        return carry

    jax.lax.fori_loop(0, rows * blocks, step, 0)


def _start(block: Any, width: int) -> Any:
    return pl.multiple_of(block * width, LANES)


def _forward_kernel(seeds: Any, padding: Any, projected: Any, context: Any, shape: _Shape) -> None:
    def body(block: _Block, row: Any, places: Any) -> None:
        total = jnp.zeros(block.value.shape, jnp.float32)
        for head, keep in enumerate(_masks(block, shape, query_axis=0)):
            scores = _product(block.query, _of_head(block.key, head, shape), 1, 1) + padding[row]
            weights = jnp.exp(scores - scores.max(1, keepdims=True))
            divisor = (1 - shape.rate) * weights.sum(1, keepdims=True)
            if keep is not None:
                weights = jnp.where(keep, weights, 0.0)
            value = _of_head(block.value, head, shape)
            total += _product(weights.astype(value.dtype), value, 1, 0) / divisor
        context[row, :, places[0]] = total.astype(context.dtype)

    _each_block(seeds, projected, shape, body)


def _backward_kernel(
    seeds: Any,
    padding: Any,
    projected: Any,
    gradient: Any,
    to_projected: Any,
    sums: Any,
    shape: _Shape,
) -> None:
    """With keys in the rows and queries in the columns: so one product of five is transposed."""
    sums[...] = jnp.zeros(sums.shape, sums.dtype)
    scale = shape.head_size**-0.5

    def body(block: _Block, row: Any, places: Any) -> None:
        query, key, value = block.query, block.key, block.value
        to_context = gradient[row, :, places[0]]
        padding_column = jnp.broadcast_to(padding[row], (LANES, shape.length)).T[:, :1]
        to_query = to_key = to_value = jnp.zeros(query.shape, jnp.float32)
        for head, keep in enumerate(_masks(block, shape, query_axis=1)):
            key_of_head, to_context_of_head = (_of_head(x, head, shape) for x in (key, to_context))
            scores = _product(key_of_head, query, 1, 1) + padding_column
            weights = jnp.exp(scores - scores.max(0, keepdims=True))
            probs = weights * (1 / weights.sum(0, keepdims=True))
            to_probs = _product(value, to_context_of_head, 1, 1)
            dropped = probs
            if keep is not None:
                kept = 1 / (1 - shape.rate)
                dropped, to_probs = (jnp.where(keep, x * kept, 0.0) for x in (probs, to_probs))
            to_value += _product(dropped.astype(value.dtype), to_context_of_head, 1, 0)
            to_scores = probs * to_probs
            to_scores -= probs * to_scores.sum(0, keepdims=True)
            to_scores = to_scores.astype(query.dtype)
            to_key += _product(to_scores, _of_head(query, head, shape), 1, 0)
            to_query += _product(to_scores, key_of_head, 0, 0)
        for place, total in zip(places, (to_query * scale, to_key, to_value), strict=True):
            to_projected[row, :, place] = total.astype(to_projected.dtype)
            sums[0, :, place] += total.sum(0, keepdims=True)

    _each_block(seeds, projected, shape, body)


def _product(left: Array, right: Array, left_axis: int, right_axis: int) -> Array:
    axes = (((left_axis,), (right_axis,)), ((), ()))
    return jax.lax.dot_general(left, right, axes, preferred_element_type=jnp.float32)


def _of_head(x: Float[Array, 'length width'], head: int, shape: _Shape) -> Array:
    """A block with the columns of all other heads set to zero."""
    if shape.heads_per_block == 1:
        return x
    column = jax.lax.broadcasted_iota(jnp.int32, x.shape, 1)
    first = head * shape.head_size
    is_inside = (column >= first) & (column < first + shape.head_size)
    return jnp.where(is_inside, x, jnp.zeros_like(x))


def _masks(block: _Block, shape: _Shape, query_axis: int) -> list[Bool[Array, '_ _'] | None]:
    """Which probabilities are kept, for each head of a block; None for all."""
    if not shape.rate:
        return [None] * shape.heads_per_block
    size = (shape.length, shape.length)
    query, key = (
        jax.lax.broadcasted_iota(jnp.int32, size, axis) for axis in (query_axis, 1 - query_axis)
    )
    threshold = round(shape.rate * 2**_NUM_BITS)
    masks: list[Bool[Array, '_ _'] | None] = []
    bits = None
    for head in range(shape.heads_per_block):
        number = block.first_head + head
        if bits is None or head % 2 == 0:
            pair = jax.lax.div(number, 2)
            first, second = (block.seeds[block.row, 0, 2 * pair + i] for i in range(2))
            bits = keep_bits(first, second, query, key)
        masks.append(_half(bits, number if shape.heads_per_block == 1 else head) >= threshold)
    return masks


def _half(bits: Array, number: Any) -> Array:
    """The lower 16 bits for a head of an even number, the upper 16 for one of an odd number."""
    shift = (number % 2 if isinstance(number, int) else jax.lax.rem(number, 2)) * _NUM_BITS
    return jax.lax.shift_right_logical(bits, shift) & (2**_NUM_BITS - 1)


def keep_bits(
    first: Int[Array, ''], second: Int[Array, ''], query: Int[Array, '*shape'], key: Any
) -> Int[Array, '*shape']:
    """32 random bits for each query and key, 16 for each of two heads.

    The mixing function is lowbias32 (Wellons, "Prospecting for hash functions", 2018), with a
    second seed in the middle, so that two seeds give no shifted copies of one mask.

    Args:
      first: a random number for the two heads of the example.
      second: another one.
      query: numbers of queries, below `MAX_LENGTH`.
      key: numbers of keys, likewise.
    """
    bits = (query * MAX_LENGTH + key) ^ first
    bits = (bits ^ _shifted(bits, 16)) * jnp.int32(0x7FEB352D)
    bits = (bits ^ _shifted(bits, 15) ^ second) * jnp.int32(0x846CA68B - 2**32)
    return bits ^ _shifted(bits, 16)


def _shifted(bits: Array, places: int) -> Array:
    return jax.lax.shift_right_logical(bits, jnp.int32(places))
