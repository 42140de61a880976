"""The page in a real browser: clicked through at two widths. Slow."""

import subprocess
import sys
from pathlib import Path

import pytest

from albert_jax.interop import native
from albert_jax.interpretability.pair_inspector import PairInspector
from tests.conftest import WIDTHS
from tests.service_of_heads import WRITER, listening, make_service, write_models

pytestmark = pytest.mark.slow


@pytest.mark.parametrize('width', WIDTHS)
def test_clicking_through(browser, server, width, tmp_path):
    size = dict(zip(('width', 'height'), WIDTHS[width], strict=True))
    page = browser.new_page(viewport=size)
    wrong, asked = [], []
    page.on('console', lambda x: wrong.append(x.text) if x.type == 'error' else None)
    page.on('pageerror', lambda x: wrong.append(str(x)))
    page.on('request', lambda x: asked.append(x.url))
    page.goto(f'http://127.0.0.1:{server.port}/')

    # Classify, with the keyboard alone.
    page.wait_for_selector('#field-text')
    page.select_option('#models', 'mood')
    # Which model it is, how large, and what it was evaluated at.
    about = page.inner_text('#about')
    assert (
        'mood: ALBERT of ' in about and '2 layers of 16, ' in about and 'up to 32 pieces' in about
    )
    assert 'accuracy 0.913' in about and 'Enter asks; Shift+Enter' in page.inner_text('#hint')
    # An empty text is asked for.
    for nothing in ('', ' ', '\u200b'):
        page.fill('#field-text', nothing)
        page.press('#field-text', 'Enter')
        assert page.inner_text('#error') == 'Text is empty: write something first.'
        assert page.is_hidden('#answers')
    page.fill('#field-text', 'raises an exception when')
    page.press('#field-text', 'Shift+Enter')
    page.keyboard.type('the value is not found')
    assert page.input_value('#field-text').count('\n') == 1 and page.is_hidden('#answers')
    page.press('#field-text', 'Enter')
    page.wait_for_selector('#interpretability:not([hidden])', timeout=30_000)
    assert page.inner_text('.answer') in ('yes', 'no')
    assert page.locator('#output .bar').count() == 2
    # A figure stays on its line.
    figures = page.locator('#output .bar span')
    assert all(figures.nth(n).bounding_box()['height'] < 30 for n in range(2))
    assert page.locator('#words button').count() > 5 and page.is_hidden('#note')
    titles = page.locator('h2:visible').all_inner_texts()
    assert not any('“”' in x or x != x.strip() for x in titles)

    # Attention, at every depth and head.
    pieces = page.locator('#pieces button')
    assert pieces.count() > 8 and page.inner_text('#depth-out') == '2 of 2'
    pieces.nth(3).click()
    assert pieces.nth(3).get_attribute('aria-pressed') == 'true'

    def shades():
        return [pieces.nth(n).get_attribute('title') for n in range(pieces.count())]

    seen = [shades()]
    for head in ('0', '1', 'rollout'):
        page.select_option('#head', head)
        seen.append(shades())
    page.focus('#depth')
    page.keyboard.press('ArrowLeft')
    assert page.inner_text('#depth-out') == '1 of 2'
    seen.append(shades())
    # Of random weights, two may look alike.
    assert len({tuple(x) for x in seen}) >= 4
    assert page.locator('#attention .legend b').count() == 5
    page.screenshot(path=tmp_path / f'{width}-classify.png', full_page=True)

    # A text that is cut says so.
    page.fill('#field-text', 'the value ' * 30)
    page.press('#field-text', 'Enter')
    page.wait_for_selector('#note:not([hidden])')
    said = 'The input was cut to the 32 pieces that the model reads at most.'
    assert page.inner_text('#note') == said

    # Fill a mask; a mistake is told and the page goes on.
    page.select_option('#models', 'base')
    page.fill('#field-text', 'no mask at all')
    page.click('#go')
    page.wait_for_selector('#error:not([hidden])')
    assert '[MASK]' in page.inner_text('#error')
    page.fill('#field-text', 'Returns a [MASK] of the list.')
    page.click('#go')
    page.wait_for_selector('#interpretability:not([hidden])', timeout=30_000)
    assert page.locator('#output .bar').count() == 5
    assert page.is_hidden('#error')
    page.screenshot(path=tmp_path / f'{width}-fill.png', full_page=True)

    # The document of the API, and a request from it.
    page.click('header a')
    page.wait_for_selector('section')
    assert 'POST /v1/predict' in page.locator('h2').all_inner_texts()
    box = page.locator('section', has_text='POST /v1/embed')
    box.locator('textarea').fill('{"input": "a", "model": "base"}')
    box.locator('button').click()
    box.locator('pre', has_text='200 OK').wait_for()
    assert page.evaluate('document.documentElement.scrollWidth') <= size['width']
    page.screenshot(path=tmp_path / f'{width}-docs.png', full_page=True)
    page.go_back()
    page.wait_for_selector('#field-text')

    # Nothing sticks out, nothing is fetched from elsewhere, nothing went wrong.
    assert page.evaluate('document.documentElement.scrollWidth') <= size['width']
    assert all(url.startswith(f'http://127.0.0.1:{server.port}/') for url in asked)
    assert [x for x in wrong if '422' not in x] == []
    page.close()


@pytest.mark.parametrize('width', WIDTHS)
def test_a_text_is_written_and_its_cross_attention_shown(browser, vocabulary, width, tmp_path):
    write_models(tmp_path, vocabulary, [])
    source = 'returns an index of the list'
    inspector = PairInspector(native.read(tmp_path / WRITER))
    pair = inspector.encode(source)
    size = dict(zip(('width', 'height'), WIDTHS[width], strict=True))
    page, wrong = browser.new_page(viewport=size), []
    page.on('console', lambda x: wrong.append(x.text) if x.type == 'error' else None)
    page.on('pageerror', lambda x: wrong.append(str(x)))
    with listening(make_service(tmp_path, [WRITER])) as port:
        page.goto(f'http://127.0.0.1:{port}/')
        page.wait_for_selector('#field-text')
        page.fill('#field-text', source)
        page.press('#field-text', 'Control+Enter')
        page.wait_for_selector('#cross:not([hidden])', timeout=60_000)
        assert page.inner_text('.answer') == pair.target != ''
        assert page.is_hidden('#interpretability') and page.is_hidden('#moved')
        written, read = page.locator('#cross-target button'), page.locator('#cross-source button')
        words = inspector.contributions(pair).target_words
        assert written.count() == len(words) and read.count() > 6

        def shares():
            return [read.nth(n).get_attribute('title') for n in range(read.count())]

        seen = [shares()]
        assert sum(float(share.split()[0]) for share in seen[0]) == pytest.approx(100, abs=3)
        written.nth(1).click()
        seen.append(shares())
        page.select_option('#cross-head', label='2')
        seen.append(shares())
        assert len({tuple(share) for share in seen}) == 3
        assert page.evaluate('document.documentElement.scrollWidth') <= size['width']
        # A text that is cut says so, and an empty one is asked for.
        page.fill('#field-text', 'class error')
        page.click('#go')
        page.wait_for_selector('#cross:not([hidden])', timeout=60_000)
        assert 'Cut at 15 pieces.' in page.inner_text('#output')
        page.fill('#field-text', '')
        page.click('#go')
        assert page.inner_text('#error') == 'Text is empty: write something first.'
        assert page.is_hidden('#cross') and wrong == []
    page.close()


def test_the_document_keeps_its_word(server, tmp_path):
    """Requests made from the OpenAPI document, right and wrong, by schemathesis."""
    pytest.importorskip('schemathesis')
    program = Path(sys.executable).parent / 'schemathesis'
    checks = 'not_a_server_error,status_code_conformance,content_type_conformance'
    found = subprocess.run(
        [
            program, 'run', f'http://127.0.0.1:{server.port}/openapi.json', '--checks',
            f'{checks},response_schema_conformance', '--max-examples=60',
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout[-5000:]
