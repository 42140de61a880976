"""Fine-tuning and batch prediction on this machine, against padding to 128 and against torch.

    python -m benchmarks.finetune --data=GLUE/SST-2        (needs the extra `reference`)

First, the sequences a second of training steps at the natural lengths of the texts, in our length
buckets and padded to 128. Then, with the same weights and the same padded batches, our fine-tuning
step (AdamW) and our prediction against Hugging Face's AlbertForSequenceClassification in torch.
The two take turns, and the fastest of each is compared.
"""

import argparse
import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from albert_jax.cli.paths import local_path
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.interop import huggingface
from albert_jax.interop.huggingface_config import write_config
from albert_jax.interop.table import to_theirs
from albert_jax.model.albert import init_params
from albert_jax.model.config import SIZES
from albert_jax.model.heads import Head
from albert_jax.model.paths import select
from albert_jax.runs.optimizer import OptimizerSettings
from albert_jax.runs.task import FinetuningSettings, TaskSettings
from albert_jax.tasks.batches import TrainBatches
from albert_jax.tasks.features import Features
from albert_jax.tasks.objective import fine_tuning
from albert_jax.tasks.prediction import Predictor
from albert_jax.tasks.registry import make_task
from albert_jax.training.optimizer import make_optimizer
from albert_jax.training.sharding import make_mesh, put_batch, replicated
from albert_jax.training.step import init_state, make_train_step

_CONFIG = SIZES['albert_base']
_HEAD = Head('sequence_classification', ('0', '1'))
_LENGTH, _BATCH = 128, 32


def encoded(folder: Path, vocabulary: Path, count: int) -> Features:
    task = make_task(TaskSettings(name='sst2', max_length=_LENGTH))
    examples = task.read(folder / 'train.tsv', True)[:count]
    return task.encode(examples, Tokenizer.from_file(vocabulary), _HEAD, True)


class Ours:
    def __init__(self, example: dict[str, np.ndarray]) -> None:
        self.mesh = make_mesh(1)
        objective = fine_tuning(_CONFIG, _HEAD, 0.1, FinetuningSettings(), (0, 1, 2, 3, 4))
        settings = OptimizerSettings(
            name='adamw', schedule='constant', warmup_steps=0, learning_rate=1e-5
        )
        optimizer = make_optimizer(settings, 1000, _CONFIG)

        self.state = jax.jit(
            functools.partial(init_state, _init_finetuned, optimizer, objective, example, 0),
            out_shardings=replicated(self.mesh),
        )()
        self.params = jax.tree.map(np.asarray, self.state.params)
        self._step = make_train_step(objective, optimizer, self.mesh, 1, 10, 0)
        self._predictor = Predictor(_CONFIG, _HEAD, self.mesh, _BATCH, _LENGTH, 0)

    def step(self, batch: dict[str, np.ndarray]) -> None:
        self.state, _ = self._step(self.state, put_batch(self.mesh, batch))
        jax.block_until_ready(self.state.params)

    def predict(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        answer = self._predictor.start(self.params, batch)
        return np.asarray(answer['logits'])


def _init_finetuned(key: jax.Array) -> PyTree:
    params = init_params(_CONFIG, key)
    return select(params, ('embeddings', 'encoder', 'pooler')) | {'head': _HEAD.init(_CONFIG, key)}


class HuggingFace:
    def __init__(self, params: PyTree) -> None:
        import torch
        from transformers import AlbertConfig, AlbertForSequenceClassification

        self.torch = torch
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        content = write_config(_CONFIG, _HEAD, ())
        self.model = AlbertForSequenceClassification(AlbertConfig(**content))
        tensors = to_theirs(huggingface.albert_table(_CONFIG), params)
        state = {f'albert.{name}': torch.tensor(value) for name, value in tensors.items()}
        state |= {
            'classifier.weight': torch.tensor(params['head']['kernel'].T.copy()),
            'classifier.bias': torch.tensor(params['head']['bias'].copy()),
        }
        self.model.load_state_dict(state)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5)

    def _inputs(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        names = ('input_ids', 'attention_mask', 'token_type_ids')
        return {name: self.torch.tensor(batch[name], dtype=self.torch.long) for name in names}

    def step(self, batch: dict[str, np.ndarray]) -> None:
        self.model.train()
        self.optimizer.zero_grad()
        labels = self.torch.tensor(batch['labels'], dtype=self.torch.long)
        self.model(**self._inputs(batch), labels=labels).loss.backward()
        self.torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()

    def predict(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        self.model.eval()
        with self.torch.no_grad():
            return self.model(**self._inputs(batch)).logits.numpy()


Batch = dict[str, np.ndarray]


def seconds(function: Callable[[Batch], Any], batches: list[Batch]) -> float:
    started = time.perf_counter()
    for batch in batches:
        function(batch)
    return time.perf_counter() - started


def _pad(batch: Batch) -> Batch:
    """The batch with its sequences padded to the longest length."""
    width = ((0, 0), (0, _LENGTH - batch['input_ids'].shape[1]))
    return {name: np.pad(x, width) if x.ndim == 2 else x for name, x in batch.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data', type=local_path, required=True, help="folder of SST-2's files")
    parser.add_argument('--vocabulary', type=local_path, required=True, help='a .model file')
    parser.add_argument('--batches', type=int, default=12, help='batches a turn (12)')
    parser.add_argument('--turns', type=int, default=3, help='turns of each (3)')
    flags = parser.parse_args()

    features = encoded(flags.data, flags.vocabulary, 4096)
    sampler = TrainBatches(features, _BATCH, _LENGTH, 0, seed=0)
    rows = range(_BATCH)
    bucketed = [sampler.batch(step, rows) for step in range(flags.batches)]
    lengths = [batch['input_ids'].shape[1] for batch in bucketed]
    print(f'mean length {features.lengths.mean():.1f}; batches of {sorted(set(lengths))}')
    fastest = _fastest_of_turns(bucketed, flags.turns)
    _report(fastest, _BATCH * flags.batches)


def _fastest_of_turns(bucketed: list[Batch], num_turns: int) -> dict[str, float]:
    """Seconds that each kind of work takes for all batches, the fastest of its turns."""
    padded = [_pad(batch) for batch in bucketed]
    ours = Ours(bucketed[0])
    theirs = HuggingFace(ours.params)
    difference = max(
        float(np.abs(ours.predict(batch) - theirs.predict(batch)).max()) for batch in bucketed
    )
    print(f'largest difference of logits: {difference:.1e}')
    kinds: dict[str, tuple[Callable[[Batch], Any], list[Batch]]] = {
        'step, buckets': (ours.step, bucketed),
        'step, padded to 128': (ours.step, padded),
        'step, torch, the same batches': (theirs.step, bucketed),
        'prediction, buckets': (ours.predict, bucketed),
        'prediction, torch, the same batches': (theirs.predict, bucketed),
    }
    for function, batches in kinds.values():
        seconds(function, batches)  # compiles each shape
    fastest = dict.fromkeys(kinds, float('inf'))
    for _ in range(num_turns):
        for name, (function, batches) in kinds.items():
            fastest[name] = min(fastest[name], seconds(function, batches))
    return fastest


def _report(fastest: dict[str, float], num_sequences: int) -> None:
    for name, value in fastest.items():
        print(f'{name}: {num_sequences / value:.1f} sequences/s')
    ratio = fastest['step, padded to 128'] / fastest['step, buckets']
    print(f'buckets over padding to 128: {ratio:.2f} times the sequences a second (aim 3)')
    for kind in ('step', 'prediction'):
        share = fastest[f'{kind}, buckets'] / fastest[f'{kind}, torch, the same batches']
        print(f"{kind}: {share:.2f} of Hugging Face's time (aim 0.6)")


if __name__ == '__main__':
    main()
