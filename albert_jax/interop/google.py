"""Checkpoints of google-research/albert: TensorFlow 1 variables, and its TF-Hub modules."""

import functools
import glob
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from albert_jax.cli.errors import UserError, first_line
from albert_jax.cli.json_text import parse_object
from albert_jax.data.hub_tokenizer import AnyTokenizer
from albert_jax.interop import huggingface_tokenizer
from albert_jax.interop.head_formats import HEAD_FORMATS
from albert_jax.interop.native import Pretrained, with_tokenizer
from albert_jax.interop.table import Entry, Skip, Tensor, to_ours
from albert_jax.model.config import AlbertConfig
from albert_jax.model.heads import HEADS, Head

_SKIPS = (
    Skip(r'(^|/)(adam|lamb)_[mv]$', "the optimizer's moments"),
    Skip(r'^global_step$', 'a counter'),
)
# A norm that Keras has numbered: scope, number and parameter.
_KERAS_NORM = re.compile(r'^(.*/)layer_normalization(?:_(\d+))?/(.*)$')
_PROJECTION = 'bert/encoder/embedding_hidden_mapping_in'
# Their word for the tanh form, which is the only one that they have, is 'gelu'.
_ACTIVATIONS = {'gelu': 'gelu_tanh', 'relu': 'relu'}
# Fields of theirs that have no counterpart, and the only value that means what we compute.
_FIXED = {
    'net_structure_type': 0,
    'gap_size': 0,
    'num_memory_blocks': 0,
    'down_scale_factor': 1,
    'directionality': 'bidi',
    'ln_type': 'postln',
}
_NEEDED = (
    'vocab_size',
    'hidden_size',
    'num_hidden_layers',
    'num_attention_heads',
    'intermediate_size',
)
_SHARED_FIELDS = (
    'vocab_size',
    'embedding_size',
    'hidden_size',
    'num_hidden_layers',
    'num_hidden_groups',
    'num_attention_heads',
    'intermediate_size',
    'inner_group_num',
    'hidden_dropout_prob',
    'attention_probs_dropout_prob',
    'max_position_embeddings',
    'type_vocab_size',
    'initializer_range',
)


def _dense(theirs: str, ours: str, index: int | None = None) -> Iterator[Entry]:
    yield Entry(f'{theirs}/kernel', f'{ours}/kernel', index)
    yield Entry(f'{theirs}/bias', f'{ours}/bias', index)


def _norm(theirs: str, ours: str, index: int | None = None) -> Iterator[Entry]:
    yield Entry(f'{theirs}/gamma', f'{ours}/scale', index)
    yield Entry(f'{theirs}/beta', f'{ours}/bias', index)


def _classifier(prefix: str, ours: str) -> Iterator[Entry]:
    yield Entry(f'{prefix}output_weights', f'{ours}/kernel', is_transposed=True)
    yield Entry(f'{prefix}output_bias', f'{ours}/bias')


def table(config: AlbertConfig) -> Iterator[Entry]:
    """Google's names of an ALBERT (docs/REFERENCE.md, 5)."""
    for name in ('word', 'position', 'token_type'):
        yield Entry(f'bert/embeddings/{name}_embeddings', f'embeddings/{name}/embedding')
    yield from _norm('bert/embeddings/LayerNorm', 'embeddings/layer_norm')
    if config.use_embedding_projection:
        yield from _dense(_PROJECTION, 'embeddings/projection')
    is_stacked = config.num_unique_attention_layers > 1
    for group in range(config.num_hidden_groups):
        for inner in range(config.inner_group_num):
            theirs = f'bert/encoder/transformer/group_{group}/inner_group_{inner}'
            index = group * config.inner_group_num + inner if is_stacked else None
            ours = 'encoder/layer'
            for name in ('query', 'key', 'value'):
                yield from _dense(
                    f'{theirs}/attention_1/self/{name}', f'{ours}/attention/{name}', index
                )
            yield from _dense(
                f'{theirs}/attention_1/output/dense', f'{ours}/attention/output', index
            )
            yield from _norm(f'{theirs}/LayerNorm', f'{ours}/attention/layer_norm', index)
            ffn = f'{theirs}/ffn_1/intermediate'
            yield from _dense(f'{ffn}/dense', f'{ours}/ffn/intermediate', index)
            yield from _dense(f'{ffn}/output/dense', f'{ours}/ffn/output', index)
            yield from _norm(f'{theirs}/LayerNorm_1', f'{ours}/ffn/layer_norm', index)
    yield from _dense('bert/pooler/dense', 'pooler')
    yield from _dense('cls/predictions/transform/dense', 'mlm/transform')
    yield from _norm('cls/predictions/transform/LayerNorm', 'mlm/layer_norm')
    yield Entry('cls/predictions/output_bias', 'mlm/bias')
    yield from _classifier('cls/seq_relationship/', 'sentence')


def checkpoints(path: Path) -> list[Path]:
    """The TensorFlow checkpoints in a directory, without the ending `.index`."""
    indices = [*path.glob('*.index'), *path.glob('variables/variables.index')]
    prefixes = sorted(file.with_suffix('') for file in indices)
    return [p for p in prefixes if any(p.parent.glob(f'{glob.escape(p.name)}.data-*'))]


def read(prefix: Path, vocabulary: Path | None = None) -> Pretrained:
    """The model of a TensorFlow checkpoint; parts that it lacks are left out.

    Args:
      prefix: the checkpoint, without the ending `.index`.
      vocabulary: a file to use in place of the `.model` beside it.

    Raises:
      UserError: if TensorFlow is not installed, or the checkpoint cannot be read, or its config
        and its tensors disagree.
    """
    directory = prefix.parent
    if prefix.name == 'variables' and directory.name == 'variables':
        directory = directory.parent
    content, config_file = _config_of(directory)
    tensors = _canonical(_open(prefix))
    config = _read_config(content, f'{_PROJECTION}/kernel' in tensors, str(config_file))
    entries, head, num_outputs = list(table(config)), None, 0
    for kind, layout in HEAD_FORMATS.items():
        scope = layout.google_scope
        weights = None if scope is None else tensors.get(f'{scope}output_weights')
        if scope is not None and weights is not None and len(weights.shape) == 2:
            num_outputs = weights.shape[0]
            labels = [f'LABEL_{index}' for index in range(num_outputs)]
            head = Head(kind, tuple(labels) if HEADS[kind].has_labels else ())
            entries += _classifier(scope, 'head')
    params, notes = to_ours(entries, tensors, _SKIPS, config, str(prefix), num_outputs)
    tokenizer = _tokenizer_of(directory, vocabulary)
    model = Pretrained(config, params, None, head, notes=tuple(notes))
    return with_tokenizer(model, tokenizer, str(directory)) if tokenizer else model


def _config_of(directory: Path) -> tuple[dict[str, Any], Path]:
    files = [*directory.glob('*.json'), *directory.glob('assets/*.json')]
    parsed = {}
    for file in sorted(files):
        if file.is_file() and '"num_hidden_layers"' in file.read_text('utf-8', 'replace'):
            parsed[file] = parse_object(file.read_text('utf-8', 'replace'), str(file))
    configs = list(parsed)
    if len(configs) != 1:
        raise UserError(
            f'{directory} has {len(configs)} JSON files that describe a model; put the '
            f'albert_config.json of the checkpoint there, and no other.'
        )
    return parsed[configs[0]], configs[0]


def _read_config(content: Mapping[str, Any], has_projection: bool, origin: str) -> AlbertConfig:
    if 'embedding_size' not in content:
        raise UserError(
            f"{origin} has no embedding_size: it is a BERT's; of Google's checkpoints ALBERT's "
            f'can be read, and BERT in the format of Hugging Face.'
        )
    missing = [name for name in _NEEDED if name not in content]
    if missing:
        raise UserError(f'{origin} lacks {", ".join(missing)}.')
    known = {*_SHARED_FIELDS, *_FIXED, 'hidden_act'}
    unknown = [n for n in content if n not in known and not n.startswith('pooler_')]
    if unknown:
        raise UserError(
            f'{origin} has fields that google-research/albert does not have: {", ".join(unknown)}.'
        )
    for name, expected in _FIXED.items():
        if content.get(name, expected) != expected:
            raise UserError(f'{origin}: {name} is {content[name]!r}; only {expected} can be read.')
    activation = content.get('hidden_act', 'gelu')
    if activation not in _ACTIVATIONS:
        raise UserError(
            f'{origin}: hidden_act is {activation!r}; it must be one of {", ".join(_ACTIVATIONS)}.'
        )
    fields = {name: content[name] for name in _SHARED_FIELDS if name in content}
    fields |= {
        'hidden_act': _ACTIVATIONS[activation],
        'use_embedding_projection': has_projection,
    }
    try:
        return AlbertConfig.from_dict(fields)
    except UserError as error:
        raise UserError(f'{origin}: {error}') from error


def _tokenizer_of(directory: Path, vocabulary: Path | None) -> AnyTokenizer | None:
    if vocabulary is not None:
        return huggingface_tokenizer.from_vocabulary(vocabulary)
    # The Chinese models have WordPiece vocabularies.
    files = [
        file
        for ending in ('model', 'txt')
        for place in (f'*.{ending}', f'assets/*.{ending}')
        for file in sorted(directory.glob(place))
        if ending == 'model' or '\n[CLS]\n' in file.read_text('utf-8', 'replace')
    ]
    if len(files) > 1:
        raise UserError(
            f'{directory} has several vocabularies ({", ".join(f.name for f in files)}); name one '
            f'with --vocabulary.'
        )
    return huggingface_tokenizer.from_file(files[0], {}) if files else None


def _open(prefix: Path) -> dict[str, Tensor]:
    try:
        import tensorflow as tf
    except ImportError as error:
        raise UserError(
            f"{prefix} is a TensorFlow checkpoint, which needs the extra 'tensorflow': install it "
            f"with pip install -e '.[tensorflow]'."
        ) from error
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        shapes = reader.get_variable_to_shape_map()
        dtypes = reader.get_variable_to_dtype_map()
    except Exception as error:  # TensorFlow has many kinds
        raise UserError(
            f'{prefix} cannot be read as a TensorFlow checkpoint: {first_line(error)}.'
        ) from error

    return {
        name: Tensor(
            tuple(shape), dtypes[name].name, functools.partial(_read_tensor, reader, name, prefix)
        )
        for name, shape in shapes.items()
    }


def _read_tensor(reader: Any, name: str, prefix: Path) -> np.ndarray:
    """One tensor of TensorFlow's reader of a checkpoint."""
    try:
        return np.asarray(reader.get_tensor(name))
    except Exception as error:  # TensorFlow has many kinds
        raise UserError(
            f'{prefix}: the tensor {name} cannot be read: {first_line(error)}.'
        ) from error


def _canonical(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without TF-Hub's prefix, and with the release's names for the norms of forks.

    Keras numbers the norms of the whole graph: `layer_normalization_7` is the first or the second
    norm of its block by the order of the numbers. (The norms of albert#241, `group_0_9/layer_9/…`,
    differ from layer to layer: that is another model, and its tensors are refused.)
    """
    names = {name.removeprefix('module/'): tensor for name, tensor in tensors.items()}
    norms: dict[str, set[int]] = {}
    for name in names:
        if match := _KERAS_NORM.match(name):
            norms.setdefault(match[1], set()).add(int(match[2] or 0))
    return {_rename_norm(name, norms): tensor for name, tensor in names.items()}


def _rename_norm(name: str, norms: Mapping[str, set[int]]) -> str:
    """The release's name of a Keras norm; any other name as it is.

    Args:
      name: of a tensor.
      norms: numbers of the norms of each block.
    """
    match = _KERAS_NORM.match(name)
    if match is None:
        return name
    order = sorted(norms[match[1]]).index(int(match[2] or 0))
    return f'{match[1]}LayerNorm{f"_{order}" if order else ""}/{match[3]}'
