"""Section `data` of a config: where the text or the examples are."""

import dataclasses
from typing import Annotated, ClassVar

from albert_jax.cli.settings import LocalPath, Probability, Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainDataSettings(Settings):
    """The corpora of a pretraining."""

    SECTION: ClassVar[str] = 'data'

    path: Annotated[str, LocalPath, 'what python -m albert_jax.prepare has written'] = ''
    short_phase_path: Annotated[str, LocalPath, 'text of the short phase; empty: the same'] = ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneDataSettings(Settings):
    """The files of a task.

    Raises:
      UserError: if a value is impossible.
    """

    SECTION: ClassVar[str] = 'data'

    path: Annotated[str, LocalPath, 'folder with the published files, or tfds:NAME'] = ''
    train: Annotated[str, LocalPath, "a file in place of the folder's"] = ''
    validation: Annotated[str, LocalPath, "a file in place of the folder's"] = ''
    test: Annotated[str, LocalPath, "a file in place of the folder's"] = ''
    validation_fraction: Annotated[
        float, Probability, 'share of the training file that is held out as validation file'
    ] = 0.0
    vocabulary: Annotated[str, LocalPath, 'of a model from scratch without init_from'] = ''
    cache: Annotated[str, LocalPath, "folder of encoded examples; empty: the user's cache"] = ''
