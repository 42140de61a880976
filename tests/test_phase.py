"""A line for what takes longer than three seconds, and none for what does not."""

import subprocess
import sys
import time

import pytest

from albert_jax.cli import phase
from tests.conftest import ROOT


def test_what_takes_long_is_told_once_and_what_is_quick_is_not(monkeypatch, capsys):
    monkeypatch.setattr(phase, 'SECONDS', 0.05)
    with phase.phase('Reading x …'):
        pass
    time.sleep(0.1)
    assert capsys.readouterr() == ('', '')
    with phase.phase('Reading y …'), phase.phase('Reading z …'):
        time.sleep(0.2)
    out, err = capsys.readouterr()
    assert out == '' and sorted(err.splitlines()) == ['Reading y …', 'Reading z …']
    with pytest.raises(ValueError, match='broken'), phase.phase('Reading x …'):
        raise ValueError('broken')
    time.sleep(0.1)
    assert capsys.readouterr() == ('', '')


_SLOW = """
import sys, time
from albert_jax.cli import command, phase
phase.SECONDS = 0.2
def main(arguments):
    if arguments:
        import slow
    time.sleep(0.6)
command.run(main)
"""


@pytest.mark.parametrize('is_import', [True, False])
def test_imports_that_take_long_are_told(tmp_path, is_import):
    (tmp_path / 'slow.py').write_text('import time\ntime.sleep(0.6)\n')
    arguments = ['import'] if is_import else []
    script = f'import sys; sys.path.append({str(tmp_path)!r})' + _SLOW
    done = subprocess.run(
        [sys.executable, '-c', script, *arguments], cwd=ROOT, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    told = ['Loading JAX and the other libraries …'] if is_import else []
    assert done.stderr.splitlines() == told and done.stdout == ''
