"""The texts of a split, whatever the number of devices."""

import numpy as np
import pytest

from albert_jax.model.decoder import Seq2SeqModel
from albert_jax.model.decoding_settings import DecodingSettings
from albert_jax.runs.task import TaskSettings
from albert_jax.tasks.generation import IS_FINISHED, LOSS, NUM_PIECES, SCORES, TEXTS
from albert_jax.tasks.generator import Generator
from albert_jax.tasks.pair_features import as_pairs, encode_pairs
from albert_jax.training.sharding import make_mesh
from tests import tiny

SOURCES = [
    'returns an index of the list', 'a value', 'class error', '', 'the list', 'statement import',
    'string', 'a class value', 'number', 'error list', 'import',
]  # fmt: skip


@pytest.mark.parametrize(
    'decoding',
    [
        {'temperature': 1.0},
        pytest.param({'num_beams': 3, 'num_return_sequences': 2}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_eight_devices_write_what_one_writes(decoding, vocabulary):
    """Batches of other sizes, and of rows that only fill them; losses too."""
    model = tiny.text_to_text(vocabulary)
    settings = TaskSettings(name='generation', max_length=16, max_target_length=16)
    targets = [f'{source} value' for source in SOURCES]
    features = as_pairs(encode_pairs(SOURCES, targets, model.tokenizer, 16, 16), 16)
    seq2seq = Seq2SeqModel(model.config, model.decoder)
    one, eight = (
        Generator(
            seq2seq, model.tokenizer, make_mesh(num_devices), batch_size, settings,
            DecodingSettings(**decoding),
        )(model.params, features)
        for num_devices, batch_size in ((1, 4), (8, 8))
    )  # fmt: skip
    assert [list(texts) for texts in one[TEXTS]] == [list(texts) for texts in eight[TEXTS]]
    assert len({str(texts[0]) for texts in one[TEXTS]}) > 5
    for name in (SCORES, LOSS, NUM_PIECES):
        np.testing.assert_allclose(np.stack(one[name]), np.stack(eight[name]), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(one[IS_FINISHED], eight[IS_FINISHED])


def greedy(model, length):
    """Writes texts of a model on one device, four sources a batch."""
    settings = TaskSettings(name='generation', max_length=length, max_target_length=length)
    return Generator(
        Seq2SeqModel(model.config, model.decoder), model.tokenizer, make_mesh(1), 4, settings,
        DecodingSettings(),
    )  # fmt: skip


def test_what_was_compiled_serves_every_batch_of_its_lengths(vocabulary):
    model = tiny.text_to_text(vocabulary)
    generator = greedy(model, 48)

    def run(sources):
        targets = [f'{source} value' for source in sources]
        encoded = encode_pairs(sources, targets, model.tokenizer, 48, 48)
        generator(model.params, as_pairs(encoded, 48))
        return generator.num_compiled

    long = 'the list of values is an index of the class'
    count = run([*SOURCES, f'{long} {long}', long])
    # The losses and the texts of at least two lengths.
    assert count >= 4
    assert run([long, *reversed(SOURCES), *SOURCES, f'{long} {long}', long]) == count


def test_progress_goes_through_the_losses_too(vocabulary):
    """Two passes, of which the first said nothing, were a long silence before the bar."""
    model = tiny.text_to_text(vocabulary)
    generator = greedy(model, 16)
    targets = [f'{source} value' for source in SOURCES]
    features = as_pairs(encode_pairs(SOURCES, targets, model.tokenizer, 16, 16), 16)
    counted: list[int] = []
    asked = []

    def is_stopped():
        asked.append(len(counted))
        return False

    rows = generator(model.params, features, is_stopped, counted.append)
    assert sum(counted) == len(SOURCES)
    # Once for each batch: one pass.
    assert len(asked) == len(counted)
    assert generator(model.params, features, lambda: True) is None
    apart = generator.losses(model.params, features) | generator.texts(model.params, features)
    assert rows.keys() == apart.keys()
    for name in (SCORES, LOSS, NUM_PIECES):
        np.testing.assert_array_equal(np.stack(rows[name]), np.stack(apart[name]))
    assert [list(texts) for texts in rows[TEXTS]] == [list(texts) for texts in apart[TEXTS]]
