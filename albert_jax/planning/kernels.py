"""What an attention kernel takes at the least: the compiler has no estimate for a kernel.

Its parts run side by side in a core: products in the matrix unit, all else in the vector unit,
between them stores to the vector memory, and beside them copies from and to the main memory. No
kernel is faster than the busiest of them. The compiler's own schedule of `fused_attention` is 1.25
times this bound on v5e, and 1.6 to 1.8 times on v6e (docs/SCALING.md).
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
    """What a kernel of `fused_attention` takes for each register of scores, besides products."""

    vector_operations: float
    stores: float


class _Units(NamedTuple):
    """What a device does in a cycle besides products, and what the kernels ask of it.

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
# What dropout adds.
_DROPOUT_FORWARD, _DROPOUT_BACKWARD = _Work(8.0, 0.9), _Work(13.7, 2.0)


@dataclasses.dataclass(frozen=True)
class KernelBound:
    """Seconds of one sequence on one device."""

    implementation: str
    seconds: float
    # What takes so long in the backward pass: 'matrix unit', 'vector unit', 'vector memory' or
    # 'main memory'.
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
    # Forward: three matrices in, one out; backward: four in, three out.
    forward = _call_bounds(model, length, chip, name, num_products=2, num_matrices=4)
    backward = _call_bounds(model, length, chip, name, num_products=5, num_matrices=7)
    num_forward = 2 if model.remat == 'full' else 1
    limit = max(backward, key=lambda part: backward[part])
    seconds = num_forward * max(forward.values()) + backward[limit]
    return KernelBound(name, seconds, limit)


def _call_bounds(
    model: AlbertConfig, length: int, chip: Chip, name: str, num_products: int, num_matrices: int
) -> dict[str, float]:
    """Seconds of each part of a device in all layers' calls of one kernel."""
    num_blocks = model.num_blocks
    num_scores = num_blocks * model.num_attention_heads * length**2
    width = -(-model.head_size // chip.matrix_size) * chip.matrix_size
    num_bytes = num_matrices * num_blocks * length * model.hidden_size * _BFLOAT16_BYTES
    seconds = {
        'matrix unit': num_products * num_scores * 2 * width / chip.peak_flops,
        'main memory': num_bytes / chip.memory_bandwidth,
    }
    units = _UNITS.get(chip.kind)
    if name == 'fused' and units and chip.clock:
        is_forward = num_products == 2
        works = [units.forward if is_forward else units.backward]
        if model.attention_probs_dropout_prob:
            works.append(_DROPOUT_FORWARD if is_forward else _DROPOUT_BACKWARD)
        cycles = num_scores / _REGISTER / chip.clock
        operations = sum(work.vector_operations for work in works)
        seconds['vector unit'] = operations / units.vector_operations * cycles
        seconds['vector memory'] = sum(work.stores for work in works) / units.stores * cycles
    return seconds
