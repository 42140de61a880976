"""ALBERT (A Lite BERT, arXiv 1909.11942) in JAX and Flax: pretrain, ablate, fine-tune and ship.

The public names are loaded when first used, so that importing the package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from albert_jax.cli.errors import UserError
    from albert_jax.data.tokenizer import Tokenizer
    from albert_jax.interop.source import load
    from albert_jax.model.albert import PretrainingModel
    from albert_jax.model.config import AlbertConfig

__version__ = '0.1.0'
__all__ = ['AlbertConfig', 'PretrainingModel', 'Tokenizer', 'UserError', 'load']

_HOMES = {
    'AlbertConfig': 'albert_jax.model.config',
    'PretrainingModel': 'albert_jax.model.albert',
    'Tokenizer': 'albert_jax.data.tokenizer',
    'UserError': 'albert_jax.cli.errors',
    'load': 'albert_jax.interop.source',
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(_HOMES[name]), name)
