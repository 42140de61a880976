"""A random model, and changes to the files of Hugging Face that it is converted to."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file, save_file

import albert_jax
from albert_jax.data.normalization import Normalization
from albert_jax.interop import native
from albert_jax.interop.native import Pretrained
from albert_jax.model.heads import Head
from tests import tiny

CONFIG = tiny.config(num_hidden_layers=4, intermediate_size=24, max_position_embeddings=20)
E_IS_H = {'embedding_size': 16, 'use_embedding_projection': False}


def make_model(vocabulary: bytes, head: Head | None = None, **fields) -> Pretrained:
    config = dataclasses.replace(CONFIG, **fields)
    shapes = native.expected_shapes(config)
    if head:
        count = len(head.labels) or {'question_answering': 2, 'multiple_choice': 1}[head.kind]
        shapes = shapes | {'head/kernel': (16, count), 'head/bias': (count,)}
    rng = np.random.default_rng(0)
    params: dict = {}
    for path, shape in shapes.items():
        *parents, name = path.split('/')
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = jnp.asarray(rng.normal(0, 0.3, shape), jnp.float32)
    tokenizer = albert_jax.Tokenizer(vocabulary, Normalization(keep_case=True))
    return Pretrained(config, params, tokenizer, head)


def assert_same_model(actual: Pretrained, expected: Pretrained) -> None:
    assert actual.config == expected.config
    assert actual.head == expected.head
    assert jax.tree.structure(actual.params) == jax.tree.structure(expected.params)
    jax.tree.map(np.testing.assert_array_equal, actual.params, expected.params)
    assert actual.tokenizer.sha256 == expected.tokenizer.sha256
    assert actual.tokenizer.normalization == expected.tokenizer.normalization
    assert actual.tokenizer.added_tokens == expected.tokenizer.added_tokens


def edit_tensors(directory: Path, change) -> None:
    file = directory / 'model.safetensors'
    tensors = load_file(file)
    tensors = change(tensors) or tensors
    save_file(tensors, file)


def edit_json(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


WORD = 'albert.embeddings.word_embeddings.weight'


def add_rows(directory: Path, count: int) -> None:
    """More word embeddings, as resize_token_embeddings of transformers adds them."""
    config = directory / 'config.json'
    edit_json(config, vocab_size=json.loads(config.read_text())['vocab_size'] + count)

    def change(tensors):
        tensors[WORD] = np.concatenate([tensors[WORD], tensors[WORD][:count]])
        tensors['predictions.bias'] = np.append(tensors['predictions.bias'], np.zeros(count, 'f'))

    edit_tensors(directory, change)


def put(name, value):
    return lambda d: edit_tensors(d, lambda t: t | {name: np.asarray(value)})


def configure(**changes):
    return lambda d: edit_json(d / 'config.json', **changes)
