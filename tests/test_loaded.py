"""A model in Python: what it is, and its methods against the model's own forward pass."""

import math

import jax
import numpy as np
import pytest

import albert_jax
from albert_jax.cli.errors import UserError
from albert_jax.tasks import given as checks
from albert_jax.tasks.answering import Answerer
from tests import tiny

TEXTS = ['A statement raises.', '', 'class value ' * 9, 'list']


@pytest.fixture(scope='module')
def model(checkpoint):
    return albert_jax.load(checkpoint)


def reference(model, text) -> np.ndarray:
    """The last layer for one text, alone and without padding."""
    words = model.tokenizer
    ids = np.array([[words.cls_id, *words.encode([text])[0], words.sep_id]])
    albert = albert_jax.PretrainingModel(model.config)
    output = jax.jit(albert.apply)({'params': model.params}, ids)
    return np.asarray(output.last_hidden_state[0], np.float32)


def test_the_package_shows_its_names_and_no_others():
    assert set(dir(albert_jax)) == {*albert_jax.__all__, '__version__', '__doc__'}
    assert all(getattr(albert_jax, name).__doc__ for name in albert_jax.__all__)
    with pytest.raises(AttributeError, match='no attribute'):
        albert_jax.nothing  # noqa: B018


def test_what_it_is_in_a_line(model, checkpoint, finetuned, capfd, caplog):
    count = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    assert repr(model) == (
        f'<ALBERT of {count:,} parameters: 2 layers of 16, 1,000 pieces, pretraining heads, from '
        f'{checkpoint}>'
    )
    classifier = albert_jax.load(finetuned)
    assert 'head (no, yes), from' in repr(classifier) and ', step ' in repr(classifier)
    # Neither the storage nor the compiler has anything to tell.
    assert capfd.readouterr() == ('', '') and not caplog.records
    bert = tiny.config(sharing='none', use_embedding_projection=False, embedding_size=16)
    assert repr(albert_jax.LoadedModel(bert, {}, None)) == (
        '<BERT of 0 parameters: 2 layers of 16, no vocabulary, no head, from memory>'
    )


def test_vectors_of_pieces_and_texts(model):
    encoded = model.encode(TEXTS, batch_size=3)
    vectors = model.embed(TEXTS, batch_size=3)
    assert vectors.shape == (4, 16) and vectors.dtype == np.float32
    for one, vector in zip(encoded, vectors, strict=True):
        assert one.vectors.shape == (len(one.pieces), 16)
        np.testing.assert_allclose(vector, one.vectors.mean(0), atol=1e-6)
    # One of a batch that is filled up, and one of a full batch of another length.
    for number in (0, 2):
        np.testing.assert_allclose(
            encoded[number].vectors, reference(model, TEXTS[number]), atol=1e-5
        )
    assert encoded[1].pieces == ('[CLS]', '[SEP]')
    assert model.embed([]).shape == (0, 16) and model.encode([]) == []
    # Compiled once for each length, and kept.
    assert model._encoder.func._cache_size() == 2


def test_masks(model):
    (candidates,) = model.fill_mask('The [MASK] statement', top=3)
    assert len(candidates) == 3 and candidates[0].probability >= candidates[1].probability > 0


def test_answers(finetuned):
    model = albert_jax.load(finetuned)
    told = model.predict(['statement import', {'text': 'list error'}])
    assert [answer['prediction'] for answer in told] == ['yes', 'no']
    asked = Answerer(finetuned).answer(['statement import', 'list error'], '-')
    assert told == [{k: v for k, v in answer.items() if k != 'id'} for answer in asked]
    assert model.predict([]) == []


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda m: m.embed('one text'), r'give a list of texts, as in \[text\]'),
        (lambda m: m.predict({'text': 'a'}), r'texts is one text; give a list of texts'),
        # What the signatures forbid is refused by the checker of types in tests: the checks alone.
        (lambda _: checks.listed(None, 'texts'), 'texts is of type NoneType; give a list of texts'),
        (lambda _: checks.listed(b'ab', 'texts'), 'texts is of type bytes; give a list of texts'),
        (
            lambda _: checks.listed(np.array([['a']]), 'texts'),
            'texts has 2 dimensions; give a list of',
        ),
        (lambda _: checks.checked_count('4', 'top'), "top is '4', of type str; it must be an int"),
        (lambda _: checks.checked_count(1.5, 'top'), 'top is 1.5, of type float; it must be an i'),
        (
            lambda _: checks.check_is_text(None, 'text'),
            'text is of type NoneType; it must be a str',
        ),
        (lambda m: m.embed(iter(['a', math.nan])), 'text 1 is of type float; it must be a str'),
        (lambda m: m.embed(['a'], batch_size=True), 'batch_size is True, of type bool; it must be'),
        (lambda m: m.predict(['a'], batch_size=True), 'batch_size is True, of type bool; it must'),
        (lambda m: m.fill_mask('a [MASK]', top=True), 'top is True, of type bool; it must be an'),
        (lambda m: m.encode(['a \ud83d']), 'text 0 has half a surrogate pair'),
        (lambda m: m.encode(['word ' * 70]), 'text 0 has .* the model has 64 positions: shorten'),
        (lambda m: m.encode(['a'], batch_size=0), 'batch_size is 0; it must be 1 or above'),
        (lambda m: m.fill_mask('a'), r'There is no \[MASK\]'),
        (lambda m: m.fill_mask('a [MASK]', top=0), 'top is 0; it must be 1 or above'),
        (lambda m: m.predict(['a']), 'has no head: it is not fine-tuned'),
    ],
)
def test_what_cannot_be_is_refused(model, call, message):
    with pytest.raises(UserError, match=message):
        call(model)


@pytest.mark.parametrize('given', [None, 5, math.nan, b'x', ('a', 'b'), ['te', 'xt']])
def test_what_is_no_example_is_refused_by_its_number(given, finetuned):
    # A missing value in a column of pandas is a float; ['te', 'xt'] became {'t': 't', 'x': 't'}.
    kind = type(given).__name__
    with pytest.raises(UserError, match=f'^text 1 is of type {kind}; it must be a str, or a map'):
        albert_jax.load(finetuned).predict(iter(['a', given]))


@pytest.mark.parametrize(
    ('lines', 'message'),
    [
        ('Good film.', r'^lines is one text; give a list of texts, as in \[text\]'),
        ({'text': 'a'}, '^lines is one text; give a list of texts'),
        (iter(['a', b'Good']), '^mine, line 2 is of type bytes; it must be a str'),
        (iter([None]), '^mine, line 1 is of type NoneType; it must be a str'),
        (iter([math.nan]), '^mine, line 1 is of type float; it must be a str'),
        (iter([{'text': 'a'}]), '^mine, line 1 is of type dict; it must be a str'),
    ],
)
def test_lines_that_are_no_texts_are_refused_by_their_number(lines, message, finetuned):
    with pytest.raises(UserError, match=message):
        Answerer(finetuned).answer(lines, 'mine')


def test_one_text_is_no_names_of_classes(finetuned):
    with pytest.raises(UserError, match="labels is one text, 'no'; give a list of names"):
        Answerer(finetuned, labels='no')


def test_a_field_that_would_not_be_read_is_refused(finetuned):
    model = albert_jax.load(finetuned)
    message = "^text 0: there is no field 'text_pair'; the task takes text, id, label.$"
    with pytest.raises(UserError, match=message):
        model.predict([{'text': 'a', 'text_pair': 'b'}])
    # Rows of labelled data, and fields that say nothing.
    rows = [{'text': 'list error', 'label': 'no', 'id': 'x', 'text_pair': None, 'date': 3}]
    assert model.predict(rows) == model.predict(['list error'])


def test_texts_and_examples_may_come_from_a_generator_or_a_row_of_a_table(model, finetuned):
    np.testing.assert_array_equal(model.embed(x for x in TEXTS), model.embed(TEXTS))
    assert [one.pieces for one in model.encode(iter(TEXTS))] == [
        one.pieces for one in model.encode(TEXTS)
    ]
    assert checks.checked_count(np.int64(2), 'top') == 2
    # As a row of pandas: with keys, and no Mapping.
    row = type('Row', (), {'keys': lambda _: ['text'], '__getitem__': lambda *_: 'list error'})()
    classifier = albert_jax.load(finetuned)
    assert classifier.predict(iter(['list error'])) == classifier.predict(iter([row]))
    # Numbers of NumPy are no JSON.
    named = {'text': 'list error', 'id': np.int64(7)}
    assert classifier.predict([named]) == classifier.predict(['list error'])


def test_a_model_from_text_to_text_has_vectors_and_no_masks(vocabulary, tmp_path):
    folder = tiny.write(tiny.text_to_text(vocabulary), tmp_path / 'writer')
    writer = albert_jax.load(folder)
    assert writer.embed(['returns a list']).shape == (1, 32)
    with pytest.raises(UserError, match='goes from text to text, and filling of masks is not the'):
        writer.fill_mask('[MASK]')


def test_a_model_without_a_vocabulary(model):
    bare = albert_jax.LoadedModel(model.config, model.params, None, source='x')
    for call in (bare.embed, bare.encode):
        with pytest.raises(UserError, match='x has no vocabulary'):
            call(['a'])
