"""Interpretability: attention, rollout, attributions that add up, layers by depth, the command."""

import dataclasses
import itertools
import re

import jax
import numpy as np
import pytest

from albert_jax import explain
from albert_jax.cli.errors import UserError
from albert_jax.data.added_tokens import AddedToken
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.interpretability.answer import answer_of
from albert_jax.interpretability.encoding import encode, word_scores
from albert_jax.interpretability.inspector import Inspector
from albert_jax.interpretability.layers import rollout, similarity_by_depth
from albert_jax.model.heads import HEADS, Head
from albert_jax.tasks.second_text import check_second_text
from tests import tiny

TEXT = 'The statement raises an exception.'


@pytest.fixture(scope='module')
def model(vocabulary):
    config = tiny.wider_config(num_hidden_layers=3, initializer_range=0.2)
    return tiny.pretrained(config, vocabulary)


@pytest.fixture(scope='module')
def classifier(model):
    config = dataclasses.replace(model.config, initializer_range=0.5)
    head = HEADS['sequence_classification'].init(2, config, jax.random.key(1))
    return dataclasses.replace(
        model,
        params={**model.params, 'head': head},
        head=Head('sequence_classification', ('bad', 'good')),
    )


def test_attention_is_the_models_and_rollout_counts_every_path(model):
    found = Inspector(model).activations(encode(model, TEXT))
    layers, heads, length, _ = found.attention.shape
    assert (layers, heads) == (3, 2) and length == len(found.encoded.pieces)
    np.testing.assert_allclose(found.attention.sum(-1), 1, atol=1e-5)
    rolled = rollout(found.attention)
    np.testing.assert_allclose(rolled.sum(-1), 1, atol=1e-5)
    # The sum over all paths through the layers, one by one.
    mixed = [0.5 * layer.mean(0) + 0.5 * np.eye(length) for layer in found.attention]
    for start, end in ((0, 0), (2, 1), (length - 1, 0)):
        paths = itertools.product(range(length), repeat=layers - 1)
        total = sum(
            np.prod(
                [
                    mixed[layer][place, following]
                    for layer, (place, following) in zip(
                        (2, 1, 0), itertools.pairwise((start, *path, end)), strict=True
                    )
                ]
            )
            for path in paths
        )
        assert rolled[-1][start, end] == pytest.approx(total, abs=1e-5)


def test_a_layer_that_does_nothing_has_no_distance_and_no_angle():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(5, 8))
    turned = np.stack([-first[:, 1], first[:, 0]] + [first[:, n] * 0 for n in range(2, 8)], 1)
    flat = first * np.array([1, 1, 0, 0, 0, 0, 0, 0])
    distances, angles = similarity_by_depth(np.stack([flat, flat, turned, 2 * turned]))
    lengths = np.linalg.norm(flat, axis=1)
    np.testing.assert_allclose(distances, [0, (lengths * 2**0.5).mean(), lengths.mean()], atol=1e-5)
    np.testing.assert_allclose(angles, [0, 90, 0], atol=1e-4)


def logits(model, ids, types):
    """By the model itself, with the pieces replaced and no perturbation."""
    found = tiny.outputs(model.config, model.params, ids, np.ones_like(ids), types)
    head = model.params['head']
    return np.asarray(found.pooled_output)[0] @ np.asarray(head['kernel']) + np.asarray(
        head['bias']
    )


def test_a_modern_model_is_explained_by_its_own_attention(vocabulary):
    config = tiny.wider_config(initializer_range=0.2, **tiny.MODERN)
    model = tiny.pretrained(config, vocabulary)
    encoded = encode(model, 'The [MASK] raises an exception.')
    inspector = Inspector(model, [16])
    found = inspector.activations(encoded)
    # By the model itself, without padding.
    output = tiny.outputs(config, model.params, encoded.input_ids, return_attentions=True)
    np.testing.assert_allclose(found.attention, output.attention_probs[:, 0], atol=1e-5)
    np.testing.assert_allclose(found.hidden, output.hidden_states[:, 0], atol=1e-5)
    attribution = inspector.integrated_gradients(encoded, inspector.masked_output(encoded))
    assert attribution.gap <= 1e-2 and np.abs(attribution.scores).max() > 1e-3


def test_attributions_add_up_to_the_difference_from_masks(classifier):
    encoded = encode(classifier, TEXT)
    output = Inspector(classifier).class_output(encoded, 'good')
    found = Inspector(classifier).integrated_gradients(encoded, output)
    masked = np.where(encoded.is_special[None], encoded.input_ids, classifier.tokenizer.mask_id)
    value = logits(classifier, encoded.input_ids, encoded.token_type_ids)[1]
    baseline = logits(classifier, masked, encoded.token_type_ids)[1]
    assert found.value == pytest.approx(value, abs=1e-4)
    assert found.baseline_value == pytest.approx(baseline, abs=1e-4)
    assert abs(value - baseline) > 0.05
    assert found.scores.sum() == pytest.approx(value - baseline, rel=1e-2)
    assert found.scores[0] == found.scores[-1] == 0
    likeliest = Inspector(classifier).class_output(encoded)
    both = logits(classifier, encoded.input_ids, encoded.token_type_ids)
    assert likeliest.name == ('bad', 'good')[int(both.argmax())]


def test_a_piece_that_is_the_baseline_moves_nothing(model):
    encoded = encode(model, 'The [MASK] raises an exception.')
    output = Inspector(model).masked_output(encoded)
    found = Inspector(model).integrated_gradients(encoded, output)
    place = encoded.pieces.index('[MASK]')
    assert found.scores[place] == 0 and np.abs(found.scores).max() > 1e-3
    assert found.gap <= 1e-2
    named = Inspector(model).masked_output(encoded, 'the')
    assert named.name == 'the'


@pytest.mark.parametrize(
    ('pieces', 'words'),
    [
        (['[CLS]', '▁un', 'like', 'ly', '▁so', '[SEP]'], ['[CLS]', 'unlikely', 'so', '[SEP]']),
        (['[CLS]', 'un', '##like', 'so', '.', '[SEP]'], ['[CLS]', 'unlike', 'so', '.', '[SEP]']),
    ],
)
def test_pieces_are_put_together_to_words(pieces, words):
    found = word_scores(pieces, np.arange(len(pieces), dtype=float))
    assert [word for word, _ in found] == words
    assert sum(score for _, score in found) == sum(range(len(pieces)))


def test_added_tokens_are_words(vocabulary):
    tokens = [AddedToken(text, 1000 + n) for n, text in enumerate(('<e>', '▁x', '</e>'))]
    config = tiny.wider_config(vocab_size=1003)
    model = tiny.pretrained(config, vocabulary)
    tokenizer = Tokenizer(vocabulary, added_tokens=tokens)
    model = dataclasses.replace(model, tokenizer=tokenizer)
    encoded = encode(model, 'The<e>statement</e>. x▁x')
    scores = np.arange(len(encoded.pieces), dtype=float)
    words = word_scores(encoded.pieces, scores, encoded.added_tokens)
    assert [word for word, _ in words] == [
        '[CLS]', 'the', '<e>', 'statement', '</e>', '.', 'x', 'x', '[SEP]'
    ]  # fmt: skip
    assert sum(score for _, score in words) == scores.sum()


def test_mistakes_are_one_sentence(model, classifier, tmp_path):
    encoded = encode(model, TEXT)
    with pytest.raises(UserError, match=r'no \[MASK\]'):
        Inspector(model).masked_output(encoded)
    with pytest.raises(UserError, match='no piece of the vocabulary'):
        Inspector(model).masked_output(encode(model, '[MASK]'), 'qqqqq')
    with pytest.raises(UserError, match="no label 'fine'; there are bad, good"):
        Inspector(classifier).class_output(encoded, 'fine')
    with pytest.raises(UserError, match='The text is empty'):
        encode(model, ' ')
    with pytest.raises(UserError, match='48 positions: shorten it'):
        encode(model, 'word ' * 60)
    tiny.write(model, tmp_path / 'm')
    flags = [f'--checkpoint={tmp_path}/m', f'--output={tmp_path}/x.html']
    for more, message in (
        (['--output=x.pdf'], 'must end in .html or .png'),
        (['--label=good'], 'is no classifier'),
        (['--piece=the'], r'for a text with \[MASK\]'),
        ([f'--output={tmp_path}/no/x.html'], 'cannot be written'),
    ):
        with pytest.raises(UserError, match=message):
            explain.main([*flags, *more, TEXT])


@pytest.mark.parametrize(
    ('task', 'texts', 'message'),
    [
        ({'name': 'classification'}, [TEXT, 'Another.'], 'with single texts; leave the second one'),
        ({'name': 'mrpc'}, [TEXT], 'the task mrpc with two texts, #1 String and #2 String; give'),
        ({'name': 'classification', 'text_pair': 'b'}, [TEXT], 'with two texts, text and b; give'),
    ],
)
def test_the_command_takes_as_many_texts_as_the_task_has(
    task, texts, message, classifier, tmp_path
):
    tiny.write(dataclasses.replace(classifier, run={'task': task}), tmp_path / 'm')
    with pytest.raises(UserError, match=message):
        explain.main([f'--checkpoint={tmp_path}/m', f'--output={tmp_path}/x.html', *texts])
    # One that was not fine-tuned here may have had either.
    check_second_text(classifier, texts[1] if len(texts) > 1 else None)


def test_the_output_that_is_explained_is_the_likeliest_whatever_it_is_called(classifier):
    encoded = encode(classifier, TEXT)
    output = Inspector(classifier).class_output(encoded)
    same = dataclasses.replace(classifier, head=Head('sequence_classification', ('good', 'good')))
    assert Inspector(same).class_output(encoded) == dataclasses.replace(output, name='good')
    # The name of the first was explained for the other.
    flipped = {name: array[..., ::-1] for name, array in classifier.params['head'].items()}
    other = dataclasses.replace(same, params={**classifier.params, 'head': flipped})
    assert Inspector(other).class_output(encoded).index == 1 - output.index
    with pytest.raises(UserError, match="2 outputs of the model are called 'good'; give each a na"):
        Inspector(same).class_output(encoded, 'good')


def test_the_answer_and_how_sure_it_is_come_first(model, classifier):
    encoded = encode(classifier, TEXT)
    both = logits(classifier, encoded.input_ids, encoded.token_type_ids).astype(float)
    chances = np.exp(both) / np.exp(both).sum()
    answer = Inspector(classifier).answer(encoded)
    assert answer is not None and answer.kind == 'class'
    assert answer.text == ('bad', 'good')[int(both.argmax())]
    assert dict(answer.candidates) == pytest.approx(
        {'bad': chances[0], 'good': chances[1]}, abs=1e-5
    )
    # Of a pretrained model there is one where there is a [MASK].
    assert Inspector(model).answer(encode(model, TEXT)) is None
    answer = Inspector(model).answer(encode(model, 'The [MASK] raises.'))
    best = Inspector(model).masked_output(encode(model, 'The [MASK] raises.'))
    assert answer is not None and answer.kind == 'mask'
    assert answer.text == best.name and len(answer.candidates) == 5


@pytest.mark.parametrize(
    ('head', 'outputs', 'sentence'),
    [
        (Head('sequence_classification', ('negative', 'positive')), [0.0, np.log(3)],
         'Answer: positive, probability 75.0% (negative 25.0%)'),
        (Head('sequence_classification', ('score',)), [-2.34567], 'Answer: -2.346'),
        (Head('multi_label_classification', ('a', 'b', 'c')), [0.0, np.log(3), np.log(4)],
         'Answer: c, b (c 80.0%, b 75.0%, a 50.0%)'),
        (Head('sequence_classification', tuple('abcdef')), [0.0] * 6,
         'Answer: a, probability 16.7% (b 16.7%, c 16.7%, d 16.7%, e 16.7%, …)'),
        (Head('multi_label_classification', ('a', 'b')), [-np.log(4), -np.log(3)],
         'Answer: no label (b 25.0%, a 20.0%)'),
    ],
)  # fmt: skip
def test_an_answer_in_a_sentence(head, outputs, sentence, model):
    model = dataclasses.replace(model, head=head)
    assert answer_of(model, np.array(outputs, np.float32)).sentence == sentence


def test_the_command_writes_a_page_and_a_picture(model, tmp_path, capsys):
    tiny.write(model, tmp_path / 'm')
    text = 'The [MASK] </script><b> raises.'
    for name in ('x.html', 'x.png'):
        flags = [f'--checkpoint={tmp_path}/m', f'--output={tmp_path}/{name}']
        assert explain.main([*flags, text]) == 0
    page = (tmp_path / 'x.html').read_text()
    assert '</script><b>' not in page and '&lt;/script&gt;&lt;b&gt;' in page
    assert 'integrated gradients' in page and '"rollout"' in page
    assert page.index('For the first [MASK]: ') < page.index('What speaks for ')
    # All that is drawn has one scale and a legend, which the page of the service shares.
    assert 'const charts' in page and '.legend' in page and '__' not in page
    assert (tmp_path / 'x.png').read_bytes().startswith(b'\x89PNG')
    told = capsys.readouterr().out
    assert told.index('Answer for the first [MASK]: ') < told.index('for (+) or against (-)')
    assert re.search(r', probability \d+\.\d% \(', told)
