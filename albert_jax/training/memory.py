"""Whether a training can fit into the memory there is: counted from shapes, before it compiles.

The count is what a step needs at the least, and never more than it takes: the peak that the
compiler for CPUs gives was 1.6 to 2.9 times as high for tiny, mini and base. So a run that is
refused could not have run.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from albert_jax.cli.errors import UserError
from albert_jax.data.batch import HostBatch
from albert_jax.model.config import AlbertConfig

_GIB = 2**30
_BYTES = {'float32': 4, 'bfloat16': 2}
# A number of microbatches is proposed for which so many times the least fits.
_ROOM = 2


@dataclasses.dataclass(frozen=True)
class Need:
    """What a step needs on one device at the least, in bytes."""

    # Parameters, optimizer state, gradients, and weights that stay as they are.
    state: int
    # Of one row of the batch, saved for the backward pass and live at its start.
    row: int

    def total(self, rows: int) -> int:
        """With so many rows at once."""
        return self.state + rows * self.row


def least(
    model: AlbertConfig, state: Any, frozen: Any, example: HostBatch | Mapping[str, Any]
) -> Need:
    """What a step needs at the least.

    Args:
      model: that is trained.
      state: the TrainState in shapes, with shardings where it is split.
      frozen: weights beside it, or their shapes.
      example: a row of the longest batch, or its shapes.
    """
    leaves = jax.tree.leaves(state)
    params = jax.tree.leaves(state.params)
    num_bytes = sum(map(_shard_bytes, leaves)) + sum(map(_full_bytes, params))
    if any(_shard_bytes(x) < _full_bytes(x) for x in params):
        # A step gathers what is split.
        num_bytes += sum(map(_full_bytes, params))
    num_bytes += sum(map(_full_bytes, jax.tree.leaves(frozen)))
    ids = np.shape(example['input_ids'])
    # One example of multiple choice has several rows.
    sequences, length = int(np.prod(ids[:-1])), int(ids[-1])
    predictions = np.shape(example['masked_positions'])[-1] if 'masked_positions' in example else 0
    return Need(num_bytes, sequences * _sequence_bytes(model, length, predictions))


def _sequence_bytes(model: AlbertConfig, length: int, num_predictions: int) -> int:
    """Of one sequence: what each layer saves, and the largest of what is computed beside it."""
    hidden, inner = model.hidden_size, model.ffn_size
    # Queries, keys, values and the feed-forward's inner layer, which all are live in a layer.
    dense = 3 * hidden + inner * (model.num_ffn_kernels - 1)
    saved = {
        'full': hidden,
        'attention': 2 * hidden,
        'dense': 2 * hidden + dense,
        'none': 2 * hidden + dense,
    }[model.remat]
    size = _BYTES[model.compute_dtype]
    logits = 4 * num_predictions * model.vocab_size
    return length * size * saved * model.num_blocks + max(logits, length * size * dense)


def _shard_bytes(leaf: Any) -> int:
    """Of an array on one device."""
    sharding = getattr(leaf, 'sharding', None)
    shape = leaf.shape if sharding is None else sharding.shard_shape(leaf.shape)
    return int(np.prod(shape)) * _item_bytes(leaf)


def _full_bytes(leaf: Any) -> int:
    return int(np.prod(np.shape(leaf))) * _item_bytes(leaf)


def _item_bytes(leaf: Any) -> int:
    # Random keys have types of their own.
    return getattr(leaf.dtype, 'itemsize', 4)


def check(need: Need, mesh: Mesh, rows: int, num_microbatches: int, length: int) -> None:
    """Refuses a run that cannot fit.

    Args:
      need: of its step on a device.
      mesh: its devices.
      rows: of the batch on each device.
      num_microbatches: that they are taken in; 0 where the most are tried, too.
      length: tokens of a row.

    Raises:
      UserError: with what would fit.
    """
    device = mesh.devices.flat[0]
    available = device_bytes(mesh)
    at_once = rows // num_microbatches if num_microbatches else 1
    if available is None or need.total(at_once) <= available:
        return
    what = f'a {device.platform.upper()} device' if device.platform != 'cpu' else 'this machine'
    raise UserError(
        f'This run needs at least {need.total(at_once) / _GIB:.1f} GiB of memory '
        f'({need.state / _GIB:.1f} for weights, gradients and optimizer, '
        f'{at_once * need.row / _GIB:.1f} for {at_once} rows of {length} tokens at once), and '
        f'{what} has {available / _GIB:.1f} GiB free{_for_each(mesh)}; '
        f'{_advice(need, available, rows)}.'
    )


def _for_each(mesh: Mesh) -> str:
    num_devices = len(mesh.local_devices)
    if mesh.devices.flat[0].platform != 'cpu' or num_devices == 1:
        return ''
    return f' for each of its {num_devices} devices'


def _advice(need: Need, available: int, rows: int) -> str:
    number = microbatches_that_fit(need, available, rows)
    if number is None:
        return 'choose a smaller model or shorter sequences, or a machine with more memory'
    return (
        f'set --config.loop.num_microbatches={number}, which takes {rows // number} at once and '
        f'computes the same, or lower --config.loop.batch_size'
    )


def microbatches_that_fit(need: Need, available: int, rows: int) -> int | None:
    """The fewest microbatches that fit with room, or the most that there can be.

    Returns:
      None if a single row does not fit.
    """
    divisors = [number for number in range(1, rows + 1) if rows % number == 0]
    for number in divisors:
        if need.state + _ROOM * (need.total(rows // number) - need.state) <= available:
            return number
    return rows if need.total(1) <= available else None


def device_bytes(mesh: Mesh) -> int | None:
    """The memory that each device of this process can have; None where that is not known."""
    devices = mesh.local_devices
    if devices[0].platform == 'cpu':
        free = free_host_bytes()
        return None if free is None else free // len(devices)
    try:
        stats = devices[0].memory_stats()
    except (jax.errors.JaxRuntimeError, NotImplementedError):
        return None
    return stats.get('bytes_limit') if stats else None


def free_host_bytes(root: Path = Path('/')) -> int | None:
    """The memory that a process of this machine can still have, in its control group too.

    What the system can drop, such as copies of files, counts as free, and so does swap.

    Args:
      root: of the file system.

    Returns:
      None where the system does not say.
    """
    info = _numbers(root / 'proc/meminfo', 1024)
    if 'MemAvailable' not in info:
        return None
    swap = info.get('SwapFree', 0)
    limits = [info['MemAvailable'] + swap]
    limits += [free + swap for free in _control_groups(root)]
    return min(limits)


def _control_groups(root: Path) -> list[int]:
    """What is free in each control group that this process is in and that has a limit."""
    try:
        lines = (root / 'proc/self/cgroup').read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, name = line.split(':', 2)
        if controllers not in ('', 'memory'):
            continue
        base = root / 'sys/fs/cgroup' / controllers
        files = (
            ('memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_')
            if controllers
            else ('memory.max', 'memory.current', '')
        )
        folder = base / name.lstrip('/')
        for group in (folder, *folder.parents):
            if group == base.parent:
                break
            free = _free_in(group, *files)
            if free is not None:
                found.append(free)
    return found


def _free_in(group: Path, limit_file: str, usage_file: str, prefix: str) -> int | None:
    try:
        limit = int((group / limit_file).read_text())  # 'max' for none
        usage = int((group / usage_file).read_text())
    except (OSError, ValueError):
        return None
    stat = _numbers(group / 'memory.stat', 1)
    files = sum(stat.get(f'{prefix}{name}', 0) for name in ('active_file', 'inactive_file'))
    return max(limit - usage + files, 0)


def _numbers(path: Path, unit: int) -> dict[str, int]:
    """Lines of a name and a number."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    words = (line.replace(':', ' ').split() for line in lines)
    return {w[0]: int(w[1]) * unit for w in words if len(w) >= 2 and w[1].isdigit()}
