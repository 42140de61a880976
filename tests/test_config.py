import dataclasses

import jax
import pytest

from albert_jax.cli.errors import UserError
from albert_jax.model.albert import init_params
from albert_jax.model.config import SIZES, AlbertConfig
from albert_jax.runs.reference import markdown
from albert_jax.runs.runs import PretrainRun
from configs import pretrain
from tests.conftest import ROOT


def num_params(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def shapes(config: AlbertConfig):
    return jax.eval_shape(lambda: init_params(config, jax.random.key(0)))


# docs/REFERENCE.md, 1: encoder + pooler, encoder only, with both heads.
PUBLISHED_COUNTS = {
    'albert_base': (11_683_584, 11_092_992, 11_813_810),
    'albert_large': (17_683_968, 16_634_368, 17_847_474),
    'albert_xlarge': (58_724_864, 54_528_512, 59_021_490),
    'albert_xxlarge': (222_595_584, 205_814_272, 223_158_450),
}


@pytest.mark.parametrize('size', PUBLISHED_COUNTS)
def test_parameter_counts_equal_the_published_ones(size):
    params = shapes(SIZES[size])
    encoder = num_params(params['embeddings']) + num_params(params['encoder'])
    counts = (encoder + num_params(params['pooler']), encoder, num_params(params))
    assert counts == PUBLISHED_COUNTS[size]


def test_parts_of_base_have_the_published_sizes():
    params = shapes(SIZES['albert_base'])
    projection = num_params(params['embeddings']['projection'])
    assert projection == 99_072
    assert num_params(params['embeddings']) - projection == 3_906_048
    assert num_params(params['encoder']) == 7_087_872
    assert num_params(params['pooler']) == 590_592
    assert num_params(params['mlm']) == 128_688
    assert num_params(params['sentence']) == 1_538


@pytest.mark.parametrize(
    ('sharing', 'millions'), [('all', 11.68), ('attention', 63.65), ('ffn', 37.69), ('none', 89.65)]
)
def test_parameter_counts_by_sharing(sharing, millions):
    params = shapes(dataclasses.replace(SIZES['albert_base'], sharing=sharing))
    count = sum(num_params(params[part]) for part in ('embeddings', 'encoder', 'pooler'))
    assert round(count / 1e6, 2) == millions


def test_bert_is_a_config_with_the_papers_size():
    for size, millions in (('bert_base', 108), ('bert_large', 334)):
        params = shapes(SIZES[size])
        encoder = num_params(params['embeddings']) + num_params(params['encoder'])
        assert round(encoder / 1e6) == millions or int(encoder / 1e6) == millions


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'hidden_size': 0}, 'model.hidden_size is 0; it must be above 0.'),
        ({'num_hidden_layers': -1}, 'model.num_hidden_layers is -1; it must be above 0.'),
        ({'vocab_size': 3.5}, 'model.vocab_size is 3.5 (float); it must be of type int.'),
        ({'hidden_size': True}, 'model.hidden_size is True (bool); it must be of type int.'),
        ({'hidden_dropout_prob': 1.0}, 'must be at least 0 and below 1'),
        ({'attention_probs_dropout_prob': -0.1}, 'must be at least 0 and below 1'),
        ({'hidden_act': 'swish'}, 'it must be one of gelu_tanh, gelu_erf, relu.'),
        ({'sharing': 'some'}, 'it must be one of all, attention, ffn, none.'),
        ({'compute_dtype': 'float16'}, 'it must be one of float32, bfloat16.'),
        ({'remat': 'dots'}, 'it must be one of none, dense, attention, full.'),
        ({'num_attention_heads': 7}, 'does not divide into 7 attention heads'),
        ({'num_hidden_groups': 13}, 'some groups would never be used'),
        ({'use_embedding_projection': False}, 'needs embedding_size (128) equal to hidden_size'),
        ({'norm_placement': 'both'}, 'it must be one of post, pre.'),
        ({'position_encoding': 'alibi'}, 'it must be one of learned, rope.'),
        ({'kernel_initializer': 'zeros'}, 'it must be one of normal, fan_in.'),
        ({'is_gated': 'yes'}, "model.is_gated is 'yes' (str); it must be of type bool."),
        ({'embedding_initializer_range': 0.0}, 'is 0.0; it must be above 0.'),
        (
            {'position_encoding': 'rope', 'hidden_size': 60, 'num_attention_heads': 4},
            'heads are of 15 (hidden_size 60 / num_attention_heads 4); choose both so that heads',
        ),
        ({'layer_norm_eps': 0.0}, 'model.layer_norm_eps is 0.0; it must be above 0.'),
    ],
)
def test_impossible_values_are_refused_in_one_sentence(change, message):
    with pytest.raises(UserError) as error:
        AlbertConfig(**change)
    assert message in str(error.value)
    assert '\n' not in str(error.value)


def test_heads_of_odd_size_are_fine_without_rotations():
    assert AlbertConfig(hidden_size=60, num_attention_heads=4).head_size == 15


# Parameters with both heads: the paper's, with RoPE, with pre-norm, with a gate, with all three.
COUNTS_OF_TODAY = {
    'albert_base': (11_813_810, 11_748_274, 11_815_346, 11_814_834, 11_750_834),
    'albert_large': (17_847_474, 17_781_938, 17_849_522, 17_717_682, 17_654_194),
    'albert_xlarge': (59_021_490, 58_955_954, 59_025_586, 59_286_450, 59_225_010),
    'albert_xxlarge': (223_158_450, 223_092_914, 223_166_642, 222_639_538, 222_582_194),
}
TODAY = ({'position_encoding': 'rope'}, {'norm_placement': 'pre'}, {'is_gated': True})


@pytest.mark.parametrize('size', COUNTS_OF_TODAY)
def test_parameter_counts_of_the_fields_of_today(size):
    changes = ({}, *TODAY, TODAY[0] | TODAY[1] | TODAY[2])
    counts = [num_params(shapes(dataclasses.replace(SIZES[size], **change))) for change in changes]
    assert tuple(counts) == COUNTS_OF_TODAY[size]
    # By hand: no table, one more norm, a third kernel for a third of the inner width.
    config = dataclasses.replace(SIZES[size], is_gated=True)
    assert counts[1] - counts[0] == -512 * config.embedding_size
    assert counts[2] - counts[0] == 2 * config.hidden_size
    gated = 3 * config.hidden_size * config.ffn_size + 2 * config.ffn_size
    plain = 2 * config.hidden_size * config.intermediate_size + config.intermediate_size
    assert counts[3] - counts[0] == gated - plain


@pytest.mark.parametrize(
    ('wanted', 'inner'),
    [(3072, 2048), (4096, 2688), (8192, 5504), (16384, 10880), (1024, 640), (512, 344), (1, 8)],
)
def test_a_gated_feed_forward_is_two_thirds_as_wide(wanted, inner):
    config = AlbertConfig(intermediate_size=wanted, is_gated=True)
    assert config.ffn_size == inner
    assert AlbertConfig(intermediate_size=wanted).ffn_size == wanted
    if wanted >= 512:
        assert abs(inner / wanted - 2 / 3) < 0.06
        assert inner % (128 if wanted >= 1024 else 8) == 0


def test_unknown_field_gets_a_suggestion():
    with pytest.raises(
        UserError, match='model.hiden_size is not a field; did you mean hidden_size'
    ):
        AlbertConfig.from_dict({'hiden_size': 3})


def test_dict_there_and_back():
    config = SIZES['bert_large']
    assert AlbertConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize('num_layers', [1, 2, 5, 12, 24])
def test_groups_follow_the_published_formula(num_layers):
    for num_groups in range(1, num_layers + 1):
        config = AlbertConfig(
            num_hidden_layers=num_layers, num_hidden_groups=num_groups, inner_group_num=2
        )
        groups = [
            inner[0] // 2
            for inner in config.unique_layer_indices(config.num_unique_attention_layers)
        ]
        assert groups == [int(layer / num_layers * num_groups) for layer in range(num_layers)]


def test_configs_of_runs_know_every_field_of_the_model():
    names = {field.name for field in dataclasses.fields(AlbertConfig)}
    assert set(pretrain.get_config('base').model) - {'size'} == names


def test_modern_is_a_recipe_for_every_size():
    modern = pretrain.get_config('modern')
    assert modern.to_dict() == pretrain.get_config('base+modern').to_dict()
    for name in ('tiny', 'mini', 'base', 'bert_base'):
        paper, today = (
            PretrainRun.from_dict(pretrain.get_config(name + addition).to_dict()).albert
            for addition in ('', '+modern')
        )
        assert (today.position_encoding, today.norm_placement) == ('rope', 'pre')
        assert (paper.position_encoding, paper.norm_placement) == ('learned', 'post')
        assert today.hidden_dropout_prob == today.attention_probs_dropout_prob == 0
        assert (today.hidden_size, today.sharing) == (paper.hidden_size, paper.sharing)
    both = pretrain.get_config('base@1024+short+modern')
    assert (both.model.position_encoding, both.loop.batch_size) == ('rope', 1024)
    assert both.pretraining.short_phase_steps == 450_000
    for name in ('modern+modern', 'tiny+modern+modern'):
        with pytest.raises(ValueError, match=r'\+modern is there more than once'):
            pretrain.get_config(name)


def test_modern_sees_as_many_sequences_in_smaller_batches():
    for name in ('tiny', 'mini', 'base', 'xxlarge'):
        paper, today = (
            PretrainRun.from_dict(pretrain.get_config(name + addition).to_dict())
            for addition in ('', '+modern')
        )
        loops = [run.loop for run in (paper, today)]
        for period in ('num_steps', 'log_every', 'eval_every', 'num_eval_batches'):
            there, here = (getattr(loop, period) * loop.batch_size for loop in loops)
            assert there == here, (name, period)
        assert today.optimizer.warmup_steps * 20 == today.loop.num_steps
        assert (today.optimizer.name, today.optimizer.muon_learning_rate) == ('muon', 0.01)
        # The held-out masks are the same ones.
        held_out = [run.pretraining.held_out for run in (paper, today)]
        assert {settings.masked_fraction for settings in held_out} == {0.15}
        assert today.pretraining.masked_fraction == 0.45
    assert pretrain.get_config('tiny+modern').loop.batch_size == 8
    smaller = pretrain.get_config('base@256+modern')
    assert (smaller.loop.num_steps, smaller.optimizer.warmup_steps) == (2_000_000, 100_000)
    assert smaller.optimizer.muon_learning_rate == pytest.approx(0.005)
    assert smaller.optimizer.learning_rate == pytest.approx(0.0015)


def test_the_table_of_fields_in_docs_is_what_is_declared():
    assert (ROOT / 'docs' / 'CONFIG.md').read_text() == markdown()
