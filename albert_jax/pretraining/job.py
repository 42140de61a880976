"""Pretraining as a job: prepare → train → report."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jaxtyping import PyTree
from rich.console import Console
from rich.table import Table

from albert_jax.cli import next_steps
from albert_jax.cli.errors import UserError
from albert_jax.cli.json_output import to_json
from albert_jax.cli.phase import phase
from albert_jax.data import vocabulary_normalization
from albert_jax.data.batch import HostBatch
from albert_jax.data.dataset import PreparedCorpus
from albert_jax.data.pretraining import DATA_VERSION, PretrainingData
from albert_jax.data.unigram import unigram_baseline
from albert_jax.interop.checksums import digest_of_all
from albert_jax.interop.metadata import CheckpointMetadata
from albert_jax.interop.native import expected_shapes
from albert_jax.interop.run_inputs import open_corpus
from albert_jax.model.albert import init_params
from albert_jax.model.flops import train_flops
from albert_jax.pretraining import continuation, warm_start
from albert_jax.pretraining.continuation import Trunk, read_trunk
from albert_jax.pretraining.recorded import RecordedRun
from albert_jax.runs.pretraining import PretrainingSettings
from albert_jax.runs.runs import PretrainRun
from albert_jax.training import distributed, objectives
from albert_jax.training.job import HeldOutBatches, Outcome, TrainingJob
from albert_jax.training.learning_curve import UNIGRAM_FILE
from albert_jax.training.loop import train
from albert_jax.training.metrics_file import METRICS_FILE, read_lines
from albert_jax.training.optimizer import make_optimizer, schedule, update_flops
from albert_jax.training.telemetry import Work

# Fields of the loop that decide what is computed, logged or called best.
RESUME_FIELDS = (
    'num_steps', 'batch_size', 'seed', 'log_every', 'eval_every', 'num_eval_batches',
    'best_metric', 'is_lower_better', 'patience',
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Phase:
    """Steps that train on sequences of one length."""

    data: PretrainingData
    settings: PretrainingSettings


@dataclasses.dataclass(frozen=True)
class Batches:
    """The batches of a run, by step.

    Args:
      phases: the one that begins at each step, in order.
      held_out: the data of the evaluation.
      fingerprints: of the corpora.
    """

    phases: Mapping[int, _Phase]
    held_out: PretrainingData
    fingerprints: Mapping[str, Any]

    def _phase(self, step: int) -> _Phase:
        return self.phases[max(first for first in self.phases if first <= step)]

    def train(self, step: int, rows: range) -> HostBatch:
        """Rows of the global batch of a step."""
        return self._phase(step).data.batch(step, rows)

    def sequence(self, step: int) -> tuple[int, int]:
        """Tokens and masked positions of a sequence of a step."""
        settings = self._phase(step).settings
        return settings.sequence_length, settings.max_predictions_per_sequence


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A pretraining that can start: its corpus, its batches and what it starts from."""

    run: PretrainRun
    corpus: PreparedCorpus
    batches: Batches
    # Parts of the parameters, on the host; None for random ones.
    start: dict[str, Any] | None
    # What it goes on with in place of them.
    trunk: Trunk | None = None

    @property
    def num_eval_batches(self) -> int:
        """Held-out batches of an evaluation."""
        there = self.batches.held_out.num_eval_batches
        return min(self.run.loop.num_eval_batches or there, there)

    @functools.cached_property
    def unigram(self) -> dict[str, float]:
        """`mlm_loss` and `mlm_accuracy` of a unigram model on the same held-out pieces."""
        loss, accuracy = unigram_baseline(
            self.batches.held_out, self.corpus.token_counts, self.num_eval_batches
        )
        return {'mlm_loss': loss, 'mlm_accuracy': accuracy}


def prepare(run: PretrainRun) -> Prepared:
    """Opens the corpora and the checkpoint that a run names.

    Raises:
      UserError: if one cannot be used, or they do not fit together.
    """
    # Paths may differ from host to host.
    distributed.check_same({k: v for k, v in run.to_dict().items() if k != 'data'})
    corpus = open_corpus(run)
    start = trunk = None
    if run.continue_training:
        trunk = read_trunk(run.init_from)
    elif run.init_from:
        start = warm_start.start_params(run.init_from, run.albert, corpus.tokenizer)
    return Prepared(run, corpus, _batches(run, corpus), start, trunk)


def _batches(run: PretrainRun, corpus: PreparedCorpus) -> Batches:
    loop, pretraining = run.loop, run.pretraining
    data = functools.partial(
        PretrainingData, batch_size=loop.batch_size, seed=loop.seed, num_steps=loop.num_steps
    )
    fingerprints: dict[str, Any] = {'fingerprint': corpus.fingerprint, 'version': DATA_VERSION}
    num_short, long = pretraining.short_phase_steps, data(corpus, 'train', pretraining)
    phases = {num_short: _Phase(long, pretraining)}
    if num_short:
        short_corpus = corpus
        if run.data.short_phase_path:
            short_corpus = PreparedCorpus(run.data.short_phase_path)
        if short_corpus.tokenizer.sha256 != corpus.tokenizer.sha256:
            raise UserError(
                f'{short_corpus.directory} and {corpus.directory} have different vocabularies; '
                f'prepare both with --vocabulary=FILE of one.'
            )
        vocabulary_normalization.note_difference(
            str(short_corpus.directory), short_corpus.tokenizer,
            str(corpus.directory), corpus.tokenizer,
        )  # fmt: skip
        fingerprints['short_phase_fingerprint'] = short_corpus.fingerprint
        short = pretraining.short_phase
        phases[0] = _Phase(data(short_corpus, 'train', short), short)
    return Batches(phases, data(corpus, 'validation', pretraining), fingerprints)


def _work(prepared: Prepared, step: int) -> Work:
    """What an example of a step takes, its share of the update included."""
    run = prepared.run
    length, num_predictions = prepared.batches.sequence(step)
    flops = train_flops(run.albert, length, num_predictions)
    updating = update_flops(run.optimizer, expected_shapes(run.albert))
    return Work(length, flops + updating / run.loop.batch_size)


def training_flops(prepared: Prepared) -> float:
    """FLOPs of the matrix products of all steps, those of the updates included."""
    loop, num_short = prepared.run.loop, prepared.run.pretraining.short_phase_steps
    long = (loop.num_steps - num_short) * _work(prepared, num_short).flops
    return loop.batch_size * (num_short * _work(prepared, 0).flops + long)


def record(prepared: Prepared, config: str, workdir: Path) -> RecordedRun:
    """What a finished run was and what it learnt.

    Args:
      prepared: the run.
      config: its `FILE.py:NAME`.
      workdir: of the run.

    Raises:
      UserError: if the workdir has no evaluation.
    """
    return RecordedRun(
        config=config,
        settings={name: value for name, value in prepared.run.to_dict().items() if name != 'data'},
        corpus_fingerprint=prepared.corpus.fingerprint,
        flops=training_flops(prepared),
        unigram=prepared.unigram,
        evaluations=_evaluations(workdir),
    )


def make_job(
    prepared: Prepared, distillation: objectives.AuxiliaryTraining | None = None
) -> TrainingJob:
    """What the loop trains.

    Args:
      prepared: the run.
      distillation: what a teacher adds to it, if there is one.

    Raises:
      UserError: if it cannot go on with the state of another run.
    """
    run, start = prepared.run, prepared.start
    model, pretraining = run.albert, run.pretraining

    fingerprint = {
        'model': model.resume_fingerprint,
        'data': dict(prepared.batches.fingerprints),
        'pretraining': pretraining.to_dict(),
        'optimizer': run.optimizer.to_dict(),
        'loop': {name: getattr(run.loop, name) for name in RESUME_FIELDS},
    }
    init: Callable[..., PyTree] = functools.partial(init_params, model)
    if start is not None:
        init = functools.partial(warm_start.init_with, model)
        fingerprint['start'] = {'weights': digest_of_all(start)}
    if distillation is not None:
        init = distillation.extend_init(init)
        fingerprint |= distillation.resume_fingerprint
    if prepared.trunk is not None:
        continuation.check(prepared.trunk, run, fingerprint)
        fingerprint['start'] = {'state': prepared.trunk.digest, 'step': prepared.trunk.step}
    return TrainingJob(
        objective=objectives.pretraining(
            model,
            pretraining.sentence_loss,
            pretraining.mlm_weight,
            pretraining.sentence_weight,
            None if distillation is None else distillation.loss,
        ),
        init_params=init,
        optimizer=make_optimizer(run.optimizer, run.loop.num_steps, model),
        learning_rate=schedule(run.optimizer, run.loop.num_steps),
        train_batch=prepared.batches.train,
        evaluation=HeldOutBatches(prepared.batches.held_out.eval_batch, prepared.num_eval_batches),
        best_metric=run.loop.best_metric,
        is_lower_better=run.loop.is_lower_better,
        work=functools.partial(_work, prepared),
        metadata=CheckpointMetadata(
            run=run.to_dict(),
            model=model,
            tokenizer=prepared.corpus.tokenizer,
            resume_fingerprint=fingerprint,
            best_metric=run.loop.best_metric,
            is_lower_better=run.loop.is_lower_better,
        ),
        start_params=start,
        start_checkpoint=prepared.trunk and prepared.trunk.checkpoint,
        frozen=distillation.frozen if distillation else {},
    )


def pretrain(
    prepared: Prepared,
    workdir: Path,
    num_profiled: int = 0,
    distillation: objectives.AuxiliaryTraining | None = None,
    compared_with: Mapping[str, RecordedRun] = MappingProxyType({}),
    further: str = '',
) -> int:
    """Trains a prepared run and reports what it learnt; returns the exit status.

    Args:
      prepared: the run.
      workdir: where everything goes.
      num_profiled: steps for TensorBoard's profiler.
      distillation: what a teacher adds, if there is one.
      compared_with: other runs to report beside it, by what to call them.
      further: the command that trains on from the weights of a finished run.

    Raises:
      UserError: if the workdir cannot be used, or too many steps in a row were not finite.
    """
    distributed.check_same({'--profile': num_profiled})
    job = make_job(prepared, distillation)
    outcome = train(job, prepared.run.loop, workdir, num_profiled)
    is_main = distributed.is_main()
    status = 128 + outcome.signal_number if outcome.signal_number else 0
    # The others do not wait for the report.
    distributed.shutdown(status)
    if is_main:
        _report(prepared, outcome, workdir, num_profiled, compared_with)
        if further and outcome.metrics is None and not outcome.signal_number:
            next_steps.show(further, title='To train further, from these weights:')
    return status


def _report(
    prepared: Prepared,
    outcome: Outcome,
    workdir: Path,
    num_profiled: int,
    compared_with: Mapping[str, RecordedRun],
) -> None:
    num_steps = prepared.run.loop.num_steps
    if outcome.signal_number:
        print(f'Stopped by a signal; step {outcome.step} of {num_steps} is saved in {workdir}.')
        print('Start the same command again to resume.')
        return
    (workdir / UNIGRAM_FILE).write_text(to_json(prepared.unigram) + '\n')
    if outcome.metrics is None:
        print(f'{workdir} has all its {outcome.step} steps; there was nothing left to do.')
    else:
        print(f'Trained {outcome.step} steps.')
    with phase('Measuring the unigram model on the same held-out text …'):
        table = _results_table(prepared, last_evaluation(workdir), compared_with)
    Console().print(table)
    if num_profiled:
        print(
            f'The profile is in {workdir}/tensorboard; see it with tensorboard --logdir={workdir}'
        )
    if outcome.metrics is not None:
        print(f'Wrote checkpoints, metrics.jsonl and tensorboard to {workdir}.')
    next_steps.show(next_steps.fill_mask(workdir), next_steps.curve(workdir))


def _results_table(
    prepared: Prepared, metrics: Mapping[str, Any], compared_with: Mapping[str, RecordedRun]
) -> Table:
    """Loss and accuracy; beside other runs also what each training took."""
    runs = {'this model': (training_flops(prepared), metrics)}
    runs |= {name: (run.flops, run.evaluations[-1]) for name, run in compared_with.items()}
    runs['unigram model'] = (0.0, prepared.unigram)
    table = Table(title='Masked pieces of the held-out text')
    for name in ('', 'training FLOPs', 'loss (nats)', 'accuracy'):
        if compared_with or name != 'training FLOPs':
            table.add_column(name, justify='right' if name else 'left')
    for name, (flops, of_run) in runs.items():
        mean_loss = of_run['mlm_loss']
        cells = ['undefined' if mean_loss is None else f'{mean_loss:.3f}']
        if compared_with:
            cells.insert(0, f'{flops:.1e}' if flops else '')
        table.add_row(name, *cells, f'{of_run["mlm_accuracy"]:.1%}')
    return table


def last_evaluation(workdir: Path) -> dict[str, Any]:
    """The last line of the held-out split in a run's metrics.

    Raises:
      UserError: if there is none.
    """
    return _evaluations(workdir)[-1]


def _evaluations(workdir: Path) -> list[dict[str, Any]]:
    path = workdir / METRICS_FILE
    lines = read_lines(path) if path.exists() else []
    evaluations = [line for line in lines if line['split'] == 'validation']
    if not evaluations:
        raise UserError(f'{path} has no evaluation, though the run is finished; it was damaged.')
    return evaluations
