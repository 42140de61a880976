"""What an attention kernel takes at the least: the compiler has no estimate for a kernel.

Its parts run side by side in a core: products in the matrix unit, all else in the vector unit,
between them stores to the vector memory, and beside them copies from and to the main memory. None
is faster than the busiest of them. The compiler's own schedule of `fused_attention` is 1.15 to 1.3
times its bound on v5e, and up to 1.8 times on v6e (docs/SCALING.md).
"""

import dataclasses
from typing import NamedTuple

from albert_jax.model import attention, fused_attention
from albert_jax.model.config import AlbertConfig
from albert_jax.planning.topologies import Chip

# Scores that a vector register holds.
_REGISTER = 1024
_BFLOAT16_BYTES = 2


class _Work(NamedTuple):
    """What a pass over a register of scores takes."""

    vector_operations: float
    stores: float


class _Units(NamedTuple):
    """What a device does in a cycle besides products, and what `fused_attention` asks of it.

    Counted in the compiler's schedules: exponentials, sums, maxima, roundings and masks of heads;
    scores that do not fit into registers are stored and loaded again.
    """

    vector_operations: int
    stores: int
    forward: _Work
    backward: _Work


# v5p has two cores like that of v5e, v6e vector units for bfloat16. Of other chips it is not known
# here.
_UNITS = {
    'v5e': _Units(4, 1, _Work(12.1, 2.7), _Work(18.5, 7.4)),
    'v5p': _Units(8, 2, _Work(12.1, 2.7), _Work(18.5, 7.4)),
    'v6e': _Units(4, 2, _Work(8.0, 3.0), _Work(15.7, 7.7)),
}
_DROPOUT_OPERATIONS = 8.0


@dataclasses.dataclass(frozen=True)
class KernelBound:
    """Seconds of one sequence on one device."""

    implementation: str
    seconds: float
    # What takes so long: 'matrix unit', 'vector unit', 'vector memory' or 'main memory'.
    limit: str


def implementation(model: AlbertConfig, length: int) -> str:
    """The attention that a model takes on TPUs, in training.

    Raises:
      UserError: if it asks for one that it cannot have.
    """
    return attention.choose(
        model.attention,
        'tpu',
        length,
        model.attention_probs_dropout_prob > 0,
        fused_attention.problem(length, model.num_attention_heads, model.head_size),
    )


def attention_bound(model: AlbertConfig, length: int, chip: Chip) -> KernelBound:
    """The bound of a training step's attention kernels, recomputation included.

    A head narrower than the matrix unit leaves the rest of it idle. Vector unit and vector memory
    are counted for 'fused' alone: what 'splash' does there is not known.

    Args:
      model: whose attention is a kernel.
      length: tokens a sequence.
      chip: one device.
    """
    name = implementation(model, length)
    num_forward = 2 if model.remat == 'full' else 1
    num_blocks = model.num_hidden_layers * model.inner_group_num
    num_scores = num_blocks * model.num_attention_heads * length**2
    width = -(-model.head_size // chip.matrix_size) * chip.matrix_size
    num_products = 2 * num_forward + 5
    seconds = {'matrix unit': num_products * num_scores * 2 * width / chip.peak_flops}
    # Forward: three matrices in, one out; backward: four in, three out.
    num_matrices = 4 * num_forward + 7
    num_bytes = num_matrices * num_blocks * length * model.hidden_size * _BFLOAT16_BYTES
    seconds['main memory'] = num_bytes / chip.memory_bandwidth
    units = _UNITS.get(chip.kind)
    if name == 'fused' and units and chip.clock:
        extra = _DROPOUT_OPERATIONS if model.attention_probs_dropout_prob else 0.0
        cycles = num_scores / _REGISTER / chip.clock
        operations = num_forward * (units.forward.vector_operations + extra)
        operations += units.backward.vector_operations + extra
        seconds['vector unit'] = operations / units.vector_operations * cycles
        stores = num_forward * units.forward.stores + units.backward.stores
        seconds['vector memory'] = stores / units.stores * cycles
    limit = max(seconds, key=lambda part: seconds[part])
    return KernelBound(name, seconds[limit], limit)
