"""The commands that a command proposes when it has done its work, each as it can be typed.

They name what is there: the files of this checkout from wherever the command was run, the corpus
and its vocabulary, the model. tests/test_next_steps.py runs each.
"""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from albert_jax.cli.config_file import CHECKOUT

_MASKED_TEXT = 'Some [MASK] text.'
_TEXT = 'Some text of your own.'


def show(*commands: str, title: str = 'Next:') -> None:
    """Prints commands under a title, a line each."""
    print(title)
    for command in commands:
        print(f'  {command}')


def pretrain(corpus: Path | str, vocab_size: int, sequence_length: int) -> str:
    """Trains a small model on a prepared corpus: one that any machine has the memory for.

    Args:
      corpus: its folder, or gs://BUCKET/FOLDER.
      vocab_size: of its vocabulary.
      sequence_length: that it was prepared for.
    """
    is_remote = '://' in str(corpus)
    workdir = _free(Path('runs/tiny') if is_remote else Path(f'{corpus}-tiny'))
    return python(
        'albert_jax.pretrain',
        f'--config={_config("pretrain.py")}:tiny+modern',
        f'--workdir={workdir}',
        f'--config.data.path={corpus}',
        f'--config.model.vocab_size={vocab_size}',
        f'--config.model.max_position_embeddings={sequence_length}',
        f'--config.pretraining.sequence_length={sequence_length}',
    )


def finetune(arguments: Sequence[str], workdir: Path) -> str:
    """A fine-tuning with settings that were found.

    Args:
      arguments: its config and fields.
      workdir: where it goes, if there is no such folder yet.
    """
    return python('albert_jax.finetune', *arguments, f'--workdir={_free(workdir)}')


def fill_mask(checkpoint: Path | str) -> str:
    """Fills the mask of a text."""
    return python('albert_jax.fill_mask', f'--checkpoint={checkpoint}', _MASKED_TEXT)


def curve(workdir: Path) -> str:
    """Draws the learning curve of a run."""
    return python('albert_jax.curve', f'--output={workdir / "curve.png"}', str(workdir))


def predict(checkpoint: Path | str, sample: str | dict[str, Any]) -> str:
    """Answers an example on standard input.

    Args:
      checkpoint: of a fine-tuned model.
      sample: an example of its task.
    """
    line = _TEXT if isinstance(sample, str) else json.dumps({k: _filled(sample[k]) for k in sample})
    asked = python('albert_jax.predict', f'--checkpoint={checkpoint}', '--input=-')
    return f'echo {shlex.quote(line)} | {asked}'


def _filled(value: Any) -> Any:
    if isinstance(value, list):
        return [_TEXT] * len(value)
    return _TEXT if isinstance(value, str) else value


def train_further(module: str, arguments: Sequence[str], workdir: Path) -> str:
    """The command of a finished run once more, from the weights that it has reached.

    Args:
      module: of the command.
      arguments: that it was given.
      workdir: of the run, or of the first of its seeds.
    """
    replaced = ('--workdir', '--config.init_from', '--config.continue_training')
    kept = []
    is_value = False
    for argument in arguments:
        name, equals, _ = argument.partition('=')
        if not is_value and name not in replaced:
            kept.append(argument)
        is_value = name == '--workdir' and not equals
    return python(
        module, *kept, f'--workdir={_free(Path(f"{workdir}-further"))}',
        f'--config.init_from={workdir}',
    )  # fmt: skip


def load(checkpoint: Path | str) -> str:
    """Loads a model in Python."""
    return _python_code(f'import albert_jax; print(albert_jax.load({str(checkpoint)!r}))')


def load_with_transformers(checkpoint: Path, name: str) -> str:
    """Loads a model with Hugging Face's library.

    Args:
      checkpoint: in its format.
      name: of the class.
    """
    code = f'import transformers; print(transformers.{name}.from_pretrained({str(checkpoint)!r}))'
    return _python_code(code)


def python(module: str, *arguments: str) -> str:
    """A command of this project, quoted for a shell."""
    return ' '.join(['python', '-m', module, *map(_quoted, arguments)])


def _quoted(argument: str) -> str:
    """An argument for a shell, the name of a flag outside of the quotes."""
    name, equals, value = argument.partition('=')
    if argument.startswith('--') and equals:
        return f'{name}={shlex.quote(value)}'
    return shlex.quote(argument)


def _python_code(code: str) -> str:
    return f'python -c {shlex.quote(code)}'


def _config(file: str) -> str:
    """A file of configs/, as short as it can be written from here."""
    short = Path('configs') / file
    full = CHECKOUT / short
    return str(short if short.exists() and short.samefile(full) else full)


def _free(folder: Path) -> Path:
    """The folder, or one of a like name where there is one already."""
    number, free = 1, folder
    while free.exists():
        number += 1
        free = folder.with_name(f'{folder.name}-{number}')
    return free
