"""Takes the picture of the service's page in the README.

    python -m albert_jax.serve --checkpoint=runs/labels
    python -m benchmarks.page_picture --text='A gripping film, and never dull.'

Needs playwright, and Chromium in the PATH. The answers, the contributions of the words and the
attention are those of the model that is served.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

_SECONDS = 60


def main(arguments: Sequence[str]) -> int:
    """Asks the page and writes what it shows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--url', default='http://localhost:8000/')
    parser.add_argument('--text', required=True, help='that is classified')
    parser.add_argument('--output', type=Path, default=Path('docs/images/page.png'))
    flags = parser.parse_args(arguments)

    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which('chromium') or shutil.which('google-chrome'),
            args=['--no-sandbox'],
        )
        page = browser.new_page(viewport={'width': 860, 'height': 700})
        page.set_default_timeout(_SECONDS * 1000)
        page.goto(flags.url)
        page.fill('#field-text', flags.text)
        page.press('#field-text', 'Control+Enter')
        page.wait_for_selector('#interpretability:not([hidden])')
        page.evaluate('document.activeElement.blur()')
        page.wait_for_timeout(500)
        flags.output.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=flags.output, full_page=True)
        browser.close()
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
