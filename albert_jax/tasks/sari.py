"""SARI (Xu et al. 2016): what a rewriting keeps, deletes and adds, n-gram by n-gram.

As in tensor2tensor's `sari_hook`, by whose authors the published figures on WikiSplit are: each
n-gram of a text counts once, and 0/0 is 1.
"""

from collections.abc import Sequence

Ngram = tuple[str, ...]

_MAX_ORDER = 4


def sari(
    sources: Sequence[str], predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> float:
    """The mean of the examples' SARI, 0 to 100; in lower case, cut into words as sacrebleu does.

    Args:
      sources: what was to be rewritten.
      predictions: of each source.
      references: one or more of each source.
    """
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    tokenizer = Tokenizer13a()

    def words(text: str) -> list[str]:
        return tokenizer(text.lower()).split()

    scores = [
        sari_of_words(words(source), words(prediction), list(map(words, of_one)))
        for source, prediction, of_one in zip(sources, predictions, references, strict=True)
    ]
    return 100 * sum(scores) / len(scores)


def sari_of_words(
    source: Sequence[str], prediction: Sequence[str], references: Sequence[Sequence[str]]
) -> float:
    """SARI of one example, 0 to 1: the mean of three scores, each a mean over n of 1 to 4.

    They are the F1 of what is kept, the precision of what is deleted, and the F1 of what is added.

    Args:
      source: words of what was to be rewritten.
      prediction: words of the rewriting.
      references: words of each right rewriting.
    """
    total = 0.0
    for order in range(1, _MAX_ORDER + 1):
        before, after = _ngrams(source, order), _ngrams(prediction, order)
        right = [ngrams for ngrams in (_ngrams(words, order) for words in references) if ngrams]
        # The share of the references that have an n-gram.
        shares = {
            ngram: sum(ngram in ngrams for ngrams in right) / len(right)
            for ngram in set().union(*right)
        }
        kept, deleted, added = before & after, before - after, after - before
        total += _f1(
            sum(shares.get(ngram, 0.0) for ngram in kept),
            len(kept),
            sum(shares.get(ngram, 0.0) for ngram in before),
        )
        total += _ratio(sum(1 - shares.get(ngram, 0.0) for ngram in deleted), len(deleted))
        total += _f1(len(added & set(shares)), len(added), len(set(shares) - before))
    return total / (3 * _MAX_ORDER)


def _ngrams(words: Sequence[str], order: int) -> set[Ngram]:
    return {tuple(words[i : i + order]) for i in range(len(words) - order + 1)}


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 1.0


def _f1(num_right: float, num_done: float, num_to_do: float) -> float:
    """F1 of what was done, of what should have been done."""
    precision, recall = _ratio(num_right, num_done), _ratio(num_right, num_to_do)
    return 2 * precision * recall / (precision + recall) if precision and recall else 0.0
