"""ALBERT (A Lite BERT, arXiv 1909.11942) in JAX and Flax: pretrain, ablate, fine-tune and ship.

    import albert_jax

    model = albert_jax.load('albert-base-v2')
    model.fill_mask('The [MASK] barked.')

The public names are loaded when first used, so that importing the package costs nothing.
"""

import importlib as _importlib
import sys as _sys
import typing as _typing

if _typing.TYPE_CHECKING:
    from albert_jax.cli.errors import UserError
    from albert_jax.data.tokenizer import Tokenizer
    from albert_jax.model.albert import PretrainingModel
    from albert_jax.model.config import AlbertConfig
    from albert_jax.tasks.loaded import LoadedModel, load

__version__ = '0.1.0'
__all__ = ['AlbertConfig', 'LoadedModel', 'PretrainingModel', 'Tokenizer', 'UserError', 'load']

_HOMES = {
    'AlbertConfig': 'albert_jax.model.config',
    'LoadedModel': 'albert_jax.tasks.loaded',
    'PretrainingModel': 'albert_jax.model.albert',
    'Tokenizer': 'albert_jax.data.tokenizer',
    'UserError': 'albert_jax.cli.errors',
    'load': 'albert_jax.tasks.loaded',
}


def __getattr__(name: str) -> _typing.Any:
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    if 'jax' not in _sys.modules:
        from albert_jax.cli.libtpu import silence_without_chips

        silence_without_chips()
    if name == 'load':
        from albert_jax.cli.compiled import keep_programs

        keep_programs()
    return getattr(_importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, '__version__', '__doc__']
