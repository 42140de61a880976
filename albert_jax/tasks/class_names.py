"""What classes are called where files have codes for them: negative and positive for 0 and 1."""

from collections.abc import Mapping, Sequence

from albert_jax.cli.errors import UserError
from albert_jax.cli.json_text import is_visible
from albert_jax.runs.task import TaskSettings


def named_labels(settings: TaskSettings) -> tuple[str, ...]:
    """The labels in `task.labels`; none if it is empty. A comma may stand behind the last one.

    Raises:
      UserError: if one is empty, or there twice.
    """
    labels = [label.strip() for label in settings.labels.split(',')]
    if not labels[-1]:
        labels.pop()
    for number, label in enumerate(labels, 1):
        if not is_visible(label):
            raise UserError(
                f'task.labels is {settings.labels!r}, whose label {number} is empty; give each '
                f'class a name.'
            )
    if len(set(labels)) < len(labels):
        raise UserError(f'task.labels is {settings.labels!r}, which names a class twice.')
    return tuple(labels)


def class_names(
    settings: TaskSettings, labels: Sequence[str] | None, known: Sequence[str] = ()
) -> dict[str, str]:
    """The name of each class by its label in files; empty where the labels are the names.

    Args:
      settings: of the task; its `label_names` are taken before those that are known.
      labels: of the task, in order; None where the training file has them.
      known: names of the labels of a published task.

    Raises:
      UserError: if there are names for other labels than the task's, or one is another's label.
    """
    names = settings.named or tuple(known)
    if not names:
        return {}
    if labels is None:
        raise UserError(
            f'task.label_names is {settings.label_names!r}, but task.labels is empty; say which '
            f"class each is the name of, with the file's labels in the same order, as in "
            f'--config.task.labels=0,1.'
        )
    if len(names) != len(labels):
        raise UserError(
            f'task.label_names names {len(names)} classes; {settings.name} has {len(labels)}: '
            f'{", ".join(labels)}.'
        )
    found = dict(zip(labels, names, strict=True))
    for label, name in found.items():
        if name != label and name in labels:
            raise UserError(
                f'task.label_names calls the class {label!r} {name!r}, which is the label of '
                f'another one; choose another name.'
            )
    return found


def listed(labels: Sequence[str], names: Mapping[str, str]) -> str:
    """Labels with their names, for messages: `0 (negative), 1 (positive)`."""
    return ', '.join(
        f'{label} ({names[label]})' if names.get(label, label) != label else label
        for label in labels
    )
