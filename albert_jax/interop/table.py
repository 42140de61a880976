"""Tables that say which of their tensors is which of ours, applied in both directions."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from albert_jax.cli.errors import UserError
from albert_jax.interop.native import OPTIONAL_PARTS, expected_shapes
from albert_jax.model.config import AlbertConfig
from albert_jax.model.paths import flatten


class Entry(NamedTuple):
    """One of their tensors and the parameter, or the slice of a stacked parameter, that it is."""

    theirs: str
    ours: str
    # Index along our leading axis of unique layers; None where ours has none.
    layer_index: int | None = None
    is_transposed: bool = False


class Tensor(NamedTuple):
    """A tensor of a file, not read yet."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]


class Skip(NamedTuple):
    """Tensors that are of no use to us, and why."""

    pattern: str
    reason: str


def to_ours(
    table: Iterable[Entry],
    tensors: Mapping[str, Tensor],
    skips: Sequence[Skip],
    config: AlbertConfig,
    origin: str,
    num_outputs: int = 0,
) -> tuple[dict[str, Any], list[str]]:
    """The parameters that the tensors hold, and notes; a part that is wholly absent is left out.

    Args:
      table: for this config.
      tensors: by their names.
      skips: what to do with tensors that the table does not have.
      config: of the model.
      origin: what to call the source in messages.
      num_outputs: of the head of a fine-tuned model.

    Raises:
      UserError: if a tensor is missing, has another shape than the config says, or is in neither
        the table nor a skip rule.
    """
    by_path: dict[str, list[Entry]] = {}
    for entry in table:
        by_path.setdefault(entry.ours, []).append(entry)
    parts_there = {
        path.partition('/')[0]
        for path, entries in by_path.items()
        if any(entry.theirs in tensors for entry in entries)
    }
    used = {entry.theirs for entries in by_path.values() for entry in entries}
    _check_unknown(set(tensors) - used, skips, origin)
    shapes = expected_shapes(config) | {
        'head/kernel': (config.hidden_size, num_outputs),
        'head/bias': (num_outputs,),
    }
    params: dict[str, Any] = {}
    for path, entries in by_path.items():
        part, *_ = path.split('/')
        if part in (*OPTIONAL_PARTS, 'head') and part not in parts_there:
            continue
        leaf = _leaf(entries, tensors, shapes[path], origin)
        *parents, name = path.split('/')
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = jnp.asarray(leaf)
    others = sorted({tensors[name].dtype for name in used & set(tensors)} - {'float32'})
    notes = [f'the tensors of type {", ".join(others)} became float32.'] if others else []
    return params, notes


def _check_unknown(names: set[str], skips: Sequence[Skip], origin: str) -> None:
    unknown = sorted(n for n in names if not any(re.search(s.pattern, n) for s in skips))
    if unknown:
        shown = ', '.join(unknown[:5]) + (', …' if len(unknown) > 5 else '')
        raise UserError(
            f'{origin} has {len(unknown)} tensor(s) that no ALBERT or BERT of its config has: '
            f'{shown}.'
        )


def _leaf(
    entries: Sequence[Entry],
    tensors: Mapping[str, Tensor],
    shape: tuple[int, ...],
    origin: str,
) -> np.ndarray:
    is_stacked = entries[0].layer_index is not None
    arrays: dict[int | None, np.ndarray] = {}
    first: dict[int | None, str] = {}
    for theirs, ours, index, is_transposed in entries:
        if theirs not in tensors:
            raise UserError(f'{origin} has no tensor {theirs}, which its config needs.')
        tensor = tensors[theirs]
        wanted = shape[is_stacked:]
        wanted = wanted[::-1] if is_transposed else wanted
        if tensor.shape != wanted:
            raise UserError(
                f'{origin}: the tensor {theirs} has the shape {list(tensor.shape)}; its config '
                f'says {list(wanted)}.'
            )
        if not tensor.dtype.startswith(('float', 'bfloat')):
            raise UserError(f'{origin}: the tensor {theirs} is of type {tensor.dtype}, not float.')
        array = tensor.read()
        array = np.ascontiguousarray(array.T if is_transposed else array, np.float32)
        if index in arrays and not np.array_equal(arrays[index], array, equal_nan=True):
            raise UserError(
                f'{origin}: {ours} is shared by its config, but {first[index]} and {theirs} '
                f'differ; delete the key albert_jax from config.json to read them as different '
                f'layers.'
            )
        arrays[index] = array
        first.setdefault(index, theirs)
    if not is_stacked:
        return arrays[None]
    return np.stack([arrays[index] for index in range(len(arrays))])


def to_theirs(table: Iterable[Entry], params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Their tensors of our parameters; entries of parts that are not there are left out."""
    leaves = {path: np.asarray(leaf) for path, leaf in flatten(params).items()}
    tensors = {}
    for theirs, ours, index, is_transposed in table:
        if ours not in leaves:
            continue
        array = leaves[ours] if index is None else leaves[ours][index]
        tensors[theirs] = np.ascontiguousarray(array.T if is_transposed else array)
    return tensors
