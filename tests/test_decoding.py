"""Greedy, beam search and sampling against texts written without a cache, and brute force."""

import dataclasses
import functools
import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from albert_jax.cli.errors import UserError
from albert_jax.model import beam_search, decoding, sampling
from albert_jax.model.decoder import Seq2SeqModel, init_seq2seq
from albert_jax.model.decoder_config import DecoderConfig
from albert_jax.model.decoding import SpecialIds, generate
from albert_jax.model.decoding_settings import DecodingSettings
from tests import tiny

START, END, PAD = 1, 2, 0
VOCAB = 6
SPECIAL = SpecialIds(START, END, PAD, forbidden=(PAD, START))
LIMIT = 4
SHARED = {}
# Everything that a cache could get wrong: rotary positions, inner blocks, weights by layer.
LAYERED = tiny.MODERN | {'num_hidden_groups': 2, 'inner_group_num': 2, 'sharing': 'ffn'}

COPY = {'decoder_sharing': 'copy', 'cross_attention': 'per_layer', 'num_decoder_layers': 3}


def make_model(changes=SHARED, **decoder):
    config = tiny.config(**{'vocab_size': VOCAB, 'max_position_embeddings': 16} | changes)
    return Seq2SeqModel(config, DecoderConfig(**decoder))


@functools.cache
def random_params(model):
    """Without biases, so that what is written depends on the source and on what was written."""
    shapes = jax.eval_shape(lambda: init_seq2seq(model.config, model.decoder, jax.random.key(0)))
    params = tiny.random_tree(shapes, seed=4, scale=0.6)
    params['embeddings']['word']['embedding'] *= 2

    return tiny.unbiased(params, 2.0)


def sources():
    rng = np.random.default_rng(5)
    ids = rng.integers(3, VOCAB, (4, 7)).astype(np.int32)
    mask = (np.arange(7) < np.array([7, 3, 5, 1])[:, None]).astype(np.int32)
    return ids * mask, mask


@functools.cache
def _uncached(model, forbidden):
    def log_probs(params, *arrays):
        logits = model(params, *arrays).logits
        return jax.nn.log_softmax(logits.at[..., np.array(forbidden)].set(-jnp.inf))

    return jax.jit(log_probs)


def next_log_probs(model, texts, forbidden=SPECIAL.forbidden):
    """log p of every next piece, [source, text, place, piece], of texts without their starts."""
    source_ids, source_mask = sources()
    num_sources, num_texts, length = texts.shape
    inputs = np.concatenate([np.full((*texts.shape[:2], 1), START), texts], -1).astype(np.int32)
    rows = inputs.reshape(-1, length + 1)
    arrays = np.repeat(source_ids, num_texts, 0), np.repeat(source_mask, num_texts, 0), rows
    found = _uncached(model, forbidden)(random_params(model), *arrays, np.ones_like(rows))
    return np.asarray(found, np.float64).reshape(num_sources, num_texts, length + 1, VOCAB)


def uncached_beams(model, num_beams, limits, alpha):
    """Beam search in Python, from the model without a cache: [(score, text)] of each source."""
    num_sources = len(limits)
    live = [[(0.0, ())] for _ in range(num_sources)]
    ended = [[] for _ in range(num_sources)]
    for step in range(max(limits)):
        texts = np.zeros((num_sources, num_beams, LIMIT), np.int32)
        for row, beam in itertools.product(range(num_sources), range(num_beams)):
            if beam < len(live[row]):
                texts[row, beam, :step] = live[row][beam][1]
        log_probs = next_log_probs(model, texts)[:, :, step]
        for row in (row for row in range(num_sources) if live[row]):
            longer = [
                (log_prob + log_probs[row, beam, piece], (*text, piece))
                for beam, (log_prob, text) in enumerate(live[row])
                for piece in range(VOCAB)
                if piece not in SPECIAL.forbidden
            ]
            longer.sort(reverse=True)
            penalty = (step + 1) ** alpha
            ended[row] += [
                (log_prob / penalty, text)
                for log_prob, text in longer[:num_beams]
                if text[-1] == END or step + 1 == limits[row]
            ]
            ended[row] = sorted(ended[row], reverse=True)[:num_beams]
            live[row] = [entry for entry in longer if entry[1][-1] != END][:num_beams]
            is_full = len(ended[row]) == num_beams
            if step + 1 == limits[row] or (
                is_full and live[row][0][0] / penalty <= ended[row][-1][0]
            ):
                live[row] = []
    return ended


def texts_of(generated):
    """The texts of each source as tuples, up to and with their ends."""
    return [
        [tuple(int(piece) for piece in text if piece != PAD) for text in row]
        for row in np.asarray(generated.token_ids)
    ]


@pytest.mark.parametrize(
    ('changes', 'decoder'),
    [
        (SHARED, {}),
        (LAYERED, COPY),
    ],
    ids=['shared', 'layered'],
)  # fmt: skip
def test_greedy_and_beams_are_those_without_a_cache(changes, decoder):
    model = make_model(changes, **decoder)
    params, limits = random_params(model), np.array([4, 4, 2, 3], np.int32)
    greedy = generate(model, params, *sources(), DecodingSettings(), SPECIAL, limits)
    beams = generate(
        model, params, *sources(),
        DecodingSettings(num_beams=3, num_return_sequences=2, length_penalty=0.7), SPECIAL, limits,
    )  # fmt: skip
    for found, num_beams, alpha in ((greedy, 1, 1.0), (beams, 3, 0.7)):
        wanted = uncached_beams(model, num_beams, limits, alpha)
        count = found.scores.shape[1]
        assert texts_of(found) == [[text for _, text in row[:count]] for row in wanted]
        scores = [[score for score, _ in row[:count]] for row in wanted]
        np.testing.assert_allclose(found.scores, scores, atol=1e-5)
        is_end = [[text[-1] == END for _, text in row[:count]] for row in wanted]
        np.testing.assert_array_equal(found.is_finished, is_end)
    # Texts of several lengths, some of them cut: else little would be shown.
    assert len({len(row[0]) for row in texts_of(greedy)}) > 1
    assert 0 < np.sum(beams.is_finished) < beams.is_finished.size


def searched(model, num_beams, limits, alpha):
    """All texts of a beam search with any number of beams, one too."""
    params, arrays = random_params(model), [jnp.asarray(x) for x in sources()]

    @jax.jit
    def run(params, limits, alpha):
        memory = model.encode(params, *arrays)
        step = functools.partial(decoding._step, model, SPECIAL, params, memory)
        cache = model.init_cache(memory, num_beams, LIMIT)
        return beam_search.search(step, START, END, PAD, cache, limits, alpha)

    return decoding.Generated(*run(params, jnp.asarray(limits), jnp.float32(alpha)))


def test_one_beam_is_greedy():
    model, limits = make_model(), np.array([4, 1, 3, 4], np.int32)
    greedy = generate(model, random_params(model), *sources(), DecodingSettings(), SPECIAL, limits)
    one = searched(model, 1, limits, 1.0)
    assert texts_of(one) == texts_of(greedy)
    np.testing.assert_allclose(one.scores, greedy.scores, atol=1e-6)


@pytest.mark.parametrize('alpha', [1.0, -0.5], ids=str)
def test_with_enough_beams_the_search_is_brute_force(alpha):
    """Every text of at most four pieces, of three that go on and an end: 121."""
    model = make_model()
    going_on = [piece for piece in range(VOCAB) if piece not in (*SPECIAL.forbidden, END)]
    texts = [
        (*text, END)
        for length in range(LIMIT)
        for text in itertools.product(going_on, repeat=length)
    ] + list(itertools.product(going_on, repeat=LIMIT))
    padded = np.array([text + (PAD,) * (LIMIT - len(text)) for text in texts])
    log_probs = next_log_probs(model, np.broadcast_to(padded, (4, *padded.shape)))
    found = searched(model, len(texts), np.full(4, LIMIT), alpha)
    for row in range(4):
        scores = [
            sum(log_probs[row, i, place, piece] for place, piece in enumerate(text))
            / len(text) ** alpha
            for i, text in enumerate(texts)
        ]
        order = np.argsort(scores)[::-1]
        np.testing.assert_allclose(found.scores[row], np.array(scores)[order], rtol=1e-5)
        assert texts_of(found)[row][:20] == [texts[i] for i in order[:20]]


@pytest.mark.parametrize(
    'settings',
    [
        DecodingSettings(),
        DecodingSettings(num_beams=3, num_return_sequences=3),
        DecodingSettings(temperature=0.8, top_k=3, num_return_sequences=3),
    ],
    ids=['greedy', 'beams', 'samples'],
)
def test_a_batch_of_mixed_lengths_is_each_alone(settings):
    model = make_model()
    run = functools.partial(
        generate, model, random_params(model), settings=settings, special=SPECIAL
    )
    ids, mask = sources()
    together = run(ids, mask, max_new_tokens=np.array([4, 4, 2, 3]))
    for number, (length, limit) in enumerate([(7, 4), (3, 4), (5, 2), (1, 3)]):
        row = ids[number : number + 1, :length], mask[number : number + 1, :length]
        alone = run(*row, max_new_tokens=limit, example_ids=np.array([number]))
        assert texts_of(alone)[0] == texts_of(together)[number]
        np.testing.assert_allclose(alone.scores[0], together.scores[number], atol=1e-5)


@pytest.mark.parametrize('num_beams', [1, 3])
def test_long_texts_are_those_without_a_cache(num_beams):
    """Of more pieces than the shortest cache has places: each is the likeliest after the others."""
    model = make_model(LAYERED | {'max_position_embeddings': 48})
    endless = dataclasses.replace(SPECIAL, forbidden=(PAD, START, END))
    settings = DecodingSettings(num_beams=num_beams)
    found = generate(model, random_params(model), *sources(), settings, endless, 40)
    texts = np.asarray(found.token_ids)
    assert texts.shape == (4, 1, 48) and not found.is_finished.any()
    assert (texts[..., :40] > END).all() and (texts[..., 40:] == PAD).all()
    log_probs = next_log_probs(model, texts[..., :40], endless.forbidden)[:, 0, :40]
    of_text = np.take_along_axis(log_probs, texts[:, 0, :40, None], -1)[..., 0]
    np.testing.assert_allclose(found.scores[:, 0], of_text.sum(-1) / 40, atol=1e-5)
    if num_beams == 1:
        np.testing.assert_array_equal(texts[:, 0, :40], log_probs.argmax(-1))


def test_nothing_is_compiled_again_for_other_limits_seeds_and_temperatures():
    model = make_model()
    run = functools.partial(generate, model, random_params(model), *sources(), special=SPECIAL)
    settings = DecodingSettings(temperature=1.0, top_p=0.9, num_return_sequences=3)
    first = run(settings=settings, max_new_tokens=4)
    count = decoding.num_compiled()
    assert texts_of(run(settings=settings, max_new_tokens=4)) == texts_of(first)
    other = dataclasses.replace(settings, seed=1)
    assert texts_of(run(settings=other, max_new_tokens=4)) != texts_of(first)
    # The likeliest piece alone is the greedy one, whatever is drawn.
    likeliest = run(
        settings=dataclasses.replace(settings, top_k=1, temperature=5.0), max_new_tokens=3
    )
    assert decoding.num_compiled() == count
    greedy = texts_of(run(settings=DecodingSettings(), max_new_tokens=3))
    assert texts_of(likeliest) == [row * 3 for row in greedy]


logit_lists = st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=12)


@hypothesis.given(logit_lists, st.integers(0, 14), st.floats(0.0625, 1.0, width=32))
@hypothesis.example([0.0, 0.0, 1.0], 1, 1.0)
@hypothesis.example([5.0, 5.0, 5.0], 2, 0.5)
def test_top_k_and_top_p_keep_what_sorting_keeps(logits, top_k, top_p):
    logits = np.array(logits, np.float32)
    probs = np.asarray(jax.nn.softmax(logits), np.float64)
    order = np.argsort(-probs, kind='stable')
    least = probs[order[min(top_k or len(probs), len(probs)) - 1]]
    rest = np.where(probs >= least, probs, 0)
    cumulated = np.cumsum(rest[order]) / rest.sum()
    # Where a sum is as good as top_p, rounding decides.
    hypothesis.assume(np.abs(cumulated - top_p).min() > 1e-5 or top_p == 1)
    last = order[np.argmax(cumulated >= top_p - 1e-5)]
    wanted = (rest >= rest[last]) & (rest > 0)
    kept = _keep(logits, top_k, top_p)
    np.testing.assert_array_equal(kept > -np.inf, wanted)
    np.testing.assert_array_equal(kept[wanted], logits[wanted])


def _keep(logits, top_k, top_p):
    """Padded to one shape, so that it is compiled once."""
    padded = np.full((1, 12), -np.inf, np.float32)
    padded[0, : len(logits)] = logits
    kept = _keep_likeliest(padded, np.int32(top_k), np.float32(top_p))
    return np.asarray(kept)[0, : len(logits)]


_keep_likeliest = jax.jit(sampling.keep_likeliest)


def test_pieces_are_drawn_with_their_probabilities():
    """20,000 draws a row: each count within five standard deviations, the impossible never."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 8).astype(np.float32)
    logits[3] = -np.inf
    count = 20_000
    keys = sampling.uniforms(jax.random.key(0), jnp.arange(count), jnp.int32(7), 2)
    for column in range(2):
        drawn = sampling.sample(jnp.broadcast_to(logits, (count, 8)), keys[:, column])
        counts = np.bincount(drawn, minlength=8)
        probs = np.exp(logits - logits.max())
        probs /= probs.sum()
        assert counts[3] == 0
        np.testing.assert_array_less(
            np.abs(counts - count * probs), 5 * np.sqrt(count * probs * (1 - probs)) + 1e-9
        )
    # Not even by rounding, at both ends.
    last = jnp.array([[0.0, 1.0, -jnp.inf], [-jnp.inf, 1.0, 0.0]])
    ends = sampling.sample(jnp.tile(last, (2, 1)), jnp.array([0.0, 0.0, 1 - 2**-24, 1 - 2**-24]))
    assert ends.tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'num_beams': 0}, 'decoding.num_beams is 0; it must be 1 or above.'),
        ({'num_beams': -3}, 'decoding.num_beams is -3; it must be 1 or above.'),
        ({'num_beams': 2.0}, 'decoding.num_beams is 2.0 (float); it must be of type int.'),
        ({'num_beams': True}, 'decoding.num_beams is True (bool); it must be of type int.'),
        ({'temperature': -1.0}, 'decoding.temperature is -1.0; it must be 0, or from'),
        ({'temperature': float('nan')}, 'decoding.temperature is nan; it must be'),
        ({'temperature': float('inf')}, 'decoding.temperature is inf; it must be'),
        ({'temperature': 1.0, 'top_p': 0.0}, 'decoding.top_p is 0.0; it must be from 1e-6 to 1.'),
        ({'temperature': 1.0, 'top_p': 1.1}, 'decoding.top_p is 1.1; it must be from 1e-6 to 1.'),
        ({'temperature': 1.0, 'top_k': -1}, 'decoding.top_k is -1; it must be from 0 to 2**31 - 1'),
        ({'temperature': 1.0, 'top_k': 2**31}, 'decoding.top_k is 2147483648; it must be from'),
        # Infinite, 0 and again 0 in float32.
        ({'temperature': 1e39}, 'decoding.temperature is 1e+39; it must be 0, or from 1e-6'),
        ({'temperature': 1e-46}, 'decoding.temperature is 1e-46; it must be 0, or from 1e-6'),
        ({'temperature': 1.0, 'top_p': 1e-50}, 'decoding.top_p is 1e-50; it must be from 1e-6'),
        ({'seed': 2**32}, 'decoding.seed is 4294967296; it must be below 2**32.'),
        ({'temperature': 1.0, 'num_return_sequences': 0}, 'decoding.num_return_sequences is 0; it'),
        ({'temperature': 1.0, 'num_return_sequences': 10**9}, 'decoding.num_return_sequences is 1'),
        ({'length_penalty': float('nan')}, 'decoding.length_penalty is nan; it must'),
        ({'num_beams': 2, 'num_return_sequences': 3}, 'decoding.num_return_sequences is 3, but a'),
        ({'num_beams': 2, 'temperature': 0.5}, 'decoding.num_beams is 2 and decoding.'),
        ({'top_k': 5}, 'decoding.top_k is 5, but at temperature 0 nothing is sampled; '),
        ({'top_p': 0.5}, 'decoding.top_p is 0.5, but at temperature 0 nothing is sampled; '),
    ],
    ids=str,
)  # fmt: skip
def test_impossible_settings_are_refused(fields, message):
    with pytest.raises(UserError) as error:
        DecodingSettings(**fields)
    assert str(error.value).startswith(message)
    assert str(error.value).count('. ') == 0


@pytest.mark.parametrize(
    ('settings', 'limits', 'message'),
    [
        ({}, 17, 'A text of at most 17 new tokens is asked for; the model writes 1 to 16, which'),
        ({}, np.array([3, 0, 4, 2]), 'A text of at most 0 new tokens is asked for; '),
        ({'num_beams': 7}, 3, 'decoding.num_beams is 7; it must be at most the 6 pieces of the'),
    ],
    ids=str,
)
def test_limits_that_the_model_does_not_have_are_refused(settings, limits, message):
    model, settings = make_model(), DecodingSettings(**settings)
    with pytest.raises(UserError, match=message):
        generate(model, random_params(model), *sources(), settings, SPECIAL, limits)
