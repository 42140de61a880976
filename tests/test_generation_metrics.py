"""Scores of texts, beside the numbers that others have published for theirs."""

from collections import Counter

import numpy as np
import pytest

from albert_jax.tasks import generation_metrics
from albert_jax.tasks.generation_metrics import Texts
from albert_jax.tasks.sari import sari, sari_of_words

SOURCE = 'About 95 species are currently accepted .'
REFERENCES = [
    'About 95 species are currently known .',
    'About 95 species are now accepted .',
    '95 species are now accepted .',
]
# The three rewritings of the authors' example, and what tensor2tensor's sari_hook_test has for
# them.
PUBLISHED = {
    'About 95 you now get in .': 0.2695360,
    'About 95 species are now agreed .': 0.6170966,
    'About 95 species are currently agreed .': 0.5088682,
}


@pytest.mark.parametrize('prediction', PUBLISHED)
def test_sari_has_the_published_values(prediction):
    references = [reference.split() for reference in REFERENCES]
    value = sari_of_words(SOURCE.split(), prediction.split(), references)
    assert value == pytest.approx(PUBLISHED[prediction], abs=1e-7)


def test_sari_of_a_corpus_is_the_mean_in_lower_case():
    # As the metric cards `sari` and `wiki_split` of Hugging Face have them.
    value = sari([SOURCE], ['About 95 you now get in.'], [REFERENCES])
    assert value == pytest.approx(26.953601953601954, abs=1e-9)
    value = sari([SOURCE], ['ABOUT 95 you now get in .'], [REFERENCES[:1]])
    assert value == pytest.approx(21.805555555555557, abs=1e-9)
    both = sari([SOURCE] * 2, ['About 95 you now get in .', REFERENCES[0]], [REFERENCES[:1]] * 2)
    assert both == pytest.approx((21.805555555555557 + 100) / 2, abs=1e-9)


def test_sari_by_hand():
    # Source 1 2, prediction 2, references 1 2 and 1. Of single words: 2 is kept, which half of the
    # references do, of 1.5 that should be: F1 of 1/2 and 1/3 = 0.4. 1 is deleted, which none does:
    # 0. Nothing is added, rightly: 1. Of pairs: the one is deleted, but the only reference with
    # pairs has it: kept 0, deleted 0, added 1. Longer ones are nowhere: 1, 1, 1 twice.
    value = sari_of_words(['1', '2'], ['2'], [['1', '2'], ['1']])
    assert value == pytest.approx((0.4 + 0 + 1 + 0 + 0 + 1 + 6) / 12)


def chrf(prediction, reference):
    """F2 of the mean precision and recall of n-grams of 1 to 6 letters (Popović, 2015)."""
    precisions, recalls = [], []
    for n in range(1, 7):
        of_both = []
        for text in (prediction, reference):
            letters = text.replace(' ', '')
            of_both.append(Counter(letters[i : i + n] for i in range(len(letters) - n + 1)))
        ours, theirs = of_both
        precisions.append((ours & theirs).total() / ours.total())
        recalls.append((ours & theirs).total() / theirs.total())
    precision, recall = np.mean(precisions), np.mean(recalls)
    return 5 * precision * recall / (4 * precision + recall)


def test_libraries_give_the_published_values_with_their_signatures():
    texts = Texts([SOURCE], ['About 95 you now get in .'], REFERENCES[:1])
    values, signature = generation_metrics.bleu(texts)
    # Of the metric card `wiki_split`.
    assert values == {'bleu': pytest.approx(14.535768424205482)}
    assert signature.startswith('BLEU nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2')
    values, signature = generation_metrics.chrf(texts)
    expected = 100 * chrf(texts.predictions[0], REFERENCES[0])
    assert values == {'chrf': pytest.approx(expected, abs=1e-4)}
    assert signature.startswith('chrF2 nrefs:1|case:mixed')
    # Two of six words, and one pair of five, of both: punctuation is none.
    values = generation_metrics.rouge(
        texts._replace(predictions=['About 95 you now get in'])
    ).values
    assert values['rouge1'] == values['rouge_l'] == pytest.approx(100 / 3)
    assert values['rouge2'] == pytest.approx(20)
    same = Texts(['x'] * 2, ['Ein  Mann .', 'b'], ['Ein Mann .', 'B'])
    assert generation_metrics.exact_match(same).values == {'exact_match': 50}


def test_a_copy_of_the_source_is_scored_beside_the_model():
    # By hand: for every n a copy keeps all that is right and deletes nothing, 1 and 1, and does not
    # add what "e" makes new, 0. Its n-grams are all in the reference, and it is a word short.
    texts = Texts(['a b c d'], ['z'], ['a b c d e'])
    assert generation_metrics.copies(texts).values == {
        'source_sari': pytest.approx(100 * 2 / 3),
        'source_bleu': pytest.approx(100 * np.exp(1 - 5 / 4)),
    }


@pytest.mark.parametrize(
    ('language', 'tokenizer'),
    [('de', '13a'), ('', '13a'), ('zh', 'zh'), ('zh-CN', 'zh'), ('ja', 'char')],
)
def test_bleu_cuts_texts_as_their_language_wants(language, tokenizer):
    texts = Texts(['a'], ['我 爱 你 们'], ['我爱你们'], language)
    assert f'tok:{tokenizer}|' in generation_metrics.bleu(texts).signature
