"""A vocabulary's normalisation goes with it, to every command that takes its file."""

import json
import shutil
from pathlib import Path

import pytest

from albert_jax import prepare
from albert_jax.cli.errors import UserError
from albert_jax.data.dataset import PreparedCorpus
from albert_jax.data.normalization import Normalization
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.data.vocabulary import train_vocabulary
from albert_jax.data.vocabulary_normalization import shown_by_pieces, stated_beside
from albert_jax.interop import huggingface_tokenizer
from albert_jax.runs.runs import FinetuneRun
from albert_jax.tasks.start import starting_point
from tests.conftest import documents, shared_data

TEXTS = ['がぎ かき Größe École', 'école grosse かき がぎ', '한국어 ½ ﬁne Über'] * 20 + documents()[
    :20
]
ALL = [Normalization(case, accents) for case in (False, True) for accents in (False, True)]


def flags_of(normalization: Normalization) -> list[str]:
    names = ('keep_case', 'keep_accents')
    return [f'--{name}' for name in names if getattr(normalization, name)]


def corpus(folder: Path, vocabulary: Path | str, *flags: str) -> PreparedCorpus:
    folder.mkdir(parents=True)
    (folder / 'text.txt').write_text('\n\n'.join(TEXTS), 'utf-8')
    arguments = [
        f'--input=text:{folder}/text.txt', f'--output={folder}/corpus', '--workers=1',
        f'--vocabulary={vocabulary}', '--vocab_size=200', '--sequence_length=32',
    ]  # fmt: skip
    assert prepare.main([*arguments, *flags]) == 0
    return PreparedCorpus(folder / 'corpus')


@pytest.fixture(scope='module')
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The vocabulary of a corpus that kept case and accents, in its folder."""
    folder = tmp_path_factory.mktemp('kept') / 'a'
    return corpus(folder, 'train', *flags_of(Normalization(True, True))).directory / (
        'vocabulary.model'
    )


def from_scratch(vocabulary: Path) -> Normalization:
    run = FinetuneRun.from_dict(
        {
            'from_scratch': True,
            'data': {'vocabulary': str(vocabulary)},
            'model': {'size': 'albert_base'},
        }
    )
    tokenizer = starting_point(run).tokenizer
    assert isinstance(tokenizer, Tokenizer)
    return tokenizer.normalization


@pytest.mark.parametrize('normalization', ALL)
def test_the_pieces_show_what_was_kept(normalization: Normalization) -> None:
    tokenizer = Tokenizer(train_vocabulary(map(normalization, TEXTS), 200))
    assert shown_by_pieces(tokenizer) == normalization


def test_the_pieces_of_the_release_show_that_nothing_was_kept() -> None:
    released = Tokenizer.from_file(shared_data('spm/30k-clean.model'))
    assert shown_by_pieces(released) == Normalization()


def test_finetuning_from_scratch_takes_the_normalisation_of_the_corpus(kept: Path) -> None:
    assert from_scratch(kept) == Normalization(True, True)


def test_a_copy_of_the_file_alone_is_told_by_its_pieces(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copy(kept, tmp_path / 'v.model'))
    assert from_scratch(copy) == Normalization(True, True)
    assert 'capital letters are kept and accents are kept' in capsys.readouterr().err


@pytest.mark.parametrize('stated', ALL)
def test_the_files_beside_it_are_believed(
    kept: Path, tmp_path: Path, stated: Normalization
) -> None:
    (tmp_path / 'export').mkdir()
    exported = Path(shutil.copy(kept, tmp_path / 'export' / 'vocabulary.model'))
    signature = {
        'normalization': {'keep_case': stated.keep_case, 'keep_accents': stated.keep_accents}
    }
    (tmp_path / 'export' / 'signature.json').write_text(json.dumps(signature))
    hugging_face = Path(shutil.copy(kept, tmp_path / 'spiece.model'))
    config = {'do_lower_case': not stated.keep_case, 'keep_accents': stated.keep_accents}
    (tmp_path / 'tokenizer_config.json').write_text(json.dumps(config))
    for file in (exported, hugging_face):
        assert stated_beside(file, Tokenizer.from_file(file)) == stated
        assert from_scratch(file) == stated


def test_wordpiece_is_read_with_what_is_beside_it(tmp_path: Path) -> None:
    pieces = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'The', 'the']
    (tmp_path / 'vocab.txt').write_text('\n'.join(pieces) + '\n')
    read = huggingface_tokenizer.from_vocabulary
    assert read(tmp_path / 'vocab.txt').encode(['The']) == [[6]]
    (tmp_path / 'tokenizer_config.json').write_text('{"do_lower_case": false}')
    assert read(tmp_path / 'vocab.txt').encode(['The']) == [[5]]


def test_a_corpus_with_the_vocabulary_of_another_is_normalised_as_that_one(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = corpus(tmp_path / 'b', kept)
    assert other.tokenizer.normalization == Normalization(True, True)
    assert other.manifest['settings']['keep_accents'] is True
    assert 'accents are kept' in capsys.readouterr().err
    assert other.fingerprint == PreparedCorpus(kept.parent).fingerprint


def test_keeping_what_the_vocabulary_does_not_have_is_refused(tmp_path: Path) -> None:
    plain = corpus(tmp_path / 'a', 'train').directory / 'vocabulary.model'
    with pytest.raises(UserError, match='--keep_accents: the vocabulary .* was made without it'):
        corpus(tmp_path / 'b', plain, '--keep_accents')
    assert corpus(tmp_path / 'c', plain).tokenizer.normalization == Normalization()
