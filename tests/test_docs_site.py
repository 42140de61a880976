"""The site of the documents: built, opened as a file, searched, without a network. Slow."""

import shutil
import subprocess

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow
MKDOCS = ROOT / '.venv-docs/bin/mkdocs'


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    if not MKDOCS.exists():
        pytest.skip('no .venv-docs here: make .venv-docs/installed')
    folder = tmp_path_factory.mktemp('docs') / 'site'
    # A link, an anchor or a reference that leads nowhere ends it.
    result = subprocess.run(
        [MKDOCS, 'build', '--strict', '--site-dir', folder],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def test_every_document_and_every_room_has_a_page(site):
    rooms = [path.parent.name for path in (ROOT / 'albert_jax').glob('*/__init__.py')]
    assert len(rooms) > 10
    pages = [f'api/{room}' for room in ('albert_jax', *rooms)]
    pages += [path.stem for path in (ROOT / 'docs').glob('[A-Z]*.md') if path.stem != 'README']
    start = (site / 'index.html').read_text()
    for page in pages:
        assert (site / f'docs/{page}.html').exists() and f'docs/{page}.html' in start, page
    # From a docstring.
    assert 'return_attentions' in (site / 'docs/api/model.html').read_text()


@pytest.mark.parametrize('size', [(1280, 900), (390, 844)])
def test_it_is_read_and_searched_as_files(site, size):
    api = pytest.importorskip('playwright.sync_api')
    program = shutil.which('chromium') or shutil.which('google-chrome')
    if program is None:
        pytest.skip('no Chromium here')
    asked, wrong = [], []
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=['--no-sandbox'])
        page = browser.new_page(viewport={'width': size[0], 'height': size[1]})
        page.on('request', lambda request: asked.append(request.url))
        page.on('pageerror', lambda error: wrong.append(str(error)))
        page.on('requestfailed', lambda request: wrong.append(request.url))
        for name in ('index', 'docs/RESULTS', 'docs/CONFIG', 'docs/api/model'):
            page.goto((site / f'{name}.html').as_uri())
            # Nothing sticks out; tables scroll by themselves.
            assert page.evaluate('document.documentElement.scrollWidth') <= size[0]
        page.goto((site / 'index.html').as_uri())
        if size[0] < 1000:
            page.click('label.md-header__button[for="__search"]')
        page.click('.md-search__input')
        page.keyboard.type('warmup_steps')
        page.wait_for_selector('.md-search-result__item', timeout=30_000)
        titles = page.locator('.md-search-result h1').all_inner_texts()
        assert 'The fields of a config' in titles
        browser.close()
    assert not wrong
    assert all(url.startswith(('file:', 'data:', 'blob:', 'about:')) for url in asked)
