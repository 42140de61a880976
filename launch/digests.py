"""What a run is, in one number: whether a stage that has begun is still the same run."""

import dataclasses
from typing import Any

from albert_jax.cli.settings import Settings, declared
from albert_jax.data.dataset import fingerprint
from albert_jax.runs.runs import FinetuneRun, PretrainRun

# Fields that configs did not have when version 0.1.0 wrote the records of its stages.
_NEW_MODEL_FIELDS = (
    ('model', 'depth_adapter_rank'),
    ('model', 'depth_embedding'),
    ('model', 'depth_norms'),
    ('model', 'embedding_initializer_range'),
    ('model', 'is_gated'),
    ('model', 'kernel_initializer'),
    ('model', 'norm_placement'),
    ('model', 'num_coda_layers'),
    ('model', 'num_loops'),
    ('model', 'num_prelude_layers'),
    ('model', 'position_encoding'),
)
_NEW_OPTIMIZER_FIELDS = (
    ('optimizer', 'muon_learning_rate'),
    ('optimizer', 'muon_momentum'),
    ('optimizer', 'muon_weight_decay'),
    ('optimizer', 'num_decay_steps'),
)
_NEW_PRETRAIN_FIELDS = (
    ('', 'continue_training'),
    ('loop', 'patience'),
    ('loop', 'tracker'),
    ('pretraining', 'final_masked_fraction'),
    ('pretraining', 'eval_masked_fraction'),
    *_NEW_MODEL_FIELDS,
    *_NEW_OPTIMIZER_FIELDS,
)
_NEW_FINETUNE_FIELDS = (
    ('loop', 'max_skipped_in_a_row'),
    ('loop', 'tracker'),
    ('optimizer', 'l1'),
    ('optimizer', 'power'),
    ('optimizer', 'num_cycles'),
    ('', 'decoder'),
    ('', 'decoding'),
    ('task', 'generate_every'),
    ('task', 'label_names'),
    ('task', 'label_smoothing'),
    ('task', 'max_target_length'),
    ('task', 'num_generated'),
    ('task', 'source'),
    ('task', 'target'),
    ('task', 'word_column'),
    *_NEW_MODEL_FIELDS,
    *_NEW_OPTIMIZER_FIELDS,
)


def run_digest(run: Settings, **more: str) -> str:
    """The digest of a run's differences from the defaults, which a new field does not change.

    Args:
      run: of a stage.
      more: what else decides its result.
    """
    return fingerprint({'differences': differences(run), **more})


def differences(settings: Settings) -> dict[str, Any]:
    """The fields that differ from their defaults, those of sections included."""
    result: dict[str, Any] = {}
    for field in declared(type(settings)):
        value = getattr(settings, field.name)
        if isinstance(value, Settings):
            inner = differences(value)
            if inner:
                result[field.name] = inner
        elif value != field.default:
            result[field.name] = value
    return result


def pretrain_digest_before(run: PretrainRun, **more: str) -> str:
    """The digest that version 0.1.0 gave a pretraining: of every field that it had."""
    return fingerprint(_without(run, _NEW_PRETRAIN_FIELDS) | more)


def finetune_digest_before(run: FinetuneRun) -> str:
    """The digest that version 0.1.0 gave a fine-tuning."""
    content = _without(run, _NEW_FINETUNE_FIELDS)
    content['robust'] = content.pop('finetuning')
    return fingerprint(content)


def _without(run: Settings, fields: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    content = dataclasses.asdict(run)
    for section, name in fields:
        settings = getattr(run, section) if section else run
        values = content[section] if section else content
        defaults = {field.name: field.default for field in declared(type(settings))}
        # A run with another value is none of that version's.
        if getattr(settings, name) == defaults[name]:
            del values[name]
    return content
