"""What the encoder and the pretraining model compute."""

from flax import struct
from jaxtyping import Array, Float


@struct.dataclass
class PretrainingOutput:
    """Outputs of the encoder, the pooler and both pretraining heads, in float32.

    The lengths of axes: `length` tokens, `positions` masked tokens (all tokens if none were named),
    `hidden` and `vocab` of the config, and `layers` blocks of attention and feed-forward.
    """

    last_hidden_state: Float[Array, 'batch length hidden']
    pooled_output: Float[Array, 'batch hidden']
    mlm_logits: Float[Array, 'batch positions vocab']
    sop_logits: Float[Array, 'batch 2']
    # The projected embeddings and then every layer's output, before the final norm of models whose
    # norms stand before the sublayers; None unless asked for.
    hidden_states: Float[Array, 'layers_and_one batch length hidden'] | None = None
    # None unless asked for; with inner groups, every inner block of every layer in turn.
    attention_probs: Float[Array, 'layers batch heads length length'] | None = None


@struct.dataclass
class EncoderOutput:
    """Outputs of the encoder and the pooler, without heads."""

    # In the compute dtype.
    last_hidden_state: Float[Array, 'batch length hidden']
    # float32; zeros without the pooler.
    pooled_output: Float[Array, 'batch hidden']
    # The projected embeddings and then every layer's output, before the final norm if there is one,
    # in the compute dtype; None unless asked for.
    hidden_states: Float[Array, 'layers_and_one batch length hidden'] | None = None
    # None unless asked for; with inner groups, every inner block of every layer in turn.
    attention_probs: Float[Array, 'layers batch heads length length'] | None = None
