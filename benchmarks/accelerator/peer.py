"""Hugging Face's ALBERT in torch on the same batches: train step and forward, eager and compiled.

Attention is torch's `sdpa`, products are in bfloat16 by autocast, parameters in float32, the
optimizer AdamW. It computes MLM logits at every position, as it comes; ours at the masked ones.
"""

import time
from collections.abc import Callable
from typing import Any

from albert_jax.model.config import AlbertConfig
from albert_jax.model.flops import peak_flops, train_flops
from benchmarks.accelerator.data import make_batches
from benchmarks.accelerator.rows import guarded, seconds_of, tell

# Tried from the largest on.
_BATCHES = (1024, 768, 512, 384, 256, 192, 128, 64, 32, 16)
_TINY_BATCHES = (4,)


class Peer:
    """The model of a config, and a batch on the device.

    Args:
      config: its sizes.
      length: tokens of a sequence.
      batch_size: sequences.
    """

    def __init__(self, config: AlbertConfig, length: int, batch_size: int) -> None:
        import torch
        from transformers import AlbertConfig as TheirConfig
        from transformers import AlbertForPreTraining

        self._torch = torch
        self.device = 'cuda' if torch.cuda.is_available() else 'cpu'
        theirs: Any = TheirConfig(
            vocab_size=config.vocab_size,
            embedding_size=config.embedding_size,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            intermediate_size=config.intermediate_size,
            max_position_embeddings=config.max_position_embeddings,
        )
        theirs._attn_implementation = 'sdpa'
        self._model: Any = AlbertForPreTraining(theirs).to(self.device)
        self._optimizer = torch.optim.AdamW(
            self._model.parameters(), 1e-4, weight_decay=0.01, fused=self.device == 'cuda'
        )
        batch = make_batches(config.vocab_size, length, batch_size).batch(0)
        names = ('input_ids', 'attention_mask', 'token_type_ids')
        inputs = {name: torch.from_numpy(batch[name]).long() for name in names}
        labels = torch.full_like(inputs['input_ids'], -100)
        for row, count in enumerate(batch['masked_weights'].sum(1).astype(int)):
            positions = torch.from_numpy(batch['masked_positions'][row, :count]).long()
            labels[row, positions] = torch.from_numpy(batch['masked_ids'][row, :count]).long()
        inputs |= {
            'labels': labels,
            'sentence_order_label': torch.from_numpy(batch['sentence_labels']).long(),
        }
        self._inputs = {name: x.to(self.device) for name, x in inputs.items()}
        self._call: Callable[..., Any] = self._model

    def compile(self) -> None:
        """From now on through torch.compile."""
        self._call = self._torch.compile(self._model)

    def _wait(self) -> None:
        if self.device == 'cuda':
            self._torch.cuda.synchronize()

    def step(self) -> None:
        """A train step."""
        self._model.train()
        with self._torch.autocast(self.device, self._torch.bfloat16):
            loss = self._call(**self._inputs).loss
        loss.backward()
        self._torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._wait()

    def forward(self) -> None:
        """The forward pass, with losses."""
        self._model.eval()
        with self._torch.no_grad(), self._torch.autocast(self.device, self._torch.bfloat16):
            self._call(**self._inputs)
        self._wait()

    def device_kind(self) -> str:
        """As JAX calls it."""
        return self._torch.cuda.get_device_name() if self.device == 'cuda' else 'cpu'

    def peak_bytes(self) -> int | None:
        """The most memory that was in use."""
        return self._torch.cuda.max_memory_allocated() if self.device == 'cuda' else None


def largest(config: AlbertConfig, length: int, batches: tuple[int, ...]) -> int:
    """The most sequences of which a train step fits, run eagerly.

    Raises:
      RuntimeError: if none does.
    """
    import torch

    for size in batches:
        try:
            Peer(config, length, size).step()
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
        else:
            torch.cuda.empty_cache()
            return size
    raise RuntimeError(f'no batch of {batches} fits')


def main(model: str, config: AlbertConfig, length: int, budget: float) -> None:
    """Measures Hugging Face's model of the sizes of a config.

    Args:
      model: its name.
      config: its sizes.
      length: tokens of a sequence.
      budget: seconds for each measurement, without compilation.
    """
    what = {'model': model, 'length': length, 'attention': 'sdpa'}
    sizes: list[int] = []
    batches = _TINY_BATCHES if model == 'tiny' else _BATCHES
    eager = 'Hugging Face, torch eager'
    guarded(
        {**what, 'by': eager, 'what': 'train step'},
        lambda: sizes.append(largest(config, length, batches)),
    )
    if not sizes:
        return

    def measure(by: str, name: str, is_compiled: bool) -> None:
        peer = Peer(config, length, sizes[0])
        if is_compiled:
            peer.compile()
        run = peer.step if name == 'train step' else peer.forward
        started = time.monotonic()
        run()
        first = time.monotonic() - started
        seconds = seconds_of(run, budget)
        num_masked = make_batches(config.vocab_size, length, 1).batch(0)['masked_ids'].shape[1]
        flops = train_flops(config, length, num_masked) * (1 if name == 'train step' else 1 / 3)
        peak = peak_flops(peer.device_kind())
        tell(
            **what,
            by=by,
            what=name,
            batch=sizes[0],
            milliseconds=1e3 * seconds,
            sequences_per_second=sizes[0] / seconds,
            mfu=None if peak is None else sizes[0] / seconds * flops / peak,
            compile_seconds=max(0.0, first - seconds),
            peak_bytes=peer.peak_bytes(),
        )

    # What is quick to have first, and train steps before what is a part of them.
    compiled = 'Hugging Face, torch compiled'
    for name in ('train step', 'forward'):
        for by, is_compiled in ((eager, False), (compiled, True)):
            guarded(
                {**what, 'by': by, 'what': name},
                lambda by=by, name=name, is_compiled=is_compiled: measure(by, name, is_compiled),
            )
