"""Which model this is, how large it is, and what it reached: what a page says of it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from albert_jax.interop.model_card import read_results
from albert_jax.interop.native import Pretrained
from albert_jax.model.paths import num_params
from albert_jax.training.metrics_file import METRICS_FILE, read_lines

# What is logged beside an evaluation's metrics.
_NO_METRICS = ('step', 'learning_rate', 'grad_norm', 'skipped_steps', 'speed')


def describe_model(model: Pretrained, origin: str) -> dict[str, Any]:
    """Kind, size, vocabulary and evaluation of a model, for JSON.

    Args:
      model: as it was read.
      origin: what it was read from; of a run, its folder.

    Raises:
      UserError: if the results of its evaluation are damaged.
    """
    config = model.config
    is_bert = config.sharing == 'none' and not config.use_embedding_projection
    return {
        'architecture': 'BERT' if is_bert else 'ALBERT',
        'parameters': num_params(model.own_params()),
        'layers': config.num_hidden_layers,
        'heads': config.num_attention_heads,
        'hidden_size': config.hidden_size,
        'vocabulary': model.tokenizer.vocab_size if model.tokenizer else 0,
        'step': model.step,
        'evaluation': _evaluation(Path(origin), model.step),
    }


def _evaluation(origin: Path, step: int) -> dict[str, float]:
    """The metrics on held-out examples or text at a step; empty where they are not known."""
    results = read_results(origin) or {}
    if not results and (origin / METRICS_FILE).is_file():
        lines = read_lines(origin / METRICS_FILE)
        evaluations = [x for x in lines if x.get('split') == 'validation' and x.get('step') == step]
        results = evaluations[-1] if evaluations else {}
    return _numbers(results)


def _numbers(results: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in results.items()
        if name not in _NO_METRICS and isinstance(value, int | float) and math.isfinite(value)
    }
