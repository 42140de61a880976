"""Our metrics against references that were written from the official definitions."""

import math
import random

import numpy as np
import pytest

from albert_jax.tasks import metrics
from tests import reference_metrics as reference

WORDS = ['the', 'a', 'an', 'Denver', 'Broncos,', '1066', 'saint-denis', 'N.F.L.', 'of', 'Paris']


@pytest.mark.parametrize('seed', range(5))
def test_classification_and_correlation(seed):
    rng = np.random.default_rng(seed)
    labels, found = rng.integers(0, 2, (2, 57))
    for ours, theirs in (
        (metrics.accuracy, reference.accuracy),
        (metrics.f1, reference.f1_binary),
        (metrics.matthews, reference.matthews),
    ):
        assert ours(labels, found) == pytest.approx(theirs(labels.tolist(), found.tolist()))
    # Ties too: STS-B's labels have many.
    x, y = np.round(rng.normal(size=(2, 40)), 1)
    for ours, theirs in (
        (metrics.pearson, reference.pearson),
        (metrics.spearman, reference.spearman),
    ):
        assert ours(x, y) == pytest.approx(theirs(x.tolist(), y.tolist()))


def test_a_metric_without_a_value_is_undefined_and_no_exception():
    assert math.isnan(metrics.pearson([1.0, 2.0, 3.0], [2.0, 2.0, 2.0]))
    assert math.isnan(metrics.spearman([1.0], [2.0]))
    assert metrics.matthews([0, 1, 1], [1, 1, 1]) == 0
    assert metrics.f1([0, 0], [0, 0]) == 0


def questions(seed: int, count: int = 60):
    rng = random.Random(seed)

    def text():
        return ' '.join(rng.choices(WORDS, k=rng.randint(1, 4)))

    gold = {str(i): [text() for _ in range(rng.randint(0, 3))] for i in range(count)}
    found = {
        key: rng.choice([*texts, text(), '', 'The ' + text() + '.']) for key, texts in gold.items()
    }
    odds = {key: rng.uniform(-3, 3) for key in gold}
    return gold, found, odds


@pytest.mark.parametrize('seed', range(10))
def test_squad_2_with_its_breakdown_and_best_thresholds(seed):
    gold, found, odds = questions(seed)
    expected = reference.squad_v2(gold, found, odds, na_prob_thresh=0.0)
    ours = metrics.squad2(gold, found, odds, threshold=0.0)
    for name, theirs in (
        ('exact_match', 'exact'),
        ('f1', 'f1'),
        ('exact_match_answerable', 'HasAns_exact'),
        ('f1_answerable', 'HasAns_f1'),
        ('exact_match_impossible', 'NoAns_exact'),
        ('f1_impossible', 'NoAns_f1'),
    ):
        assert 100 * ours[name] == pytest.approx(expected[theirs]), name
    for name, theirs in (
        ('best_exact_match', 'best_exact'),
        ('best_exact_match_threshold', 'best_exact_thresh'),
        ('best_f1', 'best_f1'),
        ('best_f1_threshold', 'best_f1_thresh'),
    ):
        factor = 1 if 'thresh' in theirs else 100
        assert factor * ours[name] == pytest.approx(expected[theirs]), name


@pytest.mark.parametrize('seed', range(5))
def test_squad_1(seed):
    gold, found, _ = questions(seed)
    gold = {key: texts for key, texts in gold.items() if texts}
    found = {key: found[key] or 'something' for key in gold}
    ours, expected = metrics.squad1(gold, found), reference.squad_v1(gold, found)
    assert 100 * ours['exact_match'] == pytest.approx(expected['exact_match'])
    assert 100 * ours['f1'] == pytest.approx(expected['f1'])


@pytest.mark.parametrize('seed', range(20))
def test_spans_as_conlleval(seed):
    rng = random.Random(seed)
    tags = ['O', 'B-PER', 'I-PER', 'B-LOC', 'I-LOC']
    gold = [[rng.choice(tags) for _ in range(rng.randint(1, 12))] for _ in range(20)]
    found = [[rng.choice([tag, rng.choice(tags)]) for tag in sentence] for sentence in gold]
    for sentence in gold:
        for scheme in ('IOB1', 'IOB2'):
            assert metrics.spans(sentence) == reference.conll_spans(sentence, scheme)
    ours, expected = metrics.span_f1(gold, found), reference.conll_f1(gold, found)
    for name, value in expected.items():
        assert 100 * ours[name] == pytest.approx(value)


def test_normalised_answers():
    assert metrics.normalize_answer("The  Saint-Denis' U.S.A. an") == 'saintdenis usa'
    assert metrics.squad_f1(['Denver Broncos'], 'the Broncos') == pytest.approx(2 / 3)
    assert metrics.squad_exact(['a cat', 'cats'], 'The cat!') == 1
