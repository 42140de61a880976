"""The text of a page of HTML, with the line breaks that a reader sees."""

import re

from selectolax.lexbor import LexborHTMLParser, LexborNode

_LEFT_OUT = ['script', 'style', 'template', 'noscript']
# Elements with a line, a cell or a box of their own. All others, unknown ones too, are within a
# line: they neither end a word nor a sentence.
_BLOCKS = frozenset((
    'address', 'article', 'aside', 'blockquote', 'br', 'button', 'caption', 'center', 'dd',
    'details', 'dialog', 'dir', 'div', 'dl', 'dt', 'fieldset', 'figcaption', 'figure', 'footer',
    'form', 'h1', 'h2', 'h3', 'h4', 'h5', 'h6', 'header', 'hgroup', 'hr', 'iframe', 'legend', 'li',
    'listing', 'main', 'menu', 'nav', 'ol', 'optgroup', 'option', 'p', 'plaintext', 'pre', 'search',
    'section', 'select', 'summary', 'table', 'tbody', 'td', 'textarea', 'tfoot', 'th', 'thead',
    'tr', 'ul', 'xmp',
))  # fmt: skip
# Those whose line breaks are shown; elsewhere a line break is a space.
_PREFORMATTED = frozenset(('listing', 'plaintext', 'pre', 'textarea', 'xmp'))
_LINE_END = re.compile('\r\n?|\n')
_SPACES = re.compile('[ \t\r\n]+')
# White space of HTML that pages do without.
_BREAK = '\f'
# Says where a word may be broken, as <wbr> does; it is shown only there.
_SOFT_HYPHEN = '\xad'


def text_of_html(page: str) -> str:
    """The text of a page, a line for each paragraph, heading, item of a list or cell of a table."""
    tree = LexborHTMLParser(page.replace(_BREAK, ' '))
    tree.strip_tags(_LEFT_OUT)
    body = tree.body
    if body is None:
        return ''
    for node in body.css('*'):
        tag = node.tag
        if tag in _BLOCKS:
            node.insert_before(_BREAK)
            node.insert_after(_BREAK)
            if tag in _PREFORMATTED:
                _keep_lines(node)
    text = body.text(separator='').replace(_SOFT_HYPHEN, '')
    lines = (_SPACES.sub(' ', line).strip() for line in text.split(_BREAK))
    return '\n'.join(filter(None, lines))


def _keep_lines(node: LexborNode) -> None:
    """Makes breaks of the line ends in an element."""
    for inner in list(node.traverse(include_text=True)):
        text = inner.text_content if inner.is_text_node else None
        if text and _LINE_END.search(text):
            inner.replace_with(_LINE_END.sub(_BREAK, text))
