"""Several labels, and added tokens, against transformers itself."""

import json

import numpy as np
import pytest

import albert_jax
from albert_jax.interop import conversion
from albert_jax.tasks.answering import Answerer
from tests.huggingface_files import make_model
from tests.test_added_tokens import SOURCES, add_rows, make_wordpiece

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings('ignore')]

TEXTS = ['The import statement', 'a list of values', '', 'an error, twice']


@pytest.mark.parametrize('family', ['Albert', 'Bert'])
def test_probabilities_of_several_labels(family, vocabulary, tmp_path):
    torch = pytest.importorskip('torch', reason='needs the extra reference')
    transformers = pytest.importorskip('transformers', reason='needs the extra reference')
    fields = {
        'vocab_size': 1000, 'hidden_size': 32, 'num_hidden_layers': 2, 'num_attention_heads': 4,
        'intermediate_size': 48, 'initializer_range': 0.3, 'max_position_embeddings': 40,
        'problem_type': 'multi_label_classification',
    }  # fmt: skip
    fields |= {'embedding_size': 16} if family == 'Albert' else {}
    config = getattr(transformers, f'{family}Config')(**fields, num_labels=3)
    model = getattr(transformers, f'{family}ForSequenceClassification')(config).eval()
    conversion.convert(make_model(vocabulary), tmp_path / 'words', 'huggingface')
    model.save_pretrained(tmp_path / 'theirs')
    for name in ('spiece.model', 'tokenizer.json', 'tokenizer_config.json'):
        (tmp_path / 'words' / name).rename(tmp_path / 'theirs' / name)
    loaded = albert_jax.load(tmp_path / 'theirs')
    assert loaded.head.kind == 'multi_label_classification'
    assert loaded.head.labels == ('LABEL_0', 'LABEL_1', 'LABEL_2')
    tokenizer = loaded.tokenizer
    answers = [Answerer(loaded).answer([text or '.'], 'x')[0] for text in TEXTS]
    for text, answer in zip(TEXTS, answers, strict=True):
        ids = [tokenizer.cls_id, *tokenizer.encode([text or '.'])[0], tokenizer.sep_id]
        with torch.no_grad():
            wanted = torch.sigmoid(model(torch.tensor([ids])).logits)[0].numpy()
        found = list(answer['probabilities'].values())
        np.testing.assert_allclose(found, wanted, atol=1e-5)
        assert answer['prediction'] == [f'LABEL_{i}' for i in range(3) if wanted[i] > 0.5]
    # And back: the same head, and the loss that transformers then takes is of several labels.
    conversion.convert(loaded, tmp_path / 'back', 'huggingface')
    again, info = type(model).from_pretrained(tmp_path / 'back', output_loading_info=True)
    assert not any(info[name] for name in ('missing_keys', 'unexpected_keys', 'mismatched_keys'))
    assert again.config.problem_type == 'multi_label_classification'
    assert torch.equal(again.classifier.weight, model.classifier.weight)


@pytest.mark.parametrize('add', SOURCES)
@pytest.mark.parametrize('is_wordpiece', [False, True], ids=['sentencepiece', 'wordpiece'])
def test_added_tokens_are_those_of_transformers(add, is_wordpiece, vocabulary, tmp_path):
    transformers = pytest.importorskip('transformers', reason='needs the extra reference')
    directory = tmp_path / 'hf'
    conversion.convert(make_model(vocabulary), directory, 'huggingface')
    add_rows(directory, 3)
    if is_wordpiece:
        make_wordpiece(directory)
    add(directory, 10 if is_wordpiece else 1000)
    loaded = albert_jax.load(directory)
    conversion.convert(loaded, tmp_path / 'again', 'huggingface')
    written = json.loads((tmp_path / 'again' / 'tokenizer_config.json').read_text())
    assert len(written['added_tokens_decoder']) == 8
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / 'again')
    for text in ('The [E1] import[E2]a <e3>', '[E1][E2]', '<E3> [e1]', 'the a', ' [E1] a '):
        assert (
            theirs(text, add_special_tokens=False)['input_ids']
            == (loaded.tokenizer.encode([text])[0])
        )
    # From the directory as it was, their ids of the added tokens.
    original = transformers.AutoTokenizer.from_pretrained(directory)
    for token in ('[E1]', '[E2]', '<e3>'):
        assert [original.convert_tokens_to_ids(token)] == loaded.tokenizer.encode([token])[0]
