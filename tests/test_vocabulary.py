"""Training a vocabulary: nothing of the text is left out without a word, and advice that helps."""

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from albert_jax import prepare
from albert_jax.cli.errors import UserError
from albert_jax.data.dataset import PreparedCorpus
from albert_jax.data.normalization import Normalization
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.data.vocabulary import train_vocabulary
from tests.conftest import documents


def syllables(alphabet: str, count: int) -> list[str]:
    """Words of one to three letters of an alphabet."""
    rng = random.Random(0)
    return [''.join(rng.choices(alphabet, k=rng.randint(1, 3))) for _ in range(count)]


def thai() -> str:
    words = syllables(''.join(map(chr, range(0xE01, 0xE2F))), 300)
    return ''.join(random.Random(1).choices(words, k=8000))


def transcript() -> str:
    return ' '.join(random.Random(1).choices(syllables('abcdefghij', 300), k=8000))


def dna() -> str:
    return ''.join(random.Random(1).choices('ACGT', k=20_000))


@pytest.mark.parametrize('make', [thai, transcript, dna])
def test_a_text_of_one_long_line_is_learnt_from(make: Callable[[], str]) -> None:
    text = Normalization()(make())
    assert len(text.encode()) > 4 * 4192
    tokenizer = Tokenizer(train_vocabulary([text], 140))
    ids = tokenizer.encode([text])[0]
    assert tokenizer.unk_id not in ids
    # Pieces are of several characters, and not the alphabet alone.
    assert len(ids) < 0.9 * len(text)


def test_long_sentences_count_beside_short_ones() -> None:
    short = ['one two three four five six seven'] * 50
    long = ' '.join(['ζηθ λμν ξοπ'] * 500)
    tokenizer = Tokenizer(train_vocabulary([*short, long], 40))
    assert tokenizer.unk_id not in tokenizer.encode([long])[0]


def test_where_a_long_sentence_is_cut_is_told_unless_there_is_a_space(
    capsys: pytest.CaptureFixture[str],
) -> None:
    train_vocabulary([transcript()], 60)
    assert not capsys.readouterr().err
    train_vocabulary([dna()], 60)
    # 20,000 characters in parts of 128.
    assert capsys.readouterr().err == (
        'note: to train the vocabulary, long sentences were cut in 156 places where there is no '
        'space.\n'
    )


def test_a_character_that_sentencepiece_reserves_costs_no_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bars = ['load ▁▂▃▄▅▆▇█ rising ▅'] * 20
    tokenizer = Tokenizer(train_vocabulary([*documents()[:10], *bars], 200))
    assert 'note: 40 characters ▅ (U+2585)' in capsys.readouterr().err
    assert {'▂', '▃', '▄', '▆', '▇', '█'} <= set(''.join(tokenizer.pieces))


def test_sampling_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    train_vocabulary(['one two three'] * 150, 22, num_sentences=101)
    assert 'trained on a sample of 101 of 150 sentences' in capsys.readouterr().err


def test_short_sentences_give_the_same_vocabulary_to_the_bit() -> None:
    """As SentencePiece alone, for lengths up to its own limit."""
    import io

    import sentencepiece

    texts = [('statement import ' * 300)[:4192], ('ガ' * 1397), *documents()[:15]]
    sentences = [part for text in texts for part in text.splitlines() if len(part.encode()) <= 4192]
    assert max(len(sentence.encode()) for sentence in sentences) == 4192
    alone = io.BytesIO()
    sentencepiece.set_random_generator_seed(0)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=alone, model_type='unigram',
        vocab_size=200, pad_id=0, unk_id=1, bos_id=-1, eos_id=-1,
        control_symbols=['[CLS]', '[SEP]', '[MASK]'], user_defined_symbols=list('()"-.–£€'),
        character_coverage=0.99995, input_sentence_size=10_000_000, shuffle_input_sentence=True,
        num_threads=8, minloglevel=2,
    )  # fmt: skip
    assert train_vocabulary(sentences, 200) == alone.getvalue()


@pytest.mark.parametrize(
    ('sentences', 'vocab_size'),
    [
        (['a few words only', 'and some more'], 5000),
        ([thai()], 30_000),
        ([dna()], 30_000),
        (['a' * 10_000], 500),
        ([chr(0x4E00 + number) * 3 for number in range(800)], 100),
    ],
)
def test_the_size_that_is_advised_works(sentences: list[str], vocab_size: int) -> None:
    with pytest.raises(UserError, match=r'--vocab_size to (at most )?\d+') as refused:
        train_vocabulary(sentences, vocab_size)
    advised = re.search(r'--vocab_size to (?:at most )?(\d+)', str(refused.value))
    assert advised is not None
    assert Tokenizer(train_vocabulary(sentences, int(advised[1]))).vocab_size == int(advised[1])


@pytest.mark.parametrize('sentences', [[], [''], ['\u200b', '\ufeff \u200b']])
def test_a_text_of_which_nothing_is_left_is_refused(sentences: list[str]) -> None:
    with pytest.raises(UserError, match='No text for a vocabulary is left after normalisation'):
        train_vocabulary(sentences, 100)


@pytest.mark.parametrize('vocab_size', [0, -3])
def test_a_vocabulary_without_pieces_is_refused(vocab_size: int) -> None:
    with pytest.raises(UserError, match=f'--vocab_size is {vocab_size}; it must be above 0'):
        train_vocabulary(['some text'], vocab_size)


# The report of prepare.


def prepared(folder: Path, text: str, *flags: str) -> PreparedCorpus:
    (folder / 'text.txt').write_text(text, 'utf-8')
    arguments = [f'--input=text:{folder}/text.txt', f'--output={folder}/corpus', '--workers=1']
    assert prepare.main([*arguments, '--sequence_length=32', *flags]) == 0
    return PreparedCorpus(folder / 'corpus')


def test_prepare_takes_text_without_sentences_and_tells_the_share_of_unknown_tokens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = '\n\n'.join([thai(), transcript()])
    corpus = prepared(tmp_path, texts, '--vocabulary=train', '--vocab_size=200')
    assert 'tokens_unknown' not in corpus.manifest['counts']
    vocabulary = tmp_path / 'corpus' / 'vocabulary.model'
    (tmp_path / 'other').mkdir()
    capsys.readouterr()
    other = prepared(tmp_path / 'other', 'ζηθ λμν', f'--vocabulary={vocabulary}')
    output = capsys.readouterr()
    # Each word is one unknown token after its space.
    assert other.manifest['counts']['tokens_unknown'] == 2
    assert '2 (50.00%)' in output.out
    assert '50.0% of the tokens are unknown' in output.err


def test_documents_and_sentences_of_which_nothing_is_left_are_counted(
    tmp_path: Path, vocabulary: bytes
) -> None:
    (tmp_path / 'v.model').write_bytes(vocabulary)
    texts = ['A sentence.\n\u200b\n\u0301\nAnother one.', '\ufeff\u200b', '\x01\n\u0301', ' ']
    corpus = prepared(
        tmp_path, '\n\n'.join(texts), f'--vocabulary={tmp_path}/v.model', '--validation_fraction=0'
    )
    counts = corpus.manifest['counts']
    assert counts['documents_read'] == 3
    assert counts['documents'] == counts['documents/train'] == 1
    assert counts['documents_empty'] == 2
    assert counts['sentences/train'] == 2
    assert counts['sentences_empty'] == 2
