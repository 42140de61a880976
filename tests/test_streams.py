"""What a command prints, in encodings that lack some of it."""

import json
import os
import subprocess
import sys

import pytest

# With characters of one byte, of two and of four in UTF-16, and a name that is not UTF-8.
_TEXTS = ['Zoë', '日本', '😀 \\ "', 'donn\udce9es.tsv']
_CODE = (
    'import json\n'
    'from albert_jax.cli import command\n'
    f'texts = {_TEXTS!a}\n'
    'command.run(lambda _: print(json.dumps(texts, ensure_ascii=False)))'
)


def printed(encoding: str) -> bytes:
    """What a command prints of the texts, as JSON."""
    result = subprocess.run(
        [sys.executable, '-c', _CODE], capture_output=True, check=True,
        env={**os.environ, 'PYTHONIOENCODING': encoding},
    )  # fmt: skip
    assert not result.stderr
    return result.stdout


@pytest.mark.parametrize('encoding', ['ascii', 'latin-1', 'shift_jis', 'utf-16', 'utf-8'])
def test_json_stays_what_it_is_in_any_encoding(encoding):
    assert json.loads(printed(f'{encoding}:strict').decode(encoding)) == _TEXTS


def test_what_an_encoding_has_is_not_escaped():
    assert (
        printed('utf-8').rstrip() == '["Zoë", "日本", "😀 \\\\ \\"", "donn\\udce9es.tsv"]'.encode()
    )
    assert printed('latin-1').startswith('["Zoë", "\\u65e5\\u672c", "\\ud83d'.encode('latin-1'))


def test_what_the_user_has_chosen_for_such_characters_stays():
    assert printed('ascii:replace').startswith(b'["Zo?", "??"')
