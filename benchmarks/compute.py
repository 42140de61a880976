"""Our train step and forward pass against Hugging Face's in torch, on this machine, in one run.

    python -m benchmarks.compute            (needs the extra `reference`)

All train `albert_base` (v2: no dropout) with AdamW on the same shapes: ours in float32 and with
bfloat16 products, Hugging Face's in float32, as it comes, and under torch's bfloat16 autocast.
Hugging Face computes MLM logits at every position; we do so at the masked ones, as pretraining
needs. For the forward pass all compute them everywhere. They take turns, and the fastest of each is
compared. The share of the peak is the model's arithmetic over the fastest product measured here.
"""

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from albert_jax.model.albert import PretrainingModel, init_params
from albert_jax.model.config import SIZES
from albert_jax.model.flops import train_flops
from albert_jax.runs.optimizer import OptimizerSettings
from albert_jax.training import objectives
from albert_jax.training.optimizer import make_optimizer
from albert_jax.training.sharding import make_mesh, put_batch, replicated
from albert_jax.training.step import init_state, make_train_step

_NUM_TURNS = 4
_CONFIG = SIZES['albert_base']
# Of the product whose speed is called the machine's peak: a large one of the model's.
_PEAK_SHAPE = (2048, 3072, 768)
Runs = dict[str, Callable[[], None]]


def make_batch(batch: int, length: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    num_masked = round(0.15 * length)
    shape = (batch, num_masked)
    return {
        'input_ids': rng.integers(5, _CONFIG.vocab_size, (batch, length), dtype=np.int32),
        'attention_mask': np.ones((batch, length), np.int32),
        'token_type_ids': np.zeros((batch, length), np.int32),
        'masked_positions': np.tile(np.arange(num_masked, dtype=np.int32), (batch, 1)),
        'masked_ids': rng.integers(5, _CONFIG.vocab_size, shape, dtype=np.int32),
        'masked_weights': np.ones(shape, np.float32),
        'sentence_labels': rng.integers(0, 2, batch, dtype=np.int32),
        'sentence_weights': np.ones(batch, np.float32),
    }


def ours(batch: dict[str, np.ndarray], dtype: str) -> tuple[Callable[[], None], Callable[[], None]]:
    config = dataclasses.replace(_CONFIG, compute_dtype=dtype)
    mesh = make_mesh(1)
    objective = objectives.pretraining(config)
    optimizer = make_optimizer(
        OptimizerSettings(name='adamw', schedule='constant', warmup_steps=0, learning_rate=1e-4),
        1000,
        config,
    )
    state = jax.jit(
        lambda: init_state(lambda key: init_params(config, key), optimizer, objective, batch, 0),
        out_shardings=replicated(mesh),
    )()
    params = jax.tree.map(jnp.copy, state.params)
    train_step = make_train_step(objective, optimizer, mesh, 1, 10, 0)
    placed = put_batch(mesh, batch)
    model = PretrainingModel(config)

    @jax.jit
    def logits(params: Any, input_ids: jax.Array) -> Any:
        output: Any = model.apply({'params': params}, input_ids)
        return output.mlm_logits, output.sop_logits

    def step() -> None:
        nonlocal state
        state, _ = train_step(state, placed)
        jax.block_until_ready(state.params)

    return step, lambda: jax.block_until_ready(logits(params, placed['input_ids']))


def hugging_face(
    batch: dict[str, np.ndarray], is_half: bool
) -> tuple[Callable[[], None], Callable[[], None]]:
    import torch
    from transformers import AlbertConfig, AlbertForPreTraining

    config: Any = AlbertConfig(
        vocab_size=_CONFIG.vocab_size,
        embedding_size=_CONFIG.embedding_size,
        hidden_size=_CONFIG.hidden_size,
        num_hidden_layers=_CONFIG.num_hidden_layers,
        num_attention_heads=_CONFIG.num_attention_heads,
        intermediate_size=_CONFIG.intermediate_size,
    )
    config._attn_implementation = 'sdpa'
    model = AlbertForPreTraining(config)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, eps=1e-6, weight_decay=0.01)
    input_ids = torch.from_numpy(batch['input_ids']).long()
    labels = torch.full_like(input_ids, -100)
    positions = torch.from_numpy(batch['masked_positions']).long()
    labels.scatter_(1, positions, torch.from_numpy(batch['masked_ids']).long())
    order = torch.from_numpy(batch['sentence_labels']).long()

    def autocast() -> Any:
        return torch.autocast('cpu', torch.bfloat16, enabled=is_half)

    def step() -> None:
        model.train()
        with autocast():
            loss = model(input_ids=input_ids, labels=labels, sentence_order_label=order).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    def forward() -> None:
        model.eval()
        with torch.no_grad(), autocast():
            model(input_ids=input_ids)

    return step, forward


def fastest_of_turns(runs: Runs) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of the first call of each, which compiles, and of the fastest after it."""
    first: dict[str, float] = {}
    fastest = dict.fromkeys(runs, float('inf'))
    for turn in range(_NUM_TURNS + 1):
        for name, run in runs.items():
            started = time.monotonic()
            run()
            seconds = time.monotonic() - started
            if turn:
                fastest[name] = min(fastest[name], seconds)
            else:
                first[name] = seconds
    return first, fastest


def peak(dtype: str) -> float:
    """FLOP/s of one large product on this machine, the fastest of several."""
    rows, inner, columns = _PEAK_SHAPE
    left, right = jnp.ones((rows, inner), dtype), jnp.ones((inner, columns), dtype)
    product = jax.jit(lambda x, y: jnp.dot(x, y, preferred_element_type=jnp.float32))
    seconds = []
    for _ in range(20):
        started = time.monotonic()
        product(left, right).block_until_ready()
        seconds.append(time.monotonic() - started)
    return 2.0 * rows * inner * columns / min(seconds)


def data_wait() -> float:
    """Share of a small run's time that the loop waited for batches, after compilation."""
    from albert_jax.data.corpus import Source
    from albert_jax.data.preparation import PreparationSettings, prepare, vocabulary_for
    from albert_jax.pretraining import job
    from albert_jax.runs.runs import PretrainRun
    from albert_jax.training.telemetry import read_lines
    from configs.pretrain import get_config

    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / 'topics.jsonl'
        _write_topics(text)
        sources, settings = [Source('jsonl', str(text))], PreparationSettings(sequence_length=128)
        settings = PreparationSettings(sequence_length=128, validation_fraction=0.2)
        corpus = Path(folder) / 'corpus'
        prepare(sources, corpus, vocabulary_for(sources, settings, 1000), settings, 1)
        config: Any = get_config('tiny')
        config.data.path = str(corpus)
        config.pretraining.sequence_length = 128
        config.model.max_position_embeddings = 128
        config.optimizer.warmup_steps = 5
        config.loop.update(
            num_steps=30,
            batch_size=32,
            log_every=30,
            eval_every=30,
            checkpoint_every=30,
            num_eval_batches=1,
        )
        run = PretrainRun.from_dict(config.to_dict())
        job.pretrain(job.prepare(run), Path(folder) / 'run')
        lines = read_lines(Path(folder) / 'run' / 'metrics.jsonl')
        return next(line for line in lines if line['split'] == 'train')['speed']['data_wait']


def _write_topics(path: Path) -> None:
    import json
    import pydoc_data.topics

    topics = pydoc_data.topics.topics.values()
    path.write_text(''.join(json.dumps({'text': text}) + '\n' for text in topics))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('--shapes', nargs='*', default=['8x128', '4x512'], help='batch × length')
    flags = parser.parse_args()
    print(f'share of the step that waits for data: {data_wait():.2%}', flush=True)
    peaks = {dtype: peak(dtype) for dtype in ('float32', 'bfloat16')}
    for dtype, value in peaks.items():
        print(f'fastest product in {dtype}: {value / 1e9:.0f} GFLOP/s', flush=True)
    for shape in flags.shapes:
        size, length = map(int, shape.split('x'))
        batch = make_batch(size, length)
        runners = {
            'ours, float32': ours(batch, 'float32'),
            'ours, bfloat16': ours(batch, 'bfloat16'),
            'Hugging Face, float32': hugging_face(batch, False),
            'Hugging Face, bfloat16': hugging_face(batch, True),
        }
        for number, name in enumerate(('train step', 'forward')):
            first, fastest = fastest_of_turns({who: run[number] for who, run in runners.items()})
            num_places = batch['masked_ids'].shape[1] if number == 0 else length
            flops = size * train_flops(_CONFIG, length, num_places) / (1 if number == 0 else 3)
            theirs = fastest['Hugging Face, float32']
            print(f'{name} {shape}:')
            for who, seconds in fastest.items():
                share = flops / seconds / peaks[who.rpartition(' ')[2]]
                print(
                    f'  {who:24} {seconds:6.2f} s  ratio {seconds / theirs:.2f}  '
                    f'{share:4.0%} of the peak  first call {first[who]:.1f} s',
                    flush=True,
                )


if __name__ == '__main__':
    main()
