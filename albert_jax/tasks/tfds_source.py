"""GLUE and other data sets of texts through tensorflow-datasets: `tfds:glue/sst2`."""

from collections.abc import Iterator
from typing import Any

from albert_jax.cli.errors import UserError
from albert_jax.tasks.classification import TextExample, TextTask
from albert_jax.tasks.glue import GlueTask
from albert_jax.tasks.task import Task

# Features that TFDS names otherwise than the published files.
_GLUE_FEATURES = {
    'cola': ('sentence', None),
    'mrpc': ('sentence1', 'sentence2'),
    'mnli': ('premise', 'hypothesis'),
    'ax': ('premise', 'hypothesis'),
}

Splits = tuple[list[Any], dict[str, list[Any]], dict[str, list[Any]]]


def read(path: str, family: Task) -> Splits:
    """Training examples, and validation and test examples by the suffix of their metrics.

    Args:
      path: `tfds:NAME`.
      family: one of texts or pairs.

    Raises:
      UserError: if the data set cannot be opened, or the task is not one of texts.
    """
    name = path.removeprefix('tfds:')
    if not isinstance(family, TextTask):
        raise UserError(
            f'data.path is {path}; tasks of texts and pairs can be read from TFDS, '
            f'{family.settings.name} from its published files.'
        )
    import tensorflow_datasets as tfds
    import tensorflow_datasets.text  # registers the text data sets

    try:
        builder = tfds.builder(name)
        builder.download_and_prepare(file_format='array_record')
        split_names = list(builder.info.splits)
    except Exception as error:  # whatever TFDS raises, the answer is the same
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f'{path} cannot be opened: {reason}. Some data sets, GLUE among them, are unpacked by '
            f"TensorFlow: install the extra with pip install -e '.[tensorflow]'."
        ) from error

    def examples(split: str, is_training: bool, is_labelled: bool = True) -> list[Any]:
        source: Any = builder.as_data_source(split=split)  # pyright: ignore[reportCallIssue]
        rows = (source[index] for index in range(len(source)))
        found = list(_examples(rows, f'{path}:{split}', family, builder.info.features, is_training))
        if is_labelled:
            return found
        return [TextExample(e.where, e.key, e.first, e.second, None) for e in found]

    def named(prefix: str) -> dict[str, str]:
        """Splits by suffix: '' for the matched or only one."""
        found = [split for split in split_names if split.split('_')[0] == prefix]
        return {split.removeprefix(prefix).replace('_matched', ''): split for split in found}

    if 'train' not in split_names:
        raise UserError(f'{path} has no split train; it has {", ".join(split_names)}.')
    return (
        examples('train', True),
        {suffix: examples(split, False) for suffix, split in named('validation').items()},
        {suffix: examples(split, False, False) for suffix, split in named('test').items()},
    )


def _examples(
    rows: Iterator[dict[str, Any]], where: str, family: TextTask, features: Any, is_training: bool
) -> Iterator[TextExample]:
    if isinstance(family, GlueTask):
        default = (family.layout.first, family.layout.second)
        first, second = _GLUE_FEATURES.get(family.settings.name, default)
        label = 'label'
    else:
        settings = family.settings
        first, second, label = settings.text, settings.text_pair or None, settings.label
    for number, row in enumerate(rows):
        place = f'{where}, example {number}'
        for name in (first, second):
            if name and name not in row:
                raise UserError(f'{place} has no feature {name!r}; there are {", ".join(row)}.')
        value = _label(row.get(label), features.get(label), family)
        if value is None and is_training:
            raise UserError(f'{place} has no label.')
        yield TextExample(
            place, str(row.get('idx', number)), _text(row[first]),
            _text(row[second]) if second else None, value,
        )  # fmt: skip


def _text(value: Any) -> str:
    return value.decode('utf-8', 'replace') if isinstance(value, bytes) else str(value)


def _label(value: Any, feature: Any, family: TextTask) -> str | None:
    """The label as the published files have it; TFDS writes −1 for one that is not known."""
    if value is None:
        return None
    if family.is_regression:
        is_unknown = isinstance(family, GlueTask) and float(value) < 0
        return None if is_unknown else str(float(value))
    if int(value) < 0:
        return None
    has_names = family.labels is None or '0' not in family.labels
    return feature.int2str(int(value)) if has_names else str(int(value))
