"""A run of a config file and the command line: what is derived, and all that is wrong at once."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from albert_jax.cli import config_file
from albert_jax.cli.config_file import Config
from albert_jax.cli.errors import UserError, is_about, raise_all
from albert_jax.cli.notes import note
from albert_jax.cli.sections import flatten_sections
from albert_jax.runs.runs import DistillRun, FinetuneRun, PretrainRun

_NUM_STEPS = 'loop.num_steps'
# Parts of a run that a config has as shares of its length.
_SHARES = ('optimizer.warmup_steps', 'optimizer.num_decay_steps', 'pretraining.short_phase_steps')
_EVERY = ('loop.eval_every', 'loop.checkpoint_every')

RunT = TypeVar('RunT', PretrainRun, FinetuneRun, DistillRun)


def read_run(
    kind: type[RunT],
    argument: str,
    overrides: Sequence[str],
    missing: Callable[[RunT], Sequence[UserError]] = lambda run: (),
) -> RunT:
    """The run that a command is given.

    Args:
      kind: of the run.
      argument: of --config, FILE.py:NAME.
      overrides: --config.FIELD=VALUE, each.
      missing: what the run needs and is not there.

    Raises:
      UserError: with all that is wrong with the config and the command line.
    """
    config = config_file.read(argument, overrides)
    notes = _derive(config)
    reading = kind.read(config.values)
    run = reading.settings
    # A field whose value could not be set still has the config's.
    unset = [str(error).partition(' ')[0].removeprefix('--config.') for error in config.errors]
    found = list(_unrelated(reading.errors, unset))
    found += _unrelated(missing(run), [*unset, *reading.wrong])
    # What two checks have found is told once.
    raise_all(list({str(error): error for error in [*config.errors, *found]}.values()))
    for text in notes:
        note(text)
    return run


def _unrelated(errors: Sequence[UserError], addresses: Sequence[str]) -> Iterator[UserError]:
    """The errors that do not follow from the fields at these addresses."""
    parts = (part for error in errors for part in error.parts)
    return (part for part in parts if not any(is_about(part, x) for x in addresses))


def _derive(config: Config) -> list[str]:
    """Fits what the command line leaves to the config to what it sets; a note for each change.

    A warm-up, a decay or a short phase that would not fit into a shorter run keeps its share of
    it; of two intervals that would not be multiples, the one that is not given follows the other.
    """
    parent, values = flatten_sections(config.parent), flatten_sections(config.values)
    changes = _shares(config, parent, values) | _intervals(config, values)
    for address, (value, _) in changes.items():
        section, _, name = address.rpartition('.')
        config.values[section][name] = value
    return [text for _, text in changes.values()]


def _shares(
    config: Config, parent: dict[str, Any], values: dict[str, Any]
) -> dict[str, tuple[int, str]]:
    before, num_steps = parent.get(_NUM_STEPS), values.get(_NUM_STEPS)
    if _NUM_STEPS not in config.given or not (_is_count(before) and _is_count(num_steps)):
        return {}
    parts = {name: values[name] for name in _SHARES if _is_count(values.get(name))}
    warmup, decay, short = (parts.get(name, 0) for name in _SHARES)
    if warmup + decay <= num_steps and max(warmup, short) < num_steps:
        return {}
    return {
        name: (
            part * num_steps // before,
            f'{name} is {part * num_steps // before}: as large a share of {_NUM_STEPS} '
            f'({num_steps}) as in {config.argument} ({part} of {before}).',
        )
        for name, part in parts.items()
        if name not in config.given and part
    }


def _intervals(config: Config, values: dict[str, Any]) -> dict[str, tuple[int, str]]:
    free = [name for name in _EVERY if name not in config.given]
    if len(free) != 1 or not all(_is_count(values.get(name)) for name in (*_EVERY, _NUM_STEPS)):
        return {}
    intervals: list[int] = [values[name] for name in _EVERY]
    shorter, longer = sorted(intervals)
    if not longer % shorter or longer >= values[_NUM_STEPS]:
        return {}
    (name,), (given,) = free, [name for name in _EVERY if name not in free]
    step = values[given]
    value = step * max(values[name] // step, 1)
    return {
        name: (
            value,
            f'{name} is {value}, so that one of it and {given} ({step}) is a multiple of the '
            f'other; {config.argument} has {values[name]}.',
        )
    }


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0
