"""Random numbers by address: (seed, stream, step, row), from a counter-based generator (Philox)."""

import numpy as np
from jaxtyping import Float64, UInt64


def random_bits(
    num_words: int, *, seed: int, stream: int, step: int, rows: range
) -> UInt64[np.ndarray, 'batch words']:
    """Random words of 64 bits for each row, the same whatever the rows around it.

    Args:
      num_words: for each row, at least; they come in fours.
      seed: of the run.
      stream: of independent numbers.
      step: whose batch the rows are of.
      rows: of the global batch.
    """
    # Philox makes four words a count.
    counts = -(-num_words // 4)
    philox = np.random.Philox(
        key=[seed & (2**64 - 1), 0], counter=[rows.start * counts, step, stream, 0]
    )
    words = philox.random_raw(len(rows) * counts * 4)
    return words.reshape(len(rows), counts * 4)


def uniform(words: UInt64[np.ndarray, '*shape']) -> Float64[np.ndarray, '*shape']:
    """Uniform numbers in [0, 1) from the upper 53 bits of random words."""
    return (words >> np.uint64(11)) * 2.0**-53
