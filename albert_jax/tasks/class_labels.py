"""Labels as files spell them: 1 and 1.0 are one class, True and true, a missing value is none."""

import collections
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence

from albert_jax.cli.errors import UserError
from albert_jax.cli.json_text import has_shape
from albert_jax.cli.notes import note
from albert_jax.tasks.numbers import number_of

_INTEGER = re.compile(r'\+?(-?\d+)(?:\.0+)?')
_TRUTHS = ('true', 'false')
# Spellings of a missing value that may also be the name of a class, and those that are never one.
_DOUBTFUL = ('nan', 'null', 'none', 'na', 'n/a')
_MISSING = ('NaN', '<NA>')


def known_label(label: str, labels: Sequence[str]) -> str | None:
    """The one of some labels that is meant: spelled the same, the same integer or truth value.

    Args:
      label: as a file has it.
      labels: of the task or the model.

    Returns:
      None if there is none, or more than one.
    """
    if label in labels:
        return label
    value = _value(label)
    same = [known for known in labels if value is not None and _value(known) == value]
    return same[0] if len(same) == 1 else None


def classes(places: Mapping[str, str], counts: Mapping[str, int], origin: str) -> dict[str, str]:
    """The class of each label of a training file for which no classes are named.

    Labels that are the same integer or truth value are one class. Notes tell of them, of classes
    that `note_alike` tells of, and of labels that may stand for a missing value.

    Args:
      places: 'FILE, line N' where each label is first, by the label.
      counts: examples of each label.
      origin: what to call the file in notes.

    Raises:
      UserError: if a label is a missing value, or truth values and 0 or 1 are all there is.
    """
    _check_truths(places, counts, origin)
    _check_missing(places, counts, origin)
    found = {label: label for label in places}
    by_value: dict[str, list[str]] = collections.defaultdict(list)
    for label in places:
        if (value := _value(label)) is not None:
            by_value[value].append(label)
    for value, same in by_value.items():
        if len(same) > 1:
            found |= dict.fromkeys(same, value)
            note(f'{origin}: the labels {_spellings(same, counts)} are one class, {value!r}.')
    of_classes: collections.Counter[str] = collections.Counter()
    for label, name in found.items():
        of_classes[name] += counts[label]
    note_alike(of_classes, origin)
    return found


def note_alike(counts: Mapping[str, int], origin: str, kind: str = 'label') -> None:
    """Notes classes that a reader may take for one, which they are not.

    They differ in their case only, or in what cannot be seen: the kind of a space, characters
    without a shape, and letters with an accent that are one character or two.

    Args:
      counts: examples of each class.
      origin: what to call their file.
      kind: what to call a class.
    """
    groups: dict[str, list[str]] = collections.defaultdict(list)
    for name in counts:
        groups[_seen(name).casefold()].append(name)
    for names in groups.values():
        if len(names) < 2:
            continue
        how, listed = 'differ in their case only', _spellings(names, counts)
        if len({name.casefold() for name in names}) > 1:
            are_same = len({_seen(name) for name in names}) == 1
            how = 'look the same' if are_same else 'look the same but for their case'
            # In escapes, so that the difference shows.
            listed = _spellings(names, counts, ascii)
        note(f'{origin}: the {kind}s {listed}, which {how}, are {len(names)} classes.')


def look_alike(name: str, names: Sequence[str]) -> str | None:
    """One of some names that looks the same as another name and is none of them."""
    return next((known for known in names if _seen(known) == _seen(name)), None)


def _seen(name: str) -> str:
    """A name without what cannot be seen of it."""
    shown = ''.join(x for x in name if x.isspace() or has_shape(x))
    return ' '.join(unicodedata.normalize('NFC', shown).split())


def _value(label: str) -> str | None:
    """What an integer is without zeros behind its point, or a truth value in lower case.

    Returns:
      None for any other label.
    """
    if label.casefold() in _TRUTHS:
        return label.casefold()
    match = _INTEGER.fullmatch(label)
    return match and ('0' if match[1] == '-0' else match[1])


def _spellings(
    labels: Sequence[str], counts: Mapping[str, int], spelled: Callable[[str], str] = repr
) -> str:
    return ', '.join(f'{spelled(label)} ({counts[label]} examples)' for label in labels)


def _check_truths(places: Mapping[str, str], counts: Mapping[str, int], origin: str) -> None:
    """Refuses one truth value that is spelled as a word and as a number.

    Beside other labels, as among answers to questions of all kinds, they are classes of their own,
    which a note tells.
    """
    truths = [label for label in places if _value(label) in _TRUTHS]
    numbers = [label for label in places if _value(label) in ('0', '1')]
    if not truths or not numbers:
        return
    if len(truths) + len(numbers) < len(places):
        both = _spellings([*truths, *numbers], counts)
        note(f'{origin}: the labels {both} are taken as different classes.')
        return
    raise UserError(
        f'{places[truths[0]]}: the label is {truths[0]!r}, but {numbers[0]!r} at '
        f'{places[numbers[0]]}; spell each class in one way, or name them all with '
        f'--config.task.labels=A,B.'
    )


def _check_missing(places: Mapping[str, str], counts: Mapping[str, int], origin: str) -> None:
    """Refuses labels that are missing values, and notes those that may be."""
    doubtful = [label for label in places if label.casefold() in _DOUBTFUL or label in _MISSING]
    others = [label for label in places if label not in doubtful]
    are_numbers = bool(others) and all(number_of(label) is not None for label in others)
    for label in doubtful:
        if label in _MISSING or (are_numbers and label.casefold() == 'nan'):
            raise UserError(
                f'{places[label]}: the label {label!r} is a missing value; remove the row or label '
                f'it, or name all classes with --config.task.labels=A,B if it is one of them.'
            )
        note(f'{origin}: the label {label!r} ({counts[label]} examples) is taken as a class.')
