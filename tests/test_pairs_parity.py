"""Minimal pairs by our scorer and by a plain loop in torch over transformers, on BLiMP."""

import re
from typing import Any

import numpy as np
import pytest

from albert_jax.data.hub_tokenizer import HubTokenizer
from albert_jax.interop import conversion
from albert_jax.interop.native import Pretrained
from albert_jax.model.config import AlbertConfig
from albert_jax.pretraining.pseudo_likelihood import PseudoLikelihood
from albert_jax.tasks.minimal_pairs import encode_pairs, read_pairs
from benchmarks.pairs import torch_loop
from tests import tiny
from tests.conftest import shared_data

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings('ignore')]
transformers = pytest.importorskip('transformers', reason='needs the extra reference')

_NUM_PAIRS = 1000


@pytest.mark.parametrize('family', ['Albert', 'Bert'])
def test_the_same_winners_of_1000_pairs(family: str, tokenizer, tmp_path) -> None:
    changes: dict[str, Any] = {'embedding_size': 16}
    _, pairs = read_pairs(shared_data('pairs/blimp.jsonl.gz'), limit_per_group=15)
    pairs = pairs[:_NUM_PAIRS]
    if family == 'Bert':
        text = ' '.join(f'{pair.better} {pair.worse}' for pair in pairs).lower()
        # Longer words are cut into letters.
        words = sorted(set(re.findall('[a-z]{2,7}|[^a-z ]', text)))
        letters = 'abcdefghijklmnopqrstuvwxyz'
        special = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
        pieces = [*special, *words, *letters, *(f'##{letter}' for letter in letters)]
        tokenizer = HubTokenizer.from_wordpiece('\n'.join(pieces) + '\n')
        changes = {'embedding_size': 32, 'use_embedding_projection': False, 'sharing': 'none'}
    config = AlbertConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, num_hidden_layers=2,
        num_attention_heads=4, intermediate_size=64, max_position_embeddings=128,
        **changes,
    )  # fmt: skip
    model = Pretrained(config, tiny.random_params(config), tokenizer)
    conversion.convert(model, tmp_path / 'hf', 'huggingface')
    theirs = getattr(transformers, f'{family}ForMaskedLM').from_pretrained(tmp_path / 'hf').eval()
    scorer = PseudoLikelihood(model)
    encoded = encode_pairs(scorer, pairs)
    assert len(encoded) == _NUM_PAIRS
    sentences = [sentence for pair in encoded for sentence in pair]
    # Where every piece is a word, word_l2r is the plain score.
    alone = [sentence._replace(starts_word=(True,) * len(sentence.ids)) for sentence in sentences]
    found = scorer(sentences)
    for ours, of_loop in (
        ([scores.word_l2r for scores in found], torch_loop(theirs, tokenizer, sentences, 512)),
        ([scores.plain for scores in found], torch_loop(theirs, tokenizer, alone, 512)),
    ):
        totals = np.array([values.sum(dtype=np.float64) for values in ours])
        np.testing.assert_allclose(totals, of_loop, rtol=1e-5, atol=2e-4)
        expected = np.array(of_loop)
        same = (totals[::2] > totals[1::2]) == (expected[::2] > expected[1::2])
        assert same.sum() == _NUM_PAIRS
