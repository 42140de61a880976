"""Small data sets that tensorflow-datasets itself writes and reads, as ArrayRecord."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
import tensorflow_datasets.text

tfds.disable_progress_bar()

# Examples by the name of their split.
Splits = Mapping[str, Sequence[Mapping[str, Any]]]


class SmallBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder of examples that are at hand; subclasses have a name."""

    VERSION = tfds.core.Version('1.0.0')

    def __init__(self, features: Mapping[str, Any], splits: Splits, folder: Path | str) -> None:
        self._features, self._splits = features, splits
        super().__init__(data_dir=folder, file_format='array_record')

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(self._features)
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager: Any) -> Mapping[str, Iterator]:
        return {name: iter(enumerate(rows)) for name, rows in self._splits.items()}

    def _generate_examples(self) -> Iterable:
        raise NotImplementedError


class SmallGlue(tensorflow_datasets.text.Glue, skip_registration=True):
    """GLUE's own builder, with its features, but for what it downloads."""

    name = 'glue'

    def __init__(self, config: str, splits: Splits, folder: Path | str) -> None:
        self._splits = splits
        super().__init__(config=config, data_dir=folder, file_format='array_record')

    def _split_generators(self, dl_manager: Any) -> Mapping[str, Iterator]:
        return {name: iter(enumerate(rows)) for name, rows in self._splits.items()}


def write(name: str, features: Mapping[str, Any], splits: Splits, folder: Path | str) -> str:
    """Writes a data set in a folder where TFDS then finds it.

    Args:
      name: of the data set, which no other that the process has written may have.
      features: as for a `FeaturesDict`.
      splits: their examples.
      folder: of data sets.

    Returns:
      The path to give in `data.path`.
    """
    builder = type(name, (SmallBuilder,), {'name': name}, skip_registration=True)
    builder(features, splits, folder).download_and_prepare()
    tfds.core.add_data_dir(folder)
    return f'tfds:{name}'


def write_glue(config: str, splits: Splits, folder: Path | str) -> str:
    """Writes some examples of a task of GLUE, as `write` does."""
    SmallGlue(config, splits, folder).download_and_prepare()
    tfds.core.add_data_dir(folder)
    return f'tfds:glue/{config}'
