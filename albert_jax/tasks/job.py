"""Fine-tuning as a job: prepare → train → report, once for each seed."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import PyTree
from rich.console import Console
from rich.table import Table

from albert_jax.cli import next_steps
from albert_jax.cli.json_output import to_json
from albert_jax.interop.native import read
from albert_jax.tasks.generator import Generator
from albert_jax.tasks.output import answering, write_predictions
from albert_jax.tasks.prediction import Predictor
from albert_jax.tasks.prepared import Prepared
from albert_jax.tasks.training_job import make_job, make_predictor
from albert_jax.training.loop import train
from albert_jax.training.objectives import AuxiliaryTraining
from albert_jax.training.sharding import make_mesh, replicated


def finetune(
    prepared: Prepared,
    workdir: Path,
    distillation: AuxiliaryTraining | None = None,
    further: str = '',
) -> int:
    """Trains once for each seed and prints what was reached; returns the exit status.

    Args:
      prepared: the run.
      workdir: where each seed's run goes.
      distillation: what a teacher adds, if there is one.
      further: the command that trains on from the weights of a finished run.

    Raises:
      UserError: if a setting is impossible, or the workdir cannot be used.
    """
    run = prepared.run
    folders = seed_folders(workdir, run.seeds)
    all_metrics = []
    for number, folder in enumerate(folders):
        seed = run.loop.seed + number
        status, metrics = _train_seed(prepared, seed, folder, distillation, further)
        if status:
            return status
        all_metrics.append(metrics)
    _report(all_metrics, prepared.task.best_metric, workdir)
    return 0


def show_next(prepared: Prepared, workdir: Path) -> None:
    """Prints what to do with the model of the first seed."""
    folder = seed_folders(workdir, prepared.run.seeds)[0]
    next_steps.show(next_steps.predict(folder, prepared.task.sample))


def seed_folders(workdir: Path, seeds: int) -> list[Path]:
    """Where the run of each seed is."""
    return [workdir if seeds == 1 else workdir / f'seed-{number}' for number in range(seeds)]


def _train_seed(
    prepared: Prepared,
    seed: int,
    workdir: Path,
    distillation: AuxiliaryTraining | None,
    further: str,
) -> tuple[int, dict[str, float]]:
    """Trains with a seed; the exit status, and the best checkpoint's metrics."""
    predictor = make_predictor(prepared)
    job = make_job(prepared, seed, predictor, distillation)
    outcome = train(job, dataclasses.replace(prepared.run.loop, seed=seed), workdir)
    if outcome.signal_number:
        print(f'Stopped by a signal; step {outcome.step} is saved in {workdir}.')
        print('Start the same command again to resume.')
        return 128 + outcome.signal_number, {}
    if outcome.metrics is None:
        print(f'{workdir} has all its {outcome.step} steps; there was nothing left to train.')
        if further:
            next_steps.show(further, title='To train further, from these weights:')
    best = read(workdir)
    params = jax.device_put(best.params, replicated(make_mesh(prepared.run.loop.num_devices)))
    metrics = _predict(prepared, predictor, params, workdir / 'predictions')
    (workdir / 'results.json').write_text(to_json({'step': best.step, **metrics}, indent=2) + '\n')
    print(f'Wrote checkpoints, metrics.jsonl, results.json and predictions/ to {workdir}.')
    return 0, metrics


def _predict(
    prepared: Prepared, predictor: Predictor | Generator, params: PyTree, folder: Path
) -> dict[str, float]:
    """Writes the predictions for validation and test; the metrics of the validation."""
    task, head = prepared.task, prepared.head
    metrics: dict[str, float] = {}
    for split, parts in (('validation', prepared.validation), ('test', prepared.test)):
        for suffix, (examples, features) in parts.items():
            with answering(len(examples)) as progress:
                outputs = predictor(params, features, on_batch=progress.advance)
            assert outputs is not None
            if split == 'validation':
                scores = task.metrics(examples, features, outputs, head)
                metrics |= {f'{name}{suffix}': value for name, value in scores.items()}
            answers = task.predictions(examples, features, outputs, head)
            write_predictions(task, examples, answers, folder / f'{split}{suffix}')
    return metrics


def _report(all_metrics: Sequence[Mapping[str, float]], best_metric: str, workdir: Path) -> None:
    """Prints the metrics of the best checkpoint, over seeds if there are several."""
    num_runs = len(all_metrics)
    title = 'Validation, best checkpoint' + (f' of {num_runs} runs' if num_runs > 1 else '')
    table = Table(title=title)
    columns = ['metric', 'median', 'lowest', 'highest'] if num_runs > 1 else ['metric', 'value']
    for name in columns:
        table.add_column(name, justify='left' if name == 'metric' else 'right')
    summary = {}
    for name in all_metrics[0]:
        values = np.array([metrics[name] for metrics in all_metrics])
        known = values[~np.isnan(values)]
        row = [float(f(known)) if len(known) else math.nan for f in (np.median, np.min, np.max)]
        summary[name] = {'median': row[0], 'values': values.tolist()}
        shown = ['undefined' if math.isnan(value) else f'{value:.4f}' for value in row]
        label = f'{name} (best of)' if name == best_metric else name
        table.add_row(label, *(shown if num_runs > 1 else shown[:1]))
    Console().print(table)
    if num_runs > 1:
        (workdir / 'results.json').write_text(to_json(summary, indent=2) + '\n')
