"""Pieces as a person writes them, in SentencePiece and WordPiece."""

import pytest

from albert_jax.cli.errors import UserError
from albert_jax.data.added_tokens import AddedToken
from albert_jax.data.hub_tokenizer import HubTokenizer
from albert_jax.data.piece_text import find_piece, piece_text
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.pretraining.fill_mask import Candidate, show

PIECES = {
    '▁the': 'the', 'ing': '##ing', '▁': '␣', '.': '.', '▁[': '[', '3': '##3', 'äng': '##äng',
    '▁é': 'é', '的': '的', '▁of▁the': 'of the', '[MASK]': '[MASK]', '<unk>': '<unk>', "'s": "'s",
}  # fmt: skip


@pytest.mark.parametrize(('piece', 'text'), PIECES.items())
def test_a_piece_of_sentencepiece_is_shown_as_written(piece, text):
    tokenizers = pytest.importorskip('tokenizers')
    vocabulary = ['<pad>', '[CLS]', '[SEP]', '<unk>', *(p for p in PIECES if p != '<unk>')]
    model = tokenizers.models.Unigram([(p, -1.0) for p in vocabulary], unk_id=3)
    backend = tokenizers.Tokenizer(model)
    backend.add_tokens(['added'])
    tokenizer = HubTokenizer(backend.to_str())
    assert piece_text(tokenizer, vocabulary.index(piece)) == text
    assert piece_text(tokenizer, len(vocabulary)) == 'added'
    # What is shown is found again; so is the piece as the vocabulary has it.
    assert find_piece(tokenizer, text) == vocabulary.index(piece)
    assert find_piece(tokenizer, piece) == vocabulary.index(piece)
    with pytest.raises(UserError, match="'theing' is no piece of the vocabulary; give one that fi"):
        find_piece(tokenizer, 'theing')


def test_a_piece_of_wordpiece_stays_as_it_is():
    pytest.importorskip('tokenizers')
    vocabulary = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'the', '##ing', '.', '的']
    tokenizer = HubTokenizer.from_wordpiece('\n'.join(vocabulary))
    assert [piece_text(tokenizer, index) for index in range(9)] == vocabulary


def test_every_piece_of_a_vocabulary_has_a_text(vocabulary, tokenizer):
    for index, piece in enumerate(tokenizer.pieces):
        text = piece_text(tokenizer, index)
        assert text and '▁' not in text and text == text.strip()
        is_word = piece.startswith('▁') or not piece[0].isalnum()
        assert text.startswith('##') != is_word
    index = tokenizer.pieces.index(next(p for p in tokenizer.pieces if p.isalpha()))
    added = [AddedToken(tokenizer.pieces[index], index), AddedToken('New', len(tokenizer.pieces))]
    extended = Tokenizer(vocabulary, added_tokens=added)
    assert piece_text(extended, index) == tokenizer.pieces[index]
    assert piece_text(extended, len(tokenizer.pieces)) == 'New'


def test_a_text_is_shown_whole_and_as_it_is(capsys, monkeypatch):
    monkeypatch.setenv('COLUMNS', '40')
    text = f'A [bold] [MASK] :smile: {"word " * 20}.'
    show(text, [[Candidate('▁[x]', 0.5, '[x]'), Candidate(':a:', 0.25, ':a:')]])
    said = capsys.readouterr().out
    assert f'\n{text}\n' in said
    assert '[x]' in said and '50.0%' in said and 'word' in said
