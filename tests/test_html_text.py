"""The text of pages: breaks where a reader sees them, and nowhere else."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from albert_jax.data.html_text import text_of_html

PAGES = [
    ('<p>un<b>believ</b>able <i>small</i> dog</p>', 'unbelievable small dog'),
    ('<ruby>漢<rp>(</rp><rt>かん</rt><rp>)</rp>字</ruby>だ。', '漢(かん)字だ。'),
    ('x<sup>2</sup>, <my-mark>y</my-mark>z and w<wbr>w<img src="a">w', 'x2, yz and www'),
    ('<p>hy&shy;phen\xadated</p><pre>a&#173;b</pre><p>&shy;</p>c', 'hyphenated\nab\nc'),
    ('one<br>two<br/>three<hr>four', 'one\ntwo\nthree\nfour'),
    ('<h1>A <em>title</em></h1>text<div>more</div>rest', 'A title\ntext\nmore\nrest'),
    ('<ul><li>one<li>t<u>w</u>o</ul>tail', 'one\ntwo\ntail'),
    ('<table><tr><th>a<td>b c<tr><td>d</table>', 'a\nb c\nd'),
    ('<select><option>a<option>b</select><button>c</button>d', 'a\nb\nc\nd'),
    # A line end of the source is a space, but where the page says that it is shown.
    ('<p>a line\n   that goes\r\n on</p>\n<p> b </p>', 'a line that goes on\nb'),
    ('<pre>a  b\n<b>c\r\nd</b>e</pre>f', 'a b\nc\nde\nf'),
    ('a\fb<textarea>c\rd</textarea>', 'a b\nc\nd'),
    ('a<script>b</script>c<style>d</style><noscript>e</noscript> f', 'ac f'),
    ('<p>&nbsp;</p>a &lt;b&gt; &amp; c', 'a <b> & c'),
    ('<div>' * 3000 + 'deep', 'deep'),
    ('<frameset><frame></frameset>', ''),
    ('', ''),
]


@pytest.mark.parametrize(('page', 'text'), PAGES, ids=lambda value: value[:30])
def test_breaks_are_where_a_reader_sees_them(page, text):
    assert text_of_html(page) == text


_LINES = st.lists(st.text(' \t\nab.漢\xa0', max_size=12), min_size=1, max_size=4)
_INLINE = st.sampled_from(
    ['a', 'abbr', 'b', 'bdi', 'cite', 'code', 'em', 'font', 'i', 'mark', 'my-tag', 'q', 'ruby',
     's', 'small', 'span', 'strong', 'sub', 'sup', 'tt', 'u', 'wbr']
)  # fmt: skip


@given(_LINES, st.lists(st.tuples(_INLINE, st.integers(0, 60), st.booleans()), max_size=12))
@example(['small dog'], [('b', 2, False), ('b', 5, True)])
@example(['a b'], [('i', 0, False), ('b', 1, False), ('i', 2, True), ('b', 3, True)])
def test_tags_within_a_line_never_change_the_text(lines, tags):
    """In any order, closed or not, as pages have them."""
    plain = ''.join(f'<p>{line}</p>' for line in lines)
    marked = [list(f'{line}') for line in lines]
    for name, place, is_end in tags:
        letters = marked[place % len(marked)]
        letters.insert(place % (len(letters) + 1), f'</{name}>' if is_end else f'<{name}>')
    page = ''.join(f'<p>{"".join(letters)}</p>' for letters in marked)
    text = text_of_html(plain)
    assert text_of_html(page) == text
    assert text == '\n'.join(s for line in lines if (s := _collapsed(line)))


def _collapsed(line: str) -> str:
    return ' '.join(re.split('[ \t\n]+', line)).strip()
