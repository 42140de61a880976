"""Section `data` of a config: where the text or the examples are."""

import dataclasses
from typing import Annotated, ClassVar

from albert_jax.cli.settings import Probability, Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainDataSettings(Settings):
    """The corpora of a pretraining."""

    SECTION: ClassVar[str] = 'data'

    path: Annotated[str, 'what python -m albert_jax.prepare has written'] = ''
    short_phase_path: Annotated[str, 'text of the short phase; empty: the same'] = ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneDataSettings(Settings):
    """The files of a task.

    Raises:
      UserError: if a value is impossible.
    """

    SECTION: ClassVar[str] = 'data'

    path: Annotated[str, 'folder with the published files, or tfds:NAME'] = ''
    train: Annotated[str, "a file in place of the folder's"] = ''
    validation: Annotated[str, "a file in place of the folder's"] = ''
    test: Annotated[str, "a file in place of the folder's"] = ''
    validation_fraction: Annotated[
        float, Probability, 'share of the training file that is held out as validation file'
    ] = 0.0
    vocabulary: Annotated[str, 'of a model from scratch without init_from'] = ''
    cache: Annotated[str, "folder of encoded examples; empty: the user's cache"] = ''
