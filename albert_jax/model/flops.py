"""FLOPs of a model, and peak FLOP/s of devices, for model FLOPs utilisation (MFU)."""

import math
import re
from collections.abc import Mapping

from albert_jax.model.config import AlbertConfig
from albert_jax.model.decoder_config import DecoderConfig

# Dense bf16 FLOP/s of one JAX device, as published by Google Cloud. A device is a core, half a
# chip, up to v3 and in tpu7x; a chip otherwise.
PEAK_FLOPS = {
    'v2': 22.5e12,
    'v3': 61.5e12,
    'v4': 275e12,
    'v5e': 197e12,
    'v5p': 459e12,
    'v6e': 918e12,
    'tpu7x': 1153.5e12,
}
# Dense bf16 FLOP/s of NVIDIA's GPUs: half of what their data sheets give with sparsity. The first
# that a device's name starts with is taken.
_NVIDIA_PEAK_FLOPS = {
    'NVIDIA B200': 2250e12,
    'NVIDIA GH200': 989.4e12,
    'NVIDIA H200 NVL': 835.5e12,
    'NVIDIA H200': 989.4e12,
    'NVIDIA H100 PCIe': 756e12,
    'NVIDIA H100 NVL': 835.5e12,
    'NVIDIA H100': 989.4e12,
    'NVIDIA A100': 312e12,
    'NVIDIA L40S': 362.05e12,
    'NVIDIA L4': 121e12,
}
# What JAX calls TPUs, in lower case and without 'TPU ', where that is another name.
_DEVICE_KINDS = {'v5 lite': 'v5e', 'v5': 'v5p', 'v6 lite': 'v6e'}


def peak_flops(device_kind: str) -> float | None:
    """FLOP/s of a device in bf16, by JAX's name of its kind; None if it is not known."""
    if not device_kind.startswith('TPU'):
        names = (name for name in _NVIDIA_PEAK_FLOPS if re.match(rf'{name}\b', device_kind))
        return next((_NVIDIA_PEAK_FLOPS[name] for name in names), None)
    kind = device_kind.removeprefix('TPU ').lower()
    return PEAK_FLOPS.get(_DEVICE_KINDS.get(kind, kind))


def train_flops(config: AlbertConfig, length: int, num_masked: int) -> float:
    """FLOPs of the matrix products of one sequence, forward and backward, without recomputation.

    What is elementwise is not counted: norms, activations, gates, the rotations of RoPE; nor what
    does not grow with the sequences (`adapter_flops`).

    Args:
      config: the model.
      length: tokens a sequence.
      num_masked: positions at which the MLM head is computed.
    """
    hidden = config.hidden_size
    forward = _encoder_flops(config, length) + _mlm_flops(config, num_masked)
    forward += 2 * hidden * (hidden + 2)
    return 3.0 * forward


def seq2seq_train_flops(
    config: AlbertConfig, decoder: DecoderConfig, source_length: int, target_length: int
) -> float:
    """As `train_flops`, of a source with its target.

    Args:
      config: of the encoder.
      decoder: of the decoder.
      source_length: tokens of the source.
      target_length: tokens that the decoder is given.
    """
    hidden = config.hidden_size
    # Self-attention and feed-forward; query and output of the cross-attention, and its scores.
    per_token = _dense_flops(config) + 4 * target_length * hidden
    per_token += 2 * 2 * hidden**2 + 4 * source_length * hidden
    num_blocks = decoder.num_layers(config) * config.inner_group_num
    forward = _encoder_flops(config, source_length)
    # Keys and values of the source.
    forward += decoder.num_cross_attentions(config) * source_length * 2 * 2 * hidden**2
    forward += _projection_flops(config, target_length) + target_length * num_blocks * per_token
    return 3.0 * (forward + _mlm_flops(config, target_length))


def _encoder_flops(config: AlbertConfig, length: int) -> int:
    """FLOPs of the embeddings and all layers, forward."""
    per_token = _dense_flops(config)
    per_token += 4 * length * config.hidden_size  # scores, and their product with the values
    return length * config.num_blocks * per_token + _projection_flops(config, length)


def _projection_flops(config: AlbertConfig, length: int) -> int:
    is_there = config.use_embedding_projection
    return length * 2 * config.embedding_size * config.hidden_size * is_there


def _mlm_flops(config: AlbertConfig, num_positions: int) -> int:
    return num_positions * 2 * config.embedding_size * (config.hidden_size + config.vocab_size)


def _dense_flops(config: AlbertConfig) -> int:
    """FLOPs of the dense maps of one block for one token: attention's four and the feed-forward."""
    hidden = config.hidden_size
    return 2 * hidden * (4 * hidden + config.num_ffn_kernels * config.ffn_size)


def recomputed_flops(config: AlbertConfig, length: int) -> float:
    """FLOPs of one sequence that the backward pass computes a second time, by `config.remat`.

    Attention scores are always computed again, as in a fused kernel.

    Args:
      config: the model.
      length: tokens a sequence.
    """
    dense, scores = _dense_flops(config), 2 * length * config.hidden_size
    num_blocks = config.num_blocks
    per_token = num_blocks * scores
    if config.remat in ('attention', 'full'):
        per_token += num_blocks * dense
        if config.norm_placement == 'pre':
            # The last map of a layer is only added to: no gradient needs its output, but that of a
            # scale.
            num_layers = config.num_layers
            if config.depth_norms and config.shares('ffn'):
                num_layers -= config.num_hidden_layers
            per_token -= num_layers * 2 * config.hidden_size * config.ffn_size
    if config.remat == 'full':
        per_token += num_blocks * scores
    return float(length * per_token)


def adapter_flops(shapes: Mapping[str, tuple[int, ...]]) -> float:
    """FLOPs, forward and backward, of making the kernels of every depth, in one microbatch.

    Each is a shared kernel with the product of two low matrices added, whatever the sequences.

    Args:
      shapes: of the parameters, by path.
    """
    downs = [path for path in shapes if path.endswith('/adapter_down')]
    return sum(
        3.0 * 2 * math.prod(shapes[down]) * shapes[down.replace('_down', '_up')][-1]
        for down in downs
    )


def newton_schulz_flops(rows: int, columns: int, num_steps: int) -> float:
    """FLOPs of Newton-Schulz steps X ← aX + (bA + cA²)X with A = XXᵀ, X no higher than wide.

    Args:
      rows: of the matrix.
      columns: of the matrix; where there are fewer, its transpose is taken.
      num_steps: how often.
    """
    low, high = sorted((rows, columns))
    return num_steps * (4.0 * low**2 * high + 2.0 * low**3)
