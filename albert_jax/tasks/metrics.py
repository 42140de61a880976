"""The metrics of the benchmarks, by their official definitions; fractions, not per cent.

A metric that has no value (a correlation with a constant) is NaN.
"""

import collections
import re
import string
import warnings
from collections.abc import Callable, Mapping, Sequence, Set

import numpy as np

Numbers = np.ndarray | Sequence[float]


def accuracy(labels: Numbers, predictions: Numbers) -> float:
    """Share of equal pairs."""
    return float(np.mean(np.asarray(labels) == np.asarray(predictions)))


def f1(labels: Numbers, predictions: Numbers) -> float:
    """F1 of class 1, as GLUE has it for MRPC and QQP; 0 where nothing is of class 1."""
    # Like SciPy below, a second of imports that predictions do not need.
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, zero_division=0))  # pyright: ignore


def multi_label_f1(labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """F1 of all decisions together (micro), and the mean of each label's (macro).

    As scikit-learn has them; a label that is nowhere and is not predicted counts as 0.

    Args:
      labels: whether each label is right for each example, [examples, labels].
      predictions: whether each is predicted.
    """
    true, predicted = np.asarray(labels, bool), np.asarray(predictions, bool)
    num_right = (true & predicted).sum(0)
    num_both = true.sum(0) + predicted.sum(0)
    return {
        'micro_f1': float(2 * num_right.sum() / max(num_both.sum(), 1)),
        'macro_f1': float(np.mean(2 * num_right / np.maximum(num_both, 1))),
    }


def matthews(labels: Numbers, predictions: Numbers) -> float:
    """Matthews' correlation coefficient; 0 where one side is constant."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, predictions))


def pearson(labels: Numbers, predictions: Numbers) -> float:
    """Pearson's correlation; NaN with a constant."""
    from scipy import stats

    return _correlation(stats.pearsonr, labels, predictions)


def spearman(labels: Numbers, predictions: Numbers) -> float:
    """Spearman's rank correlation; NaN with a constant."""
    from scipy import stats

    return _correlation(stats.spearmanr, labels, predictions)


def mean_squared_error(labels: Numbers, predictions: Numbers) -> float:
    """Mean squared difference."""
    labels, predictions = _as_float64(labels), _as_float64(predictions)
    return float(np.mean(np.square(labels - predictions)))


def _as_float64(numbers: Numbers) -> np.ndarray:
    """Where the square of what float32 can hold does not overflow."""
    return np.asarray(numbers, np.float64)


def _correlation(function: Callable, labels: Numbers, predictions: Numbers) -> float:
    labels, predictions = _as_float64(labels), _as_float64(predictions)
    if len(labels) < 2 or np.ptp(labels) == 0 or np.ptp(predictions) == 0:
        return float('nan')
    with warnings.catch_warnings():
        # Nearly constant predictions: the value is what it is.
        warnings.simplefilter('ignore')
        return float(function(labels, predictions).statistic)


def normalize_answer(text: str) -> str:
    """SQuAD's: lower case, without punctuation, articles and surplus white space."""
    text = ''.join(letter for letter in text.lower() if letter not in string.punctuation)
    return ' '.join(re.sub(r'\b(a|an|the)\b', ' ', text).split())


def squad_exact(answers: Sequence[str], prediction: str) -> float:
    """1 if the prediction is one of the answers, after normalisation."""
    return float(
        max(normalize_answer(answer) == normalize_answer(prediction) for answer in answers)
    )


def squad_f1(answers: Sequence[str], prediction: str) -> float:
    """The best F1 of the normalised words against one of the answers; two empty ones agree."""
    return max(_words_f1(normalize_answer(a).split(), normalize_answer(prediction).split())
               for a in answers)  # fmt: skip


def _words_f1(answer: list[str], prediction: list[str]) -> float:
    if not answer or not prediction:
        return float(answer == prediction)
    common = sum((collections.Counter(answer) & collections.Counter(prediction)).values())
    return 2 * common / (len(answer) + len(prediction))


def squad1(
    answers: Mapping[str, Sequence[str]], predictions: Mapping[str, str]
) -> dict[str, float]:
    """Exact match and F1, as the official evaluate-v1.1.py has them.

    Args:
      answers: of each question, one or more.
      predictions: of each question.
    """
    exact = {key: squad_exact(texts, predictions[key]) for key, texts in answers.items()}
    # In version 1.1 nothing agrees with an empty prediction.
    f1s = {
        key: squad_f1(texts, predictions[key]) if normalize_answer(predictions[key]) else 0.0
        for key, texts in answers.items()
    }
    return {'exact_match': _mean(exact), 'f1': _mean(f1s)}


def squad2(
    answers: Mapping[str, Sequence[str]],
    predictions: Mapping[str, str],
    no_answer_odds: Mapping[str, float],
    threshold: float,
) -> dict[str, float]:
    """Exact match and F1 over all, the answerable and the impossible questions, and the best.

    As the official evaluate-v2.0.py has them: above the threshold a question counts as left
    without an answer, and the best thresholds are searched with the raw predictions.

    Args:
      answers: of each question; none where it has none.
      predictions: of each question, the best text whatever the odds; '' for none.
      no_answer_odds: higher where no answer is likelier.
      threshold: of the odds.
    """
    # Answers that are nothing once normalised do not count.
    gold = {
        key: [t for t in texts if normalize_answer(t)] or [''] for key, texts in answers.items()
    }
    is_impossible = {key: not texts for key, texts in answers.items()}
    metrics: dict[str, float] = {}
    for name, function in (('exact_match', squad_exact), ('f1', squad_f1)):
        raw = {key: function(texts, predictions[key]) for key, texts in gold.items()}
        scores = {
            key: float(is_impossible[key]) if no_answer_odds[key] > threshold else value
            for key, value in raw.items()
        }
        metrics[name] = _mean(scores)
        for kind, wanted in (('answerable', False), ('impossible', True)):
            chosen = {key: v for key, v in scores.items() if is_impossible[key] == wanted}
            if chosen:
                metrics[f'{name}_{kind}'] = _mean(chosen)
        best, best_at = best_threshold(raw, predictions, no_answer_odds, is_impossible)
        metrics[f'best_{name}'] = best
        metrics[f'best_{name}_threshold'] = best_at
    return metrics


def best_threshold(
    scores: Mapping[str, float],
    predictions: Mapping[str, str],
    no_answer_odds: Mapping[str, float],
    is_impossible: Mapping[str, bool],
) -> tuple[float, float]:
    """The best mean score, and the odds above which a question is then left without answer.

    As in the official evaluate-v2.0.py: questions are walked through in the order of their odds.
    """
    current = best = sum(is_impossible.values())
    threshold = 0.0
    for key in sorted(no_answer_odds, key=lambda key: no_answer_odds[key]):
        if key not in scores:
            continue
        if not is_impossible[key]:
            current += scores[key]
        elif predictions[key]:
            current -= 1
        if current > best:
            best, threshold = current, no_answer_odds[key]
    return best / max(len(scores), 1), threshold


def _mean(values: Mapping[str, float]) -> float:
    return float(np.mean(list(values.values()))) if values else float('nan')


def spans(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """The chunks (type, start, end) of a sentence's IOB1 or IOB2 tags, as conlleval reads them.

    B- always starts a chunk; I- does after O and after another type.
    """
    chunks: set[tuple[str, int, int]] = set()
    kind, start = '', 0
    for position, tag in enumerate([*tags, 'O']):
        prefix, _, name = tag.partition('-')
        if kind and (prefix in ('B', 'O') or name != kind):
            chunks.add((kind, start, position))
            kind = ''
        if prefix != 'O' and not kind:
            kind, start = name, position
    return chunks


def span_f1(
    labels: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Precision, recall and F1 of chunks over all sentences; 0 where there are none."""
    return set_f1([spans(tags) for tags in labels], [spans(tags) for tags in predictions])


def set_f1(labels: Sequence[Set[object]], predictions: Sequence[Set[object]]) -> dict[str, float]:
    """Precision, recall and F1 of the members of all sets; 0 where there are none.

    Args:
      labels: what is right, for each example.
      predictions: what is predicted, for each.
    """
    pairs = list(zip(labels, predictions, strict=True))
    num_right = sum(len(true & predicted) for true, predicted in pairs)
    num_true, num_predicted = sum(map(len, labels)), sum(map(len, predictions))
    precision = num_right / num_predicted if num_predicted else 0.0
    recall = num_right / num_true if num_true else 0.0
    total = precision + recall
    return {
        'precision': precision,
        'recall': recall,
        'f1': 2 * precision * recall / total if total else 0.0,
    }
