"""GLUE and other data sets of texts through tensorflow-datasets: `tfds:glue/sst2`."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from albert_jax.cli.errors import UserError, first_line
from albert_jax.tasks.task import Task


class Splits(NamedTuple):
    """Training examples, and validation and test examples by the suffix of their metrics."""

    train: list[Any]
    validation: dict[str, list[Any]]
    test: dict[str, list[Any]]


def read(path: str, task: Task) -> Splits:
    """The examples of a data set.

    Args:
      path: `tfds:NAME`.
      task: one of texts or pairs.

    Raises:
      UserError: if the data set cannot be opened, or the task cannot be read from TFDS.
    """
    if not task.reads_tfds:
        raise UserError(
            f'data.path is {path}; tasks of texts and pairs can be read from TFDS, '
            f'{task.settings.name} from its published files.'
        )
    import tensorflow_datasets as tfds
    import tensorflow_datasets.text  # registers the text data sets

    try:
        builder = tfds.builder(path.removeprefix('tfds:'))
        builder.download_and_prepare(file_format='array_record')
        split_names = list(builder.info.splits)
    except Exception as error:  # whatever TFDS raises, the answer is the same
        raise UserError(
            f'{path} cannot be opened: {first_line(error)}. Some data sets, GLUE among them, '
            f"are unpacked by TensorFlow: install the extra with pip install -e '.[tensorflow]'."
        ) from error
    if 'train' not in split_names:
        raise UserError(f'{path} has no split train; it has {", ".join(split_names)}.')
    validation, test = (_by_suffix(split_names, prefix) for prefix in ('validation', 'test'))
    return Splits(
        _examples(path, builder, 'train', task, is_training=True),
        {suffix: _examples(path, builder, split, task) for suffix, split in validation.items()},
        {
            suffix: _examples(path, builder, split, task, is_labelled=False)
            for suffix, split in test.items()
        },
    )


def _by_suffix(split_names: Sequence[str], prefix: str) -> dict[str, str]:
    """The splits of a kind by the suffix of their metrics: '' for the matched or only one."""
    splits = [split for split in split_names if split.split('_')[0] == prefix]
    return {split.removeprefix(prefix).replace('_matched', ''): split for split in splits}


def _examples(
    path: str,
    builder: Any,
    split: str,
    task: Task,
    is_training: bool = False,
    is_labelled: bool = True,
) -> list[Any]:
    rows, features = builder.as_data_source(split=split), builder.info.features
    return [
        task.from_tfds(
            rows[index],
            features,
            f'{path}:{split}, example {index}',
            str(index),
            is_training,
            is_labelled,
        )
        for index in range(len(rows))
    ]
