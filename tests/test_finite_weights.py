"""Weights that are NaN or infinite are refused wherever a model is read."""

import numpy as np
import pytest

import albert_jax
from albert_jax import explain
from albert_jax.cli.errors import UserError
from albert_jax.distillation.teacher import read_teacher
from albert_jax.interop import conversion, exported, finite, source
from albert_jax.interop.native import Pretrained
from albert_jax.runs.runs import FinetuneRun
from albert_jax.service import models
from albert_jax.service.batching import Device
from albert_jax.tasks.answering import Answerer
from albert_jax.tasks.start import starting_point
from tests import tiny
from tests.huggingface_files import WORD, edit_tensors, make_model

CONFIG = tiny.config(num_hidden_layers=1)


def spoil(tree, *values):
    """The first values of an array in their place."""
    array = np.array(tree)
    array.reshape(-1)[: len(values)] = values
    return array


def classifier(vocabulary) -> Pretrained:
    words = albert_jax.Tokenizer(vocabulary)
    return Pretrained(CONFIG, tiny.classifier_params(CONFIG), words, tiny.CLASSES)


@pytest.fixture(scope='module')
def broken(vocabulary, tmp_path_factory):
    model = classifier(vocabulary)
    query = model.params['encoder']['layer']['attention']['query']
    query['kernel'] = spoil(query['kernel'], np.nan, np.inf, -np.inf)
    return tiny.write(model, tmp_path_factory.mktemp('broken') / 'model')


@pytest.mark.parametrize(
    'use',
    [
        albert_jax.load,
        Answerer,
        lambda path: explain.main([f'--checkpoint={path}', f'--output={path}/x.html', 'a']),
        lambda path: models.load([str(path)], Device(), 8, 0, lambda *_: None),
        lambda path: starting_point(FinetuneRun.from_dict({'init_from': str(path)})),
        lambda path: read_teacher(str(path)),
        lambda path: source.read_at_depth(path, 1),
        lambda path: exported.export(str(path), path / 'out', 'stablehlo'),
        lambda path: conversion.convert(source.read(path), path / 'out', 'huggingface'),
    ],
)
def test_every_door_refuses_them(use, broken):
    with pytest.raises(UserError) as caught:
        use(broken)
    assert str(caught.value) == (
        f'{broken}: 3 of the 256 values of encoder/layer/attention/query/kernel are NaN or '
        f'infinite; its weights are damaged, so take another checkpoint.'
    )


def test_they_are_refused_in_others_formats(vocabulary, tmp_path):
    conversion.convert(make_model(vocabulary), tmp_path / 'hf', 'huggingface')
    edit_tensors(
        tmp_path / 'hf',
        lambda tensors: (
            tensors
            | {WORD: spoil(tensors[WORD], np.inf)}
            | {'predictions.bias': spoil(tensors['predictions.bias'], np.nan)}
        ),
    )
    message = '1 of the 8,000 values of embeddings/word/embedding are NaN or infinite, as are some'
    with pytest.raises(UserError, match=message):
        albert_jax.load(tmp_path / 'hf')


@pytest.mark.parametrize('is_in_memory', [True, False])
def test_large_values_and_forbidden_outputs_are_taken(is_in_memory, vocabulary, monkeypatch):
    monkeypatch.setattr(finite, 'is_in_memory', lambda _: is_in_memory)
    model = classifier(vocabulary)
    largest = np.finfo(np.float32).max
    model.params['pooler']['kernel'] = spoil(model.params['pooler']['kernel'], largest, largest)
    # No answer is ever 'no'.
    model.params['head']['bias'] = np.array([-np.inf, 0], np.float32)
    finite.check_finite(model, 'x')
    for bias in ([np.inf, 0], [-np.inf, -np.inf], [np.nan, -np.inf]):
        model.params['head']['bias'] = np.array(bias, np.float32)
        with pytest.raises(UserError, match='x: . of the 2 values of head/bias are NaN or infini'):
            finite.check_finite(model, 'x')
    model.params['head']['bias'] = np.zeros(2, np.float32)
    model.params['pooler']['bias'] = spoil(model.params['pooler']['bias'], -np.inf)
    with pytest.raises(UserError, match='x: 1 of the 16 values of pooler/bias are NaN or infinite'):
        finite.check_finite(model, 'x')


def test_a_forbidden_class_is_never_the_answer(vocabulary, tmp_path):
    model = classifier(vocabulary)
    model.params['head']['bias'] = np.array([-np.inf, 0], np.float32)
    answers = Answerer(tiny.write(model, tmp_path / 'model')).answer(['a list', 'values'], 'x')
    assert [answer['probabilities'] for answer in answers] == [{'no': 0.0, 'yes': 1.0}] * 2
