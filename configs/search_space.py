"""What a search is made of: a space of parameters, and the fields of a config that follow."""

import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from albert_jax.cli.errors import UserError, raise_all
from configs.changes import FieldValue

SAMPLERS = ('tpe', 'grid')
PRUNERS = ('median', 'hyperband', 'none')
# More corners than these are not all visited.
_MOST_CORNERS = 256
# A name is the head of a column.
_NAME = re.compile(r'[A-Za-z][A-Za-z0-9_]*')

Parameters = Mapping[str, FieldValue]


@dataclasses.dataclass(frozen=True)
class Floats:
    """The numbers between two, both included.

    Args:
      low: smallest.
      high: largest.
      is_log: whether the logarithm is what is spread evenly.

    Raises:
      UserError: if there is no number between them, or a logarithm is not defined.
    """

    low: float
    high: float
    is_log: bool = False

    def __post_init__(self) -> None:
        _check_range(self.low, self.high, self.is_log, (int, float))

    @property
    def ends(self) -> tuple[FieldValue, ...]:
        """Its smallest and largest value."""
        return (float(self.low), float(self.high))


@dataclasses.dataclass(frozen=True)
class Integers:
    """The whole numbers between two, both included.

    Args:
      low: smallest.
      high: largest.
      is_log: whether the logarithm is what is spread evenly.

    Raises:
      UserError: if there is no number between them, or a logarithm is not defined.
    """

    low: int
    high: int
    is_log: bool = False

    def __post_init__(self) -> None:
        _check_range(self.low, self.high, self.is_log, (int,))

    @property
    def ends(self) -> tuple[FieldValue, ...]:
        """Its smallest and largest value."""
        return (self.low, self.high)


@dataclasses.dataclass(frozen=True, init=False)
class Choices:
    """Some values.

    Args:
      values: each once.

    Raises:
      UserError: if there is none, one occurs twice, or is of a type that no field has.
    """

    values: tuple[FieldValue, ...]

    def __init__(self, *values: FieldValue) -> None:
        object.__setattr__(self, 'values', values)
        if not values:
            raise UserError('Choices() has no values; give one or more.')
        for number, value in enumerate(values):
            if not isinstance(value, str | int | float):
                raise UserError(
                    f'Choices has {value!r}; a value is a text, a number, True or False.'
                )
            if value in values[:number]:
                raise UserError(f'Choices has {value!r} twice.')

    @property
    def ends(self) -> tuple[FieldValue, ...]:
        """All of its values: none is between others."""
        return self.values


Space = Mapping[str, Floats | Integers | Choices]


def _check_range(low: Any, high: Any, is_log: bool, kinds: tuple[type, ...]) -> None:
    for value in (low, high):
        if type(value) not in kinds or not math.isfinite(value):
            kind = 'finite number' if float in kinds else 'whole number'
            raise UserError(f'A range goes from {low!r} to {high!r}; {value!r} is no {kind}.')
    if low > high:
        raise UserError(f'A range goes from {low} to {high}, which is below it; turn them round.')
    if is_log and low <= 0:
        raise UserError(f'A range with is_log goes from {low}; it must begin above 0.')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """A search for the settings of a fine-tuning.

    Args:
      title: of the report.
      config: of the fine-tunings, FILE:NAME.
      space: what is searched, by names of one's own.
      fields: from a value of each parameter to fields of the config, as in `loop.num_steps`.
      metric: what the run's results.json has to have best.
      is_lower_better: whether a lower value of it is better.
      common: fields of all runs, those of `default` too.
      num_trials: how many; None for all combinations of a grid.
      sampler: tpe, the tree-structured Parzen estimator of Bergstra et al. (NIPS 2011), or grid,
        every combination of Choices once, the last parameter running fastest.
      pruner: which trials are stopped early: median, those whose best is worse than the median of
        the others at that point; hyperband, the worse half of a bracket at a quarter and a half of
        the training; none.
      seed: of the sampler.

    Raises:
      UserError: with all that is wrong.
    """

    title: str
    space: Space
    fields: Callable[[Parameters], Mapping[str, FieldValue]]
    metric: str
    is_lower_better: bool = False
    config: str = 'configs/finetune.py:mrpc'
    common: Mapping[str, FieldValue] = dataclasses.field(default_factory=dict)
    num_trials: int | None = None
    sampler: str = 'tpe'
    pruner: str = 'median'
    seed: int = 0

    def __post_init__(self) -> None:
        raise_all([UserError(sentence) for sentence in self._mistakes()])

    def _mistakes(self) -> Iterator[str]:
        if not self.space:
            yield 'The space of the search is empty; name one or more parameters.'
        for name, values in self.space.items():
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                yield f'A parameter is called {name!r}; a name has letters, digits and _ only.'
            if not isinstance(values, Floats | Integers | Choices):
                yield f'{name} is {values!r}; it must be Floats, Integers or Choices.'
            elif self.sampler == 'grid' and not isinstance(values, Choices):
                yield f'{name} is {type(values).__name__}; a grid has Choices only.'
        for name, value, allowed in (
            ('sampler', self.sampler, SAMPLERS),
            ('pruner', self.pruner, PRUNERS),
        ):
            if value not in allowed:
                yield f'The {name} is {value!r}; it must be one of {", ".join(allowed)}.'
        if self.num_trials is None and self.sampler != 'grid':
            yield 'num_trials is None, which is for a grid; say how many trials there are.'
        if self.num_trials is not None and not (_is_int(self.num_trials) and self.num_trials > 0):
            yield f'num_trials is {self.num_trials!r}; it must be a whole number above 0.'
        if not (_is_int(self.seed) and self.seed >= 0):
            yield f'seed is {self.seed!r}; it must be a whole number, 0 or above.'
        if not callable(self.fields):
            yield f'fields is {self.fields!r}; it must be a function of the parameters.'

    def corners(self) -> list[dict[str, FieldValue]]:
        """The ends of all ranges with one another; where those are too many, one after the other.

        For a grid, all of its combinations.
        """
        ends = {name: values.ends for name, values in self.space.items()}
        num_corners = math.prod(map(len, ends.values()))
        if self.sampler == 'grid' or num_corners <= _MOST_CORNERS:
            return [dict(zip(ends, values, strict=True)) for values in _product(ends)]
        first = {name: values[0] for name, values in ends.items()}
        others = [first | {name: value} for name in ends for value in ends[name][1:]]
        return [first, *others]


def _product(ends: Mapping[str, tuple[FieldValue, ...]]) -> Iterator[tuple[FieldValue, ...]]:
    return itertools.product(*ends.values())


def _is_int(value: Any) -> bool:
    return type(value) is int
