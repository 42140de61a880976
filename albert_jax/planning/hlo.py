"""What a compiled program does, read from its text: collectives, estimated cycles, kernels.

XLA's own `cost_analysis` counts the body of a loop once. Here the loops' trip counts are read from
their conditions, and what is inside is multiplied.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Mapping

_COMPUTATION = re.compile(r'^(?:ENTRY )?%(?P<name>[\w.\-]+) \(.*\{$')
_INSTRUCTION = re.compile(r'^\s+(?:ROOT )?%[\w.\-]+ = (?P<rest>.*)$')
_ARRAY = re.compile(r'\b(pred|[a-z]+\d+)\[([\d,]*)\]')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_CALLED = re.compile(
    r'\b(?:body|to_apply|calls|true_computation|false_computation|called_computations)='
    r'\{?(%[\w.\-]+(?:, %[\w.\-]+)*)'
)
_BRANCHES = re.compile(r'branch_computations=\{([^}]*)\}')
_CONDITION = re.compile(r'\bcondition=%([\w.\-]+)')
_TRIP_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CONSTANT = re.compile(r'%([\w.\-]+) = s32\[\][^ ]* constant\((\d+)\)')
_COMPARE = re.compile(r'compare\(.*%([\w.\-]+)\), direction=LT')
_KERNEL = 'custom_call_target="tpu_custom_call"'
COLLECTIVES = (
    'all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute',
)  # fmt: skip
_CONTEXT_BYTES = 4
# The compiler writes this where it has no estimate.
_NO_ESTIMATE = 2**63


@dataclasses.dataclass(frozen=True)
class Program:
    """Totals of one execution on one device."""

    # By kind: how many times, and the bytes of the full arrays that they gather or reduce.
    num_collectives: dict[str, int]
    collective_bytes: dict[str, int]
    # By kind and element type, as in ('all-reduce', 'f32').
    bytes_by_type: dict[tuple[str, str], int]
    # The compiler's estimate; it has none for kernels written in Pallas.
    estimated_cycles: int
    num_kernel_calls: int
    # Trip counts of the loops, each as often as it is in the program.
    trip_counts: tuple[int, ...]


def analyse(text: str) -> Program:
    """Reads a compiled program.

    Args:
      text: what `jax.stages.Compiled.as_text` returns.

    Raises:
      ValueError: if a loop's trip count cannot be read, or there is no entry computation.
    """
    computations, entry = _computations(text)
    if entry is None:
        raise ValueError('The text is no compiled program: it has no ENTRY.')
    totals = _Totals(computations)
    totals.add(entry, times=1, is_fused=False)
    by_kind: Counter[str] = Counter()
    for (kind, _), size in totals.sizes.items():
        by_kind[kind] += size
    return Program(
        dict(totals.counts), dict(by_kind), dict(totals.sizes),
        totals.cycles, totals.num_kernel_calls, tuple(totals.trip_counts),
    )  # fmt: skip


class _Totals:
    """What the computations of a program add up to, each as often as it runs."""

    def __init__(self, computations: Mapping[str, list[str]]) -> None:
        self._computations = computations
        self.counts: Counter[str] = Counter()
        self.sizes: Counter[tuple[str, str]] = Counter()
        self.cycles = self.num_kernel_calls = 0
        self.trip_counts: list[int] = []

    def add(self, name: str, times: int, is_fused: bool) -> None:
        """Adds a computation and all that it calls.

        Args:
          name: of the computation.
          times: how often it runs.
          is_fused: whether it is inside a fusion, whose estimate includes it.
        """
        for line in self._computations.get(name, ()):
            operation = _operation(line)
            kind = operation.removesuffix('-start')
            estimate = _CYCLES.search(line)
            if estimate and not is_fused and int(estimate[1]) < _NO_ESTIMATE:
                self.cycles += times * int(estimate[1])
            if kind in COLLECTIVES:
                self.counts[kind] += times
                for element_type, size in _full_arrays(line, kind):
                    self.sizes[kind, element_type] += times * size
            if _KERNEL in line:
                self.num_kernel_calls += times
            if operation == 'while':
                trip_count = _trip_count(line, self._computations)
                self.trip_counts.append(trip_count)
                for called in _called(line):
                    self.add(called, times * trip_count, is_fused)
            elif kind not in COLLECTIVES and 'reduce' not in operation:
                for called in _called(line):
                    self.add(called, times, is_fused or operation == 'fusion')


def _computations(text: str) -> tuple[dict[str, list[str]], str | None]:
    computations: dict[str, list[str]] = {}
    entry = name = None
    for line in text.splitlines():
        start = _COMPUTATION.match(line)
        if start:
            name = start['name']
            computations[name] = []
            entry = name if line.startswith('ENTRY') else entry
        elif name is not None:
            instruction = _INSTRUCTION.match(line)
            if instruction:
                computations[name].append(line.strip())
    return computations, entry


def _operation(line: str) -> str:
    """The operation of an instruction, which stands after its shape."""
    rest = line.partition(' = ')[2]
    rest = rest[_closing(rest) + 1 :] if rest.startswith('(') else rest.partition(' ')[2]
    match = re.match(r'\s*([a-z][a-z0-9\-]*)\(', rest)
    return match[1] if match else ''


def _closing(text: str) -> int:
    depth = 0
    for index, letter in enumerate(text):
        depth += (letter == '(') - (letter == ')')
        if depth == 0:
            return index
    return len(text) - 1


def _full_arrays(line: str, kind: str) -> list[tuple[str, int]]:
    """Element type and bytes of every full array that a collective gathers or reduces."""
    rest = line.partition(' = ')[2]
    shape = rest[: _closing(rest) + 1] if rest.startswith('(') else rest.partition(' ')[0]
    arrays = [
        (element_type, math.prod(int(n) for n in dims.split(',') if n) * _num_bytes(element_type))
        for element_type, dims in _ARRAY.findall(shape)
    ]
    if '-start(' in line and kind != 'all-reduce':
        # Operands and results stand side by side, and small numbers of the runtime after them.
        while len(arrays) > 2 and arrays[-1][1] <= _CONTEXT_BYTES:
            arrays.pop()
        half = len(arrays) // 2
        return arrays[:half] if kind == 'reduce-scatter' else arrays[half:]
    if kind == 'reduce-scatter':
        size = _group_size(line)
        arrays = [(element_type, num_bytes * size) for element_type, num_bytes in arrays]
    return arrays


def _group_size(line: str) -> int:
    explicit = re.search(r'replica_groups=\{\{([\d,]*)\}', line)
    if explicit:
        return explicit[1].count(',') + 1
    listed = re.search(r'replica_groups=\[(\d+),(\d+)\]', line)
    if listed:
        return int(listed[2])
    named = re.search(r'replica_groups=mesh\[(.*?)\] \{(.*?)\}', line)
    if named:
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
        return math.prod(int(sizes[name]) for name in re.findall(r"'(\w+)'", named[2]))
    raise ValueError(f'The group of a collective cannot be read: {line[:200]}')


def _num_bytes(element_type: str) -> int:
    if element_type == 'pred':
        return 1
    digits = re.search(r'\d+', element_type)
    assert digits is not None
    return max(int(digits[0]) // 8, 1)


def _called(line: str) -> list[str]:
    names = [name for group in _CALLED.findall(line) for name in group.split(', ')]
    for group in _BRANCHES.findall(line):
        names += group.split(', ')
    return [name.removeprefix('%') for name in names]


def _trip_count(line: str, computations: Mapping[str, list[str]]) -> int:
    known = _TRIP_COUNT.search(line)
    if known:
        return int(known[1])
    condition = _CONDITION.search(line)
    lines = computations.get(condition[1], []) if condition else []
    constants = {name: n for text in lines for name, n in _CONSTANT.findall(text)}
    for text in lines:
        compared = _COMPARE.search(text)
        if compared and compared[1] in constants:
            return int(constants[compared[1]])
    raise ValueError(f'The trip count of a loop cannot be read: {line[:200]}')
