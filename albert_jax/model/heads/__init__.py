"""The heads that fine-tuning puts on the encoder, a class each; `HEADS` has them by name."""

from albert_jax.model.heads.definition import HeadDefinition, Logits
from albert_jax.model.heads.registry import HEADS, Head

__all__ = ['HEADS', 'Head', 'HeadDefinition', 'Logits']
