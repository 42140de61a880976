"""The page of `explain` in a real browser, at two widths. Slow."""

import re

import numpy as np
import pytest

from albert_jax.interpretability import page as pages
from albert_jax.interpretability import pair_page
from albert_jax.interpretability.answer import Answer
from albert_jax.interpretability.encoding import EncodedText
from albert_jax.interpretability.inspector import Attribution
from albert_jax.interpretability.layers import Activations
from albert_jax.interpretability.pair_inspector import Contributions, EncodedPair
from tests.conftest import WIDTHS

pytestmark = pytest.mark.slow
PIECES = ('[CLS]', '▁a', '▁gr', 'ip', 'ping', '▁film', '[SEP]')


def written(folder, attention, scores, num_layers=3):
    """A page of a made-up model whose first layer attends so; the file's address."""
    length = len(PIECES)
    ids = np.ones((1, length), np.int32)
    encoded = EncodedText(PIECES, ids, np.zeros_like(ids))
    all_layers = np.full((num_layers, 2, length, length), 1 / length)
    all_layers[0, 0] = attention
    hidden = np.random.default_rng(0).normal(size=(num_layers + 1, length, 8))
    attribution = Attribution(encoded, 'positive', np.array(scores), 1.0, 0.5, 16)
    answer = Answer('class', (('positive', 0.912), ('negative', 0.088)))
    text = 'A gripping film</script>'
    content = pages.render(Activations(encoded, all_layers, hidden), attribution, answer, text, 'x')
    (folder / 'page.html').write_text(content, 'utf-8')
    return (folder / 'page.html').as_uri()


def opacity(element):
    """Of its shade."""
    parts = element.evaluate('e => getComputedStyle(e).backgroundColor')
    numbers = re.findall(r'[\d.]+', parts)
    return float(numbers[3]) if len(numbers) == 4 else 1.0


@pytest.mark.parametrize('width', WIDTHS)
def test_the_answer_on_top_one_scale_and_values_on_demand(browser, width, tmp_path):
    size = dict(zip(('width', 'height'), WIDTHS[width], strict=True))
    page = browser.new_page(viewport=size)
    wrong = []
    page.on('pageerror', lambda x: wrong.append(str(x)))
    page.goto(written(tmp_path, np.eye(len(PIECES)), [0, 2e-6, 0.02, 0.02, 0.02, -0.01, 0]))
    page.wait_for_selector('.curve svg')

    # The answer comes before its explanation; every text is readable and nothing sticks out.
    tops = [page.locator(x).first.bounding_box()['y'] for x in ('.answer', '#words', '#pieces')]
    assert tops == sorted(tops) and 'positive' in page.inner_text('.answer')
    assert '91.2 %' in page.inner_text('body')
    assert page.evaluate('document.documentElement.scrollWidth') <= size['width']
    sizes = """[...document.querySelectorAll('body *')]
        .filter(e => e.innerText || e.tagName === 'text')
        .map(e => parseFloat(getComputedStyle(e).fontSize))"""
    assert min(page.evaluate(sizes)) >= 12
    page.screenshot(path=tmp_path / f'{width}.png', full_page=True)

    # A contribution of 2e-6 is not drawn as one of 0.06, and none of these as one of 1.
    a, gripping, film = (page.locator('#words button').nth(n) for n in range(3))
    assert [x.inner_text() for x in (a, gripping, film)] == ['a', 'gripping', 'film']
    assert opacity(a) < 0.01 < opacity(film) < opacity(gripping) < 0.65
    gripping.click()
    assert page.inner_text('#contributions .readout') == 'gripping: +0.060 (logit)'
    film.focus()
    assert page.inner_text('#contributions .readout') == 'film: −0.010 (logit)'

    # Attention to one piece is dark, to all alike pale, on the scale of the legend.
    pieces = page.locator('#pieces button')
    page.select_option('#head', index=2)
    page.focus('#depth')
    page.keyboard.press('Home')
    pieces.nth(2).click()
    dark = opacity(pieces.nth(2))
    page.select_option('#head', index=3)
    shades = [opacity(pieces.nth(n)) for n in range(len(PIECES))]
    assert max(shades) - min(shades) < 0.01 and max(shades) < 0.5 * dark
    legend = page.locator('#attention .legend b')
    assert legend.all_inner_texts() == ['0 %', '5 %', '25 %', '50 %', '100 %']
    assert opacity(legend.nth(4)) == pytest.approx(dark, abs=0.01)
    pieces.nth(5).hover()
    assert page.inner_text('#attention .readout') == 'gr gives 14.3 % of its attention to film.'

    # The axes have names and units, and the points fill the height.
    texts = page.locator('#angles svg text').all_text_contents()
    assert texts[0] == 'angle (degrees)' and texts[-1] == 'layer' and '1' in texts
    heights = [float(x.get_attribute('cy')) for x in page.locator('#angles circle').all()]
    assert len(heights) == 3 and max(heights) - min(heights) > 20
    page.locator('#angles circle').nth(1).hover()
    assert re.fullmatch(r'Layer 2: angle [\d.]+ degrees\.', page.inner_text('#angles .readout'))
    assert not wrong
    page.close()


def test_a_model_of_one_layer_has_numbers_in_place_of_curves(browser, tmp_path):
    page = browser.new_page()
    page.goto(written(tmp_path, np.eye(len(PIECES)), [0.0] * len(PIECES), num_layers=1))
    assert re.search(r'Layer 1: angle [\d.]+ degrees', page.inner_text('#angles'))
    assert page.locator('svg').count() == 0
    assert opacity(page.locator('#words button').first) == 0
    page.close()


@pytest.mark.parametrize('width', WIDTHS)
def test_a_pair_has_one_scale_and_values_on_demand_too(browser, width, tmp_path):
    source, target = ('[CLS]', '▁two', '▁dogs', '[SEP]'), ('▁zwei', '▁hunde', '[SEP]')
    ids = np.ones(4, np.int32), np.ones(3, np.int32)
    pair = EncodedPair(*ids, source, target, frozenset(), 'zwei hunde</script>')
    attention = np.full((2, 2, 3, 4), 0.25)
    attention[1, :, 1] = (0.01, 0.02, 0.96, 0.01)
    scores = np.array([[2.0, 1e-6], [-0.5, 1.0], [0.0, 0.0]])
    found = Contributions(
        ('two', 'dogs'), ('zwei', 'hunde', '[SEP]'), np.log([0.9, 0.5, 0.8]), scores
    )
    path = tmp_path / 'pair.html'
    path.write_text(pair_page.render(pair, attention, found, 'two dogs</script>', 'x'), 'utf-8')
    size = dict(zip(('width', 'height'), WIDTHS[width], strict=True))
    page, wrong = browser.new_page(viewport=size), []
    page.on('pageerror', lambda x: wrong.append(str(x)))
    page.goto(path.as_uri())
    words, read = page.locator('#words-target button'), page.locator('#words-source button')
    assert words.all_inner_texts() == ['zwei\n90.0 %', 'hunde\n50.0 %', '[SEP]\n80.0 %']
    # A contribution of 1e-6 is no colour, and one scale holds for all words of the target.
    strong, nothing = opacity(read.nth(0)), opacity(read.nth(1))
    assert strong > 0.6 and nothing < 0.01
    words.nth(1).click()
    assert opacity(read.nth(1)) == pytest.approx(strong / 2, abs=0.01)
    read.nth(0).click()
    told = page.locator('#contributions .readout').inner_text()
    assert told == 'Without two, the log-probability of hunde changes by +0.500 (nats).'
    # Attention that is spread evenly is pale, whatever its largest share.
    pieces = page.locator('#cross-source button')
    assert page.locator('#cross-depth-out').inner_text() == '2 of 2'
    even = opacity(pieces.nth(2))
    page.locator('#cross-target button').nth(1).click()
    assert opacity(pieces.nth(2)) > 1.5 * even
    pieces.nth(2).click()
    told = page.locator('#cross .readout').inner_text()
    assert told == 'hunde gives 96.0 % of its attention to dogs.'
    assert page.locator('.legend').count() == 2
    assert page.evaluate('document.documentElement.scrollWidth') <= size['width']
    assert wrong == []
    page.screenshot(path=tmp_path / f'{width}.png', full_page=True)
    page.close()
