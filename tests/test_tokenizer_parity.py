"""Our ids and offsets on 10,000 real lines against Google's recipe and Hugging Face's tokenizers.

The differences are a short list, in docs/CHECKPOINTS.md, and each has a test here.
"""

import argparse
import functools
import gzip
import inspect
import json
import json.decoder
import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from albert_jax.data.normalization import Normalization
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.interop import huggingface_tokenizer
from tests.conftest import shared_data

ODD_LINES = [
    '',
    '   ',
    'in 2,000 years on 9, then 1,2,3 may 5, 1999, and 10,000,000,',
    'a\x00b\x01c\x7f d\x0be\x0cf\x1cg',
    'zero\u200bwidth \ufeffmark \u00adsoft \u2060joiner',
    'no\u00a0break\u3000wide\u2028line\x85next',
    '😀 👩‍👩‍👧 🇩🇪 ❤️ ok',
    "İstanbul Σίσυφος ΣΑΣ ﬁne ½ ① Å e\u0301\u0301 x¨y ``quoted'' \"and\" ''",
    'ガギグ 한국어 हिन्दी ไทย עִבְרִית العَرَبِيَّة Ελληνικά русский',
    'the [MASK] of a <pad> and a [SEP]',
    'x' * 100_000,
    'lower1y,' * 12_500,
]


@pytest.fixture(scope='module')
def released() -> Tokenizer:
    return Tokenizer.from_file(shared_data('spm/30k-clean.model'))


@functools.cache
def real_lines() -> list[str]:
    """10,000 lines of books, the web, four languages and code, and the odd ones."""
    lines: list[str] = []
    for name, count in [('books', 4000), ('c4_sample', 3000)] + [
        (f'handbook_{language}', 700) for language in ('en-US', 'de-DE', 'zh-CN', 'ja-JP')
    ]:
        with gzip.open(shared_data(f'pretrain/{name}.jsonl.gz'), 'rt', encoding='utf-8') as file:
            found = [line for row in file for line in json.loads(row)['text'].split('\n')]
        lines += random.Random(0).sample(found, count)
    for module in (argparse, json.decoder, functools):
        lines += inspect.getsource(module).splitlines()[:200]
    assert len(lines) > 10_000
    return lines + ODD_LINES


def google_ids(processor: sentencepiece.SentencePieceProcessor, text: str) -> list[int]:
    """google-research/albert, from its description in the reference; nothing of ours."""
    text = ' '.join(text.strip().split())
    text = unicodedata.normalize('NFKD', text)
    text = ''.join(letter for letter in text if not unicodedata.combining(letter)).lower()
    pieces = []
    for piece in processor.encode(text, out_type=str):
        if len(piece) > 1 and piece[-1] == ',' and piece[-2].isdigit():
            again = processor.encode(piece[:-1].replace('▁', ''), out_type=str)
            if piece[0] != '▁' and again[0][0] == '▁':
                again = again[1:] if len(again[0]) == 1 else [again[0][1:], *again[1:]]
            pieces += [*again, ',']
        else:
            pieces.append(piece)
    return [processor.piece_to_id(piece) for piece in pieces]


def test_ids_are_those_of_googles_recipe(released):
    processor = sentencepiece.SentencePieceProcessor(model_proto=released.model)
    lines = real_lines()
    differing = 0
    for line, ours in zip(lines, released.encode(lines), strict=True):
        if ours != google_ids(processor, line):
            # 1. We turn `` and '' into a quotation mark, as Hugging Face does.
            assert '``' in ' '.join(line.split()) or "''" in line
            differing += 1
    print(f'{len(lines) - differing} of {len(lines)} lines have the ids of Google')
    assert differing < 100


@pytest.fixture(scope='module')
def hugging_face(released, tmp_path_factory):
    """`tokenizers` itself on the file that we write for transformers."""
    tokenizers = pytest.importorskip('tokenizers', reason='needs the extra huggingface')
    directory: Path = tmp_path_factory.mktemp('tokenizer')
    huggingface_tokenizer.write(released, 512, directory)
    return tokenizers.Tokenizer.from_file(str(directory / 'tokenizer.json'))


def is_joined_comma(tokenizer: Tokenizer, ids: list[int]) -> bool:
    pieces = [tokenizer.pieces[index] for index in ids]
    return any(len(p) > 1 and p[-1] == ',' and p[-2].isdigit() for p in pieces)


def has_other_marks(line: str) -> bool:
    """Marks of combining class 0: Hugging Face drops them, Google's recipe does not."""
    decomposed = unicodedata.normalize('NFKD', line)
    return any(
        unicodedata.category(c)[0] == 'M' and not unicodedata.combining(c) for c in decomposed
    )


def is_control_space(letter: str) -> bool:
    """White space to Python, but a control character that SentencePiece's own rules delete."""
    return letter.isspace() and unicodedata.category(letter) == 'Cc' and letter not in '\t\n\r'


def score(tokenizer: Tokenizer, ids: list[int]) -> float:
    return sum(tokenizer._processor.get_score(index) for index in ids)


def test_ids_are_those_of_hugging_face_but_for_a_short_list(released, hugging_face):
    lines = real_lines()
    encoded = hugging_face.encode_batch(lines, add_special_tokens=False)
    reasons: dict[str, int] = {}
    for line, ours, theirs in zip(
        lines, released.encode(lines), (one.ids for one in encoded), strict=True
    ):
        if ours == theirs:
            reason = 'equal'
        elif is_joined_comma(released, theirs):
            reason = 'digit and comma'
        elif any(piece in line for piece in ('[MASK]', '[CLS]', '[SEP]', '<unk>', '<pad>')):
            reason = 'special piece'
        elif has_other_marks(line):
            reason = 'marks'
        elif any(is_control_space(letter) for letter in line):
            reason = 'control'
        else:
            # Two cuts of the same text with the same score to float32's precision.
            assert released.decode(ours) == released.decode(theirs), line
            assert abs(score(released, ours) - score(released, theirs)) < 1e-3
            reason = 'tie'
        reasons[reason] = reasons.get(reason, 0) + 1
    print(f'{len(lines)} lines against Hugging Face: {reasons}')
    assert reasons['equal'] > 0.98 * len(lines)
    assert reasons.get('tie', 0) <= 3


@pytest.mark.parametrize(
    ('text', 'ours', 'theirs'),
    [
        ('may 5, 1999', '▁may ▁5 , ▁1999', '▁may ▁5, ▁1999'),
        ('a [MASK] b', '▁a ▁[ mask ] ▁b', '▁a [MASK] ▁b'),
        ('wow\u203c\ufe0f', '▁wow !! <unk>', '▁wow !!'),
        ('a\x0bb', '▁a ▁b', '▁ab'),
    ],
)
def test_each_difference_from_hugging_face(text, ours, theirs, released, hugging_face):
    found = hugging_face.encode(text, add_special_tokens=False)
    assert [released.pieces[index] for index in released.encode([text])[0]] == ours.split()
    assert [released.pieces[index] for index in found.ids] == theirs.split()


def test_quotes_differ_from_googles(released):
    processor = sentencepiece.SentencePieceProcessor(model_proto=released.model)
    text = "``so''"
    assert released.encode([text]) == released.encode(['"so"'])
    assert google_ids(processor, text) != released.encode([text])[0]


def test_offsets_are_exact(released):
    """Each slice of the original, normalised by itself, is its piece; slices go forward."""
    lines = real_lines()
    clean = released._processor.normalize
    for line, ids, (same_ids, offsets) in zip(
        lines, released.encode(lines), released.encode_with_offsets(lines), strict=True
    ):
        assert ids == same_ids
        assert len(ids) == len(offsets)
        before = (0, 0)
        for index, (start, end) in zip(ids, offsets, strict=True):
            assert 0 <= start <= end <= len(line)
            assert start >= before[0] and end >= before[1]
            part = line[start:end]
            assert part == part.strip()
            if index != released.unk_id:
                shown = released.pieces[index].lstrip('▁')
                found = clean(released.normalization(part)).lstrip('▁')
                # One letter such as … can be several pieces, and each has all of it.
                is_expanded = any(len(released.normalization(letter)) > 1 for letter in part)
                assert found == shown or (is_expanded and shown in found)
            before = (start, end)


def test_offsets_cover_every_word(released):
    for line in real_lines()[:2000]:
        _, offsets = released.encode_with_offsets([line])[0]
        covered = np.zeros(len(line), bool)
        for start, end in offsets:
            covered[start:end] = True
        missing = {line[i] for i in np.flatnonzero(~covered)}
        # White space, what becomes white space (´ is a space and a mark), and control characters.
        assert all(
            unicodedata.normalize('NFKD', letter)[0].isspace()
            or unicodedata.category(letter) in ('Cc', 'Cf')
            for letter in missing
        ), (line, missing)


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('  Café\tNAÏVE  ', ['Café', 'NAÏVE']),
        ('e\u0301te\u0301', ['e\u0301te\u0301']),
        ("``x''", ['``', 'x', "''"]),
        ('ﬁne', ['ﬁne']),
        ('5, 6', ['5', ',', '6']),
    ],
)
def test_offsets_by_hand(text, expected, released):
    _, offsets = released.encode_with_offsets([text])[0]
    assert [text[start:end] for start, end in offsets if start < end] == expected


@pytest.mark.parametrize('keep_case', [False, True])
@pytest.mark.parametrize('keep_accents', [False, True])
def test_alignment_gives_the_normalised_text(keep_case, keep_accents):
    normalization = Normalization(keep_case, keep_accents)
    for line in [*real_lines()[::7], *ODD_LINES[:-2]]:
        text, starts, ends = normalization.align(line)
        assert text == normalization(line)
        assert len(text) == len(starts) == len(ends)
        assert (starts < ends).all() or not text
        assert (np.diff(starts) >= 0).all()


def test_decoding_gives_readable_text(released):
    for text in ('the quick brown fox, in 2,000 years, "jumped" (twice).', 'a well-known e-mail'):
        assert released.decode(released.encode([text])[0]) == text


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
def test_albert_tokenizer_of_transformers_agrees_with_the_file(released, hugging_face, tmp_path):
    transformers = pytest.importorskip('transformers', reason='needs the extra reference')
    lines = real_lines()
    for keep_case in (False, True):
        tokenizer = Tokenizer(released.model, Normalization(keep_case=keep_case))
        huggingface_tokenizer.write(tokenizer, 512, tmp_path)
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
        assert type(theirs).__name__ == 'AlbertTokenizer'
        found = theirs(lines, add_special_tokens=False)['input_ids']
        if keep_case:
            same = sum(a == b for a, b in zip(found, tokenizer.encode(lines), strict=True))
            assert same > 0.97 * len(lines)
        else:
            encoded = hugging_face.encode_batch(lines, add_special_tokens=False)
            assert found == [one.ids for one in encoded]
    # Why tokenizer.json is written: from spiece.model alone transformers makes something else.
    for name in ('tokenizer.json', 'tokenizer_config.json'):
        (tmp_path / name).unlink()
    bare = transformers.AlbertTokenizer.from_pretrained(tmp_path)
    ids = bare(lines, add_special_tokens=False)['input_ids']
    differing = sum(a != b for a, b in zip(ids, released.encode(lines), strict=True))
    print(f'{differing} of {len(lines)} lines differ from a bare spiece.model')
    assert differing > 0.5 * len(lines)
