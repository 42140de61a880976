"""A decoder in bfloat16: a train step and texts are float32's within bfloat16's rounding."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from albert_jax.model import decoding
from albert_jax.model.decoder import Seq2SeqModel, init_seq2seq
from albert_jax.model.decoder_config import DecoderConfig
from albert_jax.model.decoding import SpecialIds
from albert_jax.model.decoding_settings import DecodingSettings
from albert_jax.model.paths import flatten
from albert_jax.runs.task import FinetuningSettings
from albert_jax.tasks.generation_objective import generation
from albert_jax.training.sharding import make_mesh, put_batch
from albert_jax.training.step import init_state, make_train_step
from tests import tiny

# Half of the distance between 1 and the next number that bfloat16 has.
ROUNDING = 2.0**-8
CONFIG = tiny.config(vocab_size=60, hidden_size=32, intermediate_size=64)
DECODERS = [{}, {'decoder_sharing': 'copy', 'cross_attention': 'per_layer'}]


def models(fields, decoder):
    """The same model in both dtypes."""
    config = dataclasses.replace(CONFIG, **fields)
    return [
        Seq2SeqModel(dataclasses.replace(config, compute_dtype=dtype), DecoderConfig(**decoder))
        for dtype in ('float32', 'bfloat16')
    ]


def params_of(model):
    init = functools.partial(init_seq2seq, model.config, model.decoder)
    return tiny.unbiased(tiny.random_tree(jax.eval_shape(lambda: init(jax.random.key(0))), 3, 0.2))


def batch():
    rng = np.random.default_rng(1)
    arrays = {}
    for name, length, lengths in (('input', 9, [9, 5, 2, 7]), ('target', 7, [7, 4, 6, 2])):
        mask = (np.arange(length) < np.array(lengths)[:, None]).astype(np.int32)
        arrays[f'{name}_ids'] = (rng.integers(5, 60, (4, length)) * mask).astype(np.int32)
        arrays['attention_mask' if name == 'input' else 'target_mask'] = mask
    return arrays | {'weights': np.ones(4, np.float32)}


@pytest.mark.parametrize(
    ('fields', 'decoder'),
    [({}, DECODERS[0]), pytest.param(tiny.MODERN, DECODERS[1], marks=pytest.mark.slow)],
    ids=['shared', 'own'],
)
def test_a_train_step_is_that_of_float32(fields, decoder):
    """The loss and every gradient, which is what plain descent at rate 1 takes away."""
    mesh, optimizer, results = make_mesh(1), optax.sgd(1.0), []
    for model in models(fields, decoder):
        objective, params = generation(model, 0.1, FinetuningSettings(), ()), params_of(model)
        init = functools.partial(init_state, lambda _, p=params: p, optimizer, objective, batch())
        step = make_train_step(objective, optimizer, mesh, 1, 10, 0)
        state, _ = step(jax.jit(lambda init=init: init(0))(), put_batch(mesh, batch()))
        assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype('float32')}
        gradients = jax.tree.map(lambda before, after: before - after, params, state.params)
        results.append((float(state.metric_sums['loss'].sum), flatten(gradients)))
    (loss, gradients), (half_loss, half_gradients) = results
    assert half_loss == pytest.approx(loss, rel=2 * ROUNDING) and half_loss != loss
    largest = max(float(jnp.linalg.norm(gradient)) for gradient in gradients.values())
    for path, gradient in gradients.items():
        error = float(jnp.linalg.norm(half_gradients[path] - gradient))
        norm = float(jnp.linalg.norm(gradient))
        # That of a key's bias is zero but for rounding: softmax does not see it.
        assert error <= ROUNDING * (16 * norm + 0.02 * largest), path


@pytest.mark.parametrize('num_beams', [1, 3])
def test_texts_have_the_scores_that_float32_gives_them(num_beams):
    """Each text in bfloat16 is scored as float32 scores it, and nearly as good as float32's own."""
    full, half = models({}, DECODERS[0])
    params, arrays = params_of(full), batch()
    special = SpecialIds(1, 2, 0, forbidden=(0, 1))
    settings = DecodingSettings(num_beams=num_beams, num_return_sequences=num_beams)
    found = [
        decoding.generate(
            model, params, arrays['input_ids'], arrays['attention_mask'], settings, special, 6
        )
        for model in (full, half)
    ]
    theirs, ours = found
    assert ours.scores.dtype == jnp.float32

    @jax.jit
    def scored(params, token_ids):
        inputs = jnp.concatenate([jnp.ones_like(token_ids[:, :1]), token_ids[:, :-1]], 1)
        logits = full(
            params, arrays['input_ids'], arrays['attention_mask'], inputs, jnp.ones_like(inputs)
        ).logits
        logits = logits.at[..., jnp.array(special.forbidden)].set(-jnp.inf)
        log_probs = jnp.take_along_axis(jax.nn.log_softmax(logits), token_ids[..., None], -1)
        is_piece = token_ids != special.pad
        return jnp.where(is_piece, log_probs[..., 0], 0).sum(1) / is_piece.sum(1).astype(
            jnp.float32
        )

    for text in range(num_beams):
        exact = scored(params, ours.token_ids[:, text])
        np.testing.assert_allclose(ours.scores[:, text], exact, rtol=4 * ROUNDING, atol=0.02)
    np.testing.assert_allclose(ours.scores[:, 0], theirs.scores[:, 0], rtol=4 * ROUNDING, atol=0.02)
