"""Tagging: CoNLL columns and CoNLL-U."""

import json

import jax
import numpy as np
import pytest

from albert_jax import predict
from albert_jax.cli.errors import UserError
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.interop.native import Pretrained
from albert_jax.model.heads import HEADS, Head
from albert_jax.tasks.answering import Answerer
from tests import tiny
from tests.conftest import shared_data
from tests.tiny import write_lines


def test_conll_columns(tokenizer, tmp_path):
    file = write_lines(
        tmp_path / 'x.txt', '-DOCSTART- -X- O O', '', 'EU NNP I-NP I-ORG', 'rejects VBZ I-VP O', '',
        'Peter NNP I-NP I-PER', 'Blackburn NNP I-NP I-PER',
    )  # fmt: skip
    task = tiny.task('ner', max_length=8)
    examples = task.read(file, True)
    assert [e.words for e in examples] == [('EU', 'rejects'), ('Peter', 'Blackburn')]
    assert examples[1].where.endswith('line 6')
    head = task.head(examples)
    assert head.labels == ('I-ORG', 'I-PER', 'O')
    features = task.encode(examples, tokenizer, head, True)
    assert features.lengths.max() <= 8
    labels = features.token_targets['token_labels']
    assert (labels >= 0).sum() == 4
    perfect = {
        'tags': [
            np.where((part := labels[s:e]) >= 0, part, 0)
            for s, e in zip(features.starts[:-1], features.starts[1:], strict=True)
        ]
    }
    assert task.metrics(examples, features, perfect, head) == {
        'accuracy': 1.0, 'precision': 1.0, 'recall': 1.0, 'f1': 1.0,
    }  # fmt: skip
    rows = task.predictions(examples, features, perfect, head)
    (written,) = task.write(examples, rows, tmp_path)
    assert written.read_text().splitlines()[0] == 'EU I-ORG I-ORG'


def test_a_long_sentence_goes_on_in_another_sequence(tokenizer, tmp_path):
    words = [f'word{index % 7}' for index in range(60)]
    file = write_lines(
        tmp_path / 'x.txt', *(f'{w} {"A" if i % 3 else "B"}' for i, w in enumerate(words))
    )
    task = tiny.task('tags', max_length=16)
    examples = task.read(file, True)
    head = task.head(examples)
    features = task.encode(examples, tokenizer, head, False)
    assert features.num_examples > 5 and features.lengths.max() <= 16
    tags = [
        np.maximum(features.token_targets['token_labels'][s:e], 0)
        for s, e in zip(features.starts[:-1], features.starts[1:], strict=True)
    ]
    (found,) = task.tags(examples, features, {'tags': tags}, head)
    assert found == list(examples[0].tags)


def test_a_text_file_of_sentences_has_the_answers_of_its_lines(vocabulary, tmp_path, capsys):
    config = tiny.config()
    head = Head('token_classification', ('B-LOC', 'B-PER', 'O'))
    weights = HEADS[head.kind].init(3, config, jax.random.key(1))
    params = {
        name: tree
        for name, tree in tiny.random_params(config).items()
        if name in ('embeddings', 'encoder', 'pooler')
    }
    params['head'] = tiny.random_tree(weights)
    model = Pretrained(config, params, Tokenizer(vocabulary), head)
    checkpoint = tiny.write(model, tmp_path / 'model')
    lines = ['Anna lives in Oslo .', 'Chen lives in Lima .']
    file = write_lines(tmp_path / 'texts.txt', *lines)
    assert predict.main([f'--checkpoint={checkpoint}', f'--input={file}', '--task=ner']) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row['words'] for row in rows] == [line.split() for line in lines]
    assert rows == Answerer(checkpoint, 'ner', num_devices=1).answer(lines, 'lines')


def test_conll_u(tokenizer):
    task = tiny.task('upos', max_length=128)
    examples = task.read(shared_data('tasks/ud_ewt/en_ewt-ud-dev.conllu'), True)
    assert len(examples) == 2001
    head = task.head(examples)
    assert len(head.labels) == 17 and 'NOUN' in head.labels
    # Words that are written as one ("don't") are two, and are not there thrice.
    assert all('_' not in example.tags for example in examples)
    features = task.encode(examples, tokenizer, head, True)
    num_words = sum(len(example.words) for example in examples)
    assert (features.token_targets['token_labels'] >= 0).sum() == num_words
    unknown = task.read(shared_data('tasks/ud_ewt/en_ewt-ud-test.conllu'), False)
    with pytest.raises(UserError, match='the tag .* is unknown; the model has NOUN, VERB'):
        task.encode(unknown, tokenizer, Head('token_classification', ('NOUN', 'VERB')), True)
