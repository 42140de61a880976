"""The tasks by name, and where their published files are. A new task is a row here."""

import functools
import glob
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from albert_jax.cli.errors import UserError
from albert_jax.cli.notes import note
from albert_jax.model.heads import Head
from albert_jax.runs.task import TaskSettings
from albert_jax.tasks import generation_metrics
from albert_jax.tasks.classification import TextTask
from albert_jax.tasks.generation import GenerationTask
from albert_jax.tasks.glue import LAYOUTS, GlueTask
from albert_jax.tasks.multilabel import MultiLabelTask
from albert_jax.tasks.race import RaceTask
from albert_jax.tasks.roles import RolesTask
from albert_jax.tasks.squad import SquadTask
from albert_jax.tasks.tagging import TaggingTask
from albert_jax.tasks.task import Task

# Names of a file, or patterns for them, in the order in which they are looked for; {source} stands
# for task.source.
Candidates = tuple[str, ...]


class Files(NamedTuple):
    """The files of a task in its folder; validation and test by the suffix of their metrics."""

    train: Candidates
    validation: Mapping[str, Candidates]
    test: Mapping[str, Candidates]


class Entry(NamedTuple):
    """A task: how it is made, and its files."""

    make: Callable[[TaskSettings], Task]
    files: Files
    # Whether a model whose head it suits has this task, where its checkpoint does not say.
    is_default: bool = False


def _files(train: Candidates, validation: Candidates, test: Candidates = ()) -> Files:
    """Of a task with one validation and one test file."""
    return Files(train, {'': validation}, {'': test})


def _tables(*stems: str) -> Candidates:
    return tuple(f'{stem}.{ending}' for stem in stems for ending in ('tsv', 'csv', 'jsonl'))


def _role_files(*splits: str) -> Files:
    """Of Universal Propositions, of CoNLL-2009 and of one's own, plain or packed."""
    of_2009 = {'dev': 'development', 'test': 'evaluation'}
    patterns = [
        (
            f'*-up-{split}.conllu',
            f'{split}.conllu',
            f'{split}.conll',
            f'CoNLL2009-ST-*{of_2009.get(split, split)}*.txt',
        )
        for split in splits
    ]
    train, dev, test = (tuple(f'{p}{end}' for p in ps for end in ('', '.gz')) for ps in patterns)
    return _files(train, dev, test)


def _glue(name: str) -> Entry:
    layout = LAYOUTS[name]
    validation, test = (
        {suffix: (file,) for suffix, file in files.items()}
        for files in (layout.validation, layout.test)
    )
    return Entry(GlueTask, Files(('train.tsv',), validation, test))


def _pairs() -> Files:
    """Of two files that belong together, named by their sources, or of a table."""
    tables = [f'{ending}{packed}' for ending in ('tsv', 'csv', 'jsonl') for packed in ('', '.gz')]
    endings = ('{source}', '{source}.gz', *tables)
    train, validation, test = (
        tuple(f'{stem}.{ending}' for stem in stems for ending in endings)
        for stems in (('train',), ('val', 'valid', 'validation', 'dev'), ('test',))
    )
    return _files(train, validation, test)


_OWN_TABLES = _files(_tables('train'), _tables('dev', 'validation', 'valid'), _tables('test'))

TASKS: dict[str, Entry] = {
    **{name: _glue(name) for name in LAYOUTS},
    'squad1': Entry(
        functools.partial(SquadTask, has_impossible=False),
        _files(('train-v1.1.json',), ('dev-v1.1.json',)),
        is_default=True,
    ),
    'squad2': Entry(
        functools.partial(SquadTask, has_impossible=True),
        _files(('train-v2.0.json',), ('dev-v2.0.json',)),
        is_default=True,
    ),
    'race': Entry(RaceTask, _files(('train',), ('dev',), ('test',)), is_default=True),
    'ner': Entry(
        functools.partial(TaggingTask, has_chunks=True),
        _files(('train.txt', 'eng.train'), ('valid.txt', 'dev.txt', 'eng.testa'), ('test.txt',)),
    ),
    'upos': Entry(
        functools.partial(TaggingTask, is_conllu=True),
        _files(('*-ud-train.conllu',), ('*-ud-dev.conllu',), ('*-ud-test.conllu',)),
    ),
    'roles': Entry(RolesTask, _role_files('train', 'dev', 'test'), is_default=True),
    'tags': Entry(
        TaggingTask,
        _files(('train.txt',), ('dev.txt', 'valid.txt'), ('test.txt',)),
        is_default=True,
    ),
    'classification': Entry(TextTask, _OWN_TABLES, is_default=True),
    'multilabel': Entry(MultiLabelTask, _OWN_TABLES, is_default=True),
    'translation': Entry(functools.partial(GenerationTask, is_translation=True), _pairs()),
    'summarization': Entry(
        functools.partial(
            GenerationTask, metrics=(generation_metrics.rouge,), best_metric='rouge_l'
        ),
        _pairs(),
    ),
    'splitting': Entry(
        functools.partial(
            GenerationTask,
            metrics=(
                generation_metrics.simplification,
                generation_metrics.bleu,
                generation_metrics.exact_match,
                generation_metrics.copies,
            ),
            best_metric='sari',
            sentence_mark='<::::>',
        ),
        _pairs(),
    ),
    'generation': Entry(GenerationTask, _pairs(), is_default=True),
    'regression': Entry(
        functools.partial(TextTask, is_regression=True), _OWN_TABLES, is_default=True
    ),
}


def make_task(settings: TaskSettings) -> Task:
    """The task of a name.

    Raises:
      UserError: if there is no such task.
    """
    if settings.name not in TASKS:
        raise UserError(f'task.name is {settings.name!r}; it must be one of {", ".join(TASKS)}.')
    task = TASKS[settings.name].make(settings)
    is_named = isinstance(task, TextTask) and not isinstance(task, MultiLabelTask) and task.names
    if settings.label_names and not is_named:
        raise UserError(
            f'task.label_names is {settings.label_names!r}, but {settings.name} has no classes to '
            f'name; leave it out.'
        )
    return task


def metric_names(settings: TaskSettings) -> list[str]:
    """The metrics that a run of a task may write, those of its further validation files too.

    Raises:
      UserError: if there is no such task, or its settings are impossible.
    """
    names = make_task(settings).metric_names
    suffixes = TASKS[settings.name].files.validation
    return [f'{name}{suffix}' for suffix in suffixes for name in names]


def default_task(head: Head) -> str:
    """The name of the task of a model that does not say.

    Raises:
      UserError: if there is none for its head.
    """
    for name, entry in TASKS.items():
        if entry.is_default and entry.make(TaskSettings(name=name)).suits(head):
            return name
    raise UserError(f'There is no task for a {head.name} head; name one with --task.')


def find_files(
    name: str, folder: Path, source: str = '', unread: Collection[str] = ()
) -> tuple[Path | None, dict[str, Path], dict[str, Path]]:
    """The training file, and the validation and test files by the suffix of their metrics.

    Of several files for a split the first is taken, and a note names the others.

    Args:
      name: of the task.
      folder: of its files.
      source: `task.source`, for tasks of pairs.
      unread: splits ('train', 'validation', 'test') that are not read from the folder.

    Raises:
      UserError: if the folder is not there, or has none of the files.
    """
    if not folder.is_dir():
        raise UserError(f'data.path is {folder}, which is not a directory.')
    files, source = TASKS[name].files, glob.escape(source)
    found: dict[str, dict[str, Path]] = {}
    splits = {'train': {'': files.train}, 'validation': files.validation, 'test': files.test}
    for split, candidates in splits.items():
        found[split] = {}
        for suffix, names in candidates.items():
            matches = _matches(folder, names, source)
            if matches:
                found[split][suffix] = matches[0]
            if len(matches) > 1 and split not in unread:
                note(
                    f'{folder}: {matches[0].name} is read for {split}; not read: '
                    f'{", ".join(file.name for file in matches[1:])} (name another with '
                    f'--config.data.{split}=FILE).'
                )
    if not any(found.values()):
        raise UserError(f'{folder} has none of the files of {name}; see docs/FINETUNING.md.')
    return found['train'].get(''), found['validation'], found['test']


def _matches(folder: Path, candidates: Candidates, source: str) -> list[Path]:
    """The files that there are of a split, in the order in which they are looked for."""
    patterns = [pattern.replace('{source}', source) for pattern in candidates]
    return list(dict.fromkeys(f for pattern in patterns for f in sorted(folder.glob(pattern))))
