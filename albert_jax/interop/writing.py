"""How a model from text to text writes: as it was evaluated in the run that trained it."""

from typing import NamedTuple

from albert_jax.cli.errors import UserError
from albert_jax.data.target_text import special_ids
from albert_jax.interop.native import Pretrained
from albert_jax.model.decoding import SpecialIds
from albert_jax.model.decoding_settings import DecodingSettings
from albert_jax.runs.task import TaskSettings


class Writing(NamedTuple):
    """What decoding needs beside the model and its parameters."""

    special: SpecialIds
    settings: DecodingSettings
    # Tokens of a source, [CLS] and [SEP] among them; in its training, more were cut.
    max_length: int
    # Tokens of a text, its end among them.
    max_new_tokens: int


def writing_of(model: Pretrained) -> Writing:
    """How a model writes.

    Raises:
      UserError: if it has no vocabulary, or its run's settings are impossible.
    """
    if model.tokenizer is None:
        raise UserError('The model has no vocabulary.')
    task = model.run_section(TaskSettings) or TaskSettings()
    positions = model.config.max_position_embeddings
    return Writing(
        special_ids(model.tokenizer, model.config.vocab_size),
        model.run_section(DecodingSettings) or DecodingSettings(),
        min(task.max_length, positions),
        # Its start is a token of the target, but no new one.
        min(task.max_target_length, positions) - 1,
    )
