"""What a pretraining may start from: weights of the same recipe, of any length with RoPE."""

import dataclasses

import jax
import numpy as np
import pytest

from albert_jax.cli.errors import UserError
from albert_jax.pretraining.warm_start import start_params
from tests import tiny

CONFIG = tiny.config()


@pytest.fixture(scope='module')
def start(vocabulary, tmp_path_factory):
    """A function: fields of the model → a checkpoint, its model, the tokenizer."""
    folder = tmp_path_factory.mktemp('start')

    def make(**fields):
        model = tiny.random_model(dataclasses.replace(CONFIG, **fields), vocabulary)
        place = folder / str(len(list(folder.iterdir())))
        return str(tiny.write(model, place)), model, model.tokenizer

    return make


@pytest.mark.parametrize(
    ('there', 'here', 'message'),
    [
        (
            {},
            {'position_encoding': 'rope'},
            'position_encoding=learned, the model of this run rope',
        ),
        (
            {'position_encoding': 'rope'},
            {},
            'position_encoding=rope, the model of this run learned',
        ),
        (
            tiny.MODERN,
            {'hidden_act': 'relu'},
            'has hidden_act=gelu_tanh, the model of this run relu, and position_encoding=rope, the '
            'model of this run learned, and norm_placement=pre, the model of this run post, and '
            'is_gated=True, the model of this run False.',
        ),
        (
            {'is_gated': True},
            {'is_gated': True, 'intermediate_size': 64},
            r'encoder/layer/ffn/gate/bias has the shape \(24,\), this run needs \(40,\)',
        ),
        (
            {'num_hidden_layers': 4, 'num_hidden_groups': 2},
            {'num_hidden_layers': 4, 'num_loops': 2},
            'has 1 layers that it goes through in turn, the model of this run 2',
        ),
        (
            # Twice the first feed-forward and twice the second; here one after the other, twice.
            {'num_hidden_layers': 4, 'num_hidden_groups': 2, 'sharing': 'ffn'},
            {'num_hidden_layers': 4, 'num_loops': 2, 'sharing': 'ffn'},
            'has 1 layers that it goes through in turn, the model of this run 2',
        ),
        (
            {'layer_norm_eps': 1e-5},
            {},
            'has layer_norm_eps=1e-05, the model of this run 1e-12',
        ),
        (
            {'depth_norms': True},
            {},
            r'has the shape \(2, 16\), this run needs \(16,\)',
        ),
    ],
)
def test_weights_of_another_recipe_are_refused(there, here, message, start):
    path, _, tokenizer = start(**there)
    with pytest.raises(UserError, match=message) as caught:
        start_params(path, dataclasses.replace(CONFIG, **here), tokenizer)
    assert '\n' not in str(caught.value)


def test_how_weights_started_is_no_matter_afterwards(start):
    path, model, tokenizer = start(kernel_initializer='fan_in', embedding_initializer_range=0.1)
    found = start_params(path, CONFIG, tokenizer)
    jax.tree.map(np.testing.assert_array_equal, found, model.params)


def test_rope_goes_on_with_longer_sequences_and_more_layers(start):
    path, model, tokenizer = start(**tiny.MODERN)
    longer = dataclasses.replace(model.config, max_position_embeddings=256, num_hidden_layers=5)
    found = start_params(path, longer, tokenizer)
    jax.tree.map(np.testing.assert_array_equal, found, model.params)
    path, _, tokenizer = start()
    with pytest.raises(UserError, match=r'position/embedding has the shape \(64, 8\), this run'):
        start_params(path, dataclasses.replace(CONFIG, max_position_embeddings=256), tokenizer)
