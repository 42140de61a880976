"""ALBERT forward pass in float64 NumPy, written from the paper: an oracle for tests, not for speed.

Dense kernels are `[in, out]`. Nothing here imports from the package under test.
"""

import math
from typing import Any

import numpy as np

Params = dict[str, Any]

# Number of dimensions of an encoder leaf without its leading axis of unique layers.
UNSTACKED_NDIM = {'kernel': 2, 'bias': 1, 'scale': 1}


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    """GELU in the tanh approximation that Google's ALBERT uses."""
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def gelu_erf(x: np.ndarray) -> np.ndarray:
    """Exact GELU: x times the standard normal distribution function."""
    erf = np.vectorize(math.erf, otypes=[np.float64])
    return 0.5 * x * (1.0 + erf(x / math.sqrt(2.0)))


def relu(x: np.ndarray) -> np.ndarray:
    """The positive part of x."""
    return np.maximum(x, 0.0)


ACTIVATIONS = {'gelu_tanh': gelu_tanh, 'gelu_erf': gelu_erf, 'relu': relu}


def softmax(scores: np.ndarray) -> np.ndarray:
    """Softmax over the last axis."""
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def dense(params: Params, x: np.ndarray) -> np.ndarray:
    """Affine map of the last axis."""
    return x @ params['kernel'] + params['bias']


def layer_norm(params: Params, x: np.ndarray, eps: float) -> np.ndarray:
    """Layer normalisation over the last axis, with the biased variance."""
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + eps) * params['scale'] + params['bias']


def to_float64(tree: Any) -> Any:
    """Copy a nested dict of arrays with every array in float64."""
    if isinstance(tree, dict):
        return {name: to_float64(child) for name, child in tree.items()}
    return np.array(tree, dtype=np.float64)


def is_shared(sublayer: str, sharing: str) -> bool:
    """Whether a sublayer ("attention" or "ffn") is shared between layers."""
    if sharing not in ('all', 'attention', 'ffn', 'none'):
        raise ValueError(f'unknown sharing: {sharing!r}')
    return sharing in ('all', sublayer)


def num_unique_layers(sublayer: str, config: dict) -> int:
    """How many sublayers of this kind have parameters of their own."""
    if is_shared(sublayer, config['sharing']):
        if config['num_loops']:
            return config['num_hidden_layers'] // config['num_loops']
        return config['num_hidden_groups'] * config['inner_group_num']
    return config['num_hidden_layers'] * config['inner_group_num']


def unique_layer_index(sublayer: str, layer: int, inner: int, config: dict) -> int:
    """Which unique sublayer is used in inner block `inner` of layer `layer`."""
    if is_shared(sublayer, config['sharing']):
        if config['num_loops']:
            return layer % (config['num_hidden_layers'] // config['num_loops'])
        group = int(layer / config['num_hidden_layers'] * config['num_hidden_groups'])
        return group * config['inner_group_num'] + inner
    return layer * config['inner_group_num'] + inner


def select_unique_layer(tree: Params, index: int, num_unique: int) -> Params:
    """Take the parameters of one; the leading axis exists only where there are several."""
    selected = {}
    for name, child in tree.items():
        if isinstance(child, dict):
            selected[name] = select_unique_layer(child, index, num_unique)
            continue
        if child.ndim != UNSTACKED_NDIM[name] + (num_unique > 1):
            raise ValueError(f'{name} has shape {child.shape}, with {num_unique} unique layers')
        if num_unique > 1 and child.shape[0] != num_unique:
            raise ValueError(f'{name} has {child.shape[0]} unique layers instead of {num_unique}')
        selected[name] = child[index] if num_unique > 1 else child
    return selected


def at_depth(
    tree: Params, index: int, num_unique: int, depth: int, is_tied: bool, config: dict
) -> Params:
    """The parameters of a sublayer at one depth, from the shared ones and those of the depth."""
    num_depths = config['num_hidden_layers'] * config['inner_group_num']
    shared, of_depth, adapter = {}, {}, {}
    for name, child in tree.items():
        if isinstance(child, dict):
            of_depth[name] = at_depth(child, index, num_unique, depth, is_tied, config)
        elif name in ('adapter_down', 'adapter_up'):
            adapter[name] = child
        elif name in ('bias', 'scale') and is_tied and config['depth_norms']:
            of_depth[name] = child
        else:
            shared[name] = child
    if ('kernel' in tree and is_tied and config['depth_adapter_rank'] > 0) != bool(adapter):
        raise ValueError(f'{list(tree)} has an adapter or has none')
    for name, child in {**of_depth, **adapter}.items():
        if not isinstance(child, dict):
            if child.shape[0] != num_depths:
                raise ValueError(f'{name} has {child.shape[0]} depths instead of {num_depths}')
            of_depth[name] = child[depth]
    selected = select_unique_layer(shared, index, num_unique)
    if adapter:
        down, up = of_depth.pop('adapter_down'), of_depth.pop('adapter_up')
        if down.shape[1] != config['depth_adapter_rank']:
            raise ValueError(f'adapter_down has shape {down.shape}')
        selected['kernel'] = selected['kernel'] + down @ up
    return selected | of_depth


def embed(
    params: Params, config: dict, input_ids: np.ndarray, token_type_ids: np.ndarray
) -> np.ndarray:
    """Word + position + segment, LayerNorm, then the projection from E to H if there is one.

    With rotary positions nothing is added for the position.
    """
    summed = params['word']['embedding'][input_ids]
    summed = summed + params['token_type']['embedding'][token_type_ids]
    if config['position_encoding'] == 'learned':
        summed = summed + params['position']['embedding'][: input_ids.shape[1]]
    elif 'position' in params:
        raise ValueError('a table of positions beside rotary ones')
    normed = layer_norm(params['layer_norm'], summed, config['layer_norm_eps'])
    if config['use_embedding_projection']:
        return dense(params['projection'], normed)
    return normed


def attention_probabilities(
    query: np.ndarray, key: np.ndarray, attention_mask: np.ndarray
) -> np.ndarray:
    """Scaled dot-product weights of one head, `[batch, query, key]`, without padding keys."""
    scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1])
    is_real_key = (attention_mask != 0)[:, None, :]
    return softmax(np.where(is_real_key, scores, np.finfo(np.float64).min))


def rotary(vectors: np.ndarray) -> np.ndarray:
    """Rotary positions (arXiv 2104.09864, section 3.2) of one head, `[batch, position, size]`.

    Number i of the first half and number i of the second are one complex number, which is
    multiplied by exp(1j * position * theta), theta = 10000 ** (-2i / size).
    """
    half = vectors.shape[-1] // 2
    theta = 10000.0 ** (-2.0 * np.arange(half) / vectors.shape[-1])
    turned = vectors[..., :half] + 1j * vectors[..., half:]
    turned = turned * np.exp(1j * np.arange(vectors.shape[1])[:, None] * theta)
    return np.concatenate([turned.real, turned.imag], axis=-1)


def residual(params: Params, config: dict, hidden: np.ndarray, sublayer: Any) -> np.ndarray:
    """Adds a sublayer's output, with the norm after the sum, or before the sublayer."""

    def norm(x: np.ndarray) -> np.ndarray:
        return layer_norm(params['layer_norm'], x, config['layer_norm_eps'])

    factor = params['residual']['scale'] if 'residual' in params else 1.0
    if config['norm_placement'] == 'pre':
        return hidden + factor * sublayer(norm(hidden))
    return norm(hidden + factor * sublayer(hidden))


def attention_block(
    params: Params, config: dict, hidden: np.ndarray, attention_mask: np.ndarray
) -> np.ndarray:
    """Multi-head self-attention, without its residual and norm."""
    query = dense(params['query'], hidden)
    key = dense(params['key'], hidden)
    value = dense(params['value'], hidden)
    head_size = config['hidden_size'] // config['num_attention_heads']
    contexts = []
    for head in range(config['num_attention_heads']):
        part = slice(head * head_size, (head + 1) * head_size)
        head_query, head_key = query[..., part], key[..., part]
        if config['position_encoding'] == 'rope':
            head_query, head_key = rotary(head_query), rotary(head_key)
        weights = attention_probabilities(head_query, head_key, attention_mask)
        contexts.append(weights @ value[..., part])
    return dense(params['output'], np.concatenate(contexts, axis=-1))


def ffn_block(params: Params, config: dict, hidden: np.ndarray) -> np.ndarray:
    """Feed-forward network, without its residual and norm (arXiv 2002.05202 with a gate)."""
    activation = ACTIVATIONS[config['hidden_act']]
    inner = dense(params['intermediate'], hidden)
    if config['is_gated']:
        inner = activation(dense(params['gate'], hidden)) * inner
    else:
        inner = activation(inner)
    return dense(params['output'], inner)


def encode(
    params: Params, config: dict, hidden: np.ndarray, attention_mask: np.ndarray
) -> list[np.ndarray]:
    """Run all layers; returns the input followed by the output of each layer."""
    num_attention = num_unique_layers('attention', config)
    num_ffn = num_unique_layers('ffn', config)
    attention_is_tied = is_shared('attention', config['sharing'])
    ffn_is_tied = is_shared('ffn', config['sharing'])
    hidden_states = [hidden]
    for layer in range(config['num_hidden_layers']):
        for inner in range(config['inner_group_num']):
            depth = layer * config['inner_group_num'] + inner
            if config['depth_embedding']:
                hidden = hidden + params['depth']['embedding'][depth]
            index = unique_layer_index('attention', layer, inner, config)
            attention = at_depth(
                params['attention'], index, num_attention, depth, attention_is_tied, config
            )
            hidden = residual(
                attention,
                config,
                hidden,
                lambda x, p=attention: attention_block(p, config, x, attention_mask),
            )
            index = unique_layer_index('ffn', layer, inner, config)
            ffn = at_depth(params['ffn'], index, num_ffn, depth, ffn_is_tied, config)
            hidden = residual(ffn, config, hidden, lambda x, p=ffn: ffn_block(p, config, x))
        hidden_states.append(hidden)
    return hidden_states


def encode_around(
    params: Params, config: dict, hidden: np.ndarray, attention_mask: np.ndarray
) -> list[np.ndarray]:
    """As `encode`, with the prelude and the coda, whose layers have weights of their own."""
    own = {
        'sharing': 'none', 'num_loops': None, 'num_hidden_groups': 1, 'inner_group_num': 1,
        'depth_adapter_rank': 0, 'depth_norms': False, 'depth_embedding': False,
    }  # fmt: skip
    hidden_states = [hidden]
    for name, part in (
        ('prelude', config | own | {'num_hidden_layers': config['num_prelude_layers']}),
        ('layer', config),
        ('coda', config | own | {'num_hidden_layers': config['num_coda_layers']}),
    ):
        if part['num_hidden_layers']:
            hidden_states += encode(params[name], part, hidden_states[-1], attention_mask)[1:]
        elif name in params:
            raise ValueError(f'{name} has weights and no layers')
    return hidden_states


def gather_positions(hidden: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Pick `hidden[b, positions[b, p]]` for every batch row b and slot p."""
    rows = zip(hidden, positions, strict=True)
    return np.stack([row[row_positions] for row, row_positions in rows])


def mlm_head(
    params: Params, config: dict, hidden: np.ndarray, word_embedding: np.ndarray
) -> np.ndarray:
    """Vocabulary logits: dense H to E, activation, LayerNorm, tied word table plus bias."""
    transformed = ACTIVATIONS[config['hidden_act']](dense(params['transform'], hidden))
    normed = layer_norm(params['layer_norm'], transformed, config['layer_norm_eps'])
    return normed @ word_embedding.T + params['bias']


def albert_forward(
    params: dict,
    config: dict,
    input_ids: np.ndarray,
    attention_mask: np.ndarray,
    token_type_ids: np.ndarray,
    masked_positions: np.ndarray | None = None,
) -> dict:
    """ALBERT without dropout, with the pooler and both pretraining heads.

    Returns `hidden_states` (embedding output, then one for each layer), `last_hidden_state`,
    `pooled_output`, `mlm_logits` (at `masked_positions` if given, else at all positions) and
    `sop_logits`.
    """
    params = to_float64(params)
    input_ids = np.asarray(input_ids)
    attention_mask = np.asarray(attention_mask)
    token_type_ids = np.asarray(token_type_ids)

    embedded = embed(params['embeddings'], config, input_ids, token_type_ids)
    hidden_states = encode_around(params['encoder'], config, embedded, attention_mask)
    last_hidden_state = hidden_states[-1]
    if config['norm_placement'] == 'pre':
        last_hidden_state = layer_norm(
            params['encoder']['layer_norm'], last_hidden_state, config['layer_norm_eps']
        )
    elif 'layer_norm' in params['encoder']:
        raise ValueError('a final norm beside those after the sublayers')
    pooled_output = np.tanh(dense(params['pooler'], last_hidden_state[:, 0]))

    mlm_input = last_hidden_state
    if masked_positions is not None:
        mlm_input = gather_positions(last_hidden_state, np.asarray(masked_positions))
    word_embedding = params['embeddings']['word']['embedding']
    return {
        'hidden_states': hidden_states,
        'last_hidden_state': last_hidden_state,
        'pooled_output': pooled_output,
        'mlm_logits': mlm_head(params['mlm'], config, mlm_input, word_embedding),
        'sop_logits': dense(params['sentence'], pooled_output),
    }
