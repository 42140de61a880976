"""What earlier versions wrote under other names, so that their runs and checkpoints still load.

A checkpoint of an earlier version has `identity` where one of today has `resume_fingerprint`.
"""

from collections.abc import Mapping
from typing import Any

_OLD_FINGERPRINT = 'identity'
_SECTIONS: dict[str, str] = {'robust': 'finetuning'}
_FIELDS = {'distillation.words_from_teacher': 'distillation.init_embeddings_from_teacher'}
# Fields that are no longer part of the fingerprint.
_DROPPED = ('model.remat', 'model.attention')
# Fields that a fingerprint did not have, and what it meant.
_ABSENT = {
    'data.version': 1,
    'distillation.init_embeddings_from_teacher': False,
    'loop.patience': 0,
    'model.depth_adapter_rank': 0,
    'model.depth_embedding': False,
    'model.depth_norms': False,
    'model.embedding_initializer_range': None,
    'model.is_gated': False,
    'model.kernel_initializer': 'normal',
    'model.norm_placement': 'post',
    'model.num_coda_layers': 0,
    'model.num_loops': None,
    'model.num_prelude_layers': 0,
    'model.position_encoding': 'learned',
    'optimizer.muon_learning_rate': 0.02,
    'optimizer.muon_momentum': 0.95,
    'optimizer.muon_weight_decay': 0.0,
    'optimizer.num_decay_steps': 0,
    'task.generate_every': 0,
    'task.label_names': '',
    'task.label_smoothing': 0.1,
    'task.max_target_length': 128,
    'task.num_generated': 256,
    'task.source': 'source',
    'task.target': 'target',
    'task.word_column': 0,
}
# Parts of the stored state and of the parameters.
_STATE = {'metric_sums': 'window'}
_PARAMS = {'distillation': 'scaffold'}


def is_old(content: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's metadata was written with the old names."""
    return _OLD_FINGERPRINT in content


def fingerprint_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """The resume fingerprint in a checkpoint's metadata, under today's names."""
    if not is_old(content):
        return dict(content['resume_fingerprint'])
    sections: dict[str, Any] = content[_OLD_FINGERPRINT]
    return {_SECTIONS.get(name, name): fields for name, fields in sections.items()}


def flatten_fingerprint(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """Its values by `section.field`; a field that it lacks has the value that this meant."""
    named: dict[str, Any] = {}
    for section, fields in fingerprint.items():
        for name, value in fields.items():
            address = f'{section}.{name}'
            named[_FIELDS.get(address, address)] = value
    for address in _DROPPED:
        named.pop(address, None)
    absent = {a: value for a, value in _ABSENT.items() if a.partition('.')[0] in fingerprint}
    return absent | named


def stored_state(state: Mapping[str, Any], is_stored_old: bool) -> dict[str, Any]:
    """The parts of a training state under the names that they are stored with."""
    return _renamed(state, _STATE | _PARAMS) if is_stored_old else dict(state)


def stored_params(params: Mapping[str, Any], is_stored_old: bool) -> dict[str, Any]:
    """The parts of the parameters under the names that they are stored with."""
    return _renamed(params, _PARAMS) if is_stored_old else dict(params)


def todays_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a stored state under today's names."""
    return _renamed(state, {old: new for new, old in (_STATE | _PARAMS).items()})


def todays_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of stored parameters under today's names."""
    return _renamed(params, {old: new for new, old in _PARAMS.items()})


def _renamed(tree: Any, names: Mapping[str, str]) -> Any:
    """A tree with other keys: a part of the parameters has its moments in the optimizer's state."""
    if isinstance(tree, Mapping):
        return {names.get(key, key): _renamed(value, names) for key, value in tree.items()}
    if isinstance(tree, tuple):
        values = [_renamed(value, names) for value in tree]
        return type(tree)(*values) if hasattr(tree, '_fields') else tuple(values)
    if isinstance(tree, list):
        return [_renamed(value, names) for value in tree]
    return tree
