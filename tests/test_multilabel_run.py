"""A model of several labels from its training to every place that asks it for an answer."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from albert_jax import distill, evaluate, explain, finetune, predict
from albert_jax.cli.errors import UserError
from albert_jax.interop import conversion, exported, native, source
from albert_jax.model.finetuned import FinetunedModel
from albert_jax.model.heads import Head
from albert_jax.service.abilities import Predict
from albert_jax.service.batching import collate
from albert_jax.tasks.answering import Answerer
from tests import tiny
from tests.huggingface_files import configure

# What a text says where a label is right, and where it is not.
WORDS = {'good': ('statement import', 'list'), 'bad': ('class value', 'error number')}
HEAD = Head('multi_label_classification', ('good', 'bad'))
TEXTS = ['statement import error number', 'list class value of', 'class value', 'of the and']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Lists to train on, columns to validate by: a text has the labels of its words."""
    folder = tmp_path_factory.mktemp('labels')
    rng = np.random.default_rng(0)
    texts = []
    for _ in range(240):
        labels = [label for label in WORDS if rng.integers(2)]
        words = [WORDS[label][label not in labels] for label in WORDS]
        texts.append((' '.join([*words, 'of', *rng.choice(['the', 'and'], 1)]), labels))
    lines = [json.dumps({'text': text, 'label': labels}) for text, labels in texts[:200]]
    tiny.write_lines(folder / 'train.jsonl', *lines)
    marks = [f'{text}\t{int("bad" in labels)}\t{int("good" in labels)}' for text, labels in texts]
    tiny.write_lines(folder / 'dev.tsv', 'text\tbad\tgood', *marks[200:])
    return folder


@pytest.fixture(scope='module')
def workdir(vocabulary, folder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('multilabel')
    # Weights that tell texts apart, so that a few steps are enough.
    model = tiny.pretrained(tiny.wider_config(initializer_range=0.2), vocabulary)
    checkpoint = tiny.write(model, workdir / 'start')
    flags = tiny.finetune_flags(
        checkpoint, folder, workdir / 'cache', '--config.task.labels=good,bad',
        '--config.task.head_dropout=0.05', '--config.loop.num_steps=80',
        task='multilabel',
    )  # fmt: skip
    assert finetune.main([*flags, f'--workdir={workdir}']) == 0
    return workdir


def logits_of(model, texts):
    rows = []
    for text in texts:
        tokenizer = model.tokenizer
        ids = np.array([[tokenizer.cls_id, *tokenizer.encode([text])[0], tokenizer.sep_id]])
        ids = ids.astype(np.int32)
        ones = np.ones_like(ids)
        arrays = {'input_ids': ids, 'attention_mask': ones, 'token_type_ids': 0 * ones}
        batch = {name: jnp.asarray(array) for name, array in arrays.items()}
        output = jax.jit(FinetunedModel(model.config, model.head))(model.params, batch)
        rows.append(np.asarray(output.logits['logits'], np.float64)[0])
    return np.stack(rows)


def test_it_is_trained_and_scored(workdir, folder, capsys):
    results = json.loads((workdir / 'results.json').read_text())
    assert results['micro_f1'] > 0.9 and results['macro_f1'] > 0.9
    written = (workdir / 'predictions' / 'validation' / 'predictions.tsv').read_text()
    assert written.startswith('index\tgood\tbad\n0\t')
    arguments = [f'--checkpoint={workdir}', f'--data={folder / "dev.tsv"}']
    assert evaluate.main(arguments) == 0
    assert 'macro_f1' in capsys.readouterr().out


def test_every_answer_is_the_sigmoid_of_its_logit(workdir, tmp_path, capsys):
    model = native.read(workdir)
    assert model.head == HEAD
    wanted = expit(logits_of(model, TEXTS))
    lines = tiny.write_lines(tmp_path / 'texts', *TEXTS)
    assert predict.main([f'--checkpoint={workdir}', f'--input={lines}']) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    ability = Predict(Answerer(model))
    encoded = ability.encode(TEXTS)
    served = []
    for row in encoded.rows:
        output = ability.start(collate([row], 8))
        served.append({name: np.asarray(array)[0] for name, array in output.items()})
    for answers in (printed, encoded.answers(served)):
        found = np.array([list(answer['probabilities'].values()) for answer in answers])
        np.testing.assert_allclose(found, wanted, atol=1e-5)
        for answer, row in zip(answers, wanted, strict=True):
            assert answer['prediction'] == [
                label for label, p in zip(HEAD.labels, row, strict=True) if p > 0.5
            ]


def test_it_travels_to_hugging_face_and_back(workdir, tmp_path):
    model = native.read(workdir)
    answers = Answerer(model).answer(TEXTS, 'x')
    conversion.convert(model, tmp_path / 'hf', 'huggingface')
    content = json.loads((tmp_path / 'hf' / 'config.json').read_text())
    assert content['problem_type'] == 'multi_label_classification'
    assert content['architectures'] == ['AlbertForSequenceClassification']
    assert content['id2label'] == {'0': 'good', '1': 'bad'}
    assert content['classifier_dropout_prob'] == 0.05
    again = source.read(tmp_path / 'hf')
    assert again.head == HEAD
    np.testing.assert_array_equal(again.params['head']['kernel'], model.params['head']['kernel'])
    assert 'classifier_dropout_prob is 0.05; fine-tuning takes 0.1' in again.notes[0]
    for one, other in zip(Answerer(again).answer(TEXTS, 'x'), answers, strict=True):
        assert one['prediction'] == other['prediction']
        assert one['probabilities'] == pytest.approx(other['probabilities'], abs=1e-6)
    # Without the word the same weights are a choice of one.
    configure(problem_type=None)(tmp_path / 'hf')
    assert source.read(tmp_path / 'hf').head == Head('sequence_classification', HEAD.labels)


def test_its_card_says_what_makes_probabilities(workdir, tmp_path):
    exported.export(str(workdir), tmp_path / 'out', 'stablehlo')
    signature = json.loads((tmp_path / 'out' / 'signature.json').read_text())
    assert signature['activation'] == 'sigmoid' and signature['labels'] == ['good', 'bad']
    assert '| probabilities | sigmoid of each logit' in (tmp_path / 'out/README.md').read_text()


def test_a_label_is_explained(workdir, tmp_path, capsys):
    output = tmp_path / 'page.html'
    arguments = [f'--checkpoint={workdir}', f'--output={output}', '--label=bad', 'list error']
    assert explain.main(arguments) == 0
    said = capsys.readouterr().out
    assert said.startswith('Answer: ') and 'for (+) or against (-) bad' in said


def test_a_student_learns_its_labels(workdir, folder, tmp_path):
    def flags(task):
        given = tiny.finetune_flags('', folder, workdir / 'cache', task=task)
        return [
            f'--config=configs/distill.py:{task}', f'--config.teacher={workdir}',
            *(flag for flag in given[1:] if 'init_from' not in flag),
            '--config.model.size=albert_base', '--config.model.embedding_size=8',
            '--config.model.hidden_size=16', '--config.model.num_hidden_layers=1',
            '--config.model.num_attention_heads=2', '--config.model.intermediate_size=32',
            '--config.model.max_position_embeddings=48', '--config.model.initializer_range=0.2',
            '--config.distillation.label_weight=0',
            '--config.distillation.soft_weight=1', '--config.loop.num_steps=80',
            f'--workdir={tmp_path / "student"}',
        ]  # fmt: skip

    # The labels are sorted, and so in another order than the teacher's.
    assert distill.main(flags('multilabel')) == 0
    found = json.loads((tmp_path / 'student' / 'distilled.json').read_text())
    assert found['teacher']['metrics']['micro_f1'] > 0.9
    assert found['student']['metrics']['micro_f1'] > 0.8
    assert native.read(tmp_path / 'student').head.labels == ('bad', 'good')
    lines = [f'{text}\t{label}' for text, label in (('a', 'good'), ('b', 'bad'))]
    for name in ('train', 'dev'):
        tiny.write_lines(tmp_path / f'{name}.tsv', 'text\tlabel', *lines)
    with pytest.raises(UserError, match='has a head for multi_label_classification, the task need'):
        distill.main([*flags('classification'), f'--config.data.path={tmp_path}'])
