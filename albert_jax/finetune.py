"""Fine-tunes a pretrained model on a task: `python -m albert_jax.finetune --help`."""

import dataclasses
import functools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from albert_jax import command
from albert_jax.errors import UserError

if TYPE_CHECKING:
    from albert_jax.about import Head
    from albert_jax.data.hub_tokenizer import AnyTokenizer
    from albert_jax.distillation import Lesson
    from albert_jax.pretrained import Pretrained
    from albert_jax.tasks.features import Features, PairedFeatures
    from albert_jax.tasks.task import Family

_IDENTITY_OF_LOOP = (
    'num_steps', 'batch_size', 'seed', 'log_every', 'eval_every', 'patience',
)  # fmt: skip
_SECTIONS = (
    'init_from', 'from_scratch', 'seeds', 'model', 'data', 'task', 'robust', 'optimizer', 'loop',
)  # fmt: skip
# Changes when the same settings encode the same text otherwise.
_ENCODING = 1

_DESCRIPTION = """\
Fine-tune ALBERT or BERT on a task, keep the checkpoint that is best on the validation file, and
write its predictions. Goes on where it was when it is started again."""
_EPILOG = """\
configs:
  configs/finetune.py:TASK  with TASK one of
    cola sst2 mrpc stsb qqp mnli qnli rte wnli, squad1 squad2, race, ner upos tags,
    classification regression (your own TSV, CSV or JSON Lines)

examples:
  python -m albert_jax.finetune --config=configs/finetune.py:sst2 --workdir=runs/sst2 \\
      --config.init_from=runs/base --config.data.path=GLUE/SST-2
  python -m albert_jax.finetune --config=configs/finetune.py:classification --workdir=runs/mine \\
      --config.init_from=albert-base-v2 --config.data.train=train.csv \\
      --config.data.validation=dev.csv --config.task.text=review --config.task.label=stars
  python -m albert_jax.predict --checkpoint=runs/sst2 --input=texts.txt

init_from takes anything that albert_jax.load takes. docs/FINETUNING.md has the tasks and files.
"""


def main(arguments: Sequence[str]) -> int:
    """Reads the config, then trains, once for each seed."""
    parser = command.parser('albert_jax.finetune', _DESCRIPTION, _EPILOG)
    parser.add_argument(
        '--config', required=True, metavar='FILE:TASK', help='what to train, and how'
    )
    parser.add_argument(
        '--workdir', required=True, type=Path, help='where checkpoints, metrics, predictions go'
    )
    flags, overrides = parser.parse_known_args(arguments)
    return run(command.read_config(flags.config, overrides).to_dict(), flags.workdir)


def run(config: Mapping[str, Any], workdir: Path) -> int:
    """Trains what the config says; returns the exit status.

    Raises:
      UserError: if the config, the data, the checkpoint or the workdir cannot be used.
    """
    check_sections(config)
    return train_seeds(config, prepare(config), workdir)


def train_seeds(
    config: Mapping[str, Any], prepared: 'Prepared', workdir: Path, lesson: 'Lesson | None' = None
) -> int:
    """Trains once for each seed and prints what was reached; returns the exit status.

    Args:
      config: of the run.
      prepared: what it says, read.
      workdir: where each seed's run goes.
      lesson: of a teacher, if there is one.

    Raises:
      UserError: if a setting is impossible, or the workdir cannot be used.
    """
    seeds = config['seeds']
    found = []
    for number, folder in enumerate(seed_folders(workdir, seeds)):
        seed = config['loop']['seed'] + number
        status, metrics = _train_one(config, prepared, seed, folder, lesson)
        if status:
            return status
        found.append(metrics)
    _report(found, prepared.family.best_metric, workdir)
    print('Next:')
    print(
        f'  python -m albert_jax.predict --checkpoint={seed_folders(workdir, seeds)[0]} '
        f'--input=FILE'
    )
    return 0


def seed_folders(workdir: Path, seeds: int) -> list[Path]:
    """Where the run of each seed is."""
    return [workdir if seeds == 1 else workdir / f'seed-{number}' for number in range(seeds)]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A task's family, data and starting point."""

    family: 'Family'
    head: 'Head'
    start: 'Pretrained'
    start_digest: str
    # What is trained on, and as it was read.
    train: 'Features | PairedFeatures'
    train_examples: Sequence[Any]
    # By the suffix of their metrics: examples and features.
    validation: Mapping[str, tuple[Sequence[Any], 'Features']]
    test: Mapping[str, tuple[Sequence[Any], 'Features']]
    data_digest: str


def check_sections(config: Mapping[str, Any]) -> None:
    """Refuses a config with other sections, or with no number of seeds."""
    if set(config) != set(_SECTIONS):
        raise UserError(
            f'The config has {", ".join(sorted(config))}; it must have {", ".join(_SECTIONS)}.'
        )
    seeds = config['seeds']
    if type(seeds) is not int or seeds < 1:
        raise UserError(f'seeds is {seeds!r}; it must be a number of runs, 1 or above.')


def prepare(config: Mapping[str, Any], tokenizer: 'AnyTokenizer | None' = None) -> Prepared:
    """Reads the checkpoint and the data, and encodes them or finds them in the cache.

    Args:
      config: of the run.
      tokenizer: of a model from scratch for which the config names no vocabulary.

    Raises:
      UserError: if something cannot be read or does not fit.
    """
    from albert_jax.tasks.families import make_task
    from albert_jax.tasks.task import TaskSettings, digest_of

    settings = TaskSettings.from_dict(config['task'])
    family = make_task(settings)
    train, validation, test = _read(config, family)
    if not validation:
        raise UserError(
            'There is no validation file; set --config.data.validation=FILE, or hold out some of '
            'the training file with --config.data.validation_fraction=0.1.'
        )
    for examples in validation.values():
        if not any(is_labelled(example) for example in examples):
            raise UserError(
                f'{examples[0].where} and all that follows has no label; the best checkpoint is '
                f'chosen by the validation file.'
            )
    start = starting_point(config, tokenizer)
    tokenizer = start.tokenizer
    if tokenizer is None:
        raise UserError(
            f'{config["init_from"]} has no vocabulary; give one with --config.data.vocabulary=FILE.'
        )
    if settings.max_length > start.config.max_position_embeddings:
        raise UserError(
            f'task.max_length is {settings.max_length}, but the model has '
            f'{start.config.max_position_embeddings} positions; set --config.task.max_length='
            f'{start.config.max_position_embeddings} or less.'
        )
    head = family.head(train)
    cache = Path(config['data']['cache'] or default_cache())
    encode = functools.partial(encoded, family, tokenizer, head, cache=cache)
    encoded_train = encode(train, True)
    if not encoded_train.num_examples:
        raise UserError(
            f'Nothing of {train[0].where} and what follows can be trained on: no answer fits into '
            f'task.max_length, which is {settings.max_length}.'
        )
    return Prepared(
        family=family,
        head=head,
        start=start,
        start_digest=_start_digest(start),
        train=encoded_train,
        train_examples=train,
        validation={s: (examples, encode(examples, False)) for s, examples in validation.items()},
        test={s: (examples, encode(examples, False)) for s, examples in test.items()},
        data_digest=digest_of([digest_of(train), *map(digest_of, validation.values())]),
    )


def is_labelled(example: Any) -> bool:
    """Whether an example of any family has its label, tags or answers."""
    names = ('label', 'tags', 'answers', 'answer')
    return any(getattr(example, name, None) is not None for name in names)


def default_cache() -> Path:
    """Where encoded examples are kept: below XDG_CACHE_HOME, or ~/.cache."""
    return command.cache() / 'encoded'


def encoded(
    family: 'Family',
    tokenizer: Any,
    head: 'Head',
    examples: Sequence[Any],
    is_training: bool,
    cache: Path,
) -> 'Features':
    """The features of some examples, encoded once for the same text, vocabulary and settings."""
    from albert_jax.tasks.features import cached
    from albert_jax.tasks.task import digest_of

    normalization = getattr(tokenizer, 'normalization', None)
    key = {
        'encoding': _ENCODING,
        'task': family.settings.to_dict(),
        'labels': head.labels,
        'examples': digest_of(examples),
        'vocabulary': tokenizer.sha256,
        'normalization': normalization and dataclasses.asdict(normalization),
        'is_training': is_training,
    }
    return cached(cache, key, lambda: family.encode(examples, tokenizer, head, is_training))


def _read(
    config: Mapping[str, Any], family: 'Family'
) -> tuple[list[Any], dict[str, list[Any]], dict[str, list[Any]]]:
    """Examples for training, and for validation and test by the suffix of their metrics."""
    from albert_jax.tasks import tfds_source
    from albert_jax.tasks.families import find_files
    from albert_jax.tasks.splits import hold_out

    data = config['data']
    fraction = data['validation_fraction']
    if not 0 <= fraction < 1:
        raise UserError(f'data.validation_fraction is {fraction}; it must be 0 or up to 1.')
    if data['path'].startswith('tfds:'):
        examples, held, tested = tfds_source.read(data['path'], family)
        if fraction:
            examples, held_out = hold_out(examples, fraction)
            held = {'': held_out}
        if data['validation']:
            held = {'': family.read(Path(data['validation']), False)}
        return examples, held, tested
    train: Path | None = None
    validation: dict[str, Path] = {}
    test: dict[str, Path] = {}
    if data['path']:
        train, validation, test = find_files(config['task']['name'], Path(data['path']))
    train = Path(data['train']) if data['train'] else train
    validation = {'': Path(data['validation'])} if data['validation'] else validation
    test = {'': Path(data['test'])} if data['test'] else test
    if train is None:
        raise UserError(
            f'There is nothing to train on{" in " + data["path"] if data["path"] else ""}; set '
            f'--config.data.path=FOLDER or --config.data.train=FILE.'
        )
    examples = family.read(train, True)
    tested = {suffix: family.read(file, False, is_labelled=False) for suffix, file in test.items()}
    if fraction:
        examples, held_out = hold_out(examples, fraction)
        return examples, {'': held_out}, tested
    held = {suffix: family.read(file, False) for suffix, file in validation.items()}
    return examples, held, tested


def starting_point(
    config: Mapping[str, Any], tokenizer: 'AnyTokenizer | None' = None
) -> 'Pretrained':
    """The model to fine-tune, without pretraining heads, with the config's changes to it.

    Args:
      config: of the run.
      tokenizer: of a model from scratch for which the config names no vocabulary.

    Raises:
      UserError: if there is none, or it does not fit.
    """
    import jax

    from albert_jax.config import SIZES, AlbertConfig
    from albert_jax.interop import huggingface_tokenizer, source
    from albert_jax.model import init_params
    from albert_jax.pretrained import Pretrained

    init_from, words = config['init_from'], config['data']['vocabulary'] or None
    is_scratch = config['from_scratch']
    changes = {name: value for name, value in config['model'].items() if value is not None}
    size = changes.pop('size', None)
    if init_from:
        if size:
            raise UserError(
                f'model.size is {size!r}, but the model of init_from has its own; leave it empty '
                f'(in configs/distill.py, by a name without +small).'
            )
        start = source.read(init_from, words)
    elif not is_scratch:
        raise UserError(
            'init_from is empty, so the weights would be random; set '
            '--config.init_from=CHECKPOINT, or --config.from_scratch=True if that is meant.'
        )
    else:
        if words:
            tokenizer = huggingface_tokenizer.from_file(Path(words), {})
        if size not in SIZES or tokenizer is None:
            raise UserError(
                f'A model from scratch needs --config.init_from for its shape and vocabulary, or '
                f'--config.model.size (one of {", ".join(SIZES)}) and '
                f'--config.data.vocabulary=FILE.'
            )
        base = dataclasses.replace(SIZES[size], vocab_size=tokenizer.vocab_size)
        start = Pretrained(base, {}, tokenizer)
    model = AlbertConfig.from_dict(start.config.to_dict() | changes)
    if is_scratch:
        # Each seed draws its own.
        return dataclasses.replace(start, config=model, params={}, head=None, run={})
    params = _encoder_of(start.params)
    if 'pooler' not in params:
        fresh = jax.jit(lambda: init_params(model, jax.random.key(0))['pooler'])()
        params['pooler'] = fresh
        print(f'note: {init_from} has no pooler; it is drawn at random and trained with the head.')
    return dataclasses.replace(start, config=model, params=params)


def _encoder_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """Without pretraining heads, and without the head of an earlier task."""
    return {part: params[part] for part in ('embeddings', 'encoder', 'pooler') if part in params}


def _start_digest(start: 'Pretrained') -> str:
    from albert_jax.digests import digest_of_all

    return digest_of_all(start.params) if start.params else 'random'


def _train_one(
    config: Mapping[str, Any],
    prepared: Prepared,
    seed: int,
    workdir: Path,
    lesson: 'Lesson | None',
) -> tuple[int, dict[str, float]]:
    """Trains with a seed; the exit status, and the best checkpoint's metrics."""
    import jax
    import optax

    from albert_jax.about import About
    from albert_jax.flops import train_flops
    from albert_jax.heads import init_head
    from albert_jax.model import init_params
    from albert_jax.optimizer import OptimizerSettings, make_optimizer, schedule
    from albert_jax.pretrained import SCAFFOLD, read
    from albert_jax.sharding import make_mesh
    from albert_jax.tasks.features import TrainBatches
    from albert_jax.tasks.objective import (
        RobustSettings,
        fine_tuning,
        scale_learning_rates,
        start_from,
    )
    from albert_jax.tasks.prediction import Predictor
    from albert_jax.train import LoopSettings, Task, Work, train

    family, head, start = prepared.family, prepared.head, prepared.start
    if config['from_scratch']:
        fresh = jax.jit(lambda: init_params(start.config, jax.random.key(seed)))()
        start = dataclasses.replace(start, params=_encoder_of(dict(fresh)))
    tokenizer = start.tokenizer
    assert tokenizer is not None
    robust = RobustSettings.from_dict(config['robust'])
    optimizer = OptimizerSettings.from_dict(config['optimizer'])
    loop = LoopSettings.from_dict(
        config['loop']
        | {
            'seed': seed,
            'best_metric': family.best_metric,
            'is_lower_better': family.is_lower_better,
        }
    )
    batches = TrainBatches(
        prepared.train, loop.batch_size, family.settings.max_length, tokenizer.pad_id, seed
    )
    mesh = make_mesh(loop.num_devices)
    predictor = Predictor(
        start.config, head, mesh, max(loop.batch_size, 32), family.settings.max_length,
        tokenizer.pad_id,
    )  # fmt: skip

    def evaluate(params: Any, mesh: Any, is_stopped: Any) -> dict[str, float] | None:
        del mesh
        params = {part: tree for part, tree in params.items() if part != SCAFFOLD}
        found: dict[str, float] = {}
        for suffix, (examples, features) in prepared.validation.items():
            outputs = predictor(params, features, is_stopped)
            if outputs is None:
                return None
            metrics = family.metrics(examples, features, outputs, head)
            found |= {f'{name}{suffix}': value for name, value in metrics.items()}
        return found

    mean_length = float(prepared.train.lengths.mean()) * prepared.train.num_choices
    special = (
        tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id,
    )  # fmt: skip
    work = Work(int(mean_length), train_flops(start.config, int(mean_length), 0))
    init, identity, frozen, guide = start_from(head, start.config, init_head), {}, {}, None
    if lesson is not None:
        init, identity = lesson.with_teacher(init), lesson.identity
        guide, frozen = lesson.guide, lesson.frozen
    objective = fine_tuning(
        start.config, head, family.settings.head_dropout, robust, special, guide
    )
    task = Task(
        objective=objective,
        init_params=init,
        optimizer=optax.chain(
            make_optimizer(optimizer, loop.num_steps, start.config),
            scale_learning_rates(robust, start.config),
        ),
        learning_rate=schedule(optimizer, loop.num_steps),
        train_batch=batches.batch,
        eval_batch=batches.batch,
        num_eval_batches=0,
        work=lambda step: work,
        about=About(
            run=dict(config) | {'loop': loop.to_dict()},
            model=start.config,
            tokenizer=tokenizer,
            identity={
                'model': start.config.identity,
                'start': {'weights': prepared.start_digest},
                'data': {'examples': prepared.data_digest},
                'task': family.settings.to_dict(),
                'robust': robust.to_dict(),
                'optimizer': optimizer.to_dict(),
                'loop': {name: getattr(loop, name) for name in _IDENTITY_OF_LOOP},
                **identity,
            },
            head=head,
        ),
        start_params=start.params,
        evaluate=evaluate,
        frozen=frozen,
    )
    outcome = train(task, loop, workdir)
    if outcome.signal_number:
        print(f'Stopped by a signal; step {outcome.step} is saved in {workdir}.')
        print('Start the same command again to go on.')
        return 128 + outcome.signal_number, {}
    best = read(workdir)
    params = jax.device_put(best.params, jax.sharding.NamedSharding(mesh, jax.P()))
    metrics: dict[str, float] = {}
    for split, parts in (('validation', prepared.validation), ('test', prepared.test)):
        for suffix, (examples, features) in parts.items():
            outputs = predictor(params, features)
            assert outputs is not None
            if split == 'validation':
                scores = family.metrics(examples, features, outputs, head)
                metrics |= {f'{name}{suffix}': value for name, value in scores.items()}
            answers = family.predictions(examples, features, outputs, head)
            folder = workdir / 'predictions' / f'{split}{suffix}'
            write_predictions(family, examples, answers, folder)
    (workdir / 'results.json').write_text(
        json.dumps({'step': best.step, **_for_json(metrics)}, indent=2) + '\n'
    )
    print(f'Wrote checkpoints, metrics.jsonl, results.json and predictions/ to {workdir}.')
    return 0, metrics


def write_predictions(
    family: 'Family',
    examples: Sequence[Any],
    answers: Sequence[Mapping[str, Any]],
    folder: Path,
) -> list[Path]:
    """Writes answers as JSON Lines, and in the form of the benchmark's server.

    Raises:
      UserError: if the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lines = folder / 'predictions.jsonl'
        with lines.open('w', encoding='utf-8') as stream:
            for answer in answers:
                stream.write(json.dumps(answer, ensure_ascii=False) + '\n')
        return [lines, *family.write(examples, answers, folder)]
    except OSError as error:
        raise UserError(f'{folder} cannot be written: {error.strerror}.') from error


def _for_json(metrics: Mapping[Any, float]) -> dict[Any, float | None]:
    return {name: None if math.isnan(value) else value for name, value in metrics.items()}


def _report(found: Sequence[Mapping[str, float]], best_metric: str, workdir: Path) -> None:
    """Prints the metrics of the best checkpoint, over seeds if there are several."""
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    table = Table(title='Validation, best checkpoint' + (f' of {len(found)} runs'
                                                         if len(found) > 1 else ''))  # fmt: skip
    columns = ['metric', 'median', 'lowest', 'highest'] if len(found) > 1 else ['metric', 'value']
    for name in columns:
        table.add_column(name, justify='left' if name == 'metric' else 'right')
    summary = {}
    for name in found[0]:
        values = np.array([metrics[name] for metrics in found])
        known = values[~np.isnan(values)]
        row = [float(f(known)) if len(known) else math.nan for f in (np.median, np.min, np.max)]
        listed = _for_json(dict(enumerate(values.tolist())))
        summary[name] = {'median': _for_json({0: row[0]})[0], 'values': list(listed.values())}
        shown = ['undefined' if math.isnan(value) else f'{value:.4f}' for value in row]
        label = f'{name} (best of)' if name == best_metric else name
        table.add_row(label, *(shown if len(found) > 1 else shown[:1]))
    Console().print(table)
    if len(found) > 1:
        (workdir / 'results.json').write_text(json.dumps(summary, indent=2) + '\n')


if __name__ == '__main__':
    command.run(main)
