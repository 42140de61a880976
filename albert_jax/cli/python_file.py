"""Configs and sweeps as Python files: loaded by their path, with errors that say the line."""

import importlib.machinery
import importlib.util
import sys
import traceback
from pathlib import Path
from types import CodeType, ModuleType

from albert_jax.cli.errors import UserError, first_line


class _Loader(importlib.machinery.SourceFileLoader):
    """Without the cache of bytecode.

    It has one place for all endings, and takes a file of the same size and second for unchanged.
    """

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def load_python_file(path: str, name: str) -> ModuleType:
    """The module that a Python file makes, run anew at each call.

    Args:
      path: of the file, whatever its name ends in.
      name: of the module in `sys.modules`, where dataclasses of the file look themselves up.
    """
    loader = _Loader(name, path)
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def error_in_file(error: Exception, path: str) -> str:
    """What a file, or a function of it, has raised: the message, and the line where it has one.

    A ValueError or UserError is a sentence for people; of any other the type is told.

    Args:
      error: caught from the file.
      path: of the file.
    """
    if isinstance(error, UserError) or type(error) is ValueError:
        return first_line(error)
    text = f'{type(error).__name__}: {first_line(error)}'
    if isinstance(error, SyntaxError):
        return text  # has its line
    file = Path(path).resolve()
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).resolve() == file
    ]
    return f'line {lines[-1]}: {text}' if lines else text
