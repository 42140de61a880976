"""A vocabulary's normalisation goes with it, to every command that takes its file."""

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from albert_jax import prepare
from albert_jax.cli.errors import UserError
from albert_jax.data.dataset import PreparedCorpus
from albert_jax.data.normalization import Normalization
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.data.vocabulary import train_vocabulary
from albert_jax.data.vocabulary_normalization import shown_by_pieces, stated_beside
from albert_jax.interop import huggingface_tokenizer
from albert_jax.pretraining import intrinsic
from albert_jax.pretraining.warm_start import start_params
from albert_jax.runs.runs import FinetuneRun
from albert_jax.tasks.start import starting_point
from tests import tiny
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


@pytest.mark.parametrize(
    'options',
    [{'byte_fallback': True}, {'user_defined_symbols': ['[NUM]', '<É>']}, {'model_type': 'bpe'}],
)
def test_symbols_that_were_not_learned_show_nothing(options: dict[str, Any]) -> None:
    model = io.BytesIO()
    texts = map(Normalization(), documents()[:40])
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=texts, model_writer=model, vocab_size=600, pad_id=0, unk_id=1,
        bos_id=-1, eos_id=-1, control_symbols=['[CLS]', '[SEP]', '[MASK]'], minloglevel=2,
        **options,
    )  # fmt: skip
    assert shown_by_pieces(Tokenizer(model.getvalue())) == Normalization()


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


def test_a_corpus_that_did_without_is_taken_as_it_is(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As an earlier version prepared it: the vocabulary has capital letters, the corpus none."""
    other = corpus(tmp_path / 'b', kept).directory
    manifest = json.loads((other / 'corpus.json').read_text())
    manifest['settings'] |= {'keep_case': False, 'keep_accents': False}
    (other / 'corpus.json').write_text(json.dumps(manifest))
    shutil.copy(kept, tmp_path / 'v.model')
    again = [
        f'--input=text:{tmp_path}/b/text.txt', f'--output={other}', '--sequence_length=32',
        f'--vocabulary={tmp_path}/v.model',
    ]  # fmt: skip
    assert prepare.main(again) == 0
    assert 'is prepared already' in capsys.readouterr().out
    with pytest.raises(UserError, match='another min_characters; choose'):
        prepare.main([*again, '--min_characters=3'])
    # Its vocabulary has what it does without, so that another corpus may keep it.
    new = corpus(tmp_path / 'c', other / 'vocabulary.model', '--keep_case')
    assert new.tokenizer.normalization == Normalization(keep_case=True)


def test_the_same_vocabulary_with_another_normalisation_is_told(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A warm start and an evaluation by a pretrained model on a corpus that kept more."""
    model = tiny.random_model(tiny.config(), kept.read_bytes())
    data = PreparedCorpus(kept.parent)
    path = str(tiny.write(model, tmp_path / 'model'))
    said = r'in .* capital letters are dropped and accents are dropped, in .* are kept'
    start_params(path, model.config, data.tokenizer)
    assert re.search(f'note: init_from={path} and the corpus .*{said}', capsys.readouterr().err)
    # A tokenizer that does the same is not spoken of.
    start_params(path, model.config, Tokenizer(kept.read_bytes()))
    assert not capsys.readouterr().err
    with pytest.raises(UserError, match='was prepared for 32'):
        intrinsic.evaluate(model, data)
    assert re.search(f'note: the model and {data.directory} .*{said}', capsys.readouterr().err)
