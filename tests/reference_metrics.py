"""Independent reference implementations of NLP evaluation metrics, for use as test oracles.

They are written for plainness from the definitions of the metrics and the rules of the official
scorers (SQuAD v1.1 and v2.0, conlleval.pl), and share no code with the package under test.
"""

import math
import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

# --- Classification and regression -----------------------------------------------------------


def accuracy(labels: Sequence, predictions: Sequence) -> float:
    """The fraction of predictions that equal their label."""
    _check_lengths(labels, predictions)
    right = 0
    for label, prediction in zip(labels, predictions, strict=True):
        if label == prediction:
            right += 1
    return right / len(labels)


def f1_binary(labels: Sequence, predictions: Sequence, positive=1) -> float:
    """F1 of the positive class; 0.0 where no positive is right."""
    true_pos, false_pos, false_neg, _ = _confusion(labels, predictions, positive)
    if true_pos == 0:
        return 0.0
    precision = true_pos / (true_pos + false_pos)
    recall = true_pos / (true_pos + false_neg)
    return 2 * precision * recall / (precision + recall)


def matthews(labels: Sequence, predictions: Sequence) -> float:
    """Matthews correlation of binary labels (1 is positive); 0.0 where it is undefined."""
    true_pos, false_pos, false_neg, true_neg = _confusion(labels, predictions, 1)
    product = (
        (true_pos + false_pos)
        * (true_pos + false_neg)
        * (true_neg + false_pos)
        * (true_neg + false_neg)
    )
    if product == 0:
        return 0.0
    return (true_pos * true_neg - false_pos * false_neg) / math.sqrt(product)


def pearson(x: Sequence[float], y: Sequence[float]) -> float:
    """Pearson correlation; NaN where either side is constant, as in SciPy."""
    _check_lengths(x, y)
    x = np.asarray(x, dtype=np.float64)
    y = np.asarray(y, dtype=np.float64)
    if np.all(x == x[0]) or np.all(y == y[0]):
        return math.nan
    dx = x - x.mean()
    dy = y - y.mean()
    return float(np.sum(dx * dy) / (np.sqrt(np.sum(dx * dx)) * np.sqrt(np.sum(dy * dy))))


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Pearson correlation of the ranks, where tied values share their average rank."""
    return pearson(_average_ranks(x), _average_ranks(y))


def _check_lengths(first: Sequence, second: Sequence) -> None:
    if len(first) != len(second):
        raise ValueError(f'lengths differ: {len(first)} and {len(second)}')
    if len(first) == 0:
        raise ValueError('nothing to score')


def _confusion(labels: Sequence, predictions: Sequence, positive) -> tuple[int, int, int, int]:
    """True positives, false positives, false negatives and true negatives."""
    _check_lengths(labels, predictions)
    counts = Counter()
    for label, prediction in zip(labels, predictions, strict=True):
        counts[bool(label == positive), bool(prediction == positive)] += 1
    return counts[True, True], counts[False, True], counts[True, False], counts[False, False]


def _average_ranks(values: Sequence[float]) -> list[float]:
    """One-based ranks: those below a value, plus the middle place among its equals."""
    ranks = []
    for value in values:
        below = sum(1 for other in values if other < value)
        equal = sum(1 for other in values if other == value)
        ranks.append(below + (equal + 1) / 2)
    return ranks


# --- SQuAD -----------------------------------------------------------------------------------


def squad_normalize(text: str) -> str:
    """Lower-case text without ASCII punctuation, articles and superfluous white space."""
    text = text.lower()
    text = ''.join(character for character in text if character not in string.punctuation)
    text = re.sub(r'\b(?:a|an|the)\b', ' ', text)
    return ' '.join(text.split())


def squad_exact(gold_answers: Sequence[str], prediction: str) -> float:
    """1.0 where the prediction equals any gold answer once normalised (v2.0 rules), else 0.0."""
    prediction = squad_normalize(prediction)
    gold = [squad_normalize(answer) for answer in _v2_gold(gold_answers)]
    return 1.0 if prediction in gold else 0.0


def squad_f1(gold_answers: Sequence[str], prediction: str) -> float:
    """The best token-overlap F1 of the prediction with any gold answer (v2.0 rules)."""
    return max(_v2_pair_f1(answer, prediction) for answer in _v2_gold(gold_answers))


def squad_v1(gold: Mapping[str, Sequence[str]], predictions: Mapping[str, str]) -> dict[str, float]:
    """Exact match and F1 in percent over all questions, as in the official evaluate-v1.1.py."""
    exact_total = 0.0
    f1_total = 0.0
    for question, answers in gold.items():
        if question not in predictions:
            continue  # An unanswered question scores nothing but still counts below.
        prediction = predictions[question]
        exact_total += max(
            1.0 if squad_normalize(answer) == squad_normalize(prediction) else 0.0
            for answer in answers
        )
        f1_total += max(_overlap_f1(answer, prediction) for answer in answers)
    return {'exact_match': 100.0 * exact_total / len(gold), 'f1': 100.0 * f1_total / len(gold)}


def squad_v2(
    gold: Mapping[str, Sequence[str]],
    predictions: Mapping[str, str],
    no_answer_odds: Mapping[str, float],
    na_prob_thresh: float = 1.0,
) -> dict[str, float]:
    """Scores and best thresholds as in the official evaluate-v2.0.py; no answers: impossible."""
    # Whether a question has answers is decided before any of them is dropped as empty.
    answerable = {question: len(answers) > 0 for question, answers in gold.items()}
    raw = {
        'exact': {q: squad_exact(answers, predictions[q]) for q, answers in gold.items()},
        'f1': {q: squad_f1(answers, predictions[q]) for q, answers in gold.items()},
    }
    groups = {
        '': list(gold),
        'HasAns_': [q for q in gold if answerable[q]],
        'NoAns_': [q for q in gold if not answerable[q]],
    }

    result = {}
    for prefix, questions in groups.items():
        if not questions:
            continue  # The official script leaves an empty group out.
        for metric, raw_scores in raw.items():
            total = 0.0
            for q in questions:
                if no_answer_odds[q] > na_prob_thresh:  # Taken as the prediction "no answer".
                    total += 0.0 if answerable[q] else 1.0
                else:
                    total += raw_scores[q]
            result[prefix + metric] = 100.0 * total / len(questions)

    for metric, raw_scores in raw.items():
        best, threshold = _best_threshold(raw_scores, predictions, no_answer_odds, answerable)
        result[f'best_{metric}'] = best
        result[f'best_{metric}_thresh'] = threshold
    return result


def _best_threshold(
    raw_scores: Mapping[str, float],
    predictions: Mapping[str, str],
    no_answer_odds: Mapping[str, float],
    answerable: Mapping[str, bool],
) -> tuple[float, float]:
    """The best total in percent, and the no-answer odds up to which to answer to reach it."""
    # To begin with, every question is declared unanswerable: right for just the impossible ones.
    score = sum(1 for possible in answerable.values() if not possible)
    best_score = score
    best_threshold = 0.0
    # Then answer them one by one, the surest first. Equal odds keep the mapping's order, and the
    # best may fall between them: so it does in the official script.
    for question in sorted(no_answer_odds, key=lambda q: no_answer_odds[q]):
        if question not in raw_scores:
            continue
        if answerable[question]:
            score += raw_scores[question]
        elif predictions[question] != '':  # Not normalised: 'the' is an answer here.
            score -= 1
        if score > best_score:
            best_score = score
            best_threshold = no_answer_odds[question]
    return 100.0 * best_score / len(raw_scores), best_threshold


def _v2_gold(gold_answers: Sequence[str]) -> list[str]:
    """The gold answers that are not empty once normalised; [''] where none is left."""
    kept = [answer for answer in gold_answers if squad_normalize(answer) != '']
    return kept if kept else ['']


def _v2_pair_f1(answer: str, prediction: str) -> float:
    """Token-overlap F1, where an empty side counts as "no answer"."""
    answer_empty = squad_normalize(answer) == ''
    prediction_empty = squad_normalize(prediction) == ''
    if answer_empty or prediction_empty:
        return 1.0 if answer_empty and prediction_empty else 0.0
    return _overlap_f1(answer, prediction)


def _overlap_f1(answer: str, prediction: str) -> float:
    """F1 of the two bags of normalised tokens; 0.0 where they share none, even if both empty."""
    answer_tokens = squad_normalize(answer).split()
    prediction_tokens = squad_normalize(prediction).split()
    unmatched = list(answer_tokens)
    shared = 0
    for token in prediction_tokens:
        if token in unmatched:
            unmatched.remove(token)
            shared += 1
    if shared == 0:
        return 0.0
    precision = shared / len(prediction_tokens)
    recall = shared / len(answer_tokens)
    return 2 * precision * recall / (precision + recall)


# --- CoNLL chunks ----------------------------------------------------------------------------


def conll_spans(tags: Sequence[str], scheme: str = 'IOB2') -> set[tuple[str, int, int]]:
    """The chunks of one sentence as (type, start, end_exclusive), read as conlleval.pl does."""
    # conlleval.pl reads both schemes by one rule: a chunk starts at any B-, and at an I- that
    # follows no chunk or one of another type. So the scheme changes nothing, but for its check.
    if scheme not in ('IOB1', 'IOB2'):
        raise ValueError(f'unknown scheme {scheme!r}')
    spans = set()
    start = None  # Of the open chunk, if any.
    open_type = ''
    for position, tag in enumerate(tags):
        prefix, _, chunk_type = tag.partition('-')
        if prefix not in ('B', 'I', 'O'):
            raise ValueError(f'unknown tag {tag!r}')
        continues = prefix == 'I' and start is not None and chunk_type == open_type
        if continues:
            continue
        if start is not None:
            spans.add((open_type, start, position))
            start = None
        if prefix != 'O':
            start = position
            open_type = chunk_type
    if start is not None:
        spans.add((open_type, start, len(tags)))
    return spans


def conll_f1(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], scheme: str = 'IOB2'
) -> dict[str, float]:
    """Chunk precision, recall and F1 in percent over all sentences; 0.0 where undefined."""
    gold_count = 0
    predicted_count = 0
    right = 0
    for gold_tags, predicted_tags in zip(gold, predicted, strict=True):
        if len(gold_tags) != len(predicted_tags):
            raise ValueError(f'lengths differ: {len(gold_tags)} and {len(predicted_tags)}')
        gold_spans = conll_spans(gold_tags, scheme)
        predicted_spans = conll_spans(predicted_tags, scheme)
        gold_count += len(gold_spans)
        predicted_count += len(predicted_spans)
        right += len(gold_spans & predicted_spans)
    precision = 100.0 * right / predicted_count if predicted_count else 0.0
    recall = 100.0 * right / gold_count if gold_count else 0.0
    f1 = 2 * precision * recall / (precision + recall) if right else 0.0
    return {'precision': precision, 'recall': recall, 'f1': f1}


# --- RACE ------------------------------------------------------------------------------------


def race_accuracy(gold: Mapping[str, str], predicted: Mapping[str, str]) -> dict[str, float]:
    """Accuracy in percent by level and over all; a missing prediction is wrong."""
    groups = {'middle': [], 'high': [], 'all': []}
    for question, letter in gold.items():
        right = question in predicted and predicted[question] == letter
        if question.startswith('middle'):
            groups['middle'].append(right)
        elif question.startswith('high'):
            groups['high'].append(right)
        else:
            raise ValueError(f'{question!r} starts with neither middle nor high')
        groups['all'].append(right)
    return {level: 100.0 * sum(marks) / len(marks) for level, marks in groups.items() if marks}
