"""Directories of Hugging Face transformers, read and written: config, safetensors, tokenizer."""

import functools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  # gives NumPy the type bfloat16
import numpy as np
import safetensors
from safetensors.numpy import save_file

from albert_jax.cli.errors import UserError
from albert_jax.cli.json_text import parse_object
from albert_jax.data.predicate import INPUT_OF_ROLES, NO_ROLE
from albert_jax.interop import huggingface_config as configs
from albert_jax.interop import huggingface_tokenizer as tokenizers
from albert_jax.interop.head_formats import HEAD_FORMATS
from albert_jax.interop.native import OPTIONAL_PARTS, Pretrained, with_tokenizer
from albert_jax.interop.table import Entry, Skip, Tensor, to_ours, to_theirs
from albert_jax.model.config import AlbertConfig
from albert_jax.runs.task import TaskSettings

_PICKLES = ('*.bin', '*.pt', '*.pth', '*.ckpt', '*.h5', '*.msgpack', '*.ot')
_INDEX = 'model.safetensors.index.json'
_SKIPS = (
    Skip(r'(^|\.)embeddings\.(position_ids|token_type_ids)$', 'the numbers 0, 1, …, not weights'),
    Skip(r'^(cls\.)?predictions\.decoder\.(weight|bias)$', 'tied; checked to be the same'),
)
_PROJECTION = 'encoder.embedding_hidden_mapping_in'


def _dense(theirs: str, ours: str, index: int | None = None) -> Iterator[Entry]:
    yield Entry(f'{theirs}.weight', f'{ours}/kernel', index, is_transposed=True)
    yield Entry(f'{theirs}.bias', f'{ours}/bias', index)


def _norm(theirs: str, ours: str, index: int | None = None) -> Iterator[Entry]:
    yield Entry(f'{theirs}.weight', f'{ours}/scale', index)
    yield Entry(f'{theirs}.bias', f'{ours}/bias', index)


def _embeddings() -> Iterator[Entry]:
    for name in ('word', 'position', 'token_type'):
        yield Entry(f'embeddings.{name}_embeddings.weight', f'embeddings/{name}/embedding')
    yield from _norm('embeddings.LayerNorm', 'embeddings/layer_norm')


def _unique_layers(config: AlbertConfig) -> Iterator[tuple[int, int, int | None, int | None]]:
    """Their group and inner group, and the index of our attention and feed-forward there."""
    groups = configs.num_groups(config)
    first_layers = [-(-group * config.num_hidden_layers // groups) for group in range(groups)]
    attention = config.unique_layer_indices(config.num_unique_attention_layers)
    ffn = config.unique_layer_indices(config.num_unique_ffn_layers)
    for group, layer in enumerate(first_layers):
        for inner in range(config.inner_group_num):
            yield (
                group,
                inner,
                attention[layer][inner] if config.num_unique_attention_layers > 1 else None,
                ffn[layer][inner] if config.num_unique_ffn_layers > 1 else None,
            )


def albert_table(config: AlbertConfig) -> Iterator[Entry]:
    """Hugging Face's names of an ALBERT, without the prefix `albert.` (docs/REFERENCE.md, 5)."""
    yield from _embeddings()
    if config.use_embedding_projection:
        yield from _dense(_PROJECTION, 'embeddings/projection')
    for group, inner, attention, ffn in _unique_layers(config):
        theirs = f'encoder.albert_layer_groups.{group}.albert_layers.{inner}'
        ours = 'encoder/layer'
        for name in ('query', 'key', 'value'):
            yield from _dense(f'{theirs}.attention.{name}', f'{ours}/attention/{name}', attention)
        yield from _dense(f'{theirs}.attention.dense', f'{ours}/attention/output', attention)
        yield from _norm(f'{theirs}.attention.LayerNorm', f'{ours}/attention/layer_norm', attention)
        yield from _dense(f'{theirs}.ffn', f'{ours}/ffn/intermediate', ffn)
        yield from _dense(f'{theirs}.ffn_output', f'{ours}/ffn/output', ffn)
        yield from _norm(f'{theirs}.full_layer_layer_norm', f'{ours}/ffn/layer_norm', ffn)
    yield from _dense('pooler', 'pooler')
    yield from _dense('predictions.dense', 'mlm/transform')
    yield from _norm('predictions.LayerNorm', 'mlm/layer_norm')
    yield Entry('predictions.bias', 'mlm/bias')
    yield from _dense('sop_classifier.classifier', 'sentence')


def bert_table(config: AlbertConfig) -> Iterator[Entry]:
    """Hugging Face's names of a BERT, without the prefix `bert.`."""
    yield from _embeddings()
    for layer in range(config.num_hidden_layers):
        theirs = f'encoder.layer.{layer}'
        ours, index = (
            'encoder/layer',
            layer if config.num_unique_attention_layers > 1 else None,
        )
        for name in ('query', 'key', 'value'):
            yield from _dense(f'{theirs}.attention.self.{name}', f'{ours}/attention/{name}', index)
        yield from _dense(f'{theirs}.attention.output.dense', f'{ours}/attention/output', index)
        yield from _norm(
            f'{theirs}.attention.output.LayerNorm', f'{ours}/attention/layer_norm', index
        )
        yield from _dense(f'{theirs}.intermediate.dense', f'{ours}/ffn/intermediate', index)
        yield from _dense(f'{theirs}.output.dense', f'{ours}/ffn/output', index)
        yield from _norm(f'{theirs}.output.LayerNorm', f'{ours}/ffn/layer_norm', index)
    yield from _dense('pooler.dense', 'pooler')
    yield from _dense('cls.predictions.transform.dense', 'mlm/transform')
    yield from _norm('cls.predictions.transform.LayerNorm', 'mlm/layer_norm')
    yield Entry('cls.predictions.bias', 'mlm/bias')
    yield from _dense('cls.seq_relationship', 'sentence')


_TABLES = {'albert': albert_table, 'bert': bert_table}
_HEAD_TENSORS = tuple(dict.fromkeys(layout.hugging_face_layer for layout in HEAD_FORMATS.values()))


def is_directory(path: Path) -> bool:
    """Whether a directory holds weights that transformers could have written."""
    names = ('*.safetensors', _INDEX, *_PICKLES)
    return any(any(path.glob(name)) for name in names)


def read(path: Path, vocabulary: Path | None = None) -> Pretrained:
    """The model in a directory; parts that it lacks are left out.

    Args:
      path: the directory.
      vocabulary: a file to use in place of the directory's own.

    Raises:
      UserError: if it cannot be read, or its config and its tensors disagree.
    """
    config_file = path / 'config.json'
    if not config_file.is_file():
        raise UserError(f'{path} has weights but no config.json; put it beside them.')
    # A byte that is no UTF-8 is half a surrogate pair then, which a label may not have.
    content = parse_object(config_file.read_text('utf-8', 'surrogateescape'), str(config_file))
    config = configs.read_config(content, str(config_file))
    kind = content['model_type']
    tensors = _canonical(_open(path), kind, path)
    table = list(_TABLES[kind](config))
    head, num_outputs = None, 0
    heads = [name for name in _HEAD_TENSORS if f'{name}.weight' in tensors]
    if len(heads) > 1:
        raise UserError(f'{path} has the weights of two heads, {" and ".join(heads)}.')
    for name in heads:
        if len(tensors[f'{name}.weight'].shape) == 2:
            num_outputs = tensors[f'{name}.weight'].shape[0]
            head = configs.read_head(content, num_outputs, str(path))
            table += _dense(name, 'head')
    configs.check_tied(content, tensors, str(config_file))
    _check_tied(tensors, str(path))
    if kind == 'albert' and not config.use_embedding_projection:
        _drop_identity(tensors, config, str(path))
    params, notes = to_ours(table, tensors, _SKIPS, config, str(path), num_outputs)
    tokenizer, tokenizer_notes = tokenizers.read(path, vocabulary, config.vocab_size)
    notes += [*tokenizer_notes, *configs.training_notes(content)]
    if head is None and config.hidden_act == 'gelu_erf' and kind == 'albert':
        notes.append(
            "config.json says 'gelu', which is the erf form; the weights of Google's ALBERT want "
            "the tanh form, 'gelu_new' (transformers#2395)."
        )
    model = Pretrained(config, params, None, head, notes=tuple(notes))
    return with_tokenizer(model, tokenizer, str(path)) if tokenizer else model


def _open(path: Path) -> dict[str, Tensor]:
    """Every tensor of the directory's safetensors files, unread."""
    files = sorted(path.glob('*.safetensors'))
    index = path / _INDEX
    if not files and not index.exists():
        pickles = sorted(file.name for pattern in _PICKLES for file in path.glob(pattern))
        raise UserError(
            f'{path} holds its weights in {pickles[0]} only, a format that can run code or needs '
            f'another framework, and it is not opened; load it with transformers and save it with '
            f'save_pretrained(DIR, safe_serialization=True).'
        )
    if index.exists():
        content = parse_object(index.read_text('utf-8', 'replace'), str(index))
        weight_map = content.get('weight_map', {})
        if not isinstance(weight_map, dict):
            raise UserError(
                f'{index}: weight_map is {json.dumps(weight_map)[:60]}; it must be an object with '
                f'the file of each tensor.'
            )
        wanted = sorted({str(name) for name in weight_map.values()})
        if [file.name for file in files] != wanted:
            raise UserError(
                f'{index} names the files {", ".join(wanted) or "none"}, but there are '
                f'{", ".join(file.name for file in files) or "none"}.'
            )
    elif len(files) > 1:
        raise UserError(
            f'{path} has several safetensors files ({", ".join(f.name for f in files)}) and no '
            f'{_INDEX} that says how they belong together.'
        )
    tensors: dict[str, Tensor] = {}
    for file in files:
        for name, tensor in _open_file(file).items():
            if name in tensors:
                raise UserError(f'{path}: the tensor {name} is in more than one file.')
            tensors[name] = tensor
    if index.exists() and set(tensors) != set(weight_map):
        name = sorted(set(tensors) ^ set(weight_map))[0]
        raise UserError(f'{index} and its files disagree about the tensor {name}.')
    return tensors


def _open_file(file: Path) -> dict[str, Tensor]:
    try:
        opened: Any = safetensors.safe_open(file, framework='numpy')
        names = opened.keys()
        slices = {name: opened.get_slice(name) for name in names}
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f'{file} cannot be read as safetensors: {error}.') from error
    return {
        name: Tensor(
            tuple(piece.get_shape()),
            _dtype_name(piece.get_dtype()),
            functools.partial(_read, opened, name, file),
        )
        for name, piece in slices.items()
    }


def _read(opened: Any, name: str, file: Path) -> np.ndarray:
    try:
        return opened.get_tensor(name)
    except (OSError, TypeError, safetensors.SafetensorError) as error:
        raise UserError(f'{file}: the tensor {name} cannot be read: {error}.') from error


def _dtype_name(code: str) -> str:
    if re.fullmatch(r'F(16|32|64)', code):
        return f'float{code[1:]}'
    return 'bfloat16' if code == 'BF16' else code


def _canonical(tensors: Mapping[str, Tensor], kind: str, path: Path) -> dict[str, Tensor]:
    """Without the prefix of the body, and with today's names for yesterday's tensors."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        short = name.removeprefix(f'{kind}.')
        short = re.sub(r'LayerNorm\.gamma$', 'LayerNorm.weight', short)
        short = re.sub(r'LayerNorm\.beta$', 'LayerNorm.bias', short)
        if short in renamed:
            raise UserError(f'{path} has the tensor {name} twice, with and without {kind}.')
        renamed[short] = tensor
    # A tied bias may be saved under its other name only.
    for prefix in ('predictions', 'cls.predictions'):
        if f'{prefix}.decoder.bias' in renamed:
            renamed.setdefault(f'{prefix}.bias', renamed[f'{prefix}.decoder.bias'])
    return renamed


def _check_tied(tensors: Mapping[str, Tensor], origin: str) -> None:
    for prefix in ('predictions', 'cls.predictions'):
        for theirs, tied in (
            (f'{prefix}.decoder.weight', 'embeddings.word_embeddings.weight'),
            (f'{prefix}.decoder.bias', f'{prefix}.bias'),
        ):
            if {theirs, tied} <= set(tensors) and not np.array_equal(
                tensors[theirs].read(), tensors[tied].read(), equal_nan=True
            ):
                raise UserError(
                    f'{origin}: {theirs} is not tied to {tied}; ALBERT has one table for both.'
                )


def _drop_identity(tensors: dict[str, Tensor], config: AlbertConfig, origin: str) -> None:
    """Takes out the map that we wrote for a model that has none, once it is seen to do nothing."""
    names = [f'{_PROJECTION}.weight', f'{_PROJECTION}.bias']
    if not set(names) <= set(tensors):
        return
    weight, bias = (tensors.pop(name).read() for name in names)
    if not np.array_equal(weight, np.eye(config.hidden_size)) or bias.any():
        raise UserError(
            f'{origin}: its config says that there is no embedding projection, but {names[0]} is '
            f'not the identity; delete the key albert_jax from config.json to read it.'
        )


def write(pretrained: Pretrained, directory: Path) -> tuple[str, ...]:
    """Writes a directory for transformers; gives notes, a sentence each.

    Of a fine-tuned model the pretraining heads are left out, as transformers does.

    Args:
      pretrained: the model; parts that were only initialised are left out.
      directory: exists and is empty.

    Raises:
      UserError: if transformers could not hold the model.
    """
    config, head = pretrained.config.in_groups, pretrained.head
    params = pretrained.own_params()
    notes = []
    if head is not None:
        dropped = {'mlm', 'sentence'} | (set() if head.definition.uses_pooler else {'pooler'})
        lost = [OPTIONAL_PARTS[part] for part in OPTIONAL_PARTS if part in dropped & set(params)]
        if lost:
            notes.append(f'left out, since the architecture of a fine-tuned model has none: '
                         f'{", ".join(lost)}.')  # fmt: skip
        params = {part: tree for part, tree in params.items() if part not in dropped}
        if NO_ROLE in head.labels:
            notes.append(f'no pipeline of transformers makes its input: {INPUT_OF_ROLES}.')
    task = pretrained.run_section(TaskSettings) if head is not None else None
    head_dropout = None if task is None else task.head_dropout
    content = configs.write_config(config, head, tuple(params), head_dropout)
    architecture: str = content['architectures'][0]
    if architecture.endswith('ForMaskedLM'):
        # A pooler stays: AlbertModel takes it, as from the Hub's own directories.
        if params.pop('sentence', None):
            notes.append(f'left out, since {architecture} has none: sentence-order head.')
    elif architecture.endswith('Model') and params.pop('sentence', None):
        notes.append(f'left out, since {architecture} has none: sentence-order head.')
    kind = content['model_type']
    tensors = to_theirs(_TABLES[kind](config), params)
    if kind == 'albert' and not config.use_embedding_projection:
        tensors[f'{_PROJECTION}.weight'] = np.eye(config.hidden_size, dtype=np.float32)
        tensors[f'{_PROJECTION}.bias'] = np.zeros(config.hidden_size, np.float32)
    if not architecture.endswith('Model'):
        is_body = re.compile(r'^(embeddings|encoder|pooler)\.')
        tensors = {
            f'{kind}.{name}' if is_body.match(name) else name: tensor
            for name, tensor in tensors.items()
        }
    if head is not None:
        layer = HEAD_FORMATS[head.kind].hugging_face_layer
        tensors |= to_theirs(_dense(layer, 'head'), params)
    if pretrained.tokenizer is None:
        notes.append('there was no vocabulary to write.')
    else:
        content['pad_token_id'] = pretrained.tokenizer.pad_id
        tokenizers.write(pretrained.tokenizer, config.max_position_embeddings, directory)
    config_file = directory / 'config.json'
    config_file.write_text(json.dumps(content, indent=2) + '\n')
    weights = directory / 'model.safetensors'
    save_file(tensors, weights, metadata={'format': 'pt'})
    # The library lets only the owner read it.
    weights.chmod(config_file.stat().st_mode)
    return tuple(notes)
