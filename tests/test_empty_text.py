"""Text of which nothing is left after normalisation: a right answer, or one sentence."""

from pathlib import Path

import pytest

from albert_jax import explain
from albert_jax.cli.errors import UserError
from albert_jax.data.hub_tokenizer import HubTokenizer
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.interop import native
from albert_jax.interpretability.encoding import encode
from albert_jax.pretraining.fill_mask import fill_mask
from albert_jax.tasks.answering import Answerer
from albert_jax.tasks.features import FeaturesWriter

# Zero width, byte order mark, combining mark, control characters, spaces.
NOTHING = ['\u200b', '\ufeff', '\u0301', '\x01', '\x7f', ' \u200b\t', '', '\x85']


@pytest.mark.parametrize('nothing', NOTHING)
def test_what_is_invisible_beside_a_mask_changes_nothing(
    nothing: str, tokenizer: Tokenizer
) -> None:
    mask = [tokenizer.mask_id]
    assert tokenizer.encode([nothing]) == [[]]
    assert tokenizer.encode_with_masks(f'[MASK]{nothing}') == mask
    assert tokenizer.encode_with_masks(f'{nothing}[MASK]') == mask
    assert tokenizer.encode_with_masks(f'{nothing}[MASK]{nothing}[MASK]{nothing}') == mask * 2
    (words,) = tokenizer.encode(['statement'])
    assert tokenizer.encode_with_masks(f'{nothing}[MASK]{nothing} statement') == [*mask, *words]


def test_a_full_stop_after_a_mask_is_a_piece_of_its_own_unless_there_is_a_space(
    tokenizer: Tokenizer,
) -> None:
    def after_mask(text: str) -> list[str]:
        ids = tokenizer.encode_with_masks(text)
        return [tokenizer.pieces[index] for index in ids[1:]]

    assert (
        after_mask('[MASK].') == after_mask('[MASK]\u0301.') == after_mask('[MASK]\x01.') == ['.']
    )
    # SentencePiece takes a space of zero width for a space.
    assert after_mask('[MASK] .') == after_mask('[MASK]\u200b.') == ['▁', '.']


@pytest.mark.parametrize('nothing', NOTHING)
def test_wordpiece_too(nothing: str) -> None:
    pieces = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'the']
    wordpiece = HubTokenizer.from_wordpiece('\n'.join(pieces))
    assert wordpiece.encode_with_masks(f'{nothing}[MASK]{nothing}') == [4]
    assert wordpiece.encode_with_masks(f'the[MASK]{nothing}the') == [5, 4, 5]


def test_masks_beside_invisible_characters_are_filled(checkpoint: Path) -> None:
    model = native.complete(native.read(checkpoint))
    (alone,) = fill_mask(model, '[MASK]', 3)
    for text in ('[MASK]\u200b', '\ufeff[MASK]'):
        assert fill_mask(model, text, 3) == [alone]
    with pytest.raises(UserError, match=r'There is no \[MASK\] in'):
        fill_mask(model, '\u200b', 3)
    with pytest.raises(UserError, match='The text has half a surrogate pair'):
        fill_mask(model, '\udcff [MASK]', 3)


def test_a_text_without_pieces_cannot_be_explained(checkpoint: Path) -> None:
    model = native.read(checkpoint)
    for nothing in NOTHING:
        with pytest.raises(UserError, match='The text is empty; give some words'):
            encode(model, nothing)
        assert encode(model, f'{nothing}[MASK]').pieces == ('[CLS]', '[MASK]', '[SEP]')
    with pytest.raises(UserError, match='The text has half a surrogate pair'):
        encode(model, 'some words', '\udcff')
    with pytest.raises(UserError, match='The text is empty'):
        explain.main([f'--checkpoint={checkpoint}', '--output=page.html', '\u200b'])


def test_texts_of_a_file_of_which_nothing_is_left_are_answered_and_counted(
    finetuned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answerer = Answerer(finetuned, num_devices=1)
    lines = ['value \u200b', *(text for text in NOTHING if text.strip()), 'value']
    answers = answerer.answer(lines, 'lines')
    assert len(answers) == len(lines)
    assert answers[0]['probabilities'] == pytest.approx(answers[-1]['probabilities'], abs=1e-5)
    num_empty = len(lines) - 2
    assert f'note: {num_empty} of {len(lines)} texts are empty' in capsys.readouterr().err


def test_sequences_without_text_are_counted(tokenizer: Tokenizer) -> None:
    writer = FeaturesWriter(tokenizer)
    for first, second in (([], None), ([], []), ([9], []), ([], [9]), ([9], None)):
        writer.add(first, second)
    assert writer.finish().num_without_text == 2
