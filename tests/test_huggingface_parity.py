"""Our model against transformers and torch: outputs, gradients, training, heads, real weights."""

import dataclasses
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import albert_jax
from albert_jax.interop import conversion, huggingface
from albert_jax.interop.huggingface_config import write_config
from albert_jax.interop.native import Pretrained
from albert_jax.interop.table import to_theirs
from albert_jax.model.albert import PretrainingModel
from albert_jax.model.config import SIZES, AlbertConfig
from albert_jax.runs.optimizer import OptimizerSettings
from albert_jax.training import objectives
from albert_jax.training.optimizer import make_optimizer
from tests import tiny

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings('ignore')]
torch = pytest.importorskip('torch', reason='needs the extra reference')
transformers = pytest.importorskip('transformers', reason='needs the extra reference')

SMALL = {
    'vocab_size': 120,
    'embedding_size': 16,
    'hidden_size': 32,
    'num_hidden_layers': 4,
    'num_attention_heads': 4,
    'intermediate_size': 48,
    'max_position_embeddings': 40,
}
VARIANTS: dict[str, dict[str, Any]] = {
    'plain': {},
    'two groups': {'num_hidden_groups': 2},
    'two inner layers': {'inner_group_num': 2},
    'groups of inner layers': {'num_hidden_groups': 2, 'inner_group_num': 2},
    'relu': {'hidden_act': 'relu'},
    'erf gelu': {'hidden_act': 'gelu'},
    'E = H': {'embedding_size': 32},
}


def randomised(model: Any, seed: int = 0) -> Any:
    """Every weight random, biases and norms too, so that none can hide."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            scale = 1 / weight.shape[-1] ** 0.5 if weight.ndim == 2 else 0.1
            is_norm = 'norm' in name.lower() and name.endswith('weight')
            weight.copy_(is_norm + noise * scale)
    return model.eval()


def batch(config: AlbertConfig, size: int = 3, length: int = 23, padding: str = 'right'):
    rng = np.random.default_rng(7)
    lengths = np.array([length, length // 2, 5])[:size]
    mask = np.arange(length) < lengths[:, None]
    mask = mask if padding == 'right' else mask[:, ::-1]
    masked = mask & (rng.random(mask.shape) < 0.3)
    masked[np.arange(size), mask.argmax(1)] = True
    return {
        'input_ids': rng.integers(5, config.vocab_size, mask.shape),
        'attention_mask': mask.astype(np.int64),
        'token_type_ids': (np.arange(length) > length // 3)[None].repeat(size, 0).astype(np.int64),
        'labels': np.where(masked, rng.integers(5, config.vocab_size, mask.shape), -100),
        'sentence_order_label': np.arange(size) % 2,
    }


def ours_of(model: Any, tmp_path) -> Pretrained:
    model.save_pretrained(tmp_path / 'theirs')
    return albert_jax.load(tmp_path / 'theirs')


def run_theirs(model: Any, data: dict) -> Any:
    tensors = {name: torch.tensor(value.copy()) for name, value in data.items()}
    return model(**tensors, output_hidden_states=True, output_attentions=True)


def run_ours(config: AlbertConfig, params: Any, data: dict) -> Any:
    apply = jax.jit(
        lambda params, ids, mask, types: PretrainingModel(config).apply(
            {'params': params}, ids, mask, types, return_attentions=True
        )
    )
    names = ('input_ids', 'attention_mask', 'token_type_ids')
    return apply(params, *(data[name].astype(np.int32) for name in names))


def assert_near(
    ours: Any, theirs: Any, tolerance: float, what: str = '', terms: float = 0.0
) -> None:
    """Largest difference relative to the tensor's largest value, or to terms that cancel in it."""
    theirs = theirs.detach().float().numpy()
    difference = np.abs(np.asarray(ours, np.float32) - theirs).max()
    largest = max(np.abs(theirs).max(), terms)
    assert difference <= tolerance * largest, (what, difference, largest)


def assert_outputs_agree(ours: Any, theirs: Any, mask: np.ndarray, tolerance: float) -> None:
    real = mask.astype(bool)
    # They give the output of every inner layer, we that of every layer.
    inner = (len(theirs.hidden_states) - 1) // (len(ours.hidden_states) - 1)
    for depth, (mine, yours) in enumerate(
        zip(ours.hidden_states, theirs.hidden_states[::inner], strict=True)
    ):
        assert_near(mine[real], yours[torch.tensor(real)], tolerance, f'layer {depth}')
    assert_near(ours.mlm_logits[real], theirs.prediction_logits[torch.tensor(real)], tolerance)
    sentence = getattr(theirs, 'sop_logits', None)
    sentence = theirs.seq_relationship_logits if sentence is None else sentence
    assert_near(ours.sop_logits, sentence, tolerance, 'sentence')


def loss_batch(data: dict) -> dict[str, jax.Array]:
    """What our objective takes, of labels at every position."""
    labels = data['labels']
    count = int((labels >= 0).sum(1).max())
    positions = np.argsort(labels < 0, axis=1, kind='stable')[:, :count]
    at = np.take_along_axis(labels, positions, 1)
    arrays = {
        **{name: data[name] for name in ('input_ids', 'attention_mask', 'token_type_ids')},
        'masked_positions': positions,
        'masked_ids': np.maximum(at, 0),
        'sentence_labels': data['sentence_order_label'],
    }
    weights = {
        'masked_weights': (at >= 0).astype(np.float32),
        'sentence_weights': np.ones(len(labels), np.float32),
    }
    return {name: jnp.asarray(value, jnp.int32) for name, value in arrays.items()} | {
        name: jnp.asarray(value) for name, value in weights.items()
    }


def our_loss(config: AlbertConfig):
    objective = objectives.pretraining(config)

    def loss(params: Any, data: dict) -> jax.Array:
        return objectives.total_loss(
            objective, objective.sums(params, data, None), objective.totals(data)
        )

    return loss


def assert_gradients_agree(config, params, model, data, tolerance) -> None:
    theirs = run_theirs(model, data)
    theirs.loss.backward()
    loss, gradients = jax.jit(jax.value_and_grad(our_loss(config)))(params, loss_batch(data))
    np.testing.assert_allclose(loss, theirs.loss.item(), rtol=tolerance)
    ours = to_theirs(huggingface.albert_table(config), gradients)
    largest = max(np.abs(gradient).max() for gradient in ours.values())
    compared = 0
    for name, weight in model.named_parameters():
        short = name.removeprefix('albert.')
        if short.endswith('key.bias'):
            # Zero in exact arithmetic, since softmax ignores it: rounding noise on both sides.
            assert np.abs(ours[short]).max() < 1e-5 * largest
            continue
        # One term of up to 1/2 for each of two sequences, which may nearly cancel.
        terms = 0.25 if short == 'sop_classifier.classifier.bias' else 0.0
        assert_near(ours[short], weight.grad, tolerance, name, terms)
        compared += 1
    assert compared >= len(ours) - config.num_unique_attention_layers


@pytest.mark.parametrize('padding', ['right', 'left'])
@pytest.mark.parametrize('variant', VARIANTS)
def test_outputs_and_gradients_of_a_small_albert(variant, padding, tmp_path):
    config = transformers.AlbertConfig(**(SMALL | VARIANTS[variant]))
    model = randomised(transformers.AlbertForPreTraining(config))
    loaded = ours_of(model, tmp_path)
    assert loaded.initialised == ()
    data = batch(loaded.config, padding=padding)
    ours, theirs = run_ours(loaded.config, loaded.params, data), run_theirs(model, data)
    assert_outputs_agree(ours, theirs, data['attention_mask'], 1e-5)
    assert_near(ours.pooled_output, model.albert(
        *(torch.tensor(data[n].copy()) for n in ('input_ids', 'attention_mask', 'token_type_ids'))
    ).pooler_output, 1e-5)  # fmt: skip
    assert_gradients_agree(loaded.config, loaded.params, model, data, 1e-5)


def test_attention_probabilities(tmp_path):
    config = transformers.AlbertConfig(**SMALL, attn_implementation='eager')
    model = randomised(transformers.AlbertForPreTraining(config))
    loaded = ours_of(model, tmp_path)
    data = batch(loaded.config)
    ours, theirs = run_ours(loaded.config, loaded.params, data), run_theirs(model, data)
    for mine, yours in zip(ours.attention_probs, theirs.attentions, strict=True):
        real = data['attention_mask'].astype(bool)
        assert_near(np.swapaxes(mine, 1, 2)[real], yours.swapaxes(1, 2)[torch.tensor(real)], 1e-5)


@pytest.mark.parametrize('size', ['albert_base', 'albert_large', 'albert_xlarge', 'albert_xxlarge'])
def test_outputs_and_gradients_at_full_width(size, tmp_path):
    """Base at its real depth; the wide ones with two layers, which hold all their weights."""
    config = SIZES[size]
    if size != 'albert_base':
        config = dataclasses.replace(config, num_hidden_layers=2)
    content = write_config(config, None, ('pooler', 'mlm', 'sentence'))
    model = transformers.AlbertForPreTraining(transformers.AlbertConfig(**content)).eval()
    loaded = ours_of(model, tmp_path)
    data = batch(config, size=2, length=33)
    ours, theirs = run_ours(config, loaded.params, data), run_theirs(model, data)
    assert_outputs_agree(ours, theirs, data['attention_mask'], 1e-5)
    assert_gradients_agree(config, loaded.params, model, data, 1e-5)


def test_bfloat16_is_as_near_as_torch_is(tmp_path):
    config = transformers.AlbertConfig(**SMALL)
    model = randomised(transformers.AlbertForPreTraining(config))
    loaded = ours_of(model, tmp_path)
    data = batch(loaded.config)
    exact = run_theirs(model, data).prediction_logits.detach()
    rough = run_theirs(model.bfloat16(), data).prediction_logits.detach().float()
    half = dataclasses.replace(loaded.config, compute_dtype='bfloat16')
    ours = torch.tensor(np.asarray(run_ours(half, loaded.params, data).mlm_logits))
    real = torch.tensor(data['attention_mask']).bool()
    error, allowed = (float((x - exact)[real].square().mean().sqrt()) for x in (ours, rough))
    assert 0 < error <= 1.5 * allowed


def test_twenty_adamw_steps_have_the_same_losses(tmp_path):
    config = transformers.AlbertConfig(**SMALL)
    model = randomised(transformers.AlbertForPreTraining(config))
    loaded = ours_of(model, tmp_path)
    plain = ('bias', 'layer_norm.weight', 'LayerNorm.weight')
    groups = [
        {'params': [w for n, w in model.named_parameters() if n.endswith(plain) == is_plain],
         'weight_decay': 0.0 if is_plain else 0.01}
        for is_plain in (False, True)
    ]  # fmt: skip
    theirs = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.999), eps=1e-6)
    settings = OptimizerSettings(
        name='adamw', learning_rate=1e-3, schedule='constant', warmup_steps=0, clip_norm=0.0,
        bias_correction=True,
    )  # fmt: skip
    optimizer = make_optimizer(settings, 20, loaded.config)
    gradient = jax.value_and_grad(our_loss(loaded.config))

    @jax.jit
    @jax.numpy_dtype_promotion('standard')
    def step(params, state, data):
        loss, gradients = gradient(params, data)
        updates, state = optimizer.update(gradients, state, params)
        return jax.tree.map(jnp.add, params, updates), state, loss

    params, state = loaded.params, optimizer.init(loaded.params)
    losses = []
    for number in range(20):
        data = batch(loaded.config, length=20 + number % 5)
        theirs.zero_grad()
        their_loss = run_theirs(model, data).loss
        their_loss.backward()
        theirs.step()
        params, state, loss = step(params, state, loss_batch(data))
        losses.append((float(loss), their_loss.item()))
    ours, expected = np.array(losses).T
    assert expected[-1] < expected[0] - 0.5
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


@pytest.mark.parametrize('family', ['Albert', 'Bert'])
@pytest.mark.parametrize(
    'kind',
    ['sequence_classification', 'token_classification', 'question_answering', 'multiple_choice'],
)
def test_heads(family, kind, tmp_path):
    suffix = ''.join(word.capitalize() for word in kind.split('_'))
    fields = {n: v for n, v in SMALL.items() if family == 'Albert' or n != 'embedding_size'}
    labels = {} if kind in ('question_answering', 'multiple_choice') else {'num_labels': 3}
    config = getattr(transformers, f'{family}Config')(**fields, **labels)
    model = randomised(getattr(transformers, f'{family}For{suffix}')(config))
    loaded = ours_of(model, tmp_path)
    assert loaded.head.kind == kind
    assert loaded.head.labels == (tuple(f'LABEL_{i}' for i in range(3)) if labels else ())
    data = {n: batch(loaded.config)[n] for n in ('input_ids', 'attention_mask', 'token_type_ids')}
    ours = run_ours(loaded.config, loaded.params, data)
    if kind == 'multiple_choice':
        theirs = model(**{n: torch.tensor(v)[None] for n, v in data.items()}).logits[0, :, None]
    else:
        theirs = run_theirs(model, data)
        theirs = (
            torch.stack([theirs.start_logits, theirs.end_logits], -1)
            if kind == 'question_answering'
            else theirs.logits
        )
    is_pooled = kind in ('sequence_classification', 'multiple_choice')
    features = ours.pooled_output if is_pooled else ours.last_hidden_state
    head = loaded.params['head']
    logits = np.asarray(features) @ np.asarray(head['kernel']) + np.asarray(head['bias'])
    real = ... if is_pooled else data['attention_mask'].astype(bool)
    assert_near(logits[real], theirs[real if real is ... else torch.tensor(real)], 1e-5)
    # And back, to a directory that transformers reads without complaint.
    conversion.convert(loaded, tmp_path / 'back', 'huggingface')
    again, info = type(model).from_pretrained(tmp_path / 'back', output_loading_info=True)
    assert not any(info[name] for name in ('missing_keys', 'unexpected_keys', 'mismatched_keys'))
    for (name, one), (_, two) in zip(
        model.named_parameters(), again.named_parameters(), strict=True
    ):
        assert torch.equal(one, two), name


@pytest.mark.parametrize('architecture', ['PreTraining', 'MaskedLM', 'NextSentencePrediction', ''])
def test_bert(architecture, tmp_path):
    fields = {name: value for name, value in SMALL.items() if name != 'embedding_size'}
    config = transformers.BertConfig(**fields)
    name = f'BertFor{architecture}' if architecture else 'BertModel'
    model = randomised(getattr(transformers, name)(config))
    loaded = ours_of(model, tmp_path)
    missing = {
        'PreTraining': (),
        'MaskedLM': ('pooler', 'sentence'),
        'NextSentencePrediction': ('mlm',),
        '': ('mlm', 'sentence'),
    }
    assert loaded.initialised == missing[architecture]
    data = batch(loaded.config)
    names = ('input_ids', 'attention_mask', 'token_type_ids')
    theirs = run_theirs(model, {name: data[name] for name in names})
    ours = run_ours(loaded.config, loaded.params, data)
    real = data['attention_mask'].astype(bool)
    for mine, yours in zip(ours.hidden_states, theirs.hidden_states, strict=True):
        assert_near(mine[real], yours[torch.tensor(real)], 1e-5)
    if architecture == 'PreTraining':
        assert_outputs_agree(ours, theirs, data['attention_mask'], 1e-5)


EXPORTS = [
    {},
    {'num_hidden_groups': 2, 'inner_group_num': 2},
    {'sharing': 'attention'},
    {'sharing': 'ffn'},
    {'sharing': 'none'},
    {'embedding_size': 32, 'use_embedding_projection': False},
    {'embedding_size': 32, 'use_embedding_projection': False, 'sharing': 'none'},
    {'hidden_act': 'gelu_erf'},
    {'hidden_act': 'relu'},
]


@pytest.mark.parametrize('fields', EXPORTS, ids=str)
def test_transformers_reads_what_we_write(fields, vocabulary, tmp_path):
    config = AlbertConfig(**(SMALL | {'vocab_size': 1000} | fields))
    params = tiny.random_params(config, scale=0.2)
    tokenizer = albert_jax.Tokenizer(vocabulary)
    model = Pretrained(config, params, tokenizer)
    conversion.convert(model, tmp_path / 'hf', 'huggingface')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        family = 'Bert' if config.sharing == 'none' and fields.get('embedding_size') else 'Albert'
        theirs, info = getattr(transformers, f'{family}ForPreTraining').from_pretrained(
            tmp_path / 'hf', output_loading_info=True
        )
        assert not any(info[name] for name in ('missing_keys', 'unexpected_keys'))
        body, body_info = transformers.AutoModel.from_pretrained(
            tmp_path / 'hf', output_loading_info=True
        )
        assert not body_info['missing_keys']
        # What AlbertModel has no use for, of our directories as of anybody's: the heads.
        unexpected = {name.partition('.')[0] for name in body_info['unexpected_keys']}
        assert unexpected <= {'predictions', 'sop_classifier', 'cls'}
        words = transformers.AutoTokenizer.from_pretrained(tmp_path / 'hf')
    text = 'The import statement, in 3 parts (twice).'
    encoded = words(text, return_tensors='pt')
    ids = [tokenizer.cls_id, *tokenizer.encode([text])[0], tokenizer.sep_id]
    assert encoded['input_ids'][0].tolist() == ids
    data = {
        'input_ids': np.array([ids]),
        'attention_mask': np.ones((1, len(ids)), int),
        'token_type_ids': np.zeros((1, len(ids)), int),
    }
    ours = run_ours(config, params, data)
    names = {'input_ids', 'attention_mask', 'token_type_ids'}
    output = run_theirs(theirs.eval(), {name: data[name] for name in names})
    for mine, yours in (
        (ours.mlm_logits, output.prediction_logits),
        (ours.last_hidden_state, body.eval()(**encoded).last_hidden_state),
    ):
        assert_near(mine, yours, 1e-5)
