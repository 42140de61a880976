"""Distillation: `configs/distill.py:NAME`, a student that learns from a teacher.

    python -m albert_jax.distill --config=configs/distill.py:sst2+small --workdir=runs/student \
        --config.teacher=runs/sst2 --config.data.path=GLUE/SST-2

NAME is a task of configs/finetune.py or a name of configs/pretrain.py (raw text). Behind it:

- TASK: the student is --config.init_from, or random with --config.model.size and other fields.
- TASK+small: a random ALBERT of 2.8 M parameters with the teacher's vocabulary of 30,000 pieces.
- mini, base, …: the model of that name, on what python -m albert_jax.prepare has written.
"""

from ml_collections import ConfigDict

from albert_jax.runs.defaults import defaults
from albert_jax.runs.runs import DistillRun, TeacherFields
from configs import finetune, pretrain


def get_config(name: str = 'sst2+small') -> ConfigDict:
    """The config of a task or of a pretraining, with a teacher."""
    base, plus, student = name.partition('+')
    if base.partition('@')[0] in pretrain.NAMES:
        config = pretrain.get_config(name)
    else:
        if plus and student != 'small':
            raise ValueError(f'there is no student {student!r}; there is +small.')
        config = _task(base)
        if student:
            _make_small(config)
    config.update(defaults(TeacherFields))
    return config


def _task(name: str) -> ConfigDict:
    config = finetune.get_config(name)
    # A student is random where init_from is empty.
    for field in DistillRun.DERIVED_FIELDS:
        del config[field]
    return config


def _make_small(config: ConfigDict) -> None:
    config.model.size = 'albert_base'
    config.model.embedding_size = 64
    config.model.hidden_size = 256
    config.model.num_hidden_layers = 6
    config.model.num_attention_heads = 8
    config.model.intermediate_size = 1024
    # Random weights want larger steps.
    config.optimizer.learning_rate = 5e-4
    config.optimizer.bias_correction = True
