"""What a run reads and writes, checked before JAX is imported: a second, and not twenty."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from albert_jax.cli.errors import UserError
from albert_jax.data.dataset import SPLITS, PreparedCorpus
from albert_jax.interop import hub
from albert_jax.runs.runs import DistillRun, FinetuneRun, PretrainRun

NOTHING_TO_START_FROM = (
    'init_from is empty, so the weights would be random; set --config.init_from=CHECKPOINT, or '
    '--config.from_scratch=True if that is meant.'
)
NO_VALIDATION = (
    'There is no validation file; set --config.data.validation=FILE, or hold out some of the '
    'training file with --config.data.validation_fraction=0.1.'
)


def missing(run: PretrainRun | FinetuneRun | DistillRun, workdir: Path) -> list[UserError]:
    """What is not there of all that a run needs, or cannot be used.

    What takes longer to find out is told by the training itself.

    Args:
      run: whose files are looked for.
      workdir: where it will write.
    """
    checks: list[Callable[[], object]] = [lambda: _check_workdir(workdir)]
    student = run.student if isinstance(run, DistillRun) else run
    if isinstance(run, DistillRun) and run.teacher:
        checks.append(lambda: _check_model('teacher', run.teacher))
    if student.init_from:
        checks.append(lambda: _check_model('init_from', student.init_from))
    if isinstance(student, PretrainRun):
        checks.append(lambda: open_corpus(student))
        if student.pretraining.short_phase_steps and student.data.short_phase_path:
            checks.append(lambda: PreparedCorpus(student.data.short_phase_path))
    else:
        checks += [lambda: check_start(student), lambda: _check_named(student)]
        checks += [_check_file(name, path) for name, path in _files(student)]
    return [error for check in checks for error in _errors_of(check)]


def open_corpus(run: PretrainRun) -> PreparedCorpus:
    """The corpus of a pretraining.

    Raises:
      UserError: if none is named, it cannot be used, or it has more pieces than the model.
    """
    if not run.data.path:
        raise UserError(
            'data.path is empty; set --config.data.path=DIR to what python -m albert_jax.prepare '
            'has written.'
        )
    corpus = PreparedCorpus(run.data.path)
    size = run.model.reading().settings.vocab_size
    if corpus.tokenizer.vocab_size > size:
        raise UserError(
            f'{corpus.directory} has piece ids up to {corpus.tokenizer.vocab_size - 1}, beyond '
            f'model.vocab_size, which is {size}; set '
            f'--config.model.vocab_size={corpus.tokenizer.vocab_size}.'
        )
    for split in SPLITS:
        corpus.check_split(split)
    return corpus


def check_start(run: FinetuneRun) -> None:
    """Refuses a fine-tuning of random weights that nobody has asked for.

    Raises:
      UserError: if there is nothing to start from.
    """
    if not run.init_from and not run.from_scratch:
        raise UserError(NOTHING_TO_START_FROM)


def nothing_to_train_on(folder: str) -> UserError:
    """What is told where there is no training file.

    Args:
      folder: that has none; empty where none is named.
    """
    return UserError(
        f'There is nothing to train on{" in " + folder if folder else ""}; set '
        f'--config.data.path=FOLDER or --config.data.train=FILE.'
    )


def _check_named(run: FinetuneRun) -> None:
    """Refuses a fine-tuning that names no files."""
    data = run.data
    if not (data.path or data.train):
        raise nothing_to_train_on('')
    if not (data.path or data.validation or data.validation_fraction):
        raise UserError(NO_VALIDATION)


def _errors_of(check: Callable[[], object]) -> list[UserError]:
    try:
        check()
    except UserError as error:
        return list(error.parts)
    return []


def _check_workdir(workdir: Path) -> None:
    """Refuses a folder that cannot be made or written to."""
    there = next(path for path in (workdir, *workdir.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UserError(f'{workdir} cannot be written: {there} is a file.')
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f'{workdir} cannot be written: Permission denied.')


def _check_model(field: str, source: str) -> None:
    """Refuses a path of nothing; what may be a name on the hub is looked up later."""
    if hub.is_name(source) or Path(source).exists() or Path(f'{source}.index').exists():
        return
    raise UserError(f'There is no file or directory {source}; {field} is a model that is there.')


def _files(run: FinetuneRun) -> Iterator[tuple[str, str]]:
    for name in ('path', 'train', 'validation', 'test', 'vocabulary'):
        path = getattr(run.data, name)
        if path and not path.startswith('tfds:'):
            yield name, path


def _check_file(name: str, path: str) -> Callable[[], None]:
    def check() -> None:
        if not is_there(path, is_file=name != 'path'):
            what = 'a directory' if name == 'path' else 'there'
            raise UserError(f'data.{name} is {path}, which is not {what}.')

    return check


def is_there(name: str, is_file: bool) -> bool:
    """Whether there is what a field of `data` names.

    Args:
      name: of a file or folder.
      is_file: a file, which may be several with more endings, as those of two languages are.
    """
    path = Path(name)
    if path.exists() or not is_file or not path.parent.is_dir():
        return path.exists()
    return any(other.name.startswith(f'{path.name}.') for other in path.parent.iterdir())
