import itertools

import numpy as np
import pytest

from albert_jax.cli.errors import UserError
from albert_jax.data.normalization import Normalization
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.data.vocabulary import train_vocabulary
from tests.conftest import documents, shared_data


@pytest.fixture(scope='module')
def released() -> Tokenizer:
    return Tokenizer.from_file(shared_data('spm/30k-clean.model'))


@pytest.fixture(scope='module')
def trained(vocabulary) -> Tokenizer:
    return Tokenizer(vocabulary)


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('  Two\t words \n', 'two words'),
        ("``Quoted''", '"quoted"'),
        ('Café naïve Ångström', 'cafe naive angstrom'),
        ('ﬁne Ⅷ ①', 'fine viii 1'),
        ('ガ', 'カ'),
        ('', ''),
    ],
)
def test_normalization(text, expected):
    assert Normalization()(text) == expected


def test_case_and_accents_can_be_kept():
    assert Normalization(keep_case=True)('Café') == 'Cafe'
    assert Normalization(keep_accents=True)('Café') == 'café'
    assert Normalization(True, True)('Café  ガ') == 'Café ガ'


def test_released_vocabulary_gives_the_published_ids(released):
    assert released.encode(['this is a test']) == [[48, 25, 21, 1289]]
    specials = ('pad', 'unk', 'cls', 'sep', 'mask')
    assert [getattr(released, f'{name}_id') for name in specials] == [0, 1, 2, 3, 4]
    assert released.vocab_size == 30000


def test_digit_comma_is_cut(released):
    def pieces(text):
        return [released.pieces[index] for index in released.encode([text])[0]]

    assert released._recut, 'the released vocabulary has such pieces'
    for text in ('in 2,000 years', 'on 9, then', '1,2,3', 'may 5, 1999,'):
        assert not any(len(p) > 1 and p[-1] == ',' and p[-2].isdigit() for p in pieces(text))
        assert released.decode(released.encode([text])[0]).replace(' ', '') == text.replace(' ', '')


def test_words_start_where_the_recipe_says(released):
    starts = dict(zip(released.pieces, released.starts_word, strict=True))
    assert starts['▁the'] and starts['▁'] and starts['<unk>'] and starts['.'] and starts['-']
    assert not starts['ing'] and not starts['s']
    digits = [piece for piece in released.pieces if piece.isdigit()]
    assert digits and all(starts[piece] for piece in digits)


def test_ordinary_ids_leave_out_the_special_pieces(trained):
    special = {trained.pad_id, trained.unk_id, trained.cls_id, trained.sep_id, trained.mask_id}
    assert special.isdisjoint(trained.ordinary_ids.tolist())
    assert len(trained.ordinary_ids) == trained.vocab_size - 5


def test_training_has_alberts_special_pieces_and_is_repeatable(vocabulary, trained):
    assert trained.pieces[:5] == ['<pad>', '<unk>', '[CLS]', '[SEP]', '[MASK]']
    assert set('()"-.–£€') <= set(trained.pieces)
    assert len(trained.pieces) == 1000
    sentences = [Normalization()(text) for text in documents()[:20]]
    assert train_vocabulary(sentences, 200) == train_vocabulary(sentences, 200)


def test_decoding_gives_readable_text_back(trained):
    text = 'the import statement is executed (twice).'
    assert trained.decode(trained.encode([text])[0]) == text


def test_masks_in_a_text(trained):
    ids = trained.encode_with_masks('the [MASK] statement [MASK]')
    assert [index == trained.mask_id for index in ids].count(True) == 2
    assert ids[-1] == trained.mask_id
    assert trained.encode_with_masks('the')[0] == trained.encode(['the'])[0][0]


def test_too_small_a_corpus_is_told_with_the_size_that_would_do():
    with pytest.raises(UserError, match='too small for a vocabulary of 5000 pieces; set'):
        train_vocabulary(['a few words only', 'and some more'], 5000)


def test_a_foreign_or_missing_vocabulary_is_refused(tmp_path):
    import io

    import sentencepiece

    with pytest.raises(UserError, match='cannot be read: No such file'):
        Tokenizer.from_file(tmp_path / 'missing.model')
    (tmp_path / 'text.model').write_text('not a model')
    with pytest.raises(UserError, match='is not a SentencePiece model'):
        Tokenizer.from_file(tmp_path / 'text.model')
    (tmp_path / 'empty.model').write_bytes(b'')
    with pytest.raises(UserError):
        Tokenizer.from_file(tmp_path / 'empty.model')
    foreign = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(documents()[:20]), model_writer=foreign, vocab_size=300,
        minloglevel=2,
    )  # fmt: skip
    with pytest.raises(UserError, match='has no piece <pad>; it is not a vocabulary of ALBERT'):
        Tokenizer(foreign.getvalue())


def test_starts_word_covers_the_vocabulary(trained):
    assert trained.starts_word.shape == (trained.vocab_size,)
    assert trained.starts_word.dtype == np.bool_


@pytest.mark.parametrize(
    'text',
    [
        '  The Import\tSTATEMENT  is e\u0301xecuted, twice (2). ',
        "``Quoted'' na\u00efve \u00c5ngstr\u00f6m",
        'ﬁne ½ … a\u0301\u0301 b',
        'zero\u200bwidth \ufeffmark a\x0bb',
        '',
        ' \n ',
        'x' * 5000,
    ],
)
def test_offsets_are_slices_of_the_original(text, trained):
    ids, offsets = trained.encode_with_offsets([text])[0]
    assert ids == trained.encode([text])[0]
    clean = trained._processor.normalize
    covered = ''
    for index, (start, end) in zip(ids, offsets, strict=True):
        part = text[start:end]
        if index != trained.unk_id:
            found = clean(trained.normalization(part)).lstrip('▁')
            shown = trained.pieces[index].lstrip('▁')
            is_expanded = any(len(trained.normalization(letter)) > 1 for letter in part)
            assert found == shown or (is_expanded and shown in found)
        covered += part
    # An accent stays with its letter.
    assert 'e\u0301' not in text or 'e\u0301' in covered
    for first, second in itertools.pairwise(offsets):
        assert first[0] <= second[0] and first[1] <= second[1]
