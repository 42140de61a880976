"""Whether a vocabulary can write the targets of a task, told before anything is trained."""

from collections.abc import Sequence

import numpy as np

from albert_jax.cli.notes import note
from albert_jax.data.hub_tokenizer import AnyTokenizer
from albert_jax.tasks.pair_features import PairFeatures
from albert_jax.tasks.text_pairs import TextPair

# The share of unknown pieces of which a user must know.
_MANY_UNKNOWN = 0.02
# The share of targets that would be written otherwise.
_MANY_CHANGED = 0.1
# Targets that are looked at for it.
_SAMPLE = 1000
_SHOWN = 60


def note_target_vocabulary(
    examples: Sequence[TextPair], features: PairFeatures, tokenizer: AnyTokenizer
) -> None:
    """Notes if many pieces of the targets are unknown, or many targets cannot be written as is.

    Args:
      examples: that are trained on.
      features: of them.
      tokenizer: that encoded them.
    """
    places = [int(index) for index in np.linspace(0, len(examples) - 1, _SAMPLE)]
    chosen = {index: examples[index] for index in places}
    share = share_unknown(features, tokenizer)
    if share >= _MANY_UNKNOWN:
        note(
            f'{share:.1%} of the pieces of the targets are unknown to the vocabulary, and cannot '
            f'be written by the model{_unknown_letters(list(chosen.values()), tokenizer)}; train '
            f'a vocabulary on both sides with python -m albert_jax.prepare --vocabulary=train '
            f'(docs/FINETUNING.md).'
        )
        return
    texts = [example.target for example in chosen.values() if example.target is not None]
    written = [tokenizer.decode(ids) for ids in tokenizer.encode(texts)]
    changed = [
        pair for pair in zip(texts, written, strict=True) if _letters(pair[0]) != _letters(pair[1])
    ]
    if len(changed) >= _MANY_CHANGED * len(texts):
        before, after = (text[:_SHOWN] for text in changed[0])
        note(
            f'{len(changed) / len(texts):.0%} of the targets cannot be written as they are with '
            f'this vocabulary: {before!r} becomes {after!r}. Scores compare with the first; '
            f'python -m albert_jax.prepare --vocabulary=train --keep_case --keep_accents makes '
            f'one that keeps both.'
        )


def share_unknown(features: PairFeatures, tokenizer: AnyTokenizer) -> float:
    """The share of the targets' pieces that stands for what the vocabulary does not have."""
    is_second = np.arange(len(features.ids)) >= np.repeat(
        features.starts[:-1] + features.seconds, np.diff(features.starts)
    )
    num_pieces = int(is_second.sum()) - 2 * features.num_examples
    num_unknown = int((features.ids[is_second] == tokenizer.unk_id).sum())
    return num_unknown / max(num_pieces, 1)


def _unknown_letters(examples: Sequence[TextPair], tokenizer: AnyTokenizer) -> str:
    """The characters that the vocabulary does not have, the most frequent first: ' (ß, ü, ä)'."""
    counts: dict[str, int] = {}
    for example in examples:
        for letter in example.target or '':
            counts[letter] = counts.get(letter, 0) + 1
    letters = sorted((x for x in counts if not x.isspace()), key=lambda x: (-counts[x], x))
    encoded = tokenizer.encode(letters)
    unknown = [x for x, ids in zip(letters, encoded, strict=True) if tokenizer.unk_id in ids]
    return f' ({", ".join(unknown[:5])})' if unknown else ''


def _letters(text: str) -> str:
    return ''.join(text.split())
