"""Our train step and forward pass against Hugging Face's in torch, on this machine, in one run.

    python -m benchmarks.compute            (needs the extra `reference`)

All train `albert_base` (v2: no dropout), and the models of the configs `tiny` and `mini` as tests
and demos do, with AdamW on the same shapes: ours in float32 and with bfloat16 products, Hugging
Face's in float32, as it comes, and under torch's bfloat16 autocast.
Hugging Face computes MLM logits at every position; we do so at the masked ones, as pretraining
needs. For the forward pass all compute them everywhere. They take turns, and the fastest of each is
compared. Memory that is freed is kept, for both, as in our commands that train. The share of the
peak is the model's arithmetic over the fastest product measured here.
"""

import argparse
import dataclasses
import functools
import json
import pydoc_data.topics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from albert_jax.cli.allocator import keep_freed_memory
from albert_jax.data.corpus import Source
from albert_jax.data.preparation import PreparationSettings, prepare, vocabulary_for
from albert_jax.model.albert import PretrainingModel, init_params
from albert_jax.model.config import SIZES, AlbertConfig
from albert_jax.model.flops import train_flops
from albert_jax.pretraining import job
from albert_jax.runs.optimizer import OptimizerSettings
from albert_jax.runs.runs import PretrainRun
from albert_jax.training import objectives
from albert_jax.training.metrics_file import read_lines
from albert_jax.training.optimizer import make_optimizer
from albert_jax.training.sharding import make_mesh, put_batch, replicated
from albert_jax.training.step import init_state, make_train_step
from configs.pretrain import get_config

_NUM_TURNS = 4
# Of small models, whose steps are short.
_MOST_TURNS, _SECONDS_OF_TURNS = 30, 10.0
_SHAPES = ('base:8x128', 'base:4x512', 'tiny:32x64', 'mini:32x64')
# Of the product whose speed is called the machine's peak: a large one of the model's.
_PEAK_SHAPE = (2048, 3072, 768)
# Tokens of a sequence in the run that measures the wait for data.
_SMALL_LENGTH = 128
Runs = dict[str, Callable[[], None]]


def model_of(name: str) -> AlbertConfig:
    """The model of a config of configs/pretrain.py, without dropout, in float32."""
    if name == 'base':
        return SIZES['albert_base']
    return PretrainRun.from_dict(get_config(name).to_dict()).albert


def make_batch(config: AlbertConfig, batch: int, length: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    num_masked = round(0.15 * length)
    shape = (batch, num_masked)
    return {
        'input_ids': rng.integers(5, config.vocab_size, (batch, length), dtype=np.int32),
        'attention_mask': np.ones((batch, length), np.int32),
        'token_type_ids': np.zeros((batch, length), np.int32),
        'masked_positions': np.tile(np.arange(num_masked, dtype=np.int32), (batch, 1)),
        'masked_ids': rng.integers(5, config.vocab_size, shape, dtype=np.int32),
        'masked_weights': np.ones(shape, np.float32),
        'sentence_labels': rng.integers(0, 2, batch, dtype=np.int32),
        'sentence_weights': np.ones(batch, np.float32),
    }


class Ours:
    """Our model on one batch: a train step, and the forward pass with logits at every position."""

    def __init__(self, config: AlbertConfig, batch: dict[str, np.ndarray], dtype: str) -> None:
        config = dataclasses.replace(config, compute_dtype=dtype)
        mesh = make_mesh(1)
        objective = objectives.pretraining(config)
        settings = OptimizerSettings(
            name='adamw', schedule='constant', warmup_steps=0, learning_rate=1e-4
        )
        optimizer = make_optimizer(settings, 1000, config)
        init = functools.partial(init_params, config)
        self._state = jax.jit(
            functools.partial(init_state, init, optimizer, objective, batch, 0),
            out_shardings=replicated(mesh),
        )()
        self._params = jax.tree.map(jnp.copy, self._state.params)
        self._train_step = make_train_step(objective, optimizer, mesh, 1, 10, 0)
        self._batch = put_batch(mesh, batch)
        self._logits = jax.jit(functools.partial(_logits, PretrainingModel(config)))

    def step(self) -> None:
        self._state, _ = self._train_step(self._state, self._batch)
        jax.block_until_ready(self._state.params)

    def forward(self) -> None:
        jax.block_until_ready(self._logits(self._params, self._batch['input_ids']))


def _logits(model: PretrainingModel, params: PyTree, input_ids: jax.Array) -> tuple[Array, Array]:
    output: Any = model.apply({'params': params}, input_ids)
    return output.mlm_logits, output.sop_logits


class HuggingFace:
    """Hugging Face's model in torch on one batch: a train step, and the forward pass."""

    def __init__(self, ours: AlbertConfig, batch: dict[str, np.ndarray], is_half: bool) -> None:
        import torch
        from transformers import AlbertConfig as TheirConfig
        from transformers import AlbertForPreTraining

        self._torch = torch
        self._is_half = is_half
        config: Any = TheirConfig(
            vocab_size=ours.vocab_size,
            embedding_size=ours.embedding_size,
            hidden_size=ours.hidden_size,
            num_hidden_layers=ours.num_hidden_layers,
            num_attention_heads=ours.num_attention_heads,
            intermediate_size=ours.intermediate_size,
        )
        config._attn_implementation = 'sdpa'
        self._model = AlbertForPreTraining(config)
        self._optimizer = torch.optim.AdamW(
            self._model.parameters(), 1e-4, eps=1e-6, weight_decay=0.01
        )
        self._input_ids = torch.from_numpy(batch['input_ids']).long()
        self._labels = torch.full_like(self._input_ids, -100)
        positions = torch.from_numpy(batch['masked_positions']).long()
        self._labels.scatter_(1, positions, torch.from_numpy(batch['masked_ids']).long())
        self._order = torch.from_numpy(batch['sentence_labels']).long()

    def _autocast(self) -> Any:
        return self._torch.autocast('cpu', self._torch.bfloat16, enabled=self._is_half)

    def step(self) -> None:
        self._model.train()
        with self._autocast():
            loss = self._model(
                input_ids=self._input_ids, labels=self._labels, sentence_order_label=self._order
            ).loss
        loss.backward()
        self._torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()

    def forward(self) -> None:
        self._model.eval()
        with self._torch.no_grad(), self._autocast():
            self._model(input_ids=self._input_ids)


def fastest_of_turns(runs: Runs) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of the first call of each, which compiles, and of the fastest after it."""
    first: dict[str, float] = {}
    fastest = dict.fromkeys(runs, float('inf'))
    end = time.monotonic() + _SECONDS_OF_TURNS
    for turn in range(_MOST_TURNS + 1):
        if turn > _NUM_TURNS and time.monotonic() > end:
            break
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
    with tempfile.TemporaryDirectory() as folder:
        corpus, workdir = Path(folder) / 'corpus', Path(folder) / 'run'
        _prepare_topics(Path(folder) / 'topics.jsonl', corpus)
        job.pretrain(job.prepare(_small_run(corpus)), workdir)
        lines = read_lines(workdir / 'metrics.jsonl')
        return next(line for line in lines if line['split'] == 'train')['speed']['data_wait']


def _prepare_topics(text: Path, corpus: Path) -> None:
    """A corpus of the English text that comes with Python."""
    topics = pydoc_data.topics.topics.values()
    text.write_text(''.join(json.dumps({'text': topic}) + '\n' for topic in topics))
    sources = [Source('jsonl', str(text))]
    settings = PreparationSettings(sequence_length=_SMALL_LENGTH, validation_fraction=0.2)
    prepare(sources, corpus, vocabulary_for(sources, settings, 1000), settings, 1)


def _small_run(corpus: Path) -> PretrainRun:
    run = PretrainRun.from_dict(get_config('tiny').to_dict())
    return dataclasses.replace(
        run,
        data=dataclasses.replace(run.data, path=str(corpus)),
        pretraining=dataclasses.replace(run.pretraining, sequence_length=_SMALL_LENGTH),
        model=dataclasses.replace(run.model, max_position_embeddings=_SMALL_LENGTH),
        optimizer=dataclasses.replace(run.optimizer, warmup_steps=5),
        loop=dataclasses.replace(
            run.loop,
            num_steps=30,
            batch_size=32,
            log_every=30,
            eval_every=30,
            checkpoint_every=30,
            num_eval_batches=1,
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument(
        '--shapes', nargs='*', default=_SHAPES, help='MODEL:BATCHxLENGTH, of base, tiny and mini'
    )
    flags = parser.parse_args()
    keep_freed_memory()
    print(f'share of the step that waits for data: {data_wait():.2%}', flush=True)
    peaks = {dtype: peak(dtype) for dtype in ('float32', 'bfloat16')}
    for dtype, value in peaks.items():
        print(f'fastest product in {dtype}: {value / 1e9:.0f} GFLOP/s', flush=True)
    for shape in flags.shapes:
        name, _, sizes = shape.partition(':')
        batch_size, length = map(int, sizes.split('x'))
        _compare(name, batch_size, length, peaks)


def _compare(name: str, batch_size: int, length: int, peaks: dict[str, float]) -> None:
    """Prints the times of all models for batches of one shape.

    Args:
      name: of the config.
      batch_size: sequences.
      length: tokens of each.
      peaks: FLOP/s of the fastest product in each compute dtype.
    """
    config = model_of(name)
    batch = make_batch(config, batch_size, length)
    models: dict[str, Ours | HuggingFace] = {
        'ours, float32': Ours(config, batch, 'float32'),
        'ours, bfloat16': Ours(config, batch, 'bfloat16'),
        'Hugging Face, float32': HuggingFace(config, batch, False),
        'Hugging Face, bfloat16': HuggingFace(config, batch, True),
    }
    num_masked = batch['masked_ids'].shape[1]
    step_flops = batch_size * train_flops(config, length, num_masked)
    # The forward pass is a third of a step.
    forward_flops = batch_size * train_flops(config, length, length) / 3
    shape = f'{name} {batch_size}x{length}'
    _report(f'train step {shape}', {n: m.step for n, m in models.items()}, step_flops, peaks)
    _report(f'forward {shape}', {n: m.forward for n, m in models.items()}, forward_flops, peaks)


def _report(title: str, runs: Runs, flops: float, peaks: dict[str, float]) -> None:
    first, fastest = fastest_of_turns(runs)
    theirs = fastest['Hugging Face, float32']
    print(f'{title}:')
    for name, seconds in fastest.items():
        share = flops / seconds / peaks[name.rpartition(' ')[2]]
        print(
            f'  {name:24} {1e3 * seconds:7.0f} ms  ratio {seconds / theirs:.2f}  '
            f'{share:4.0%} of the peak  first call {first[name]:.1f} s',
            flush=True,
        )


if __name__ == '__main__':
    main()
