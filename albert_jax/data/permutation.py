"""A pseudorandom order of any number of things, index by index, without holding it.

A Feistel network on the smallest even number of bits that covers the indices, walked until it
lands inside them (Black and Rogaway, 2002). Grain's shuffle does the same but one index at a time,
for at most 2³² of them, and its epochs of neighbouring seeds coincide.
"""

import numpy as np
from jaxtyping import Int64

_NUM_ROUNDS = 6
_U64 = np.uint64


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64: every bit of x sways every bit of the result."""
    x = (x ^ (x >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> _U64(27))) * _U64(0x94D049BB133111EB)
    return x ^ (x >> _U64(31))


def shuffled_indices(
    positions: Int64[np.ndarray, 'batch'], num_items: int, seed: int
) -> Int64[np.ndarray, 'batch']:
    """Where an endless shuffled reading of `num_items` things is at each of the positions.

    Position p is the (p mod num_items)-th thing of epoch p // num_items; each epoch visits each
    thing once, in an order of its own.

    Args:
      positions: not negative.
      num_items: how many things there are.
      seed: chooses the orders; any int of 64 bits.
    """
    epochs, offsets = np.divmod(positions.astype(np.int64), num_items)
    half_bits = max(1, (int(num_items - 1).bit_length() + 1) // 2)
    mask = _U64((1 << half_bits) - 1)
    shift = _U64(half_bits)
    with np.errstate(over='ignore'):
        epoch_keys = _mix(_mix(np.full(1, seed & (2**64 - 1), _U64)) + epochs.astype(_U64))
        values = offsets.astype(_U64)
        outside = np.arange(values.size)
        while outside.size:
            left, right = values[outside] >> shift, values[outside] & mask
            keys = epoch_keys[outside]
            for number in range(_NUM_ROUNDS):
                round_keys = keys + _U64(0x9E3779B97F4A7C15) * _U64(number + 1)
                left, right = right, left ^ (_mix(right + round_keys) & mask)
            values[outside] = (left << shift) | right
            outside = outside[values[outside] >= _U64(num_items)]
    return values.astype(np.int64)
