"""Hugging Face's config.json of an ALBERT or a BERT, and ours."""

import math
from collections.abc import Collection, Mapping
from typing import Any

from albert_jax.cli.errors import UserError
from albert_jax.cli.json_text import check_text, is_visible
from albert_jax.interop.head_formats import HEAD_FORMATS, KINDS_OF_SUFFIX
from albert_jax.model.config import AlbertConfig
from albert_jax.model.heads import HEADS, Head
from albert_jax.runs.task import TaskSettings

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
    'gelu_python_tanh': 'gelu_tanh',
    'gelu_accurate': 'gelu_tanh',
    'gelu_fast': 'gelu_tanh',
    'gelu': 'gelu_erf',
    'gelu_python': 'gelu_erf',
    'relu': 'relu',
}
# What else may be there and would make it another model, and the only value that is computed here.
# The last four are Google's, who mean other architectures by other values. All further fields have
# no effect on what an ALBERT or a BERT of theirs computes: they are of training and generation
# (use_cache, bos_token_id, chunk_size_feed_forward …), or of other architectures (pooler_type,
# summary_type …), but for those that are read elsewhere: tie_word_embeddings (`check_tied`),
# problem_type and id2label (`read_head`), classifier_dropout (`training_notes`).
_FIXED = {
    'position_embedding_type': 'absolute',
    'is_decoder': False,
    'is_encoder_decoder': False,
    'add_cross_attention': False,
    'pruned_heads': {},
    'net_structure_type': 0,
    'gap_size': 0,
    'num_memory_blocks': 0,
    'down_scale_factor': 1,
}
_REGRESSION = 'regression'
_CLASSIFIER_DROPOUT = {'albert': 'classifier_dropout_prob', 'bert': 'classifier_dropout'}
# What their config.json cannot say of ours; kept there under the key albert_jax.
_OURS_ONLY = (
    'sharing',
    'num_hidden_groups',
    'inner_group_num',
    'num_loops',
    'use_embedding_projection',
    'embedding_initializer_range',
    'kernel_initializer',
    'compute_dtype',
    'remat',
    'attention',
)
# The only values of ours that their architectures can compute.
_THEIRS = {
    'position_encoding': 'learned',
    'norm_placement': 'post',
    'is_gated': False,
    'num_prelude_layers': 0,
    'num_coda_layers': 0,
    'depth_adapter_rank': 0,
    'depth_norms': False,
    'depth_embedding': False,
}


def read_config(content: Mapping[str, Any], origin: str) -> AlbertConfig:
    """Our config of their config.json.

    Raises:
      UserError: if it is of another architecture, or of a variant that computes something else.
    """
    kind = content.get('model_type')
    if not isinstance(kind, str) or kind not in _DEFAULTS:
        raise UserError(
            f'{origin} is of the architecture {kind!r}; albert and bert can be read (model_type).'
        )
    for name, expected in _FIXED.items():
        if content.get(name) not in (None, expected):
            raise UserError(
                f'{origin}: {name} is {content[name]!r}; only {expected!r} can be read.'
            )
    fields = {name: content.get(name, value) for name, value in _DEFAULTS[kind].items()}
    activation = fields['hidden_act']
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
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


def write_config(
    config: AlbertConfig,
    head: Head | None,
    parts: tuple[str, ...],
    head_dropout: float | None = None,
) -> dict[str, Any]:
    """Their config.json of ours.

    Args:
      config: of the model.
      head: what it answers, if it is fine-tuned.
      parts: which of the pretraining model's optional parts there are.
      head_dropout: of the classifier's input in training; None where that is not known.

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
    if head and (problem_type := _problem_type(head)):
        content['problem_type'] = problem_type
    if head_dropout is not None:
        content[_CLASSIFIER_DROPOUT[kind]] = head_dropout
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
    if suffix not in KINDS_OF_SUFFIX:
        raise UserError(
            f'{origin} has the weights of a classifier, but its config.json names the architecture '
            f'{architectures[0]!r}; it must end in one of '
            f'{", ".join(KINDS_OF_SUFFIX)}.'
        )
    kind = _kind(content.get('problem_type'), suffix, num_outputs, origin)
    return Head(kind, _labels(content, num_outputs, origin) if HEADS[kind].has_labels else ())


def _kind(problem_type: Any, suffix: str, num_outputs: int, origin: str) -> str:
    """The kind of a head; problem_type says nothing of architectures with one kind only."""
    kinds = KINDS_OF_SUFFIX[suffix]
    if len(kinds) == 1 or problem_type is None:
        return kinds[0]
    of_problem = {HEAD_FORMATS[kind].problem_type: kind for kind in kinds}
    of_problem[_REGRESSION] = kinds[0]
    if not isinstance(problem_type, str) or problem_type not in of_problem:
        raise UserError(
            f'{origin}: problem_type is {problem_type!r}; it must be one of '
            f'{", ".join(map(str, of_problem))}, or not be there.'
        )
    kind = of_problem[problem_type]
    is_one_number = kind == kinds[0] and num_outputs == 1
    if is_one_number != (problem_type == _REGRESSION):
        raise UserError(
            f'{origin}: problem_type is {problem_type!r}, but the classifier has {num_outputs} '
            f'output(s); a regression has one, a single-label classification more.'
        )
    return kind


def _problem_type(head: Head) -> str | None:
    if head.kind == 'sequence_classification' and len(head.labels) == 1:
        return _REGRESSION
    return HEAD_FORMATS[head.kind].problem_type


def _labels(content: Mapping[str, Any], num_outputs: int, origin: str) -> tuple[str, ...]:
    """The names of the outputs; LABEL_0 and so on where they have none.

    Raises:
      UserError: if there are not as many as outputs, or one is no name.
    """
    given = content.get('id2label') or {f'{i}': f'LABEL_{i}' for i in range(num_outputs)}
    numbers = [str(index) for index in range(num_outputs)]
    if not isinstance(given, dict) or set(given) != set(numbers):
        named = f'{len(given)} labels' if isinstance(given, dict) else repr(given)
        raise UserError(
            f'{origin}: id2label has {named}, the classifier {num_outputs} outputs; it must be an '
            f'object with a label for each, from "0" on.'
        )
    return tuple(
        _label(given[number], f'{origin}: label {number} of id2label') for number in numbers
    )


def _label(given: Any, where: str) -> str:
    """A text, or a number or a truth value as a text: classes may be called so."""
    is_number = isinstance(given, int) or (isinstance(given, float) and math.isfinite(given))
    if not (isinstance(given, str) or is_number) or not is_visible(str(given)):
        raise UserError(f'{where} is {given!r}; it must be a name that can be seen.')
    return check_text(str(given), where)


def training_notes(content: Mapping[str, Any]) -> list[str]:
    """What config.json says of fine-tuning that is a setting of the run here, a sentence each."""
    name = _CLASSIFIER_DROPOUT[content['model_type']]
    value, ours = content.get(name), TaskSettings().head_dropout
    if value is None or value == ours:
        return []
    return [f'{name} is {value}; fine-tuning takes {ours}: see --config.task.head_dropout.']


def check_tied(content: Mapping[str, Any], names: Collection[str], origin: str) -> None:
    """Refuses a masked-LM head with a table of its own, which is not there.

    Args:
      content: of config.json.
      names: of the tensors.
      origin: what to call the source in messages.

    Raises:
      UserError: if it is not tied to the word embeddings, and has no copy of them to compare.
    """
    if content.get('tie_word_embeddings') in (None, True):
        return
    for prefix in ('predictions', 'cls.predictions'):
        has_head = {f'{prefix}.dense.weight', f'{prefix}.transform.dense.weight'} & set(names)
        if has_head and f'{prefix}.decoder.weight' not in names:
            raise UserError(
                f'{origin}: tie_word_embeddings is {content["tie_word_embeddings"]!r}, but there '
                f'is no {prefix}.decoder.weight; only true can be read.'
            )


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
