"""Data sets of tensorflow-datasets, read by index: no TensorFlow is needed for what is prepared."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from albert_jax.cli.errors import UserError, first_line

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

# An example: value by the name of its feature.
Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A data set that is prepared; `open_data_set` makes it.

    Args:
      where: `tfds:NAME`, for messages.
      builder: of tensorflow-datasets.
    """

    where: str
    builder: 'tfds.core.DatasetBuilder'

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits.

        Under `tfds.testing.mock_data` without metadata none is known, and TFDS takes any name.
        """
        return tuple(self.builder.info.splits) or ('train', 'validation', 'test')

    def feature(self, name: str, advice: str) -> 'tfds.features.FeatureConnector':
        """A feature by its name.

        Args:
          name: of the feature.
          advice: what to do if there is none: the end of a sentence.

        Raises:
          UserError: if there is none.
        """
        features = cast('tfds.features.FeaturesDict', self.builder.info.features)
        if name not in features:
            raise UserError(
                f'{self.where} has no feature {name!r}; there are {", ".join(sorted(features))}; '
                f'{advice}.'
            )
        return features[name]

    def check_text(self, name: str, advice: str) -> None:
        """Refuses a feature that is not there, or holds no texts.

        Raises:
          UserError: see above.
        """
        feature = self.feature(name, advice)
        if scalar_kind(feature) != 'text':
            raise UserError(
                f'{self.where}: the feature {name!r} is {describe(feature)}, which is no text; '
                f'{advice}.'
            )

    def rows(self, split: str) -> Iterator[tuple[str, Row]]:
        """The examples of a split in order, each with what to call it in messages.

        Args:
          split: a name, or what else TFDS takes, such as `train[:10%]`.

        Raises:
          UserError: if there is no such split, or it cannot be read.
        """
        try:
            source = self.builder.as_data_source(split=split)  # pyright: ignore[reportCallIssue]
            count = len(source)
        except NotImplementedError as error:
            raise UserError(
                f'{self.where} is prepared in {self.builder.data_dir} in a format that cannot be '
                f'read by index; convert it to array_record, for example with python -m '
                f'tensorflow_datasets.scripts.convert_format, or remove that folder.'
            ) from error
        except Exception as error:  # whatever TFDS and ArrayRecord raise, the answer is the same
            raise UserError(
                f'The split {split} of {self.where} cannot be opened: {first_line(error)}.'
            ) from error
        for index in range(count):
            where = f'{self.where}:{split}, example {index}'
            try:
                row = source[index]
            except Exception as error:
                raise UserError(
                    f'{where} cannot be read ({first_line(error)}); prepare the data set again.'
                ) from error
            yield where, row


def open_data_set(name: str) -> DataSet:
    """A data set by its name, downloaded and prepared if it is not there.

    Args:
      name: as TFDS has it, such as glue/sst2.

    Raises:
      UserError: if there is none, or it cannot be prepared.
    """
    import tensorflow_datasets as tfds
    import tensorflow_datasets.text  # registers the text data sets

    try:
        builder = tfds.builder(name)
        builder.download_and_prepare(file_format='array_record')
    except Exception as error:  # whatever TFDS raises, the answer is the same
        raise UserError(
            f'tfds:{name} cannot be opened: {first_line(error)}. Some data sets, GLUE among them, '
            f"are unpacked by TensorFlow: install the extra with pip install -e '.[tensorflow]'."
        ) from error
    return DataSet(f'tfds:{name}', builder)


def scalar_kind(feature: 'tfds.features.FeatureConnector') -> str | None:
    """What a feature holds, if it is one value: 'class', 'text', 'bool', 'int' or 'float'."""
    import tensorflow_datasets as tfds

    # A FeaturesDict, a Sequence or a Dataset is no Tensor; images and encoded texts have a shape.
    if not isinstance(feature, tfds.features.Tensor) or feature.shape != ():
        return None
    if isinstance(feature, tfds.features.ClassLabel) and feature.num_classes is not None:
        return 'class'
    dtype = dtype_of(feature)
    if dtype.kind in 'OSU':
        return 'text'
    if dtype.kind == 'b':
        return 'bool'
    if dtype.kind in 'iu':
        return 'int'
    # NumPy gives bfloat16, which is not its own, the kind V.
    return 'float' if dtype.kind == 'f' or dtype.name == 'bfloat16' else None


def dtype_of(feature: 'tfds.features.FeatureConnector') -> np.dtype:
    """The type of the values of a feature that is one tensor."""
    return np.dtype(cast('Any', feature.np_dtype))


def describe(feature: 'tfds.features.FeatureConnector') -> str:
    """A feature in few words, for messages: `Image(shape=(28, 28, 1), dtype=uint8)`."""
    kind, shape = type(feature).__name__, feature.shape
    if isinstance(shape, tuple):
        return f'{kind}(shape={shape}, dtype={dtype_of(feature).name})'
    return kind


def scalar(value: Any) -> Any:
    """The value of a scalar feature as Python has it; None where there is none."""
    return value.item() if isinstance(value, np.ndarray | np.generic) else value


def decode_text(value: Any, where: str, name: str) -> str:
    """The text of a feature.

    Args:
      value: of the example.
      where: what to call the example in messages.
      name: of the feature.

    Raises:
      UserError: if there is none, or it is not UTF-8.
    """
    text = scalar(value)
    if text is None:
        raise UserError(f'{where} has no {name}.')
    try:
        return text.decode('utf-8') if isinstance(text, bytes) else str(text)
    except UnicodeDecodeError as error:
        raise UserError(
            f'{where}: {name} is not UTF-8 (byte {text[error.start]:#04x} at position '
            f'{error.start + 1}).'
        ) from error
