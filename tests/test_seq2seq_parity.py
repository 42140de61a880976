"""Beam search against Hugging Face's `generate`, with the same weights in torch."""

import numpy as np
import pytest

from albert_jax.model.config import AlbertConfig
from albert_jax.model.decoder_config import DecoderConfig
from albert_jax.model.decoding import SpecialIds, generate
from albert_jax.model.decoding_settings import DecodingSettings
from benchmarks.generation import HuggingFace, Work, start

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings('ignore')]
torch = pytest.importorskip('torch', reason='needs the extra reference')
pytest.importorskip('transformers', reason='needs the extra reference')

CONFIG = AlbertConfig(
    vocab_size=14, embedding_size=64, hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=96, max_position_embeddings=32, hidden_act='gelu_erf', sharing='none',
    use_embedding_projection=False,
)  # fmt: skip


def cut(text):
    """Up to and with the end."""
    pieces = text.tolist()
    return pieces[: pieces.index(3) + 1] if 3 in pieces else pieces


@pytest.mark.parametrize('alpha', [1.0, 0.0, 2.0, -0.5])
def test_the_same_texts_with_the_same_scores(alpha):
    decoder = DecoderConfig(decoder_sharing='copy', cross_attention='per_layer')
    model, params = start(CONFIG, decoder, scale=0.3)
    rng = np.random.default_rng(3)
    ids = rng.integers(4, 14, (8, 9)).astype(np.int32)
    mask = (np.arange(9) < rng.integers(2, 10, (8, 1))).astype(np.int32)
    settings = DecodingSettings(num_beams=4, num_return_sequences=3, length_penalty=alpha)
    ours = generate(model, params, ids, mask, settings, SpecialIds(2, 3, 0), 12)
    theirs = HuggingFace(CONFIG, params, False, Work(ids, 4, 12)).model.generate(
        input_ids=torch.from_numpy(ids).long(),
        attention_mask=torch.from_numpy(mask).long(),
        num_beams=4, num_return_sequences=3, max_new_tokens=12, length_penalty=alpha,
        do_sample=False, decoder_start_token_id=2, eos_token_id=3, pad_token_id=0,
        return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    assert [cut(text) for text in np.asarray(ours.token_ids).reshape(24, -1)[:, :12]] == [
        cut(text) for text in theirs.sequences[:, 1:].numpy()
    ]
    np.testing.assert_allclose(
        np.ravel(ours.scores), theirs.sequences_scores.numpy(), rtol=1e-4, atol=1e-5
    )
    assert np.any(ours.is_finished)
