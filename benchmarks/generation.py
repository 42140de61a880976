"""Our beam search against Hugging Face's `generate` in torch, on this machine, in one run.

    python -m benchmarks.generation            (needs the extra `reference`)

Hugging Face's model is an `EncoderDecoderModel` of two BERTs. Ours is measured twice: with layers
that share nothing, which is that model with the very same weights and must write the same pieces,
and as ALBERTShare, of the same width and depth. All write the same number of pieces, with a cache,
without an end before. They take turns, and the fastest of each is compared. With --cpu_time each
has one thread, whose own time counts: what can be compared on a machine with other work.
"""

import argparse
import dataclasses
import functools
import os
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, PyTree

from albert_jax.model.config import AlbertConfig
from albert_jax.model.decoder import Seq2SeqModel, init_seq2seq
from albert_jax.model.decoder_config import DecoderConfig
from albert_jax.model.decoding import SpecialIds, generate
from albert_jax.model.decoding_settings import DecodingSettings
from albert_jax.model.rounding import round_kernels

_START, _END, _PAD = 2, 3, 0
# A text never ends before its limit.
_SPECIAL = SpecialIds(_START, _END, _PAD, forbidden=(_END,))
_NUM_TURNS = 2
# Where the modules of a layer are in torch's.
_ATTENTION = {'query': 'self.query', 'key': 'self.key', 'value': 'self.value',
              'output': 'output.dense', 'layer_norm': 'output.LayerNorm'}  # fmt: skip
_FFN = {'intermediate': 'intermediate.dense', 'output': 'output.dense',
        'layer_norm': 'output.LayerNorm'}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Work:
    """What all models do."""

    source_ids: np.ndarray
    num_beams: int
    num_new_tokens: int

    @property
    def num_pieces(self) -> int:
        """Pieces of the best texts."""
        return len(self.source_ids) * self.num_new_tokens


def bert_config(flags: argparse.Namespace) -> AlbertConfig:
    """The config of one BERT."""
    return AlbertConfig(
        vocab_size=30000,
        embedding_size=flags.hidden,
        hidden_size=flags.hidden,
        num_hidden_layers=flags.layers,
        num_attention_heads=flags.hidden // 64,
        intermediate_size=4 * flags.hidden,
        hidden_act='gelu_erf',
        sharing='none',
        use_embedding_projection=False,
    )


class Ours:
    """A model of ours, which generates for all sources at once."""

    def __init__(self, model: Seq2SeqModel, params: PyTree, dtype: str, work: Work) -> None:
        config = dataclasses.replace(model.config, compute_dtype=dtype)
        self._params = round_kernels(params, dtype)
        self._generate = functools.partial(
            generate,
            dataclasses.replace(model, config=config),
            settings=DecodingSettings(num_beams=work.num_beams),
            special=_SPECIAL,
            max_new_tokens=work.num_new_tokens,
            source_ids=work.source_ids,
            source_mask=np.ones_like(work.source_ids),
        )
        self._length = work.num_new_tokens

    def __call__(self) -> np.ndarray:
        return np.asarray(self._generate(self._params).token_ids)[:, 0, : self._length]


class HuggingFace:
    """The same model in torch, with the weights of one of ours that shares nothing."""

    def __init__(self, config: AlbertConfig, params: PyTree, is_half: bool, work: Work) -> None:
        import torch
        from transformers import BertConfig, EncoderDecoderConfig, EncoderDecoderModel

        self._torch, self._work = torch, work
        fields: dict[str, Any] = {
            name: getattr(config, name)
            for name in ('vocab_size', 'hidden_size', 'num_hidden_layers', 'num_attention_heads',
                         'intermediate_size', 'layer_norm_eps', 'max_position_embeddings')
        }  # fmt: skip
        both = EncoderDecoderConfig.from_encoder_decoder_configs(
            BertConfig(**fields, hidden_act='gelu'),
            BertConfig(**fields, hidden_act='gelu', is_decoder=True, add_cross_attention=True),
        )
        self.model: Any = EncoderDecoderModel(config=both).eval()
        state = {name: torch.from_numpy(x) for name, x in torch_weights(config, params).items()}
        missing = self.model.load_state_dict(state, strict=False)
        assert not missing.unexpected_keys, missing
        assert all('pooler' in name or 'decoder.cls' in name for name in missing.missing_keys)
        if is_half:
            self.model = self.model.to(torch.bfloat16)
        self._input_ids = torch.from_numpy(work.source_ids).long()

    def __call__(self) -> np.ndarray:
        work = self._work
        with self._torch.no_grad():
            ids = self.model.generate(
                input_ids=self._input_ids,
                attention_mask=self._torch.ones_like(self._input_ids),
                num_beams=work.num_beams,
                max_new_tokens=work.num_new_tokens,
                min_new_tokens=work.num_new_tokens,
                do_sample=False,
                decoder_start_token_id=_START,
                eos_token_id=_END,
                pad_token_id=_PAD,
            )
        return ids[:, 1:].numpy()


def torch_weights(config: AlbertConfig, params: PyTree) -> dict[str, np.ndarray]:
    """The weights of a model that shares nothing under the names of Hugging Face's modules."""
    params = jax.tree.map(np.asarray, params)
    state: dict[str, np.ndarray] = {}

    def put(name: str, tree: Any, layer: int | None = None) -> None:
        for leaf, suffix in (('kernel', 'weight'), ('scale', 'weight'), ('bias', 'bias')):
            if leaf in tree:
                value = tree[leaf] if layer is None else tree[leaf][layer]
                state[f'{name}.{suffix}'] = np.array(value.T if leaf == 'kernel' else value)

    embeddings, own = params['embeddings'], params['decoder']
    for prefix, segment in (('encoder.embeddings', 0), ('decoder.bert.embeddings', 1)):
        # Its decoder takes the first segment, ours the second.
        segments = embeddings['token_type']['embedding'][[segment, 1 - segment]]
        state[f'{prefix}.token_type_embeddings.weight'] = segments
        for name in ('word', 'position'):
            state[f'{prefix}.{name}_embeddings.weight'] = embeddings[name]['embedding']
        put(f'{prefix}.LayerNorm', embeddings['layer_norm'])
    sides = (('encoder.encoder', params['encoder']), ('decoder.bert.encoder', own))
    for layer in range(config.num_hidden_layers):
        for prefix, part in sides:
            place = f'{prefix}.layer.{layer}'
            trees = [(f'{place}.attention', part['layer']['attention'], _ATTENTION)]
            if 'cross_attention' in part:
                trees.append((f'{place}.crossattention', part['cross_attention'], _ATTENTION))
            trees.append((place, part['layer']['ffn'], _FFN))
            for start, tree, names in trees:
                for name, theirs in names.items():
                    put(f'{start}.{theirs}', tree[name], layer)
    put('decoder.cls.predictions.transform.dense', params['mlm']['transform'])
    put('decoder.cls.predictions.transform.LayerNorm', params['mlm']['layer_norm'])
    state['decoder.cls.predictions.bias'] = params['mlm']['bias']
    return state


def start(
    config: AlbertConfig, decoder: DecoderConfig, scale: float = 0.06
) -> tuple[Seq2SeqModel, dict[str, Any]]:
    """A model with random weights, large enough for texts that differ from source to source."""
    shapes = jax.eval_shape(lambda: init_seq2seq(config, decoder, jax.random.key(0)))
    rng = np.random.default_rng(0)

    def draw(path: tuple[Any, ...], x: Array) -> np.ndarray:
        name = str(path[-1].key)
        if name in ('bias', 'scale'):
            return np.full(x.shape, float(name == 'scale'), np.float32)
        return rng.normal(0, scale, x.shape).astype(np.float32)

    return Seq2SeqModel(config, decoder), jax.tree_util.tree_map_with_path(draw, shapes)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('--hidden', type=int, default=768, help='width of all models')
    parser.add_argument('--layers', type=int, default=12, help='layers of encoder and decoder each')
    parser.add_argument('--batch', type=int, default=32, help='sources')
    parser.add_argument('--beams', type=int, default=4)
    parser.add_argument('--source', type=int, default=32, help='pieces of a source')
    parser.add_argument('--new', type=int, default=32, help='pieces of a text')
    parser.add_argument(
        '--cpu_time', action='store_true', help='one thread, and its time in place of the clock'
    )
    flags = parser.parse_args()
    if flags.cpu_time:
        _use_one_thread()
    rng = np.random.default_rng(1)
    sources = rng.integers(5, 30000, (flags.batch, flags.source), dtype=np.int32)
    work = Work(sources, flags.beams, flags.new)
    config = bert_config(flags)
    unshared, params = start(
        config, DecoderConfig(decoder_sharing='copy', cross_attention='per_layer')
    )
    albert = dataclasses.replace(
        config, sharing='all', use_embedding_projection=True, embedding_size=128
    )
    share, share_params = start(albert, DecoderConfig())
    runs: dict[str, Callable[[], np.ndarray]] = {}
    for dtype in ('float32', 'bfloat16'):
        runs[f'Hugging Face, {dtype}'] = HuggingFace(config, params, dtype == 'bfloat16', work)
        runs[f'ours, BERTs, {dtype}'] = Ours(unshared, params, dtype, work)
        runs[f'ours, ALBERTShare, {dtype}'] = Ours(share, share_params, dtype, work)
    _report(runs, work, time.process_time if flags.cpu_time else time.monotonic)


def _use_one_thread() -> None:
    """Before JAX makes its first array."""
    import torch

    torch.set_num_threads(1)
    given = os.environ.get('XLA_FLAGS', '')
    os.environ['XLA_FLAGS'] = f'{given} --xla_cpu_multi_thread_eigen=false'


def _report(
    runs: dict[str, Callable[[], np.ndarray]], work: Work, clock: Callable[[], float]
) -> None:
    """Prints pieces a second of each model, in turns, and whether equal models write the same."""
    fastest = dict.fromkeys(runs, float('inf'))
    texts: dict[str, np.ndarray] = {}
    for turn in range(_NUM_TURNS + 1):
        for name, run in runs.items():
            started = clock()
            texts[name] = run()
            if turn:
                fastest[name] = min(fastest[name], clock() - started)
    is_same = (texts['Hugging Face, float32'] == texts['ours, BERTs, float32']).all(-1)
    print(f'{is_same.sum()} of {is_same.size} texts are the same in float32')
    for name, seconds in fastest.items():
        theirs = fastest[f'Hugging Face, {name.rpartition(" ")[2]}']
        print(
            f'  {name:28} {work.num_pieces / seconds:8.0f} pieces/s  {seconds:6.2f} s  '
            f'{theirs / seconds:.2f} times Hugging Face',
            flush=True,
        )


if __name__ == '__main__':
    main()
