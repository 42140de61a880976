"""Any text, bytes and records: tokenizer offsets, chunks, document readers and shards."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from albert_jax.cli.errors import UserError
from albert_jax.data import corpus, documents
from albert_jax.data.corpus import Source
from albert_jax.data.dataset import shard_bounds
from albert_jax.data.documents import pack, split_sentences
from albert_jax.data.hub_tokenizer import AnyTokenizer, HubTokenizer
from albert_jax.data.normalization import Normalization
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.tasks.batches import eval_batches
from albert_jax.tasks.features import Features
from albert_jax.tasks.tables import split_lines

# All characters but halves of surrogate pairs, the odd ones often.
_ODD = st.sampled_from(
    list(' \n\t\u200b\ufeff\u0301\x00\x01\x85\u2028▁▅İΣßﬁ½ガ한각中é\U0001f600[]`\'",.19a')
)
_TEXT = st.text(_ODD | st.characters(exclude_categories=['Cs']), max_size=40)


@pytest.fixture(scope='module')
def tokenizers(vocabulary: bytes) -> list[AnyTokenizer]:
    pieces = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a', '##a', '中', '.', ',', '1', '##9']
    return [
        *(Tokenizer(vocabulary, Normalization(kept, kept)) for kept in (False, True)),
        HubTokenizer.from_wordpiece('\n'.join(pieces)),
    ]


@given(text=_TEXT)
@example(text='\u0301')
@example(text='İΣ ΑΣ')
def test_offsets_lie_in_the_text_in_order_and_cover_what_is_kept(
    text: str, tokenizers: list[AnyTokenizer]
) -> None:
    for tokenizer in tokenizers:
        ids, offsets = tokenizer.encode_with_offsets([text])[0]
        assert ids == tokenizer.encode([text])[0]
        assert isinstance(tokenizer.decode(ids), str)
        assert all(0 <= index < tokenizer.vocab_size for index in ids)
        assert all(0 <= begin <= end <= len(text) for begin, end in offsets)
        assert [begin for begin, _ in offsets] == sorted(begin for begin, _ in offsets)
        covered = {place for begin, end in offsets for place in range(begin, end)}
        for place, letter in enumerate(text):
            # One that alone makes no piece but the space that starts a text is not kept.
            if any(tokenizer.pieces[i] != '▁' for i in tokenizer.encode([letter])[0]):
                assert place in covered, (text, place)


@given(text=_TEXT)
def test_masks_are_counted_whatever_is_around_them(
    text: str, tokenizers: list[AnyTokenizer]
) -> None:
    for tokenizer in tokenizers:
        ids = tokenizer.encode_with_masks(f'{text}[MASK]{text}[MASK]')
        assert ids.count(tokenizer.mask_id) == 2 + 2 * text.count('[MASK]')


@given(text=_TEXT)
@pytest.mark.parametrize('kept', [False, True])
def test_each_normalised_character_has_its_place(kept: bool, text: str) -> None:
    normalization = Normalization(kept, kept)
    aligned = normalization.align(text)
    assert aligned.text == normalization(text)
    assert len(aligned.text) == len(aligned.starts) == len(aligned.ends)


@given(text=_TEXT)
def test_sentences_lose_nothing_but_white_space(text: str) -> None:
    assert ''.join(''.join(split_sentences(text)).split()) == ''.join(text.split())


# Each needs what is beside it: abbreviations, quotations, brackets, references, list markers.
_PHRASES = {
    'en': ['It is so. ', 'He said “Go. Now.” Then. ', '(See p. 3. It is.) ', 'wait... what? ',
           'Dr. Who came at 5 p.m. on Jan. 5. ', 'A "b. C" d! ', 'See [1]. [2] ', 'a@b.com. ',
           'No end here ', 'U.S.A. is. ', "It's 'so. Not' it. ", '\xa0x. '],
    'ja': ['あ。', '「あ。い。」と。', '（う。え）お。', 'え！！', 'か', 'Dr. A。', '“あ。” '],
    'zh': ['他说。', '“好。”他说。', '（好。）吧！', '啊？？', '中', 'A.B。'],
}  # fmt: skip


@given(data=st.data())
@pytest.mark.parametrize('language', sorted(_PHRASES))
def test_sentences_of_windows_are_those_of_the_whole_paragraph(
    language: str, data: st.DataObject
) -> None:
    phrases = st.lists(st.sampled_from(_PHRASES[language]), min_size=40, max_size=120)
    paragraph = ''.join(data.draw(phrases))
    in_windows = list(documents._segment(language, paragraph, window=200))
    assert in_windows == documents.segment(language, paragraph)


@given(text=_TEXT.filter(bool), window=st.integers(2, 10))
def test_windows_lose_nothing_of_any_text(text: str, window: int) -> None:
    parts = list(documents._segment('ja', text, window))
    assert ''.join(parts) == text and all(parts)


@pytest.mark.parametrize(
    ('unit', 'num_sentences'), [('あ。', 60_000), ('「あ。」', 30_000), ('いろ', 1), ('a b ', 1)]
)
def test_long_paragraphs_are_segmented_in_linear_time(
    unit: str, num_sentences: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sentencex's time grows with the square of what it is given."""
    given_lengths = []

    def segment(language: str, text: str) -> list[str]:
        given_lengths.append(len(text))
        return [text] if num_sentences == 1 else [unit] * (len(text) // len(unit))

    monkeypatch.setattr(documents, 'segment', segment)
    paragraph = unit * (120_000 // len(unit))
    assert len(split_sentences(paragraph)) == num_sentences
    assert max(given_lengths) <= 20_000 and sum(given_lengths) < 3 * len(paragraph)


def _naive_pack(
    sentences: list[list[int]], capacity: int, starts_word: np.ndarray
) -> Iterator[tuple[list[int], list[int]]]:
    """The first implementation, whose time grows with the square of a sentence."""
    tokens: list[int] = []
    ends: list[int] = []
    for whole in sentences:
        parts, sentence = [], whole
        while len(sentence) > capacity:
            words = np.flatnonzero(starts_word[sentence[: capacity + 1]])
            last_word = int(words[-1]) if words.size else 0
            end = last_word if last_word > capacity * 0.5 else capacity
            parts.append(sentence[:end])
            sentence = sentence[end:]
        for part in [*parts, sentence] if sentence else parts:
            if len(tokens) + len(part) > capacity:
                yield tokens, ends
                tokens, ends = [], []
            tokens = tokens + part
            ends = [*ends, len(tokens)]
    if tokens:
        yield tokens, ends


@given(
    sentences=st.lists(st.lists(st.integers(0, 5), max_size=60), max_size=8),
    capacity=st.integers(1, 20),
    starts_word=st.lists(st.booleans(), min_size=6, max_size=6),
)
def test_chunks_are_those_of_the_first_implementation(
    sentences: list[list[int]], capacity: int, starts_word: list[bool]
) -> None:
    is_start = np.array(starts_word)
    chunks = list(pack(sentences, capacity, is_start))
    assert chunks == list(_naive_pack(sentences, capacity, is_start))
    assert sum((tokens for tokens, _ in chunks), []) == sum(sentences, [])


@given(content=st.binary(max_size=60) | _TEXT.map(str.encode), is_file=st.booleans())
def test_any_bytes_are_documents_of_text_or_refused(
    content: bytes, is_file: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / 'any.txt'
    path.write_bytes(content)
    try:
        read = list(Source('text', str(path), is_file_document=is_file).documents())
    except UserError as error:
        assert 'line' in str(error)
        return
    text = content.decode('utf-8-sig')
    assert ''.join(''.join(read).split()) == ''.join(text.split())


@given(content=st.text('ab\r\n', max_size=30), size=st.integers(1, 8), is_packed=st.booleans())
def test_the_lines_of_a_corpus_are_those_of_tables_however_they_are_read(
    content: str, size: int, is_packed: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / ('lines.txt.gz' if is_packed else 'lines.txt')
    path.write_bytes(gzip.compress(content.encode()) if is_packed else content.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, '_CHUNK_BYTES', size)
        read = [line for _, line in corpus.numbered_lines(str(path))]
    assert ''.join(read) == content
    lines = split_lines(content)
    assert [line.rstrip('\r\n') for line in read] == [
        line.rstrip('\r') for line in (lines if lines[-1] else lines[:-1])
    ]


@given(lines=st.lists(_TEXT.map(lambda text: json.dumps({'text': text})) | _TEXT, max_size=5))
def test_each_json_line_is_a_document_or_refused(
    lines: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path: Path = tmp_path_factory.getbasetemp() / 'any.jsonl'
    path.write_text(''.join(f'{line}\n' for line in lines), 'utf-8', newline='')
    try:
        read = list(Source('jsonl', str(path)).documents())
    except UserError as error:
        assert 'line' in str(error)
        return
    given_lines = ''.join(f'{line}\n' for line in lines).split('\n')
    assert len(read) == sum(bool(line.strip()) for line in given_lines)


@given(sizes=st.lists(st.integers(1, 400), max_size=60))
def test_every_record_is_in_one_shard(sizes: list[int]) -> None:
    lengths = np.array(sizes, np.int64) * 2**20
    bounds = shard_bounds(lengths)
    assert [index for first, last in bounds for index in range(first, last)] == list(
        range(len(sizes))
    )


@given(lengths=st.lists(st.integers(2, 30), min_size=1, max_size=40), batch_size=st.integers(1, 9))
def test_every_example_is_in_one_batch_as_it_is(lengths: list[int], batch_size: int) -> None:
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = np.arange(1, starts[-1] + 1, dtype=np.int32)
    features = Features(ids, starts, np.array(lengths, np.int32))
    seen: list[int] = []
    for numbers, batch in eval_batches(features, batch_size, 30, 0):
        seen += numbers.tolist()
        assert batch['weights'].sum() == len(numbers)
        for row, number in enumerate(numbers):
            mask = batch['attention_mask'][row].astype(bool)
            assert batch['input_ids'][row][mask].tolist() == features.sequence(int(number)).tolist()
            assert not batch['input_ids'][row][~mask].any()
    assert sorted(seen) == list(range(len(lengths)))
