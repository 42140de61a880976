"""Tokens that were added to a vocabulary: read from each file, found in texts, written again."""

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import albert_jax
from albert_jax.cli.errors import UserError
from albert_jax.data.added_tokens import AddedToken
from albert_jax.data.hub_tokenizer import HubTokenizer
from albert_jax.data.normalization import Normalization
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.distillation.teacher import has_same_vocabulary
from albert_jax.interop import conversion, exported, huggingface_tokenizer, native, source
from albert_jax.model.heads import Head
from tests.huggingface_files import add_rows, assert_same_model, edit_json, make_model

WORDPIECE = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'the', 'a', 'b', '##b', 'import']
TEXT = 'The [E1] import[E2]a <e3>'


def tokens_from(first: int) -> dict[str, dict]:
    """By their ids: one of each of the usual kinds."""
    plain = {'lstrip': False, 'rstrip': False, 'single_word': False}
    return {
        str(first): {'content': '[E1]', 'normalized': False, 'special': True, **plain},
        str(first + 1): {'content': '[E2]', 'normalized': False, 'special': False, **plain},
        str(first + 2): {'content': '<e3>', 'normalized': True, 'special': False, **plain},
    }


def as_decoder(directory: Path, first: int) -> None:
    edit_json(directory / 'tokenizer_config.json', added_tokens_decoder=tokens_from(first))
    (directory / 'tokenizer.json').unlink(missing_ok=True)


def as_legacy(directory: Path, first: int) -> None:
    ids = {'[E2]': first + 1, '[E1]': first, '<e3>': first + 2}
    (directory / 'added_tokens.json').write_text(json.dumps(ids))
    special = {'additional_special_tokens': ['[E1]'], 'mask_token': {'content': '[MASK]'}}
    (directory / 'special_tokens_map.json').write_text(json.dumps(special))
    (directory / 'tokenizer.json').unlink(missing_ok=True)


def as_definition(directory: Path, first: int) -> None:
    file = directory / 'tokenizer.json'
    content = json.loads(file.read_text())
    content['added_tokens'] += [{'id': int(i), **t} for i, t in tokens_from(first).items()]
    file.write_text(json.dumps(content))


SOURCES = [as_decoder, as_legacy, as_definition]


@pytest.fixture
def directory(vocabulary, tmp_path) -> Path:
    conversion.convert(make_model(vocabulary), tmp_path / 'hf', 'huggingface')
    add_rows(tmp_path / 'hf', 3)
    return tmp_path / 'hf'


def make_wordpiece(directory: Path) -> None:
    """Puts a WordPiece vocabulary in place of the SentencePiece model."""
    for name in ('spiece.model', 'tokenizer.json'):
        (directory / name).unlink()
    settings = {'do_lower_case': True, 'tokenizer_class': 'BertTokenizer'}
    (directory / 'tokenizer_config.json').write_text(json.dumps(settings))
    (directory / 'vocab.txt').write_text('\n'.join(WORDPIECE) + '\n')
    tokenizer = HubTokenizer.from_wordpiece('\n'.join(WORDPIECE))
    (directory / 'tokenizer.json').write_text(tokenizer.definition)


@pytest.mark.parametrize('add', SOURCES)
@pytest.mark.parametrize('is_wordpiece', [False, True], ids=['sentencepiece', 'wordpiece'])
def test_added_tokens_are_read_kept_whole_and_travel(add, is_wordpiece, directory, tmp_path):
    first = 1000
    if is_wordpiece:
        make_wordpiece(directory)
        first = len(WORDPIECE)
    add(directory, first)
    model = source.load(directory)
    native.write(model, tmp_path)
    conversion.convert(model, tmp_path / 'again', 'huggingface')
    for loaded in (model, albert_jax.load(tmp_path), albert_jax.load(tmp_path / 'again')):
        tokenizer = loaded.tokenizer
        assert type(tokenizer) is (HubTokenizer if is_wordpiece else Tokenizer)
        assert tokenizer.vocab_size == first + 3
        assert tokenizer.pieces[first:] == ['[E1]', '[E2]', '<e3>']
        ids, offsets = tokenizer.encode_with_offsets([TEXT])[0]
        assert tokenizer.encode([TEXT]) == [ids]
        places = {TEXT[s:e]: i for i, (s, e) in zip(ids, offsets, strict=True) if i >= first}
        assert places == {'[E1]': first, '[E2]': first + 1, '<e3>': first + 2}
        slices = [TEXT[s:e] for s, e in offsets if s < e]
        assert ''.join(slices) == TEXT.replace(' ', '')
        assert '[E1]' in tokenizer.decode(ids) and 'import' in tokenizer.decode(ids)
        # What is between them is cut as a text of its own.
        assert tokenizer.encode(['a[E1]a'])[0] == [
            *tokenizer.encode(['a'])[0], first, *tokenizer.encode(['a'])[0],
        ]  # fmt: skip
        masked = tokenizer.encode_with_masks('[E1] [MASK]')
        assert masked == [first, tokenizer.mask_id]
    if not is_wordpiece:
        assert_same_model(albert_jax.load(tmp_path), model)
        assert_same_model(albert_jax.load(tmp_path / 'again'), model)
    legacy = json.loads((tmp_path / 'again' / 'added_tokens.json').read_text())
    assert legacy == {'[E1]': first, '[E2]': first + 1, '<e3>': first + 2}


def test_a_pieces_file_holds_no_added_tokens(directory, tmp_path):
    make_wordpiece(directory)
    as_legacy(directory, len(WORDPIECE))
    conversion.convert(albert_jax.load(directory), tmp_path / 'again', 'huggingface')
    assert (tmp_path / 'again' / 'vocab.txt').read_text().split() == WORDPIECE


def test_without_added_tokens_nothing_is_written_about_them(vocabulary, tmp_path):
    conversion.convert(make_model(vocabulary), tmp_path / 'hf', 'huggingface')
    assert not (tmp_path / 'hf' / 'added_tokens.json').exists()
    assert 'added_tokens_decoder' not in (tmp_path / 'hf' / 'tokenizer_config.json').read_text()
    # What transformers says of the special pieces changes nothing.
    special = {'content': '[MASK]', 'lstrip': True, 'special': True}
    edit_json(tmp_path / 'hf' / 'tokenizer_config.json', added_tokens_decoder={'4': special})
    (tmp_path / 'hf' / 'added_tokens.json').write_text('{"[MASK]": 4}')
    assert albert_jax.load(tmp_path / 'hf').tokenizer.added_tokens == ()


def test_symbols_that_the_model_keeps_whole_are_left_to_it(directory):
    """transformers 5 saves them as added tokens, with spaces after them."""
    before = albert_jax.load(directory).tokenizer
    index = before.pieces.index('-')
    token = {'content': '-', 'special': True}
    edit_json(directory / 'tokenizer_config.json', added_tokens_decoder={str(index): token})
    assert albert_jax.load(directory).tokenizer.added_tokens == ()
    # Another piece of the vocabulary that is said to be a token is one.
    index = before.pieces.index('▁the')
    token = {'content': '▁the', 'special': True}
    edit_json(directory / 'tokenizer_config.json', added_tokens_decoder={str(index): token})
    tokenizer = albert_jax.load(directory).tokenizer
    assert tokenizer.encode(['x▁the']) == [[*before.encode(['x'])[0], index]]
    assert tokenizer.vocab_size == 1000


@pytest.mark.parametrize('add', SOURCES)
def test_tokens_without_embeddings_are_text_and_told(add, vocabulary, tmp_path, capsys):
    """Added to the tokenizer, but not to the model: its other texts are read as before."""
    conversion.convert(make_model(vocabulary), tmp_path / 'hf', 'huggingface')
    plain = albert_jax.load(tmp_path / 'hf').tokenizer
    add(tmp_path / 'hf', 1000)
    assert not capsys.readouterr().err
    tokenizer = albert_jax.load(tmp_path / 'hf').tokenizer
    assert tokenizer.encode([TEXT]) == plain.encode([TEXT])
    told = capsys.readouterr().err
    assert told.count('no embeddings') == 1
    assert "no embeddings for its added tokens, which are text: ['[E1]', '[E2]', '<e3>']" in told


def test_additional_special_tokens_without_ids_have_the_next_ones(directory, capsys):
    settings = directory / 'tokenizer_config.json'
    edit_json(settings, additional_special_tokens=['[E1]', {'content': '[E2]'}])
    tokenizer = albert_jax.load(directory).tokenizer
    assert tokenizer.encode(['[E2][E1]']) == [[1001, 1000]]
    edit_json(settings, additional_special_tokens=[f'[E{number}]' for number in range(4)])
    capsys.readouterr()
    assert albert_jax.load(directory).tokenizer.vocab_size == 1000
    assert "no embeddings for its additional special tokens, which are text: ['[E0]'," in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize('is_wordpiece', [False, True], ids=['sentencepiece', 'wordpiece'])
def test_an_empty_special_token_is_left_out(is_wordpiece, vocabulary, tmp_path, capsys):
    conversion.convert(make_model(vocabulary), tmp_path / 'hf', 'huggingface')
    add_rows(tmp_path / 'hf', 2)
    if is_wordpiece:
        make_wordpiece(tmp_path / 'hf')
    plain = albert_jax.load(tmp_path / 'hf').tokenizer
    edit_json(tmp_path / 'hf' / 'tokenizer_config.json', additional_special_tokens=['', '[E1]'])
    capsys.readouterr()
    tokenizer = albert_jax.load(tmp_path / 'hf').tokenizer
    assert capsys.readouterr().err.count('token is empty and was left out, as by transfor') == 1
    # As by `tokenizers`, which gives the next token its id.
    (ids,) = tokenizer.encode(['The import [E1] a'])
    assert ids.index(plain.vocab_size) == len(ids) - 2
    assert [*ids[:-2], ids[-1]] == plain.encode(['The import a'])[0]


def test_half_a_surrogate_pair_is_no_special_token(vocabulary, tmp_path, capsys):
    conversion.convert(make_model(vocabulary), tmp_path / 'hf', 'huggingface')
    edit_json(tmp_path / 'hf' / 'tokenizer_config.json', additional_special_tokens=['\ud83d'])
    # It has no embedding, and no text has it.
    assert albert_jax.load(tmp_path / 'hf').tokenizer.vocab_size == 1000
    assert 'special tokens, which are text' in capsys.readouterr().err
    add_rows(tmp_path / 'hf', 1)
    with pytest.raises(UserError, match='an additional special token has half a surrogate pair'):
        albert_jax.load(tmp_path / 'hf')


def test_a_vocabulary_in_place_of_the_models_own_says_what_is_lost(directory, tmp_path, capsys):
    as_decoder(directory, 1000)
    model = source.load(directory, directory / 'spiece.model')
    assert model.tokenizer.added_tokens == ()
    said = 'the added tokens [E1], [E2], <e3> are not in the vocabulary given, and are text.'
    assert said in capsys.readouterr().err
    native.write(albert_jax.load(directory), tmp_path)
    source.load(tmp_path, directory / 'spiece.model')
    assert said in capsys.readouterr().err


def test_a_vocabulary_with_other_added_tokens_is_another(vocabulary):
    one, other = (Tokenizer(vocabulary, added_tokens=(AddedToken(t, 1000),)) for t in 'éü')
    assert has_same_vocabulary(one, one) and not has_same_vocabulary(one, other)
    assert one.sha256 == other.sha256 == Tokenizer(vocabulary).sha256


def test_an_export_lists_them(vocabulary, tmp_path):
    model = make_model(vocabulary, Head('sequence_classification', ('no', 'yes')), vocab_size=1001)
    tokenizer = Tokenizer(vocabulary, Normalization(), added_tokens=[AddedToken('[E1]', 1000)])
    native.write(native.with_tokenizer(model, tokenizer, 'x'), tmp_path)
    exported.export(str(tmp_path), tmp_path / 'out', 'stablehlo')
    signature = json.loads((tmp_path / 'out' / 'signature.json').read_text())
    (token,) = signature['added_tokens']
    assert token['content'] == '[E1]' and token['id'] == 1000 and token['normalized']
    assert '`added_tokens` are cut out first' in (tmp_path / 'out' / 'README.md').read_text()


# Parity with tokenizers.

TOKENS = (
    AddedToken('[E1]', 1000, normalized=False, special=True),
    AddedToken('<é x>', 1001),
    AddedToken('@l', 1002, lstrip=True, normalized=False),
    AddedToken('@r', 1003, rstrip=True, normalized=False),
    AddedToken('@LR', 1004, lstrip=True, rstrip=True),
    AddedToken('zq', 1005, single_word=True, normalized=False),
    AddedToken('ZQW', 1006, single_word=True),
    AddedToken('[E1]]', 1007, normalized=False),
)
FRAGMENTS = [
    'a', 'the', 'import', ' ', '  ', '\t', '.', '_', '-', 'é', 'E', '\u0301', 'İ', '[e1]', '@lr',
    'zqw', '<É x>', '<e x>', *(token.content for token in TOKENS),
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(FRAGMENTS), max_size=12).map(''.join)


@pytest.fixture(scope='module')
def encoders(vocabulary):
    """Ours, and that of tokenizers itself on the file that we write; each text → ids, offsets."""
    backend = pytest.importorskip('tokenizers', reason='needs the extra huggingface')
    ours = Tokenizer(vocabulary, added_tokens=TOKENS)
    definition = json.dumps(huggingface_tokenizer._unigram(ours))
    theirs = backend.Tokenizer.from_str(definition)

    def encode(text):
        encoded = theirs.encode(text, add_special_tokens=False)
        return encoded.ids, encoded.offsets

    return lambda text: ours.encode_with_offsets([text])[0], encode


@given(text=TEXTS)
@example(text='zq zqw-ZQW zqx _zq the@l  @r  .[E1]]] @LR@lr <É x><e x>')
@example(text='  @LR  @l  @r  ')
@example(text='zq\u0301 zq')
def test_ids_and_offsets_are_those_of_tokenizers(encoders, text):
    (ids, offsets), (their_ids, their_offsets) = (encode(text) for encode in encoders)
    assert ids == their_ids
    for index, ours, theirs in zip(ids, offsets, their_offsets, strict=True):
        if index >= 1000:
            # Only white space at the ends of the text, and marks, belong to another token here.
            for one, other in zip(ours, theirs, strict=True):
                assert not text[min(one, other) : max(one, other)].strip(' \t\u0301')


# Bad input.


def token(**changes):
    return {'content': '[E1]', 'special': False} | changes


BAD = [
    ({'added_tokens_decoder': {'1001': token()}}, r"'\[E1\]' has the id 1001, but the next"),
    ({'added_tokens_decoder': {'7': token()}}, "has the id 7, but that is the piece '.*'; the"),
    (
        {'added_tokens_decoder': {'1000': token(), '1001': token()}},
        r"gives the token '\[E1\]' the id 1001, .*decoder 1000; make them agree",
    ),
    (
        {'added_tokens_decoder': {'1000': token(content='▁the')}},
        'has the id 1000, but it is in the vocabulary already, as piece',
    ),
    ({'added_tokens_decoder': {'x': token()}}, "has the id 'x'; it must be a number from 0 on"),
    ({'added_tokens_decoder': {'-1': token()}}, "has the id '-1'; it must be a number"),
    ({'added_tokens_decoder': {'1000': '[E1]'}}, "'.E1.' is no added token; it must have a text"),
    ({'added_tokens_decoder': {'1000': token(content=3)}}, 'is no added token'),
    ({'added_tokens_decoder': {'1000': token(content='')}}, 'with the id 1000 is empty'),
    ({'added_tokens_decoder': {'1000': token(lstrip=1)}}, "lstrip of the added token '.E1.' is 1;"),
    ({'added_tokens_decoder': {'1000': token(content='\ud83d')}}, 'half a surrogate pair'),
    ({'added_tokens_decoder': {'1000': token(content=' ')}}, "nothing is left of the added token"),
    ({'added_tokens_decoder': [token()]}, 'added_tokens_decoder must be an object with a token'),
]  # fmt: skip


@pytest.mark.parametrize(('changes', 'message'), BAD, ids=[m[:40] for _, m in BAD])
def test_added_tokens_that_do_not_fit_are_refused(changes, message, directory):
    edit_json(directory / 'tokenizer_config.json', **changes)
    with pytest.raises(UserError, match=message) as caught:
        albert_jax.load(directory)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('is_wordpiece', [False, True], ids=['sentencepiece', 'wordpiece'])
def test_files_that_contradict_one_another_or_leave_gaps(is_wordpiece, directory):
    if is_wordpiece:
        make_wordpiece(directory)
    else:
        add_rows(directory, 7)
    first = len(WORDPIECE) if is_wordpiece else 1000
    as_definition(directory, first)
    legacy = directory / 'added_tokens.json'
    legacy.write_text(json.dumps({'[E1]': first + 1}))
    with pytest.raises(UserError, match=r'added_tokens.json gives .*tokenizer.json \d+; make'):
        albert_jax.load(directory)
    legacy.write_text(json.dumps({'[E9]': first + 9}))
    with pytest.raises(UserError, match=r'added_tokens.json: .*\[E9\].* the next free id is'):
        albert_jax.load(directory)
    legacy.write_text('{"[E9]": "x"}')
    with pytest.raises(UserError, match=r"added_tokens.json: the added token .* has the id 'x'"):
        albert_jax.load(directory)
    legacy.write_text('[]')
    with pytest.raises(UserError, match=r'added_tokens.json is not a JSON object'):
        albert_jax.load(directory)


def test_a_definition_that_renumbers_its_tokens_is_refused(directory):
    make_wordpiece(directory)
    as_definition(directory, len(WORDPIECE) + 1)
    for vocabulary in (None, directory / 'tokenizer.json'):
        with pytest.raises(UserError, match=r'tokenizer.json: .*\[E1\].* the next free id is 10'):
            source.load(directory, vocabulary)
