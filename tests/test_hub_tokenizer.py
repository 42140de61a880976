import pytest

from albert_jax.cli.errors import UserError
from albert_jax.data.hub_tokenizer import HubTokenizer
from albert_jax.interop.metadata import CheckpointMetadata
from albert_jax.model.config import AlbertConfig

VOCABULARY = '\n'.join(
    ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'un', '##aff', '##able', 'the', ',', '中', 'é']
)


@pytest.fixture(scope='module')
def tokenizer() -> HubTokenizer:
    return HubTokenizer.from_wordpiece(VOCABULARY + '\n')


def test_the_example_of_the_bert_paper(tokenizer):
    ids, offsets = tokenizer.encode_with_offsets(['The  UNaffable, zzz中'])[0]
    pieces = [tokenizer.pieces[index] for index in ids]
    assert pieces == ['the', 'un', '##aff', '##able', ',', '[UNK]', '中']
    text = 'The  UNaffable, zzz中'
    slices = [text[start:end] for start, end in offsets]
    assert slices == ['The', 'UN', 'aff', 'able', ',', 'zzz', '中']
    assert tokenizer.encode([text, '']) == [ids, []]
    assert tokenizer.decode(ids[:5]) == 'the unaffable,'


def test_case_and_accents(tokenizer):
    cased = HubTokenizer.from_wordpiece(VOCABULARY, keep_case=True)
    assert cased.encode(['The']) == [[cased.unk_id]]
    assert tokenizer.encode(['é']) == [[tokenizer.unk_id]]
    kept = HubTokenizer.from_wordpiece(VOCABULARY, keep_accents=True)
    assert kept.encode(['É']) == [[kept.pieces.index('é')]]


def test_special_pieces_and_masks(tokenizer):
    specials = ('pad', 'unk', 'cls', 'sep', 'mask')
    assert [getattr(tokenizer, f'{name}_id') for name in specials] == [0, 1, 2, 3, 4]
    assert tokenizer.encode_with_masks('the [MASK],') == [8, 4, 9]
    assert tokenizer.vocab_size == len(tokenizer.pieces) == 12


def test_it_travels_in_a_checkpoint(tokenizer):
    about = CheckpointMetadata({}, AlbertConfig(), tokenizer, {})
    again = CheckpointMetadata.from_json(about.to_json()).tokenizer
    assert again is not None and again.sha256 == tokenizer.sha256
    assert again.encode(['the']) == [[8]]
    assert (
        CheckpointMetadata.from_json(
            CheckpointMetadata({}, AlbertConfig(), None, {}).to_json()
        ).tokenizer
        is None
    )


def test_what_is_no_vocabulary_is_refused():
    with pytest.raises(UserError, match=r'vocab.txt has no piece \[UNK\]; it is not a WordPiece'):
        HubTokenizer.from_wordpiece('a\nb', origin='vocab.txt')
    with pytest.raises(UserError, match='x is not a tokenizer.json'):
        HubTokenizer('{"model": 3}', 'x')
    with pytest.raises(UserError, match=r'has no piece \[MASK\]'):
        HubTokenizer.from_wordpiece(VOCABULARY.replace('[MASK]', 'mask'))
