"""The documents: their links, their commands, the messages that they quote."""

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest

from albert_jax.cli.command import read_config
from tests.commands import commands_in, run
from tests.conftest import ROOT

FILES = sorted(
    path
    for pattern in ('*.md', 'docs/*.md', 'launch/*.md')
    for path in ROOT.glob(pattern)
)  # fmt: skip


def without_code(text: str) -> str:
    """The text outside of fenced blocks and of spans of code."""
    return re.sub(r'`[^`\n]*`', '', re.sub(r'^ *```.*?^ *```', '', text, flags=re.M | re.S))


def anchors(path: Path) -> set[str]:
    """Those that GitHub gives the headings."""
    text = re.sub(r'^ *```.*?^ *```', '', path.read_text(), flags=re.M | re.S)
    titles = re.findall(r'^#+ +(.*?) *$', text, re.M)
    slugs = [re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in titles]
    return {
        slug if slugs[:index].count(slug) == 0 else f'{slug}-{slugs[:index].count(slug)}'
        for index, slug in enumerate(slugs)
    }


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path):
    broken = []
    for target in re.findall(r'\]\(([^)\s]+)\)', without_code(path.read_text())):
        if re.match(r'[a-z]+:', target):
            continue
        name, _, anchor = target.partition('#')
        there = (path.parent / name).resolve() if name else path
        is_outside = ROOT not in there.parents
        if is_outside or not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert not broken


def test_the_index_has_every_document():
    text = (ROOT / 'docs/README.md').read_text()
    for path in [*(ROOT / 'docs').glob('[A-Z]*.md'), *(ROOT / 'notebooks').glob('*.ipynb')]:
        assert path.name == 'README.md' or f'{path.name})' in text, path


def test_what_the_code_cites_is_there():
    cited = {
        (path.name, name)
        for folder in ('albert_jax', 'benchmarks', 'configs', 'launch', 'tests')
        for path in (ROOT / folder).rglob('*.py')
        for name in re.findall(r'(?:docs|launch)/[A-Z]+\.md', path.read_text())
    }
    assert len(cited) > 5
    assert not [(file, name) for file, name in cited if not (ROOT / name).exists()]


def test_messages_that_are_quoted_are_those_of_the_code():
    folders = ('albert_jax', 'launch')
    files = [ROOT / 'Makefile', *(path for name in folders for path in (ROOT / name).rglob('*.py'))]
    text = '\n'.join(path.read_text() for path in files)
    # Literals that follow one another are one.
    text = re.sub(r"""['"]\s*\n\s*f?['"]""", '', text)
    text = re.sub(r'\{[^{}\n]*\}|\$\([^()\n]*\)', '…', text)
    quoted = []
    for row in re.findall(r'^\| (.*?) \|', (ROOT / 'docs/TROUBLESHOOTING.md').read_text(), re.M):
        message = re.fullmatch(r'`([^`]*)`', row)
        if message and ' ' in message[1] and not message[1].startswith('['):
            quoted.append(message[1])
    assert len(quoted) > 15
    parts = [part.strip(' ()') for message in quoted for part in message.split('…')]
    values = {'Address already in use'}
    missing = [p for p in parts if p not in text and not any(v in p for v in values)]
    assert not missing


# The sweep of its tasks is planned for seconds.
SLOW = ('docs/RESULTS.md',)


@pytest.mark.parametrize(
    'document',
    [
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
        for name in (path.relative_to(ROOT).as_posix() for path in FILES)
        if commands_in(name)
    ],
)
def test_every_command_is_real(document):
    """Targets of make exist, modules import, their flags and configs are known."""
    makefile = (ROOT / 'Makefile').read_text()
    for command in commands_in(document):
        words = command.split()
        if words[0] == 'make':
            assert re.search(rf'^{words[1]}:', makefile, re.MULTILINE), command
        elif words[:2] == ['python', '-m'] and words[2].startswith('launch.'):
            check_launch(words[2], command)
        elif words[:2] == ['python', '-m'] and words[2].startswith('albert_jax.'):
            known = run(words[2], '--help').stdout
            for flag in re.findall(r' (--[a-z_]+)[= ]', f'{command} '):
                assert flag in known, command
            for name in re.findall(r'--config=(\S+)', command):
                read_config(name, re.findall(r'--config\.\S+', command))
        elif words[:2] == ['python', '-m']:
            assert find_spec(words[2]), command


def check_launch(module: str, command: str) -> None:
    """What a command would do, without a cloud."""
    words = shlex.split(command)[3:]
    if module == 'launch.report':
        return
    dry = [] if '--dry_run' in words else ['--dry_run']
    if module == 'launch.tpu_vm':
        place = words.index('--') if '--' in words else len(words)
        words[place:place] = dry
    else:
        words += dry
    result = run(module, *words)
    assert result.returncode == 0, command + result.stderr
    shown = 'gcloud compute tpus' if module == 'launch.tpu_vm' else 'python -m albert_jax.'
    assert shown in result.stdout
