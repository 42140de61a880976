"""TPU slices that exist, and what their chips can do. Nothing here needs a TPU or libtpu.

Numbers are Google Cloud's published ones; memory is what the compiler reports for a device. A
device is what JAX shows: half a chip up to v3 and in tpu7x, a chip otherwise.
"""

import dataclasses
import importlib.util
import math
from typing import Any

from albert_jax.cli.errors import UserError
from albert_jax.model.flops import PEAK_FLOPS


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device of a kind of TPU."""

    kind: str
    devices_per_chip: int
    # Bytes of memory and bytes a second of it, of one device.
    memory_bytes: float
    memory_bandwidth: float
    # Bytes a second out of one device, over all its links.
    link_bandwidth: float
    # Cycles a second: the peak over what the matrix units do in a cycle. None if not known.
    clock: float | None
    # Rows and columns of a matrix unit.
    matrix_size: int
    # Chips along each axis of one host.
    host_bounds: tuple[int, ...]
    # Shapes that can be had, in chips.
    shapes: tuple[tuple[int, ...], ...]

    @property
    def peak_flops(self) -> float:
        """Dense bf16 FLOP/s of one device."""
        return PEAK_FLOPS[self.kind]


_GIB = 2**30
_FLAT = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
_CUBES = (
    (2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4), (4, 4, 4), (4, 4, 8), (4, 8, 8), (8, 8, 8),
    (8, 8, 16),
)  # fmt: skip
_SQUARES = ((2, 2), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
_LARGE_SQUARES = (*_SQUARES, (16, 32), (32, 32))

# That of v6e is not published: its compiler counts 524,288 FLOP a cycle of a large product.
CHIPS: dict[str, Chip] = {
    'v2': Chip('v2', 2, 7.48 * _GIB, 350e9, 124e9, 0.7e9, 128, (2, 2), _SQUARES),
    'v3': Chip('v3', 2, 15.48 * _GIB, 450e9, 164e9, 0.94e9, 128, (2, 2), _LARGE_SQUARES),
    'v4': Chip('v4', 1, 30.75 * _GIB, 1228e9, 300e9, 1.05e9, 128, (2, 2, 1), _CUBES),
    'v5e': Chip('v5e', 1, 15.75 * _GIB, 819e9, 200e9, 1.503e9, 128, (2, 2, 1), _FLAT),
    'v5p': Chip('v5p', 1, 95.74 * _GIB, 2765e9, 600e9, 1.75e9, 128, (2, 2, 1), _CUBES),
    'v6e': Chip('v6e', 1, 31.25 * _GIB, 1640e9, 400e9, 1.751e9, 256, (2, 2, 1), _FLAT),
    'tpu7x': Chip('tpu7x', 2, 94.75 * _GIB, 3690e9, 300e9, None, 256, (2, 2, 1), _CUBES),
}


@dataclasses.dataclass(frozen=True)
class Slice:
    """A named slice: a kind of chip and how many along each axis."""

    chip: Chip
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """As in `v5e:4x4`."""
        return f'{self.chip.kind}:{"x".join(map(str, self.shape))}'

    @property
    def num_chips(self) -> int:
        """All of them, over all hosts."""
        return math.prod(self.shape)

    @property
    def num_devices(self) -> int:
        """What `jax.device_count()` is there."""
        return self.num_chips * self.chip.devices_per_chip

    def devices(self) -> list[Any]:
        """JAX's devices of this slice, to compile for; libtpu makes them without a TPU.

        Raises:
          UserError: if libtpu is not installed.
        """
        if importlib.util.find_spec('libtpu') is None:
            raise UserError(
                "To compile for a TPU needs libtpu; run pip install -e '.[plan]' (a few "
                'hundred MB), or leave the compilation out with --analytic.'
            )
        from jax.experimental import topologies

        options: dict[str, Any] = {}
        if self.num_chips == 1:
            options['chips_per_host_bounds'] = [1, 1, 1]
        elif self.chip.kind in ('v5e', 'v6e') and self.num_chips <= 8:
            # One host has up to eight of these chips.
            options['chips_per_host_bounds'] = [*self.shape, 1]
        if self.chip.kind == 'v4':
            options['chip_config_name'] = 'megacore'
        description = topologies.get_topology_desc(
            platform='tpu', topology_name=self.name, **options
        )
        return list(description.devices)


def parse(name: str) -> Slice:
    """The slice of this name.

    Raises:
      UserError: if nobody makes it.
    """
    kind, _, shape = name.partition(':')
    if kind not in CHIPS:
        raise UserError(
            f'--topology={name}: there is no TPU {kind!r}; write KIND:SHAPE as in v5e:4x4, with '
            f'KIND one of {", ".join(CHIPS)}.'
        )
    chip = CHIPS[kind]
    names = {'x'.join(map(str, dimensions)): dimensions for dimensions in chip.shapes}
    if shape not in names:
        raise UserError(
            f'--topology={name}: nobody makes a slice of {kind} in the shape {shape!r}; there are '
            f'{", ".join(f"{kind}:{known}" for known in names)}.'
        )
    return Slice(chip, names[shape])
