"""Pretrains ALBERT on a prepared corpus: `python -m albert_jax.pretrain --help`."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from albert_jax import command, distributed
from albert_jax.errors import UserError

if TYPE_CHECKING:
    from albert_jax.config import AlbertConfig
    from albert_jax.data.pretraining import PretrainingSettings
    from albert_jax.data.tokenizer import Tokenizer
    from albert_jax.distillation import Lesson
    from albert_jax.optimizer import OptimizerSettings
    from albert_jax.train import LoopSettings, Task

# Fields of the loop that decide what is computed, logged or called best.
_IDENTITY_OF_LOOP = (
    'num_steps', 'batch_size', 'seed', 'log_every', 'eval_every', 'num_eval_batches',
    'best_metric', 'is_lower_better',
)  # fmt: skip

_DESCRIPTION = """\
Pretrain ALBERT (masked language model and sentence order) on a prepared corpus.

Goes on from the latest checkpoint in --workdir, if there is one: start the same command again after
a crash, a kill or a preemption, and the run ends exactly as if it had never stopped.
"""
_EPILOG = """\
configs:
  configs/pretrain.py:NAME  with NAME one of tiny, base, large, xlarge, xxlarge, bert_base

examples:
  python -m albert_jax.prepare --input=builtin --output=runs/corpus --vocabulary=train \\
      --vocab_size=4096 --sequence_length=64
  python -m albert_jax.pretrain --config=configs/pretrain.py:tiny --workdir=runs/tiny \\
      --config.data.path=runs/corpus --config.loop.num_steps=200
  python -m albert_jax.fill_mask --checkpoint=runs/tiny 'Returns a [MASK] array.'

Any field of the config can be set with --config.FIELD=VALUE; read the file for what there is.
"""


def main(arguments: Sequence[str]) -> int:
    """Reads the config, then trains."""
    parser = command.parser('albert_jax.pretrain', _DESCRIPTION, _EPILOG)
    parser.add_argument(
        '--config', required=True, metavar='FILE:NAME', help='what to train, and how'
    )
    parser.add_argument(
        '--workdir', required=True, type=Path, help='where checkpoints and metrics go'
    )
    parser.add_argument(
        '--profile', type=int, default=0, metavar='STEPS', help='record so many for TensorBoard'
    )
    distributed.add_flags(parser)
    flags, overrides = parser.parse_known_args(arguments)
    config = command.read_config(flags.config, overrides).to_dict()
    distributed.start(flags)
    return distributed.guarded(lambda: run(config, flags.workdir, flags.profile))


def run(
    config: Mapping[str, Any],
    workdir: Path,
    num_profiled: int = 0,
    teach: 'Callable[[Sections, Tokenizer], Lesson] | None' = None,
) -> int:
    """Trains what the config says; returns the exit status.

    Args:
      config: of the run.
      workdir: where everything goes.
      num_profiled: steps for TensorBoard's profiler.
      teach: (sections, the corpus's vocabulary) → the lesson of a teacher, if there is one.

    Raises:
      UserError: if the config, the corpus or the workdir cannot be used.
    """
    from albert_jax.train import train

    if num_profiled < 0:
        raise UserError(f'--profile={num_profiled}: it must be 0 or above.')
    ways = {name: section for name, section in config.items() if name != 'data'}
    distributed.check_same({**ways, '--profile': num_profiled})
    task, loop, baseline = make_task(config, teach)
    outcome = train(task, loop, workdir, num_profiled)
    is_main = distributed.is_main()
    status = 128 + outcome.signal_number if outcome.signal_number else 0
    # The others do not wait for the report.
    distributed.leave(status)
    if not is_main:
        return status
    if outcome.signal_number:
        print(
            f'Stopped by a signal; step {outcome.step} of {loop.num_steps} is saved in {workdir}.'
        )
        print('Start the same command again to go on.')
        return 128 + outcome.signal_number
    if outcome.metrics is None:
        print(f'{workdir} has all its {outcome.step} steps; there was nothing left to do.')
    else:
        print(f'Trained {outcome.step} steps.')
    _report(baseline(), workdir)
    if num_profiled:
        print(
            f'The profile is in {workdir}/tensorboard; see it with tensorboard --logdir={workdir}'
        )
    print(f'Wrote checkpoints, metrics.jsonl and tensorboard to {workdir}. Next:')
    print(f"  python -m albert_jax.fill_mask --checkpoint={workdir} 'Some [MASK] text.'")
    return 0


def last_evaluation(workdir: Path) -> dict[str, Any]:
    """The last line of the held-out split in a run's metrics."""
    from albert_jax.telemetry import METRICS_FILE, read_lines

    path = workdir / METRICS_FILE
    lines = read_lines(path) if path.exists() else []
    evaluations = [line for line in lines if line['split'] == 'validation']
    if not evaluations:
        raise UserError(f'{path} has no evaluation, though the run is finished; it was damaged.')
    return evaluations[-1]


def _report(baseline: tuple[float, float], workdir: Path) -> None:
    """Prints what was learnt beside what frequencies alone would give."""
    from rich.console import Console
    from rich.table import Table

    metrics = last_evaluation(workdir)
    table = Table(title='Masked pieces of the held-out text')
    for name in ('', 'loss (nats)', 'accuracy'):
        table.add_column(name, justify='right' if name else 'left')
    table.add_row('this model', f'{metrics["mlm_loss"]:.3f}', f'{metrics["mlm_accuracy"]:.1%}')
    table.add_row('unigram model', f'{baseline[0]:.3f}', f'{baseline[1]:.1%}')
    Console().print(table)


class Sections(NamedTuple):
    """The sections of a config that need no corpus, checked."""

    model: 'AlbertConfig'
    pretraining: 'PretrainingSettings'
    optimizer: 'OptimizerSettings'
    loop: 'LoopSettings'


def read_sections(config: Mapping[str, Any]) -> Sections:
    """What the sections of a config describe.

    Raises:
      UserError: if a section or value is impossible, alone or together with another.
    """
    from albert_jax.data.pretraining import PretrainingSettings
    from albert_jax.optimizer import OptimizerSettings, schedule
    from albert_jax.train import LoopSettings

    sections = ('init_from', 'model', 'data', 'pretraining', 'optimizer', 'loop')
    if set(config) != set(sections):
        raise UserError(
            f'The config has {", ".join(sorted(config))}; it must have {", ".join(sections)}.'
        )
    model = model_config(config['model'])
    pretraining = PretrainingSettings.from_dict(config['pretraining'])
    optimizer = OptimizerSettings.from_dict(config['optimizer'])
    loop = LoopSettings.from_dict(config['loop'])
    schedule(optimizer, loop.num_steps)
    if pretraining.sequence_length > model.max_position_embeddings:
        raise UserError(
            f'pretraining.sequence_length is {pretraining.sequence_length}, but the model has '
            f'{model.max_position_embeddings} positions; raise model.max_position_embeddings or '
            f'shorten the sequences.'
        )
    if pretraining.short_phase_steps >= loop.num_steps:
        raise UserError(
            f'pretraining.short_phase_steps is {pretraining.short_phase_steps}; it must be below '
            f'loop.num_steps, which is {loop.num_steps}.'
        )
    return Sections(model, pretraining, optimizer, loop)


def make_task(
    config: Mapping[str, Any],
    teach: 'Callable[[Sections, Tokenizer], Lesson] | None' = None,
) -> tuple['Task', 'LoopSettings', Callable[[], tuple[float, float]]]:
    """What the sections of a config describe, and the loss and accuracy of a unigram model.

    Raises:
      UserError: if a section or value is impossible, or does not fit the corpus.
    """
    from albert_jax import continuation, objectives
    from albert_jax.about import About
    from albert_jax.data.dataset import PreparedCorpus
    from albert_jax.data.pretraining import PretrainingData, PretrainingSettings
    from albert_jax.data.unigram import unigram_baseline
    from albert_jax.digests import digest_of_all
    from albert_jax.flops import train_flops
    from albert_jax.model import init_params
    from albert_jax.optimizer import make_optimizer, schedule
    from albert_jax.train import Task, Work

    sections = read_sections(config)
    model, pretraining, optimizer, loop = sections
    if set(config['data']) != {'path', 'short_phase_path'}:
        raise UserError(
            f'The section data has {", ".join(config["data"])}; it must have path and '
            f'short_phase_path.'
        )
    if not config['data']['path']:
        raise UserError(
            'data.path is empty; set --config.data.path=DIR to what python -m albert_jax.prepare '
            'has written.'
        )
    corpus = PreparedCorpus(config['data']['path'])
    if corpus.tokenizer.vocab_size > model.vocab_size:
        raise UserError(
            f'{corpus.directory} has piece ids up to {corpus.tokenizer.vocab_size - 1}, beyond '
            f'model.vocab_size, which is {model.vocab_size}; set '
            f'--config.model.vocab_size={corpus.tokenizer.vocab_size}.'
        )
    data = functools.partial(PretrainingData, batch_size=loop.batch_size, seed=loop.seed)
    long, evaluated = (data(corpus, split, pretraining) for split in ('train', 'validation'))
    fingerprints = {'fingerprint': corpus.fingerprint}
    short = None
    if pretraining.short_phase_steps:
        short_corpus = corpus
        if config['data']['short_phase_path']:
            short_corpus = PreparedCorpus(config['data']['short_phase_path'])
        fingerprints['short_phase_fingerprint'] = short_corpus.fingerprint
        if short_corpus.tokenizer.sha256 != corpus.tokenizer.sha256:
            raise UserError(
                f'{short_corpus.directory} and {corpus.directory} have different vocabularies; '
                f'prepare both with --vocabulary=FILE of one.'
            )
        short = data(short_corpus, 'train', pretraining.short_phase)

    def phase(step: int) -> tuple[PretrainingData, PretrainingSettings]:
        if short is not None and step < pretraining.short_phase_steps:
            return short, pretraining.short_phase
        return long, pretraining

    def train_batch(step: int, rows: range) -> dict[str, Any]:
        return phase(step)[0].batch(step, rows)

    def work(step: int) -> Work:
        _, settings = phase(step)
        length = settings.sequence_length
        return Work(length, train_flops(model, length, settings.max_masked))

    start: dict[str, Any] | None = None
    start_identity: dict[str, Any] = {}
    init: Callable[..., Any] = functools.partial(init_params, model)
    if config['init_from']:
        start = continuation.start_params(config['init_from'], model, corpus.tokenizer)
        start_identity = {'start': {'weights': digest_of_all(start)}}
        init = functools.partial(continuation.init_with, model)
    lesson = teach(sections, corpus.tokenizer) if teach else None
    if lesson is not None:
        init = lesson.with_teacher(init)

    task = Task(
        objective=objectives.pretraining(
            model,
            pretraining.sentence_loss,
            pretraining.mlm_weight,
            pretraining.sentence_weight,
            lesson and lesson.guide,
        ),
        init_params=init,
        optimizer=make_optimizer(optimizer, loop.num_steps, model),
        learning_rate=schedule(optimizer, loop.num_steps),
        train_batch=train_batch,
        eval_batch=evaluated.eval_batch,
        num_eval_batches=evaluated.num_eval_batches,
        work=work,
        about=About(
            run=dict(config),
            model=model,
            tokenizer=corpus.tokenizer,
            identity={
                'model': model.identity,
                'data': fingerprints,
                'pretraining': pretraining.to_dict(),
                'optimizer': optimizer.to_dict(),
                'loop': {name: getattr(loop, name) for name in _IDENTITY_OF_LOOP},
                **start_identity,
                **(lesson.identity if lesson else {}),
            },
        ),
        start_params=start,
        frozen=lesson.frozen if lesson else {},
    )

    def baseline() -> tuple[float, float]:
        num_batches = loop.num_eval_batches or evaluated.num_eval_batches
        num_batches = min(num_batches, evaluated.num_eval_batches)
        return unigram_baseline(evaluated, corpus.token_counts, num_batches)

    return task, loop, baseline


def model_config(section: Mapping[str, Any]) -> Any:
    """An AlbertConfig from a size and what differs from it; None leaves the size's value.

    Raises:
      UserError: if the size or a field is unknown, or a value impossible.
    """
    from albert_jax.config import SIZES, AlbertConfig

    fields = dict(section)
    size = fields.pop('size', None)
    if size not in SIZES:
        raise UserError(f'model.size is {size!r}; it must be one of {", ".join(SIZES)}.')
    changes = {name: value for name, value in fields.items() if value is not None}
    return AlbertConfig.from_dict(SIZES[size].to_dict() | changes)


if __name__ == '__main__':
    command.run(main)
