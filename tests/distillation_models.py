"""A student, a teacher and random arrays that the tests of distillation share."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from albert_jax.runs.distillation import DistillationSettings
from tests import tiny

STUDENT = tiny.config(vocab_size=60, max_position_embeddings=16)
TEACHER = dataclasses.replace(
    STUDENT, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, sharing='none'
)
ALL_LOSSES = DistillationSettings(
    soft_weight=0.7, label_weight=0.4, hidden_weight=0.3, relation_weight=0.9, relation_heads=4
)
RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def on_device(*trees):
    return jax.tree.map(jnp.asarray, trees)
