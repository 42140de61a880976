"""A decoder beside the encoder of reference_albert.py, in float64 NumPy, written from the papers.

Transformer (arXiv 1706.03762, section 3.1) with the layers of ALBERT. Nothing here imports from the
package under test.
"""

import math
from typing import Any

import numpy as np

from tests.reference_albert import (
    Params,
    dense,
    embed,
    encode,
    ffn_block,
    is_shared,
    layer_norm,
    mlm_head,
    num_unique_layers,
    residual,
    rotary,
    select_unique_layer,
    softmax,
    to_float64,
)  # fmt: skip


def num_decoder_layers(config: dict, decoder: dict) -> int:
    """Layers of the decoder."""
    return decoder['num_decoder_layers'] or config['num_hidden_layers']


def decoder_sublayer(
    params: Params, sublayer: str, layer: int, inner: int, config: dict, decoder: dict
) -> Params:
    """The self-attention ("attention") or feed-forward ("ffn") of a block."""
    num_layers, num_inner = num_decoder_layers(config, decoder), config['inner_group_num']
    if decoder['decoder_sharing'] == 'encoder':
        tree = params['encoder']['layer'][sublayer]
        num_unique = num_unique_layers(sublayer, config)
    else:
        tree = params['decoder']['layer'][sublayer]
        num_groups = min(config['num_hidden_groups'], num_layers)
        is_tied = is_shared(sublayer, config['sharing'])
        num_unique = (num_groups if is_tied else num_layers) * num_inner
    group = int(layer / num_layers * (num_unique // num_inner))
    return select_unique_layer(tree, group * num_inner + inner, num_unique)


def attend(
    params: Params,
    config: dict,
    queries: np.ndarray,
    attended: np.ndarray,
    is_seen: np.ndarray,
    is_rotated: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Attention of one text to itself or another, and its weights `[batch, head, query, key]`."""
    query = dense(params['query'], queries)
    key, value = dense(params['key'], attended), dense(params['value'], attended)
    size = config['hidden_size'] // config['num_attention_heads']
    contexts, all_weights = [], []
    for head in range(config['num_attention_heads']):
        part = slice(head * size, (head + 1) * size)
        head_query, head_key = query[..., part], key[..., part]
        if is_rotated:
            head_query, head_key = rotary(head_query), rotary(head_key)
        scores = head_query @ head_key.transpose(0, 2, 1) / math.sqrt(size)
        weights = softmax(np.where(is_seen, scores, np.finfo(np.float64).min))
        contexts.append(weights @ value[..., part])
        all_weights.append(weights)
    output = dense(params['output'], np.concatenate(contexts, axis=-1))
    return output, np.stack(all_weights, axis=1)


def seq2seq_forward(
    params: Any,
    config: dict,
    decoder: dict,
    source_ids: np.ndarray,
    source_mask: np.ndarray,
    target_ids: np.ndarray,
    target_mask: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Logits `[batch, target, vocab]`, and cross-attention weights `[block, batch, head, …]`."""
    params = to_float64(params)
    embeddings = params['embeddings']
    embedded = embed(embeddings, config, source_ids, np.zeros_like(source_ids))
    memory = encode(params['encoder']['layer'], config, embedded, source_mask)[-1]
    if config['norm_placement'] == 'pre':
        memory = layer_norm(params['encoder']['layer_norm'], memory, config['layer_norm_eps'])
    segment = min(1, config['type_vocab_size'] - 1)
    hidden = embed(embeddings, config, target_ids, np.full_like(target_ids, segment))
    length, is_rotated = target_ids.shape[1], config['position_encoding'] == 'rope'
    is_seen = np.tril(np.ones((length, length), bool)) & (target_mask != 0)[:, None]
    is_source = (source_mask != 0)[:, None]
    cross_tree, all_weights = params['decoder']['cross_attention'], []
    num_layers, num_inner = num_decoder_layers(config, decoder), config['inner_group_num']
    num_cross = num_layers * num_inner if decoder['cross_attention'] == 'per_layer' else 1
    for layer in range(num_layers):
        for inner in range(num_inner):
            own = decoder_sublayer(params, 'attention', layer, inner, config, decoder)
            hidden = residual(
                own,
                config,
                hidden,
                lambda x, p=own: attend(p, config, x, x, is_seen, is_rotated)[0],
            )
            block = (layer * num_inner + inner) % num_cross
            cross = select_unique_layer(cross_tree, block, num_cross)

            def cross_attend(x: np.ndarray, p: Params = cross) -> np.ndarray:
                output, weights = attend(p, config, x, memory, is_source, False)
                all_weights.append(weights)
                return output

            hidden = residual(cross, config, hidden, cross_attend)
            ffn = decoder_sublayer(params, 'ffn', layer, inner, config, decoder)
            hidden = residual(ffn, config, hidden, lambda x, p=ffn: ffn_block(p, config, x))
    if config['norm_placement'] == 'pre':
        hidden = layer_norm(params['decoder']['layer_norm'], hidden, config['layer_norm_eps'])
    logits = mlm_head(params['mlm'], config, hidden, embeddings['word']['embedding'])
    return logits, np.stack(all_weights)
