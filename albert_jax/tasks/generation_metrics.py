"""Metrics of generated texts by kept libraries, 0 to 100 as those who publish them have them."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from albert_jax.tasks.sari import sari

# Languages that sacrebleu's words of BLEU, between spaces, do not suit: their tokenizers. Those for
# Japanese and Korean want MeCab, so that characters take their place.
_TOKENIZERS = {'zh': 'zh', 'ja': 'char', 'ko': 'char', 'th': 'char'}
_DEFAULT_TOKENIZER = '13a'


class Texts(NamedTuple):
    """What is compared, text by text."""

    sources: Sequence[str]
    predictions: Sequence[str]
    references: Sequence[str]
    # Of the references, where it is known to be one: 'de'.
    language: str = ''


class Score(NamedTuple):
    """A metric's values by their names, and how it was computed, where its library says so."""

    values: Mapping[str, float]
    signature: str = ''


def bleu(texts: Texts) -> Score:
    """BLEU of the corpus by sacrebleu, with its signature."""
    from sacrebleu.metrics.bleu import BLEU

    tokenizer = _TOKENIZERS.get(texts.language.partition('-')[0].lower(), _DEFAULT_TOKENIZER)
    metric = BLEU(tokenize=tokenizer)
    score = metric.corpus_score(texts.predictions, [texts.references]).score
    return Score({'bleu': score}, f'BLEU {metric.get_signature()}')


def chrf(texts: Texts) -> Score:
    """ChrF2 of the corpus by sacrebleu, with its signature."""
    from sacrebleu.metrics.chrf import CHRF

    metric = CHRF()
    score = metric.corpus_score(texts.predictions, [texts.references]).score
    return Score({'chrf': score}, f'chrF2 {metric.get_signature()}')


def rouge(texts: Texts) -> Score:
    """The means of F1 of ROUGE-1, ROUGE-2 and ROUGE-L by rouge-score, with stems of words.

    That library knows the letters a to z and digits, and nothing else.
    """
    from rouge_score.rouge_scorer import RougeScorer

    names = {'rouge1': 'rouge1', 'rouge2': 'rouge2', 'rouge_l': 'rougeL'}
    scorer = RougeScorer(list(names.values()), use_stemmer=True)
    scores = [
        scorer.score(reference, prediction)
        for reference, prediction in zip(texts.references, texts.predictions, strict=True)
    ]
    means = {
        name: 100 * float(np.mean([score[theirs].fmeasure for score in scores]))
        for name, theirs in names.items()
    }
    return Score(means, 'ROUGE rouge-score with stemming, mean F1')


def simplification(texts: Texts) -> Score:
    """SARI."""
    references = [[reference] for reference in texts.references]
    value = sari(texts.sources, texts.predictions, references)
    return Score({'sari': value}, 'SARI n:1-4|case:lc|tok:13a|0/0:1')


def copies(texts: Texts) -> Score:
    """SARI and BLEU of the sources themselves: what a model has that changes nothing."""
    unchanged = texts._replace(predictions=texts.sources)
    return Score(
        {
            'source_sari': simplification(unchanged).values['sari'],
            'source_bleu': bleu(unchanged).values['bleu'],
        }
    )


def exact_match(texts: Texts) -> Score:
    """The percentage of predictions that are their reference, white space aside."""
    pairs = zip(texts.predictions, texts.references, strict=True)
    share = np.mean([prediction.split() == reference.split() for prediction, reference in pairs])
    return Score({'exact_match': 100 * float(share)})


Metric = Callable[[Texts], Score]
