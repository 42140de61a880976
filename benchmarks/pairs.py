"""Minimal pairs: our scorer against a plain loop in torch over Hugging Face's ALBERT, in one run.

    python -m benchmarks.pairs              (needs the extra `reference`)

Both score sentences by word_l2r and by plain pseudo-log-likelihood, with the same random weights of
`albert_base`. The loop masks one piece after the other, for the one score and then for the other, a
sentence of one at a time, as scripts for such scores do; a second one gives the model all masked
copies of a sentence as one batch. Where the last piece of a word is masked both scores ask for the
same, and ours asks once: the numbers of rows are printed. All take turns, and the fastest of each
is compared. --pairs=FILE takes other sentences than those that come with Python, whose worse half
has two words swapped.
"""

import argparse
import dataclasses
import pydoc_data.topics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from albert_jax.data.documents import split_sentences
from albert_jax.data.hub_tokenizer import AnyTokenizer
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.data.vocabulary import train_vocabulary
from albert_jax.interop import conversion
from albert_jax.interop.native import Pretrained
from albert_jax.model.albert import init_params
from albert_jax.model.config import SIZES
from albert_jax.pretraining.pseudo_likelihood import PseudoLikelihood, Sentence
from albert_jax.tasks.minimal_pairs import Pair, encode_pairs, read_pairs

_NUM_TURNS = 2
_VOCAB_SIZE = 3000


def documents() -> list[str]:
    """Sentences that come with Python, in lower case as the vocabulary wants them."""
    text = '\n'.join(pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics))
    return [sentence.strip() for sentence in split_sentences(text)]


def swapped_pairs(num_pairs: int) -> list[Pair]:
    """Sentences of 6 to 20 words, and the same with two neighbouring words swapped."""
    rng = np.random.default_rng(0)
    pairs = []
    for sentence in documents():
        words = sentence.split()
        if not 6 <= len(words) <= 20:
            continue
        place = int(rng.integers(1, len(words) - 2))
        swapped = [*words]
        swapped[place], swapped[place + 1] = words[place + 1], words[place]
        if swapped != words:
            pairs.append(Pair('', sentence, ' '.join(swapped), '', ''))
        if len(pairs) == num_pairs:
            break
    return pairs


def torch_loop(
    model: Any, tokenizer: AnyTokenizer, sentences: Sequence[Sentence], rows_at_once: int
) -> list[float]:
    """The word_l2r score of each sentence by transformers; of pieces that are words, the plain one.

    Args:
      model: an AlbertForMaskedLM or BertForMaskedLM.
      tokenizer: of the model.
      sentences: to score.
      rows_at_once: masked copies of a sentence for each call of the model.
    """
    import torch

    scores = []
    for sentence in sentences:
        rows = []
        for place in range(len(sentence.ids)):
            row = [tokenizer.cls_id, *sentence.ids, tokenizer.sep_id]
            row[place + 1] = tokenizer.mask_id
            # The rest of its word.
            for later in range(place + 1, len(sentence.ids)):
                if sentence.starts_word[later]:
                    break
                row[later + 1] = tokenizer.mask_id
            rows.append(row)
        total = 0.0
        for first in range(0, len(sentence.ids), rows_at_once):
            part = slice(first, min(first + rows_at_once, len(sentence.ids)))
            with torch.inference_mode():
                logits = model(torch.tensor(rows[part], dtype=torch.long)).logits
            for row, place in enumerate(range(part.start, part.stop)):
                log_probs = torch.log_softmax(logits[row, place + 1], -1)
                total += float(log_probs[sentence.ids[place]])
        scores.append(total)
    return scores


def make_model() -> Pretrained:
    """Random weights, larger than at the start of a training, so that scores differ."""
    config = dataclasses.replace(SIZES['albert_base'], vocab_size=_VOCAB_SIZE)
    params = jax.jit(lambda: init_params(config, jax.random.key(0)))()
    params = jax.tree.map(lambda x: np.asarray(x) * 3, params)
    lowered = [sentence.lower() for sentence in documents()]
    return Pretrained(config, params, Tokenizer(train_vocabulary(lowered, _VOCAB_SIZE)))


def main() -> None:
    import torch
    import transformers

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--num_pairs', type=int, default=50)
    parser.add_argument('--pairs', type=Path, help='a file of pairs, in place of swapped words')
    flags = parser.parse_args()
    torch.manual_seed(0)
    model = make_model()
    pairs = read_pairs(flags.pairs)[1] if flags.pairs else swapped_pairs(flags.num_pairs)
    scorer = PseudoLikelihood(model)
    encoded = encode_pairs(scorer, pairs[: flags.num_pairs])
    sentences = [sentence for pair in encoded for sentence in pair]
    with tempfile.TemporaryDirectory() as folder:
        conversion.convert(model, Path(folder) / 'hf', 'huggingface')
        theirs = transformers.AlbertForMaskedLM.from_pretrained(Path(folder) / 'hf').eval()
    tokenizer = model.tokenizer
    assert tokenizer is not None
    alone = [sentence._replace(starts_word=(True,) * len(sentence.ids)) for sentence in sentences]

    def ours() -> list[float]:
        found = scorer(sentences)
        values = [scores.word_l2r for scores in found] + [scores.plain for scores in found]
        return [float(of_one.sum(dtype=np.float64)) for of_one in values]

    def loop(rows_at_once: int) -> list[float]:
        return torch_loop(theirs, tokenizer, sentences + alone, rows_at_once)

    runs: dict[str, Callable[[], list[float]]] = {
        'ours': ours,
        'torch, a row at a time': lambda: loop(1),
        'torch, a sentence at a time': lambda: loop(512),
    }
    runs['ours']()  # compiles
    scores: dict[str, list[float]] = {}
    seconds: dict[str, float] = {}
    for _ in range(_NUM_TURNS):
        for name, run in runs.items():
            started = time.perf_counter()
            scores[name] = run()
            taken = time.perf_counter() - started
            seconds[name] = min(taken, seconds.get(name, taken))
    winners = {name: np.greater(of[::2], of[1::2]) for name, of in scores.items()}
    num_rows = 2 * sum(len(sentence.ids) for sentence in sentences)
    print(
        f'{len(encoded)} pairs: {scorer.num_rows(sentences):,} rows of ours, {num_rows:,} of torch'
    )
    for name, taken in seconds.items():
        ratio, same = taken / seconds['ours'], int((winners[name] == winners['ours']).sum())
        print(f'{name}: {taken:.2f} s, {ratio:.2f} of our time; {same} winners as ours')


if __name__ == '__main__':
    main()
