"""Hugging Face's config.json of an ALBERT or a BERT, and ours."""

import json
from collections.abc import Mapping
from typing import Any

from albert_jax.cli.errors import UserError
from albert_jax.interop.head_formats import HEAD_FORMATS, KIND_OF_SUFFIX
from albert_jax.model.config import AlbertConfig
from albert_jax.model.heads import HEADS, Head

# What Hugging Face takes where config.json is silent.
_ALBERT_DEFAULTS = {
    'vocab_size': 30000,
    'embedding_size': 128,
    'hidden_size': 4096,
    'num_hidden_layers': 12,
    'num_hidden_groups': 1,
    'num_attention_heads': 64,
    'intermediate_size': 16384,
    'inner_group_num': 1,
    'hidden_act': 'gelu_new',
    'hidden_dropout_prob': 0.0,
    'attention_probs_dropout_prob': 0.0,
    'max_position_embeddings': 512,
    'type_vocab_size': 2,
    'initializer_range': 0.02,
    'layer_norm_eps': 1e-12,
}
_BERT_DEFAULTS = {
    name: value
    for name, value in _ALBERT_DEFAULTS.items()
    if name not in ('embedding_size', 'num_hidden_groups', 'inner_group_num')
} | {
    'vocab_size': 30522,
    'hidden_size': 768,
    'num_attention_heads': 12,
    'intermediate_size': 3072,
    'hidden_act': 'gelu',
    'hidden_dropout_prob': 0.1,
    'attention_probs_dropout_prob': 0.1,
}
_DEFAULTS = {'albert': _ALBERT_DEFAULTS, 'bert': _BERT_DEFAULTS}
# Their 'gelu' is the erf form, whatever Google's configs mean by the word.
_ACTIVATIONS = {
    'gelu_new': 'gelu_tanh',
    'gelu_pytorch_tanh': 'gelu_tanh',
    'gelu': 'gelu_erf',
    'gelu_python': 'gelu_erf',
    'relu': 'relu',
}
# What their config.json cannot say of ours; kept there under the key albert_jax.
_OURS_ONLY = (
    'sharing',
    'num_hidden_groups',
    'inner_group_num',
    'use_embedding_projection',
    'embedding_initializer_range',
    'kernel_initializer',
    'compute_dtype',
    'remat',
    'attention',
)
# The only values of ours that their architectures can compute.
_THEIRS = {'position_encoding': 'learned', 'norm_placement': 'post', 'is_gated': False}


def read_config(content: Mapping[str, Any], origin: str) -> AlbertConfig:
    """Our config of their config.json.

    Raises:
      UserError: if it is of another architecture, or of a variant that computes something else.
    """
    kind = content.get('model_type')
    if kind not in _DEFAULTS:
        raise UserError(
            f'{origin} is of the architecture {kind!r}; albert and bert can be read (model_type).'
        )
    for name, expected in (
        ('position_embedding_type', 'absolute'),
        ('is_decoder', False),
        ('add_cross_attention', False),
        ('tie_word_embeddings', True),
    ):
        if content.get(name, expected) != expected:
            raise UserError(
                f'{origin}: {name} is {content[name]!r}; only {expected!r} can be read.'
            )
    fields = {name: content.get(name, value) for name, value in _DEFAULTS[kind].items()}
    if fields['hidden_act'] not in _ACTIVATIONS:
        raise UserError(
            f'{origin}: hidden_act is {fields["hidden_act"]!r}; it must be one of '
            f'{", ".join(_ACTIVATIONS)}.'
        )
    fields['hidden_act'] = _ACTIVATIONS[fields['hidden_act']]
    if kind == 'bert':
        fields |= {
            'embedding_size': fields['hidden_size'],
            'sharing': 'none',
            'use_embedding_projection': False,
        }
    ours = content.get('albert_jax') or {}
    if not isinstance(ours, dict):
        raise UserError(f'{origin}: albert_jax is {ours!r}; it must be an object, or not be there.')
    fields |= {name: ours[name] for name in _OURS_ONLY if name in ours}
    try:
        config = AlbertConfig.from_dict(fields)
    except UserError as error:
        raise UserError(f'{origin}: {error}') from error
    _check_groups(config, origin)
    if kind == 'albert':
        implied = {
            'num_hidden_groups': num_groups(config),
            'inner_group_num': config.inner_group_num,
        }
        for name, value in implied.items():
            if content.get(name, _ALBERT_DEFAULTS[name]) != value:
                raise UserError(
                    f'{origin}: {name} is {content.get(name)}, but its key albert_jax implies '
                    f'{value}; delete that key to read the config as it stands.'
                )
    return config


def write_config(config: AlbertConfig, head: Head | None, parts: tuple[str, ...]) -> dict[str, Any]:
    """Their config.json of ours.

    Args:
      config: of the model.
      head: what it answers, if it is fine-tuned.
      parts: which of the pretraining model's optional parts there are.

    Raises:
      UserError: if they have no such architecture, or would choose other groups for some layer.
    """
    foreign = [
        f'{name}={getattr(config, name)}'
        for name, value in _THEIRS.items()
        if getattr(config, name) != value
    ]
    if foreign:
        raise UserError(
            f'Hugging Face has no ALBERT or BERT with {" and ".join(foreign)}; convert to '
            f'albert_jax, or use albert_jax.export.'
        )
    _check_groups(config, 'the model')
    kind = model_type(config)
    ours = config.to_dict()
    content = {name: ours[name] for name in _DEFAULTS[kind]}
    names = {ours_name: theirs for theirs, ours_name in reversed(_ACTIVATIONS.items())}
    content['hidden_act'] = names[config.hidden_act]
    if kind == 'albert':
        content['num_hidden_groups'] = num_groups(config)
    content |= {
        'architectures': [f'{kind.capitalize()}{_architecture(head, parts)}'],
        'model_type': kind,
        'dtype': 'float32',
        'pad_token_id': 0,
        'albert_jax': {name: ours[name] for name in _OURS_ONLY},
    }
    if head and head.labels:
        content['id2label'] = {str(index): label for index, label in enumerate(head.labels)}
        content['label2id'] = {label: index for index, label in enumerate(head.labels)}
    return dict(sorted(content.items()))


def _architecture(head: Head | None, parts: tuple[str, ...]) -> str:
    if head is not None:
        if head.kind not in HEAD_FORMATS:
            raise UserError(f'Hugging Face has no {head.name} head; convert to albert_jax.')
        return HEAD_FORMATS[head.kind].hugging_face_suffix
    if 'mlm' not in parts:
        return 'Model'
    return 'ForPreTraining' if {'sentence', 'pooler'} <= set(parts) else 'ForMaskedLM'


def read_head(content: Mapping[str, Any], num_outputs: int, origin: str) -> Head:
    """The head of a fine-tuned model, by the name of its architecture.

    Raises:
      UserError: if that is none that has such a head.
    """
    architectures = content.get('architectures') or ['']
    suffix = str(architectures[0]).removeprefix('Albert').removeprefix('Bert')
    if suffix not in KIND_OF_SUFFIX:
        raise UserError(
            f'{origin} has the weights of a classifier, but its config.json names the architecture '
            f'{architectures[0]!r}; it must end in one of '
            f'{", ".join(KIND_OF_SUFFIX)}.'
        )
    given = content.get('id2label') or {}
    labels = tuple(str(given.get(str(i), f'LABEL_{i}')) for i in range(num_outputs))
    kind = KIND_OF_SUFFIX[suffix]
    return Head(kind, labels if HEADS[kind].has_labels else ())


def model_type(config: AlbertConfig) -> str:
    """'bert' for a model that BERT is, 'albert' for all the others."""
    is_bert = (
        config.sharing == 'none'
        and not config.use_embedding_projection
        and config.inner_group_num == 1
    )
    return 'bert' if is_bert else 'albert'


def num_groups(config: AlbertConfig) -> int:
    """How many groups their ALBERT needs: one a layer, if ours does not share everything."""
    return config.num_hidden_groups if config.sharing == 'all' else config.num_hidden_layers


def _check_groups(config: AlbertConfig, origin: str) -> None:
    """Refuses the few sizes for which their rounding of the group's number is another."""
    layers, groups = config.num_hidden_layers, num_groups(config)
    for layer in range(layers):
        if int(layer / (layers / groups)) != layer * groups // layers:
            raise UserError(
                f'{origin}: with {layers} layers in {groups} groups Hugging Face takes another '
                f'group than ALBERT for layer {layer}; choose num_hidden_groups among the divisors '
                f'of num_hidden_layers.'
            )


def parse(text: str, origin: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
      UserError: if it is none.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f'{origin} is not JSON: {error}.') from error
    if not isinstance(content, dict):
        raise UserError(f'{origin} is not a JSON object.')
    return content
