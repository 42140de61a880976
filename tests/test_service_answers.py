"""Answers of every kind of head and ability, without a server."""

import dataclasses

import jax
import numpy as np
import pytest

from albert_jax.interop import native
from albert_jax.interop.native import Pretrained
from albert_jax.model import heads
from albert_jax.model.albert import PretrainingModel, init_params
from albert_jax.model.heads import Head
from albert_jax.service.abilities import Embed, FillMask, Predict
from albert_jax.service.batching import collate
from albert_jax.service.models import rounded
from albert_jax.tasks.answering import Answerer
from albert_jax.training.sharding import make_mesh
from tests import tiny
from tests.running_service import CONFIG, TEXTS

PASSAGE = 'returns an index of the list when the value is found in it ' * 6
QUESTIONS = [
    {'question': 'what', 'passage': PASSAGE}, {'question': 'a', 'passage': 'b c'},
    # Shorter than the beam of the conditional head.
    {'question': '', 'passage': 'a'}, {'question': 'a', 'passage': ''},
]  # fmt: skip
CHOICE = {'question': 'a _ b', 'passage': PASSAGE, 'options': ['w', 'x', 'y', 'z']}
SHORT_CHOICE = {**CHOICE, 'passage': 'b c'}
HEADS = {
    'question_answering': (2, QUESTIONS),
    'conditional_question_answering': (2, QUESTIONS),
    'multiple_choice': (1, [CHOICE, SHORT_CHOICE]),
    'token_classification': (3, ['returns an index', 'value']),
    'sequence_classification': (1, ['returns an index', PASSAGE]),
}


@pytest.mark.parametrize(
    'changes',
    [
        *({'sharing': sharing} for sharing in ('all', 'attention', 'ffn', 'none')),
        tiny.MODERN | {'sharing': 'attention'},
    ],
    ids=str,
)
def test_rounded_kernels_change_nothing(changes):
    """Every product would round them; those of several layers travel as bits."""
    config = dataclasses.replace(CONFIG, compute_dtype='bfloat16', **changes)
    model = Pretrained(config, dict(init_params(config, jax.random.key(0))), None)
    small = rounded(model)
    kinds = {str(leaf.dtype) for leaf in jax.tree.leaves(small.params)}
    assert kinds == {'float32', 'bfloat16'} | (set() if config.sharing == 'all' else {'uint16'})
    ids = np.arange(24, dtype=np.int32).reshape(2, 12) + 5
    apply = jax.jit(PretrainingModel(config).apply)
    wanted, found = apply({'params': model.params}, ids), apply({'params': small.params}, ids)
    for mine, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize('kind', HEADS)
def test_the_answers_of_every_head(kind, checkpoints):
    num_outputs, given = HEADS[kind]
    base = native.read(checkpoints / 'base')
    encoder = {name: base.params[name] for name in ('embeddings', 'encoder', 'pooler')}
    head = tiny.random_tree(heads.HEADS[kind].init(num_outputs, CONFIG, jax.random.key(2)), 3)
    labels = {'token_classification': ('A', 'B', 'C'), 'sequence_classification': ('score',)}
    its_head = Head(kind, labels.get(kind, ()))
    model = Pretrained(CONFIG, encoder | {'head': head}, base.tokenizer, its_head)
    answerer = Answerer(model, num_devices=1, max_length=32)
    ability = Predict(answerer)
    encoded, example = ability.encode(given), ability.example(32)

    def shapes(row):
        return {n: (len(x), x.shape[1:] == (row.length,), x.dtype) for n, x in row.arrays.items()}

    # What comes is of the shapes that were compiled.
    assert all(shapes(row) == shapes(example) for row in encoded.rows)
    found = [jax.device_get(ability.start(collate([row], 1))) for row in encoded.rows]
    answers = encoded.answers([{name: x[0] for name, x in row.items()} for row in found])
    # Nor does it matter how long the others of its batch are.
    beside = jax.device_get(ability.start(collate([*encoded.rows, example], len(encoded.rows) + 1)))
    mixed = [{name: x[n] for name, x in beside.items()} for n in range(len(encoded.rows))]
    for mine, other in zip(answers, encoded.answers(mixed), strict=True):
        assert mine['prediction'] == pytest.approx(other['prediction'], abs=1e-5)
    examples = [answerer.example(value, 'x', str(n)) for n, value in enumerate(given)]
    for mine, theirs in zip(answers, answerer.evaluate(examples)[1], strict=True):
        if kind == 'sequence_classification':
            assert mine['prediction'] == pytest.approx(theirs['prediction'], abs=1e-5)
        else:
            assert mine['prediction'] == theirs['prediction']


def test_a_question_or_passage_without_text_is_told(checkpoints):
    base = native.read(checkpoints / 'base')
    encoder = {name: base.params[name] for name in ('embeddings', 'encoder', 'pooler')}
    head = tiny.random_tree(heads.HEADS['question_answering'].init(0, CONFIG, jax.random.key(2)), 3)
    model = Pretrained(
        CONFIG, encoder | {'head': head}, base.tokenizer, Head('question_answering', ())
    )
    ability = Predict(Answerer(model, num_devices=1, max_length=32))
    texts = [('a', 'value'), ('', 'value'), ('\u200b ' + 'a ' * 40, ' '), ('', '')]
    given = [{'question': question, 'passage': passage} for question, passage in texts]
    cut = 'was cut to the 16 pieces of a question that the model reads at most'
    assert ability.encode(given).notes == {
        1: 'has no text in question, so the answer says nothing',
        2: f'has no text in passage, so the answer says nothing, and {cut}',
        3: 'has no text, so the answer says nothing',
    }


@pytest.mark.parametrize('kind', [FillMask, Embed])
def test_who_is_beside_changes_no_mask_and_no_vector(kind, checkpoints):
    ability = kind(native.read(checkpoints / 'base'), make_mesh(1))
    texts = ['[MASK] value', f'a [MASK] {TEXTS[3]}', f'{TEXTS[4]} [MASK]']
    rows = ability.encode(texts).rows
    assert len({row.length for row in rows}) == 3
    mixed = ability.start(collate(rows, 4))
    for number, row in enumerate(rows):
        alone = ability.start(collate([row], 1))
        for name, found in alone.items():
            np.testing.assert_allclose(mixed[name][number], found[0], atol=1e-5, rtol=0)
