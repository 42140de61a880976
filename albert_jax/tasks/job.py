"""Fine-tuning as a job: prepare → train → report, once for each seed."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import PyTree
from rich.console import Console
from rich.table import Table

from albert_jax.cli.errors import UserError
from albert_jax.cli.json_output import to_json
from albert_jax.data.hub_tokenizer import AnyTokenizer
from albert_jax.interop.checksums import digest_of_all
from albert_jax.interop.metadata import CheckpointMetadata
from albert_jax.interop.native import DISTILLATION_PARAMS, Pretrained, expected_shapes, read
from albert_jax.model.flops import train_flops
from albert_jax.model.heads import Head
from albert_jax.runs.runs import FinetuneRun
from albert_jax.tasks.batches import TrainBatches
from albert_jax.tasks.encoded import Encoder, cache_folder, read_examples
from albert_jax.tasks.features import Features, PairedFeatures
from albert_jax.tasks.objective import fine_tuning, scale_learning_rates, with_fresh_head
from albert_jax.tasks.output import write_predictions
from albert_jax.tasks.prediction import Predictor
from albert_jax.tasks.registry import make_task
from albert_jax.tasks.start import random_params, starting_point
from albert_jax.tasks.task import Task, digest_of
from albert_jax.training.job import TrainingJob
from albert_jax.training.loop import train
from albert_jax.training.objectives import AuxiliaryTraining
from albert_jax.training.optimizer import make_optimizer, schedule, update_flops
from albert_jax.training.sharding import make_mesh, replicated
from albert_jax.training.telemetry import Work

# Fields of the loop that decide what is computed, logged or called best.
RESUME_FIELDS = (
    'num_steps', 'batch_size', 'seed', 'log_every', 'eval_every', 'patience',
)  # fmt: skip
_MIN_PREDICTION_BATCH = 32

# Examples and their features, by the suffix of their metrics.
Splits = Mapping[str, tuple[Sequence[Any], Features]]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A fine-tuning that can start: its task, its data and its starting point."""

    run: FinetuneRun
    task: Task
    head: Head
    start: Pretrained
    tokenizer: AnyTokenizer
    # What is trained on, and as it was read.
    train: Features | PairedFeatures
    train_examples: Sequence[Any]
    validation: Splits
    test: Splits
    # Of all examples but the test's.
    data_digest: str

    @property
    def start_digest(self) -> str:
        """Of the weights that it starts from."""
        return digest_of_all(self.start.params) if self.start.params else 'random'


def prepare(run: FinetuneRun, tokenizer: AnyTokenizer | None = None) -> Prepared:
    """Reads the checkpoint and the data, and encodes them or finds them in the cache.

    Args:
      run: of the fine-tuning.
      tokenizer: of a model from scratch for which the config names no vocabulary.

    Raises:
      UserError: if something cannot be read or does not fit.
    """
    task = make_task(run.task)
    examples = read_examples(run.data, task)
    start = starting_point(run, tokenizer)
    tokenizer = start.tokenizer
    if tokenizer is None:
        raise UserError(
            f'{run.init_from} has no vocabulary; give one with --config.data.vocabulary=FILE.'
        )
    positions = start.config.max_position_embeddings
    if run.task.max_length > positions:
        raise UserError(
            f'task.max_length is {run.task.max_length}, but the model has {positions} positions; '
            f'set --config.task.max_length={positions} or less.'
        )
    head = task.head(examples.train)
    encode = Encoder(task, tokenizer, head, cache_folder(run.data))
    encoded_train = encode(examples.train, True)
    if not encoded_train.num_examples:
        raise UserError(
            f'Nothing of {examples.train[0].where} and what follows can be trained on: no answer '
            f'fits into task.max_length, which is {run.task.max_length}.'
        )
    return Prepared(
        run=run,
        task=task,
        head=head,
        start=start,
        tokenizer=tokenizer,
        train=encoded_train,
        train_examples=examples.train,
        validation=encode.each(examples.validation),
        test=encode.each(examples.test),
        data_digest=digest_of(
            [digest_of(examples.train), *map(digest_of, examples.validation.values())]
        ),
    )


def finetune(
    prepared: Prepared, workdir: Path, distillation: AuxiliaryTraining | None = None
) -> int:
    """Trains once for each seed and prints what was reached; returns the exit status.

    Args:
      prepared: the run.
      workdir: where each seed's run goes.
      distillation: what a teacher adds, if there is one.

    Raises:
      UserError: if a setting is impossible, or the workdir cannot be used.
    """
    run = prepared.run
    folders = seed_folders(workdir, run.seeds)
    all_metrics = []
    for number, folder in enumerate(folders):
        status, metrics = _train_seed(prepared, run.loop.seed + number, folder, distillation)
        if status:
            return status
        all_metrics.append(metrics)
    _report(all_metrics, prepared.task.best_metric, workdir)
    print('Next:')
    print(f'  python -m albert_jax.predict --checkpoint={folders[0]} --input=FILE')
    return 0


def seed_folders(workdir: Path, seeds: int) -> list[Path]:
    """Where the run of each seed is."""
    return [workdir if seeds == 1 else workdir / f'seed-{number}' for number in range(seeds)]


def make_predictor(prepared: Prepared) -> Predictor:
    """Runs the model over the validation and test examples, on the devices of the run."""
    loop = prepared.run.loop
    return Predictor(
        prepared.start.config,
        prepared.head,
        make_mesh(loop.num_devices),
        max(loop.batch_size, _MIN_PREDICTION_BATCH),
        prepared.task.settings.max_length,
        prepared.tokenizer.pad_id,
    )


def make_job(
    prepared: Prepared,
    seed: int,
    predictor: Predictor,
    distillation: AuxiliaryTraining | None = None,
) -> TrainingJob:
    """What the loop trains with one seed.

    Args:
      prepared: the run.
      seed: of the head, the data and dropout; of all weights where they are random.
      predictor: for the validation examples.
      distillation: what a teacher adds, if there is one.

    Raises:
      UserError: if settings do not fit together.
    """
    run, task, config = prepared.run, prepared.task, prepared.start.config
    tokenizer = prepared.tokenizer
    params = random_params(config, seed) if run.from_scratch else prepared.start.params
    batches = TrainBatches(
        prepared.train, run.loop.batch_size, task.settings.max_length, tokenizer.pad_id, seed
    )
    mean_length = int(prepared.train.lengths.mean() * prepared.train.num_choices)
    updating = update_flops(run.optimizer, expected_shapes(config)) / run.loop.batch_size
    work = Work(mean_length, train_flops(config, mean_length, 0) + updating)
    special_ids = (
        tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id,
    )  # fmt: skip
    init = with_fresh_head(prepared.head, config)
    return TrainingJob(
        objective=fine_tuning(
            config,
            prepared.head,
            task.settings.head_dropout,
            run.finetuning,
            special_ids,
            None if distillation is None else distillation.loss,
        ),
        init_params=distillation.extend_init(init) if distillation else init,
        optimizer=optax.chain(
            make_optimizer(run.optimizer, run.loop.num_steps, config),
            scale_learning_rates(run.finetuning, config),
        ),
        learning_rate=schedule(run.optimizer, run.loop.num_steps),
        train_batch=batches.batch,
        evaluation=ValidationMetrics(prepared, predictor),
        best_metric=task.best_metric,
        is_lower_better=task.is_lower_better,
        work=lambda step: work,
        metadata=_metadata(prepared, seed, distillation),
        start_params=params,
        frozen=distillation.frozen if distillation else {},
    )


@dataclasses.dataclass(frozen=True)
class ValidationMetrics:
    """The task's metrics on its validation splits, for the loop's evaluations.

    Args:
      prepared: the fine-tuning.
      predictor: of its model.
    """

    prepared: Prepared
    predictor: Predictor

    def __call__(
        self, params: Mapping[str, PyTree], mesh: Mesh, is_stopped: Callable[[], bool]
    ) -> dict[str, float] | None:
        """The metrics by name and split, or None where the run was told to stop first."""
        del mesh  # that of the predictor
        params = {part: tree for part, tree in params.items() if part != DISTILLATION_PARAMS}
        metrics: dict[str, float] = {}
        for suffix, (examples, features) in self.prepared.validation.items():
            outputs = self.predictor(params, features, is_stopped)
            if outputs is None:
                return None
            scores = self.prepared.task.metrics(examples, features, outputs, self.prepared.head)
            metrics |= {f'{name}{suffix}': value for name, value in scores.items()}
        return metrics


def _metadata(
    prepared: Prepared, seed: int, distillation: AuxiliaryTraining | None
) -> CheckpointMetadata:
    run, task = prepared.run, prepared.task
    config, loop = prepared.start.config, dataclasses.replace(run.loop, seed=seed)
    return CheckpointMetadata(
        run=dataclasses.replace(run, loop=loop).to_dict(),
        model=config,
        tokenizer=prepared.tokenizer,
        resume_fingerprint={
            'model': config.resume_fingerprint,
            'start': {'weights': prepared.start_digest},
            'data': {'examples': prepared.data_digest},
            'task': task.settings.to_dict(),
            'finetuning': run.finetuning.to_dict(),
            'optimizer': run.optimizer.to_dict(),
            'loop': {name: getattr(loop, name) for name in RESUME_FIELDS},
            **(distillation.resume_fingerprint if distillation else {}),
        },
        head=prepared.head,
        best_metric=task.best_metric,
        is_lower_better=task.is_lower_better,
    )


def _train_seed(
    prepared: Prepared, seed: int, workdir: Path, distillation: AuxiliaryTraining | None
) -> tuple[int, dict[str, float]]:
    """Trains with a seed; the exit status, and the best checkpoint's metrics."""
    predictor = make_predictor(prepared)
    job = make_job(prepared, seed, predictor, distillation)
    outcome = train(job, dataclasses.replace(prepared.run.loop, seed=seed), workdir)
    if outcome.signal_number:
        print(f'Stopped by a signal; step {outcome.step} is saved in {workdir}.')
        print('Start the same command again to resume.')
        return 128 + outcome.signal_number, {}
    best = read(workdir)
    params = jax.device_put(best.params, replicated(make_mesh(prepared.run.loop.num_devices)))
    metrics = _predict(prepared, predictor, params, workdir / 'predictions')
    (workdir / 'results.json').write_text(to_json({'step': best.step, **metrics}, indent=2) + '\n')
    print(f'Wrote checkpoints, metrics.jsonl, results.json and predictions/ to {workdir}.')
    return 0, metrics


def _predict(
    prepared: Prepared, predictor: Predictor, params: PyTree, folder: Path
) -> dict[str, float]:
    """Writes the predictions for validation and test; the metrics of the validation."""
    task, head = prepared.task, prepared.head
    metrics: dict[str, float] = {}
    for split, parts in (('validation', prepared.validation), ('test', prepared.test)):
        for suffix, (examples, features) in parts.items():
            outputs = predictor(params, features)
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
