"""A command as a person meets it, in this process: Python, JAX and its programs are there."""

import contextlib
import dataclasses
import io
import os
import re
import runpy
import sys
from unittest import mock

import pytest
from absl import logging

from tests.conftest import ROOT


@dataclasses.dataclass
class Result:
    """Named as in subprocess.CompletedProcess."""

    returncode: int
    stdout: str
    stderr: str


def run(module: str, *arguments: str) -> Result:
    """What `python -m MODULE ARGUMENTS` does in the project's folder, a hundred columns wide."""
    out, err = io.StringIO(), io.StringIO()
    verbosity = logging.get_verbosity()
    # runpy warns of a module that another test has imported.
    imported = sys.modules.pop(module, None)
    with (
        contextlib.chdir(ROOT),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.dict(os.environ, COLUMNS='100'),
        mock.patch('sys.argv', [module, *arguments]),
        pytest.raises(SystemExit) as ended,
    ):
        runpy.run_module(module, run_name='__main__', alter_sys=True)
    logging.set_verbosity(verbosity)
    if imported is not None:
        sys.modules[module] = imported
    return Result(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def refused(module: str, *arguments: str) -> str:
    """The one sentence of a command that must not do its work."""
    result = run(module, *arguments)
    assert result.returncode == 2, result.stdout + result.stderr
    return result.stderr


def commands_in(document: str) -> list[str]:
    """The commands of a Markdown file, each on one line, but those with variables of a shell.

    Args:
      document: its path in the repository.
    """
    text = (ROOT / document).read_text()
    blocks = re.findall(r'```(?:bash|sh)\n(.*?)```', text, re.DOTALL)
    lines = '\n'.join(blocks).replace('\\\n', ' ').splitlines()
    # Of a pipe the last.
    commands = [re.sub(r'^(?:echo|printf) .* \| ', '', line.strip()) for line in lines]
    return [c for c in commands if c and not c.startswith('#') and '$' not in c]
