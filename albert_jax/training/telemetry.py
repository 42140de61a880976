"""Metrics to JSON Lines, trackers and the terminal; throughput and utilisation."""

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, Self

import jax
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from albert_jax.cli.errors import UserError, reason
from albert_jax.cli.files import new_file
from albert_jax.cli.json_output import to_json
from albert_jax.model.flops import peak_flops
from albert_jax.training.metrics_file import METRICS_FILE, read_lines
from albert_jax.training.trackers import open_trackers

# Shown on the terminal, in this order, where a run has them.
_SHOWN = (
    'loss', 'mlm_loss', 'mlm_accuracy', 'sop_loss', 'sop_accuracy', 'nsp_accuracy',
)  # fmt: skip


class Work(NamedTuple):
    """What one example of a step takes, forward and backward."""

    num_tokens: int
    flops: float


class Telemetry:
    """Writes what happens in a run.

    Lines of steps after `first_step`, left by a run that was killed, are removed, so that the file
    reads as if it had never stopped.

    Args:
      workdir: of the run.
      first_step: where the run resumes from.
      num_steps: where it ends.
      examples_per_step: rows of the global batch.
      work: what an example of a step takes.
      num_devices: that share the batch.
      tracker: `loop.tracker`.
      config: of the run, for trackers.

    Raises:
      UserError: if the folder cannot be written, or the tracker refuses.
    """

    def __init__(
        self,
        workdir: Path,
        first_step: int,
        num_steps: int,
        examples_per_step: int,
        work: Callable[[int], Work],
        num_devices: int,
        tracker: str = 'none',
        config: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self._num_steps, self._first_step = num_steps, first_step
        self._examples_per_step = examples_per_step
        self._work = work
        self._num_devices = num_devices
        self._console = Console()
        self._started = self._last_time = time.monotonic()
        self._last_step = first_step
        self._waited = 0.0
        self._is_main = jax.process_index() == 0
        try:
            if self._is_main:
                _truncate(workdir / METRICS_FILE, first_step)
            self._path = workdir / METRICS_FILE if self._is_main else Path(os.devnull)
            self._path.open('a').close()
            self._trackers = open_trackers(tracker, workdir, first_step, self._is_main, config)
        except OSError as error:
            raise UserError(f'{workdir} cannot be written: {reason(error)}.') from error
        # At most 80 columns wide: the rest of the metrics is in the log.
        self._progress = Progress(
            TextColumn('step {task.completed:.0f}/{task.total:.0f}'),
            BarColumn(bar_width=6),
            TextColumn('ETA'),
            TimeRemainingColumn(),
            TextColumn('{task.fields[text]}', table_column=Column(no_wrap=True)),
            console=self._console,
            disable=not (self._console.is_terminal and self._is_main),
        )
        self._task = self._progress.add_task(
            'training', total=num_steps, completed=first_step, text=''
        )
        # Of the last line of training metrics, to be shown again after another phase.
        self._text = ''

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()
        # What stopped the loop matters more than that the last line could not be written.
        with contextlib.suppress(OSError) if error else contextlib.nullcontext():
            for tracker in self._trackers:
                tracker.close()

    def waited(self, seconds: float) -> None:
        """Counts time that the loop spent waiting for a batch."""
        self._waited += seconds

    def start_clock(self, step: int) -> None:
        """Measures speed from this step on: what came before was compilation."""
        self._started = self._last_time = time.monotonic()
        self._first_step = self._last_step = step
        self._waited = 0.0

    def say(self, text: str) -> None:
        """Prints a line, once for all processes."""
        if not self._is_main:
            return
        if self._console.is_terminal:
            self._console.print(text, markup=False, highlight=False)
        else:
            print(text, flush=True)

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """Says that the step is compiled inside, and how long it took."""
        self.say(
            'Compiling the training step: usually seconds for a small model and a minute or two '
            'for a large one …'
        )
        self._show_phase('compiling')
        before = time.monotonic()
        yield
        self._show_phase('')
        self.say(f'Compiled in {time.monotonic() - before:.0f} s.')

    def evaluating(self, done: int, total: int) -> None:
        """Shows how far an evaluation is.

        Args:
          done: batches.
          total: batches; 0 where it is not known.
        """
        self._show_phase(f'evaluating {done}/{total}' if total else 'evaluating')

    def _show_phase(self, phase: str) -> None:
        """Shows what is done in place of training; '' for training again."""
        self._progress.update(self._task, text=phase or self._text)

    def step_done(self, step: int) -> None:
        """Moves the bar."""
        self._progress.update(self._task, completed=step)

    def train_line(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Writes the means since the last such line, and the speed; None is no value."""
        now = time.monotonic()
        seconds = max(now - self._last_time, 1e-9)
        examples = (step - self._last_step) * self._examples_per_step
        works = [self._work(done) for done in range(self._last_step, step)]
        tokens = self._examples_per_step * sum(work.num_tokens for work in works)
        flops = self._examples_per_step * sum(work.flops for work in works)
        speed = {
            'sequences_per_second': examples / seconds,
            'tokens_per_second': tokens / seconds,
            'data_wait': self._waited / seconds,
        }
        peak = peak_flops(jax.devices()[0].device_kind)
        if peak:
            speed['model_flops_utilization'] = flops / seconds / (peak * self._num_devices)
        self._last_time, self._last_step, self._waited = now, step, 0.0
        self._write('train', step, metrics, speed)

    def eval_line(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes the metrics of the held-out split; one that is not finite is null."""
        self._write('validation', step, metrics, {})

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves what is done inside, an evaluation or a save, out of the speed."""
        before = time.monotonic()
        yield
        self._last_time += time.monotonic() - before

    def _write(
        self,
        split: str,
        step: int,
        metrics: Mapping[str, float | None],
        speed: Mapping[str, float],
    ) -> None:
        line: dict[str, Any] = {'step': step, 'split': split, **metrics}
        if speed:
            line['speed'] = {name: float(f'{value:.6g}') for name, value in speed.items()}
        try:
            # Closed after each line: a mounted bucket keeps only what is closed.
            with self._path.open('a') as file:
                file.write(to_json(line) + '\n')
            finite = {
                name: value
                for name, value in [*metrics.items(), *speed.items()]
                if value is not None and math.isfinite(value)
            }
            for tracker in self._trackers:
                tracker.write(split, step, finite)
        except OSError as error:
            raise UserError(
                f'{self._path} cannot be written ({reason(error)}); make room and start the '
                f'same command again.'
            ) from error
        if not self._is_main:
            return
        shown = _SHOWN if split == 'train' else metrics
        if metrics.get('skipped_steps'):
            shown = (*shown, 'skipped_steps')
        text = ' '.join(f'{name} {_number(metrics[name])}' for name in shown if name in metrics)
        if speed:
            text += f'  {speed["sequences_per_second"]:.4g} sequences/s'
        if self._console.is_terminal:
            if split == 'validation':
                self._console.print(f'step {step}, held out: {text}', highlight=False)
                self._show_phase('')
            else:
                self._text = _short_text(metrics, speed['sequences_per_second'])
                self._progress.update(self._task, completed=step, text=self._text)
            return
        if split == 'validation':
            print(f'step {step}, held out: {text}', flush=True)
        else:
            print(f'step {step}/{self._num_steps}  {text}  ETA {self._eta(step)}', flush=True)

    def _eta(self, step: int) -> str:
        done = step - self._first_step
        elapsed = time.monotonic() - self._started
        seconds = int(elapsed / max(done, 1) * (self._num_steps - step))
        return f'{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}'


def _short_text(metrics: Mapping[str, float | None], speed: float) -> str:
    """Loss, the first accuracy and the speed, in some forty columns."""
    parts = [f'loss {_number(metrics["loss"])}']
    accuracy = next((name for name in metrics if name.endswith('accuracy')), None)
    if accuracy is not None and metrics[accuracy] is not None:
        parts.append(f'accuracy {metrics[accuracy]:.1%}')
    if metrics.get('skipped_steps'):
        parts.append(f'skipped {metrics["skipped_steps"]:.0f}')
    digits = 0 if speed >= 100 else 1
    return '  '.join([*parts, f'{speed:,.{digits}f} seq/s'])


def _number(value: float | None) -> str:
    return 'undefined' if value is None or math.isnan(value) else f'{value:.4g}'


def _truncate(path: Path, last_step: int) -> None:
    """Drops the lines after a step, and an incomplete last line."""
    if not path.exists():
        return
    kept = [line for line in read_lines(path) if line['step'] <= last_step]
    with new_file(path) as partial:
        partial.write_text(''.join(to_json(line) + '\n' for line in kept))
