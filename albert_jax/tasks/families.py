"""The tasks by name, and where their published files are."""

from collections.abc import Callable
from pathlib import Path

from albert_jax.cli.errors import UserError
from albert_jax.runs.task import TaskSettings
from albert_jax.tasks.classification import TextTask
from albert_jax.tasks.glue import LAYOUTS, GlueTask
from albert_jax.tasks.race import RaceTask
from albert_jax.tasks.squad import SquadTask
from albert_jax.tasks.tagging import TaggingTask
from albert_jax.tasks.task import Task

TASKS: dict[str, Callable[[TaskSettings], Task]] = {
    **dict.fromkeys(LAYOUTS, GlueTask),
    'squad1': SquadTask,
    'squad2': SquadTask,
    'race': RaceTask,
    'ner': TaggingTask,
    'upos': TaggingTask,
    'tags': TaggingTask,
    'classification': TextTask,
    'regression': lambda settings: TextTask(settings, is_regression=True),
}

# Candidates for each split, in the order in which they are looked for.
_FILES = {
    'squad1': (['train-v1.1.json'], ['dev-v1.1.json'], []),
    'squad2': (['train-v2.0.json'], ['dev-v2.0.json'], []),
    'race': (['train'], ['dev'], ['test']),
    'ner': (['train.txt', 'eng.train'], ['valid.txt', 'dev.txt', 'eng.testa'], ['test.txt']),
    'tags': (['train.txt'], ['dev.txt', 'valid.txt'], ['test.txt']),
    'upos': (['*-ud-train.conllu'], ['*-ud-dev.conllu'], ['*-ud-test.conllu']),
}
_ENDINGS = ('tsv', 'csv', 'jsonl')


def make_task(settings: TaskSettings) -> Task:
    """The family of a task.

    Raises:
      UserError: if there is no such task.
    """
    if settings.name not in TASKS:
        raise UserError(f'task.name is {settings.name!r}; it must be one of {", ".join(TASKS)}.')
    return TASKS[settings.name](settings)


def find_files(name: str, folder: Path) -> tuple[Path | None, dict[str, Path], dict[str, Path]]:
    """The training file, and the validation and test files by the suffix of their metrics.

    Raises:
      UserError: if the folder is not there, or has neither training nor validation file.
    """
    if not folder.is_dir():
        raise UserError(f'data.path is {folder}, which is not a directory.')
    if name in LAYOUTS:
        layout = LAYOUTS[name]
        train = _existing(folder, ['train.tsv'])
        validation = {s: folder / f for s, f in layout.validation.items()}
        test = {s: folder / f for s, f in layout.test.items()}
    else:
        patterns = _FILES.get(name) or tuple(
            [f'{stem}.{ending}' for stem in stems for ending in _ENDINGS]
            for stems in (['train'], ['dev', 'validation', 'valid'], ['test'])
        )
        train, valid, tested = (_existing(folder, names) for names in patterns)
        validation = {'': valid} if valid else {}
        test = {'': tested} if tested else {}
    validation = {suffix: file for suffix, file in validation.items() if file.exists()}
    test = {suffix: file for suffix, file in test.items() if file.exists()}
    if train is None and not validation and not test:
        raise UserError(f'{folder} has none of the files of {name}; see docs/FINETUNING.md.')
    return train, validation, test


def _existing(folder: Path, patterns: list[str]) -> Path | None:
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        if found:
            return found[0]
    return None
