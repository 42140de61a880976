"""What the loop trains for a task: objective, data, evaluation and metadata."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import PyTree

from albert_jax.interop.metadata import CheckpointMetadata
from albert_jax.interop.native import DISTILLATION_PARAMS, expected_shapes
from albert_jax.model.decoder import Seq2SeqModel
from albert_jax.model.decoder_config import DecoderConfig
from albert_jax.model.flops import seq2seq_train_flops, train_flops
from albert_jax.runs.runs import FinetuneRun
from albert_jax.tasks.batches import TrainBatches
from albert_jax.tasks.generation_objective import generation, with_decoder
from albert_jax.tasks.generator import Generator
from albert_jax.tasks.objective import fine_tuning, scale_learning_rates, with_fresh_head
from albert_jax.tasks.pair_features import PairFeatures
from albert_jax.tasks.prediction import Predictor
from albert_jax.tasks.prepared import Prepared
from albert_jax.tasks.start import random_params
from albert_jax.training.job import TrainingJob
from albert_jax.training.objectives import AuxiliaryTraining, Objective
from albert_jax.training.optimizer import make_optimizer, schedule, update_flops
from albert_jax.training.sharding import make_mesh
from albert_jax.training.telemetry import Work

# Fields of the loop that decide what is computed, logged or called best.
RESUME_FIELDS = (
    'num_steps', 'batch_size', 'seed', 'log_every', 'eval_every', 'patience',
)  # fmt: skip
_MIN_PREDICTION_BATCH = 32


class _Trained(NamedTuple):
    """What differs between a model with a head and one with a decoder."""

    objective: Objective
    # (key, start) → parameters.
    init_params: Callable[..., PyTree]
    # None where there is nothing to start from.
    start_params: PyTree | None
    # Of a training step, for an example of mean length.
    flops: float


def make_predictor(prepared: Prepared) -> Predictor | Generator:
    """Runs the model over the validation and test examples, on the devices of the run."""
    loop, start = prepared.run.loop, prepared.start
    mesh = make_mesh(loop.num_devices)
    batch_size = max(loop.batch_size, _MIN_PREDICTION_BATCH)
    if start.decoder is not None:
        return Generator(
            Seq2SeqModel(start.config, start.decoder),
            prepared.tokenizer,
            mesh,
            batch_size,
            prepared.task.settings,
            prepared.run.decoding,
        )
    return Predictor(
        start.config,
        prepared.head,
        mesh,
        batch_size,
        prepared.task.settings.max_length,
        prepared.tokenizer.pad_id,
    )


def make_job(
    prepared: Prepared,
    seed: int,
    predictor: Predictor | Generator,
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
    run, task, start = prepared.run, prepared.task, prepared.start
    special_ids = _special_ids(prepared)
    if start.decoder is not None:
        assert distillation is None and isinstance(prepared.train, PairFeatures)
        trained = _with_decoder(prepared, prepared.train, special_ids)
    else:
        trained = _with_head(prepared, seed, special_ids, distillation)
    batches = TrainBatches(
        prepared.train,
        run.loop.batch_size,
        task.settings.max_length,
        prepared.tokenizer.pad_id,
        seed,
    )
    mean_length = int(prepared.train.lengths.mean() * prepared.train.num_choices)
    updating = update_flops(run.optimizer, expected_shapes(start.config, start.decoder))
    work = Work(mean_length, trained.flops + updating / run.loop.batch_size)
    init = trained.init_params
    return TrainingJob(
        objective=trained.objective,
        init_params=distillation.extend_init(init) if distillation else init,
        optimizer=optax.chain(
            make_optimizer(run.optimizer, run.loop.num_steps, start.config),
            scale_learning_rates(run.finetuning, start.config),
        ),
        learning_rate=schedule(run.optimizer, run.loop.num_steps),
        train_batch=batches.batch,
        evaluation=ValidationMetrics(prepared, predictor),
        best_metric=task.best_metric,
        is_lower_better=task.is_lower_better,
        work=lambda step: work,
        metadata=_metadata(prepared, seed, distillation),
        start_params=trained.start_params,
        frozen=distillation.frozen if distillation else {},
    )


def _special_ids(prepared: Prepared) -> tuple[int, ...]:
    tokenizer = prepared.tokenizer
    return (
        tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id,
    )  # fmt: skip


def _with_head(
    prepared: Prepared,
    seed: int,
    special_ids: tuple[int, ...],
    distillation: AuxiliaryTraining | None,
) -> _Trained:
    run, config = prepared.run, prepared.start.config
    objective = fine_tuning(
        config,
        prepared.head,
        prepared.task.settings.head_dropout,
        run.finetuning,
        special_ids,
        None if distillation is None else distillation.loss,
    )
    mean_length = int(prepared.train.lengths.mean() * prepared.train.num_choices)
    return _Trained(
        objective,
        with_fresh_head(prepared.head, config),
        random_params(config, seed) if run.from_scratch else prepared.start.params,
        train_flops(config, mean_length, 0),
    )


def _with_decoder(
    prepared: Prepared, train: PairFeatures, special_ids: tuple[int, ...]
) -> _Trained:
    start, run = prepared.start, prepared.run
    assert start.decoder is not None
    objective = generation(
        Seq2SeqModel(start.config, start.decoder),
        run.task.label_smoothing,
        run.finetuning,
        special_ids,
    )
    return _Trained(
        objective,
        functools.partial(with_decoder, start.config, start.decoder),
        start.params or None,
        seq2seq_train_flops(
            start.config,
            start.decoder,
            int(train.source_lengths.mean()),
            int(train.target_lengths.mean()) - 1,
        ),
    )


@dataclasses.dataclass(frozen=True)
class ValidationMetrics:
    """The task's metrics on its validation splits, for the loop's evaluations.

    Args:
      prepared: the fine-tuning.
      predictor: of its model.
    """

    prepared: Prepared
    predictor: Predictor | Generator

    def __call__(
        self,
        params: Mapping[str, PyTree],
        mesh: Mesh,
        is_stopped: Callable[[], bool],
        step: int,
    ) -> dict[str, float] | None:
        """The metrics by name and split, or None where the run was told to stop first."""
        del mesh  # that of the predictor
        if isinstance(self.predictor, Generator):
            return self._of_texts(self.predictor, params, is_stopped, step)
        params = {part: tree for part, tree in params.items() if part != DISTILLATION_PARAMS}
        metrics: dict[str, float] = {}
        for suffix, (examples, features) in self.prepared.validation.items():
            outputs = self.predictor(params, features, is_stopped)
            if outputs is None:
                return None
            scores = self.prepared.task.metrics(examples, features, outputs, self.prepared.head)
            metrics |= {f'{name}{suffix}': value for name, value in scores.items()}
        return metrics

    def _of_texts(
        self,
        generator: Generator,
        params: Mapping[str, PyTree],
        is_stopped: Callable[[], bool],
        step: int,
    ) -> dict[str, float] | None:
        """The loss of every target, and now and then the scores of some of the texts."""
        prepared = self.prepared
        settings = prepared.task.settings
        every, is_last = settings.generate_every, step == prepared.run.loop.num_steps
        generates = bool(every) and (step % every == 0 or is_last)
        metrics: dict[str, float] = {}
        for suffix, (examples, features) in prepared.validation.items():
            assert isinstance(features, PairFeatures)
            outputs = generator.losses(params, features, is_stopped)
            if outputs is None:
                return None
            scores = prepared.task.metrics(examples, features, outputs, prepared.head)
            if generates:
                chosen = _evenly(len(examples), settings.num_generated)
                some, texts = [examples[index] for index in chosen], features.subset(chosen)
                outputs = generator.texts(params, texts, is_stopped)
                if outputs is None:
                    return None
                scores |= prepared.task.metrics(some, texts, outputs, prepared.head)
            metrics |= {f'{name}{suffix}': value for name, value in scores.items()}
        return metrics


def _evenly(count: int, limit: int) -> list[int]:
    """Numbers below a count, at most so many, evenly spread."""
    return sorted({int(index) for index in np.linspace(0, count - 1, min(count, limit))})


def _of_decoder(run: FinetuneRun, decoder: DecoderConfig) -> dict[str, dict[str, Any]]:
    """What a training with a decoder also needs to be the same to resume."""
    return {'decoder': decoder.to_dict(), 'decoding': run.decoding.to_dict()}


def _metadata(
    prepared: Prepared, seed: int, distillation: AuxiliaryTraining | None
) -> CheckpointMetadata:
    run, task, decoder = prepared.run, prepared.task, prepared.start.decoder
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
            **(_of_decoder(run, decoder) if decoder else {}),
            **(distillation.resume_fingerprint if distillation else {}),
        },
        head=None if decoder else prepared.head,
        decoder=decoder,
        best_metric=task.best_metric,
        is_lower_better=task.is_lower_better,
    )
