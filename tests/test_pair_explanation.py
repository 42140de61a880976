"""Explanations of models from text to text: cross-attention, contributions, the command."""

import dataclasses
import functools
import io
import json
import re

import numpy as np
import pytest
from rich.console import Console

import albert_jax
from albert_jax import explain
from albert_jax.cli.errors import UserError
from albert_jax.interpretability import explanation
from albert_jax.interpretability.pair_inspector import PairInspector
from albert_jax.tasks.answering import Answerer
from tests import tiny
from tests.reference_seq2seq import seq2seq_forward

SOURCE = 'returns an index of the list'


@pytest.fixture(scope='module')
def model(vocabulary):
    return tiny.text_to_text(vocabulary)


@pytest.fixture(scope='module')
def folder(model, tmp_path_factory):
    return tiny.write(model, tmp_path_factory.mktemp('pairs') / 'model')


def reference(model, source_ids, target_ids):
    """log p of each piece of the target, and where the decoder looked, in float64."""
    inputs = np.array([[model.tokenizer.cls_id, *target_ids[:-1]]])
    source = np.array([source_ids])
    logits, weights = seq2seq_forward(
        model.params, model.config.to_dict(), model.decoder.to_dict(),
        source, np.ones_like(source), inputs, np.ones_like(inputs),
    )  # fmt: skip
    logits = logits[0, :, : len(model.tokenizer.pieces)]
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return log_probs[np.arange(len(target_ids)), target_ids], weights[:, 0]


@pytest.mark.parametrize('lengths', [(), (8, 24)], ids=['own', 'padded'])
def test_a_word_contributes_what_its_absence_costs(model, lengths):
    inspector = PairInspector(model, lengths)
    pair = inspector.encode(SOURCE, 'the value of a class')
    found = inspector.contributions(pair)
    assert found.source_words == tuple(SOURCE.split())
    assert found.target_words == ('the', 'value', 'of', 'a', 'class', '[SEP]')
    tokenizer = model.tokenizer

    def by_word(text):
        ids = [tokenizer.cls_id, *tokenizer.encode([text])[0], tokenizer.sep_id]
        log_probs, _ = reference(model, ids, pair.target_ids)
        starts = [place for place, piece in enumerate(pair.target_pieces) if piece[0] in '▁[']
        return np.add.reduceat(log_probs, starts)

    # As the logits, of which they are differences.
    scale = float(np.abs(found.log_probs).max())
    np.testing.assert_allclose(found.log_probs, by_word(SOURCE), atol=1e-5 * scale, rtol=0)
    for number in range(len(found.source_words)):
        without = SOURCE.split()
        del without[number]
        lost = by_word(SOURCE) - by_word(' '.join(without))
        np.testing.assert_allclose(found.scores[:, number], lost, atol=2e-5 * scale, rtol=0)
    assert np.abs(found.scores).max() > 0.1
    attention = inspector.cross_attention(pair)
    _, weights = reference(model, pair.source_ids, pair.target_ids)
    # Softmax of scores that are large, and as exact as float32 has them.
    np.testing.assert_allclose(attention, weights, atol=3e-5, rtol=0)


def test_without_a_target_the_models_own_text_is_explained(model):
    inspector, answerer = PairInspector(model), Answerer(model, num_devices=1, batch_size=1)
    pairs = [inspector.encode(source) for source in tiny.SOURCES]
    answers = answerer.answer(tiny.SOURCES, 'x')
    kinds = {}
    for pair, answer in zip(pairs, answers, strict=True):
        assert pair.target == answer['prediction']
        # Cut at the limit, it has no end.
        has_end = pair.target_pieces[-1] == '[SEP]'
        assert len(pair.target_pieces) <= 15 if has_end else len(pair.target_pieces) == 15
        if pair.target:
            kinds[has_end] = pair
    assert set(kinds) == {True, False}
    for pair in kinds.values():
        log_probs, _ = reference(model, pair.source_ids, pair.target_ids)
        found = inspector.contributions(pair).log_probs
        assert found.sum() == pytest.approx(log_probs.sum(), abs=1e-4)


def test_of_a_long_source_only_what_the_model_reads_is_explained(model, folder, tmp_path, capsys):
    source = ' '.join(tiny.SOURCES * 4)
    pair = PairInspector(model).encode(source)
    answer = next(iter(Answerer(model, num_devices=1, batch_size=1).answer([source], 'x')))
    assert pair.target == answer['prediction']
    # As many as task.max_length says, with [CLS] and [SEP].
    assert len(pair.source_pieces) == 16
    all_ids = model.tokenizer.encode([source])[0]
    np.testing.assert_array_equal(pair.source_ids[1:-1], all_ids[:14])
    capsys.readouterr()
    flags = [f'--checkpoint={folder}', f'--output={tmp_path}/x.html', source]
    assert explain.main(flags) == 0
    told = ' '.join(''.join(capsys.readouterr()).split())
    assert f'reads the first 14 of the {len(all_ids)} pieces of the text' in told


def test_a_loaded_model_lacks_nothing(folder, capsys):
    """It was told that its pooler is random and wants training."""
    loaded = albert_jax.load(folder)
    assert capsys.readouterr().err == '' and loaded.initialised == ()
    assert '1,000 pieces, a decoder, from' in repr(loaded)


def test_the_command_writes_a_page_a_picture_and_a_table(folder, tmp_path, capsys):
    page = tmp_path / 'why.html'
    arguments = [
        f'--checkpoint={folder}',
        f'--output={page}',
        f'{SOURCE} </script>',
        'a [bold] value :cat:',
    ]
    assert explain.main(arguments) == 0
    said = capsys.readouterr().out
    assert 'source words that contribute most' in said and '[bold]' in said
    # As it is written, and no picture.
    assert ':cat:' in said
    content = page.read_text()
    data = json.loads(re.findall(r'id="data">(.*?)</script>', content)[0])
    assert data['targetWords'][-1] == '[SEP]' and data['sourceWords'][:3] == SOURCE.split()[:3]
    assert np.shape(data['attention']) == (2, 2, len(data['target']), len(data['source']))
    assert np.shape(data['scores']) == (len(data['targetWords']), len(data['sourceWords']))
    assert '__' not in content.replace('__proto__', '')
    assert set(re.findall(r'https?:[^"\s]*', content)) == {'http://www.w3.org/2000/svg'}
    picture = tmp_path / 'why.png'
    assert explain.main([arguments[0], f'--output={picture}', SOURCE]) == 0
    assert picture.read_bytes().startswith(b'\x89PNG')


def test_the_table_names_what_matters_most(model):
    inspector = PairInspector(model)
    pair = inspector.encode(SOURCE, 'value')
    found = inspector.contributions(pair)
    explained = explanation.PairExplanation(pair, inspector.cross_attention(pair), found)
    shown = io.StringIO()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(explanation, 'Console', functools.partial(Console, file=shown, width=80))
        explained.show()
    largest = found.source_words[int(np.abs(found.scores[0]).argmax())]
    (line,) = (line for line in shown.getvalue().splitlines() if line.startswith('│ value'))
    assert largest in line and f'{np.exp(found.log_probs[0]):.0%}' in line


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--label=yes', 'a'], r'--label=yes: .* goes from text to text; give a target'),
        (['--piece=a', 'a'], r'--piece=a: .* goes from text to text; give a target'),
        (['\u200b'], 'The text is empty'),
        (['a', 'b ' * 100], r'The second text has \d+ pieces; the model has 48 positions'),
        (['a\ud83d'], 'half'),
        (['a', 'b\ud83d'], 'half'),
    ],
    ids=ascii,
)
def test_what_cannot_be_explained_is_refused(arguments, message, folder, tmp_path):
    with pytest.raises(UserError, match=message):
        explain.main([f'--checkpoint={folder}', f'--output={tmp_path}/x.html', *arguments])
    assert not list(tmp_path.iterdir())


def test_a_model_without_a_vocabulary_is_refused(model):
    with pytest.raises(UserError, match='has no vocabulary'):
        PairInspector(dataclasses.replace(model, tokenizer=None))


def test_pieces_that_the_vocabulary_lacks_are_never_written(vocabulary):
    """A model may have more rows than the vocabulary has pieces."""
    model = tiny.text_to_text(vocabulary)
    table = np.array(model.params['embeddings']['word']['embedding'])
    longer = np.concatenate([table, 50 * table[:24]])
    bias = np.concatenate([model.params['mlm']['bias'], np.full(24, 50, np.float32)])
    params = model.params | {
        'embeddings': model.params['embeddings'] | {'word': {'embedding': longer}},
        'mlm': model.params['mlm'] | {'bias': bias},
    }
    config = dataclasses.replace(model.config, vocab_size=1024)
    larger = dataclasses.replace(model, config=config, params=params)
    pairs = [PairInspector(each).encode(SOURCE) for each in (model, larger)]
    assert pairs[0].target_ids.tolist() == pairs[1].target_ids.tolist()
