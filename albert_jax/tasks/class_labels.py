"""Labels as files spell them: 1 and 1.0 are one class, and a missing value is none."""

import re
from collections.abc import Mapping, Sequence

from albert_jax.cli.errors import UserError
from albert_jax.cli.notes import note

_INTEGER = re.compile(r'([+-]?\d+)(?:\.0+)?')
# Spellings of a missing value that may also be the name of a class, and those that are never one.
_DOUBTFUL = ('nan', 'null', 'none', 'na', 'n/a')
_MISSING = ('NaN', '<NA>')


def known_label(label: str, labels: Sequence[str]) -> str | None:
    """The one of some labels that is meant: spelled the same, or the same integer.

    Args:
      label: as a file has it.
      labels: of the task or the model.

    Returns:
      None if there is none, or more than one.
    """
    if label in labels:
        return label
    number = _integer(label)
    same = [known for known in labels if number is not None and _integer(known) == number]
    return same[0] if len(same) == 1 else None


def classes(places: Mapping[str, str], counts: Mapping[str, int], origin: str) -> dict[str, str]:
    """The class of each label of a training file for which no classes are named.

    Labels that are the same integer are one class. Notes tell of them, and of labels that may
    stand for a missing value.

    Args:
      places: 'FILE, line N' where each label is first, by the label.
      counts: examples of each label.
      origin: what to call the file in notes.

    Raises:
      UserError: if a label is a missing value, or truth values and numbers are mixed.
    """
    truths = [label for label in places if label.casefold() in ('true', 'false')]
    numbers = [label for label in places if _integer(label) in ('0', '1')]
    if truths and numbers:
        raise UserError(
            f'{places[truths[0]]}: the label is {truths[0]!r}, but {numbers[0]!r} at '
            f'{places[numbers[0]]}; spell each class in one way, or name them all with '
            f'--config.task.labels=A,B.'
        )
    _check_missing(places, counts, origin)
    found = {label: label for label in places}
    for number in {_integer(label) for label in places} - {None}:
        same = [label for label in places if _integer(label) == number]
        if len(same) > 1:
            found |= dict.fromkeys(same, str(number))
            spellings = ', '.join(f'{label!r} ({counts[label]} examples)' for label in same)
            note(f'{origin}: the labels {spellings} are one class, {str(number)!r}.')
    return found


def _integer(label: str) -> str | None:
    """The number without zeros behind its point; None if it is no integer."""
    match = _INTEGER.fullmatch(label)
    return match and match[1]


def _check_missing(places: Mapping[str, str], counts: Mapping[str, int], origin: str) -> None:
    """Refuses labels that are missing values, and notes those that may be."""
    doubtful = [label for label in places if label.casefold() in _DOUBTFUL or label in _MISSING]
    others = [label for label in places if label not in doubtful]
    are_numbers = bool(others) and all(map(_is_number, others))
    for label in doubtful:
        if label in _MISSING or (are_numbers and label.casefold() == 'nan'):
            raise UserError(
                f'{places[label]}: the label {label!r} is a missing value; remove the row or label '
                f'it, or name all classes with --config.task.labels=A,B if it is one of them.'
            )
        note(f'{origin}: the label {label!r} ({counts[label]} examples) is taken as a class.')


def _is_number(label: str) -> bool:
    try:
        float(label)
    except ValueError:
        return False
    return True
