"""UTF-16 that nothing marks as such, at every door where bytes become text."""

import gzip
import io
import sys
import types

import pytest

from albert_jax.cli.errors import UserError
from albert_jax.cli.utf16 import check_is_not_utf16
from albert_jax.data.corpus import Source
from albert_jax.tasks.inputs import read_input
from tests import tiny

_TEXT = 'Good film, “truly”.\nA bad one.\n'
# “ is no UTF-8 in UTF-16; without it the bytes are valid.
_TEXTS = [_TEXT, 'Good film.\nA bad one.\n', 'Žižek wrote it.\n' * 2000]


@pytest.mark.parametrize('encoding', ['UTF-16LE', 'UTF-16BE'])
@pytest.mark.parametrize('text', _TEXTS, ids=len)
def test_utf_16_is_refused_at_every_door(encoding, text, tmp_path, monkeypatch):
    content = text.encode(encoding)
    (tmp_path / 'a.txt').write_bytes(content)
    (tmp_path / 'a.txt.gz').write_bytes(gzip.compress(content))
    (tmp_path / 'a.tsv').write_bytes(content)
    monkeypatch.setattr(sys, 'stdin', types.SimpleNamespace(buffer=io.BytesIO(content)))
    task = tiny.task('classification')
    what = rf'looks like UTF-16 .*iconv -f {encoding} -t UTF-8'
    for name in ('a.txt', 'a.txt.gz'):
        for kind in ('text', 'jsonl'):
            with pytest.raises(UserError, match=rf'{name} {what}'):
                list(Source(kind, str(tmp_path / name)).documents())
    for name in ('a.txt', 'a.txt.gz', 'a.tsv'):
        with pytest.raises(UserError, match=rf'{name} {what}'):
            read_input(task, str(tmp_path / name))
    with pytest.raises(UserError, match=f'Standard input {what}'):
        read_input(task, '-')


@pytest.mark.parametrize(
    'content',
    [
        b'', b'\0', b'a\0', b'Good film.', '良い映画\0'.encode(), b'name' + b'\0' * 28,
        b'A record.' + b'\0' * 7 + b'Another.' + b'\0' * 8, b'a\0few\0of\0them\0in a text',
    ],
)  # fmt: skip
def test_a_text_with_nul_is_no_utf_16(content):
    check_is_not_utf16(content, 'x')
