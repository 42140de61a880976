"""The forward pass of a fine-tuned model: encoder, dropout, head.

Training, prediction, distillation, attribution, export and the service all call this one.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from albert_jax.model.albert import PretrainingModel
from albert_jax.model.config import AlbertConfig
from albert_jax.model.dropout import make_dropout
from albert_jax.model.heads import Head, Logits
from albert_jax.model.losses import Batch
from albert_jax.model.outputs import EncoderOutput


class FinetunedOutput(NamedTuple):
    """The head's logits, and what the encoder was asked to show."""

    logits: Logits
    # The projected embeddings and then every layer's output, in the compute dtype.
    hidden_states: Float[Array, 'layers_and_one batch length hidden'] | None
    attention_probs: Float[Array, 'layers batch heads length length'] | None


@dataclasses.dataclass(frozen=True)
class FinetunedModel:
    """An encoder with a head, as a function of its parameters and a batch.

    Args:
      config: of the encoder.
      head: what the model answers; its parameters are under `head`.
      head_dropout: rate of the dropout of the classifier's inputs, in training.
    """

    config: AlbertConfig
    head: Head
    head_dropout: float = 0.0

    def __call__(
        self,
        params: PyTree,
        batch: Batch,
        *,
        is_training: bool = False,
        dropout_key: Key[Array, ''] | None = None,
        perturbation: Float[Array, 'batch length embedding'] | None = None,
        return_hidden_states: bool = False,
        return_attentions: bool = False,
    ) -> FinetunedOutput:
        """Runs the model.

        Args:
          params: with the parts `embeddings`, `encoder`, `head`, and `pooler` if the head reads it.
          batch: `input_ids`, `attention_mask` (in each row ones and then zeros) and
            `token_type_ids`; `example_ids` to choose each example's dropout masks (0, 1, … if left
            out); and what the head reads.
          is_training: the head gives the logits that its loss wants, and may read the targets.
          dropout_key: None for no dropout.
          perturbation: added to the word embeddings.
          return_hidden_states: also return the projected embeddings and every layer's output.
          return_attentions: also return every layer's attention probabilities.

        Raises:
          ValueError: if the sequence is longer than `max_position_embeddings`.
        """
        example_ids = batch.get('example_ids')
        if example_ids is None:
            example_ids = jnp.arange(batch['input_ids'].shape[0])
        definition = self.head.definition
        encoded: Any = PretrainingModel(self.config).apply(
            {'params': params},
            batch['input_ids'],
            batch['attention_mask'],
            batch['token_type_ids'],
            example_ids=example_ids,
            deterministic=dropout_key is None,
            rngs=None if dropout_key is None else {'dropout': dropout_key},
            perturbation=perturbation,
            return_hidden_states=return_hidden_states,
            return_attentions=return_attentions,
            use_pooler=definition.uses_pooler,
            is_right_padded=True,
            method=PretrainingModel.encode,
        )
        assert isinstance(encoded, EncoderOutput)
        head_key = None if dropout_key is None else jax.random.fold_in(dropout_key, 1)
        logits = definition.apply(
            params['head'],
            encoded.last_hidden_state.astype(jnp.float32),
            encoded.pooled_output,
            batch,
            make_dropout(self.head_dropout, head_key, example_ids),
            is_training,
        )
        return FinetunedOutput(logits, encoded.hidden_states, encoded.attention_probs)
