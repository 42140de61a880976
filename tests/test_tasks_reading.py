"""Reading comprehension: SQuAD and RACE."""

import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from albert_jax.cli.errors import UserError
from albert_jax.data.tokenizer import Tokenizer
from tests import tiny
from tests.conftest import shared_data

# SQuAD.

PASSAGE = '  The Café Ångström, in "Paris",\topened in 1,984.\nIt   closed later. '


def squad_file(tmp_path: Path, *asked: dict, passage: str = PASSAGE) -> Path:
    paragraphs = [{'context': passage, 'qas': list(asked)}]
    content = {'version': 'v2.0', 'data': [{'title': 'Cafes', 'paragraphs': paragraphs}]}
    (tmp_path / 'squad.json').write_text(json.dumps(content))
    return tmp_path / 'squad.json'


def ask(answer: str | None, key: str = 'q1', passage: str = PASSAGE, **other) -> dict:
    answers = [] if answer is None else [{'text': answer, 'answer_start': passage.index(answer)}]
    return {'id': key, 'question': 'Where is it?', 'answers': answers, **other}


@pytest.mark.parametrize(
    'answer', ['Café Ångström', 'Paris', '1,984', 'closed', 'The Café', 'later']
)
def test_answers_are_slices_of_the_original_text(answer, tokenizer, tmp_path):
    task = tiny.task('squad1', max_length=128)
    examples = task.read(squad_file(tmp_path, ask(answer)), True)
    features = task.encode(examples, tokenizer, task.head(examples), True)
    assert task.recovered(examples, features) == [True]
    outputs = {'start': [], 'end': []}
    length = features.lengths[0]
    for name, rows in outputs.items():
        rows.append(10.0 * (np.arange(length) == features.targets[name][0]))
    (row,) = task.predictions(examples, features, outputs, task.head(examples))
    assert row['prediction'] == answer
    assert task.metrics(examples, features, outputs, task.head(examples))['f1'] == 1
    assert len(row['best']) > 1 and row['best'][0]['probability'] > 0.9
    written = task.write(examples, [row], tmp_path)
    assert [file.name for file in written] == ['predictions.json', 'nbest_predictions.json']
    assert json.loads(written[0].read_text()) == {'q1': answer}


def test_windows_overlap_by_the_stride_and_every_token_has_one_owner(tokenizer, tmp_path):
    passage = ' '.join(f'word{i} is here.' for i in range(80))
    task = tiny.task('squad2', max_length=48, stride=16)
    file = squad_file(tmp_path, ask('word40', passage=passage), passage=passage)
    examples = task.read(file, True)
    features = task.encode(examples, tokenizer, task.head(examples), True)
    assert features.num_examples > 5 and features.lengths.max() <= 48
    begins = [
        features.token_targets['begin_character'][features.starts[row] : features.starts[row + 1]]
        for row in range(features.num_examples)
    ]
    owned: Counter = Counter()
    for row in range(features.num_examples):
        part = slice(features.starts[row], features.starts[row + 1])
        owns = features.token_targets['owns'][part]
        can = features.token_targets['can_answer'][part]
        assert can[0] == 1 and (owns <= can).all()
        ends = features.token_targets['end_character'][part]
        owned.update(zip(begins[row][owns > 0].tolist(), ends[owns > 0].tolist(), strict=True))
    _, offsets = tokenizer.encode_with_offsets([passage])[0]
    assert owned == Counter(offsets)
    # A window without the answer is impossible, and points at [CLS].
    impossible = features.targets['is_impossible']
    assert 0 < impossible.sum() < len(impossible)
    assert (features.targets['start'][impossible > 0] == 0).all()
    # In version 1.1 such windows are not trained on.
    old = tiny.task('squad1', max_length=48, stride=16)
    trained = old.encode(examples, tokenizer, old.head(examples), True)
    assert trained.num_examples == len(impossible) - impossible.sum()
    assert old.encode(examples, tokenizer, old.head(examples), False).num_examples == len(
        impossible
    )


def test_no_answer(tokenizer, tmp_path):
    task = tiny.task('squad2', max_length=64)
    file = squad_file(tmp_path, ask('Paris'), ask(None, 'q2', is_impossible=True))
    examples = task.read(file, True)
    head = task.head(examples)
    features = task.encode(examples, tokenizer, head, True)
    start, end = (features.targets[name][0] for name in ('start', 'end'))
    beams = np.array([start, 1, 2, 3, 4])
    outputs = {
        'start_positions': [beams, beams],
        'start_scores': [-np.arange(5.0)] * 2,
        'end_positions': [np.full((5, 5), end)] * 2,
        'end_scores': [np.full((5, 5), -0.1)] * 2,
        'impossible': [np.float32(-2.0), np.float32(3.0)],
    }
    rows = task.predictions(examples, features, outputs, head)
    assert [row['prediction'] for row in rows] == ['Paris', '']
    assert rows[1]['best_text'] == 'Paris' and rows[1]['no_answer_odds'] == 3
    found = task.metrics(examples, features, outputs, head)
    assert found['f1'] == found['best_f1'] == found['f1_impossible'] == 1
    names = [file.name for file in task.write(examples, rows, tmp_path)]
    assert names[-1] == 'null_odds.json'


def test_an_answer_that_is_not_in_its_passage(tmp_path):
    bad = ask('Paris')
    bad['answers'][0]['answer_start'] += 1
    with pytest.raises(
        UserError, match=r"question q1: the answer 'Paris' is not in its passage at"
    ):
        tiny.task('squad1').read(squad_file(tmp_path, bad), True)
    with pytest.raises(UserError, match='has no answer; that is SQuAD 2.0'):
        tiny.task('squad1').read(squad_file(tmp_path, ask(None)), True)


def test_real_questions_are_recovered_but_for_two():
    """Two answers are 'Japan' within 'Japanese', which is one piece."""
    tokenizer = Tokenizer.from_file(shared_data('spm/30k-clean.model'))
    task = tiny.task('squad2', max_length=384)
    examples = task.read(shared_data('tasks/squad/half-dev-v2.0.json'), True)
    features = task.encode(examples, tokenizer, task.head(examples), True)
    recovered = task.recovered(examples, features)
    assert len(examples) == 6078 and recovered.count(None) == 3168
    lost = [e.answers[0][0] for e, ok in zip(examples, recovered, strict=True) if ok is False]
    assert lost == ['Japan', 'Japan']


# RACE.
def race_folder(tmp_path: Path) -> Path:
    for level, answer in (('middle', 'B'), ('high', 'D')):
        (tmp_path / 'dev' / level).mkdir(parents=True)
        content = {
            'article': 'Tom has a cat. ' * 40,
            'questions': ['Tom has _ .', 'Who has it?'],
            'options': [['a dog', 'a cat', 'a cow', 'none'], ['Ann', 'Ben', 'Sue', 'Tom']],
            'answers': [answer, 'D'],
            'id': f'{level}1.txt',
        }
        (tmp_path / 'dev' / level / '1.txt').write_text(json.dumps(content))
    return tmp_path / 'dev'


def test_questions_of_race_without_a_text_are_counted(tmp_path, capsys):
    file = race_folder(tmp_path) / 'high' / '1.txt'
    content = json.loads(file.read_text())
    content['questions'][0] = '\u200b'
    content['options'][1] = [' '] * 4
    file.write_text(json.dumps(content))
    assert len(tiny.task('race').read(tmp_path / 'dev', True)) == 4
    told = ' '.join(capsys.readouterr().err.split())
    assert f'2 of 4 examples have an empty text, the first at {file} (question).' in told
    file.write_text(json.dumps(content | {'article': ''}))
    tiny.task('race').read(tmp_path / 'dev', True)
    assert f'the first at {file} (question, passage).' in ' '.join(capsys.readouterr().err.split())


def test_race(tokenizer, tmp_path):
    folder = race_folder(tmp_path)
    task = tiny.task('race', max_length=64, max_option_length=12)
    examples = task.read(folder, True)
    assert [e.key for e in examples] == [
        'middle1.txt-0', 'middle1.txt-1', 'high1.txt-0', 'high1.txt-1',
    ]  # fmt: skip
    head = task.head(examples)
    features = task.encode(examples, tokenizer, head, True)
    assert features.num_choices == 4 and features.num_examples == 4
    assert features.lengths.max() == 64
    text = tokenizer.decode(features.sequence(1)[features.seconds[1] : -1].tolist())
    assert text == 'tom has a cat .'
    assert features.targets['labels'].tolist() == [1, 3, 3, 3]
    logits = {'logits': list(np.eye(4)[[1, 3, 0, 3]])}
    found = task.metrics(examples, features, logits, head)
    assert found == {'accuracy': 0.75, 'accuracy_middle': 1.0, 'accuracy_high': 0.5}
    rows = task.predictions(examples, features, logits, head)
    (file,) = task.write(examples, rows, tmp_path)
    assert json.loads(file.read_text())['high1.txt-0'] == 'A'


def test_race_from_an_archive_and_bad_ones(tmp_path):
    folder = race_folder(tmp_path)
    with tarfile.open(tmp_path / 'race.tar.gz', 'w:gz') as archive:
        archive.add(folder, 'RACE/dev')
    task = tiny.task('race')
    assert len(task.read(tmp_path / 'race.tar.gz' / 'dev', False)) == 4
    with pytest.raises(UserError, match='has no questions'):
        task.read(tmp_path / 'race.tar.gz' / 'train', True)
    (folder / 'high' / '1.txt').write_text('{"article": 1}')
    with pytest.raises(UserError, match='1.txt is not of RACE'):
        task.read(folder, True)
    with pytest.raises(UserError, match='give a split of RACE'):
        task.read(tmp_path / 'nothing', True)


# fmt: off
RACE_CHANGES = [
    ({'article': ['a']}, 'article must be a text'),
    ({'article': None}, 'article must be a text'),
    ({'article': 'a \ud83d'}, r'high/1.txt, article has half a surrogate pair, \\ud83d'),
    ({'questions': 3}, 'questions, options and answers must be lists'),
    ({'questions': ['a']}, 'there are 1 questions, 2 lists of options and 2 answers'),
    ({'questions': ['a', None]}, 'high/1.txt, question 1 must be a text'),
    ({'questions': ['a', '\udc00']}, 'question 1 has half a surrogate pair'),
    ({'options': [['a'] * 4, ['a'] * 3]}, 'question 1 must have a list of 4 options'),
    ({'options': [['a'] * 4, 'abcd']}, 'question 1 must have a list of 4 options'),
    ({'options': [['a'] * 4, [['a'], 'b', 'c', 'd']]}, r"the option \['a'\] must be a text"),
    ({'options': [['a'] * 4, ['a', None, 'c', 'd']]}, 'question 1: the option None must be a text'),
    ({'options': [['a'] * 4, ['a', float('nan'), 3, 4.5]]}, 'question 1: the option nan must be a'),
    ({'answers': ['A', 'E']}, "question 1: the answer 'E' is none of A, B, C and D"),
]
# fmt: on


@pytest.mark.parametrize(('change', 'message'), RACE_CHANGES, ids=range(len(RACE_CHANGES)))
def test_race_that_is_refused(change, message, tmp_path):
    folder = race_folder(tmp_path)
    file = folder / 'high' / '1.txt'
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=message) as caught:
        tiny.task('race').read(folder, False)
    assert str(file) in str(caught.value)


def test_a_key_twice_in_race(tmp_path):
    folder = race_folder(tmp_path)
    file = folder / 'high' / '1.txt'
    file.write_text(file.read_text().replace('{"article"', '{"id": "x", "article"'))
    with pytest.raises(UserError, match=r"high/1.txt: a JSON object has the key 'id' twice"):
        tiny.task('race').read(folder, True)
    file.write_text(file.read_text().replace('{"id": "x"', '{"m": 1, "m": 2'))
    assert len(tiny.task('race').read(folder, True)) == 4


def test_what_is_odd_in_race_is_told(tmp_path, capsys):
    folder = race_folder(tmp_path)
    file = folder / 'high' / '1.txt'
    text = (
        file.read_text().replace('Tom has a cat. T', 'Jos\xe9 has a cat. T').replace('"Ann"', '7')
    )
    file.write_bytes(b'\xef\xbb\xbf' + text.encode('latin-1'))
    (folder / 'college').mkdir()
    (folder / 'college' / '1.txt').write_text('{}')
    questions = tiny.task('race').read(folder, True)
    assert len(questions) == 4 and questions[2].passage.startswith('Jos\ufffd has')
    assert questions[3].options == ('7', 'Ben', 'Sue', 'Tom')
    told = capsys.readouterr().err
    assert 'dev: 1 files that are not in middle or high were left out' in told
    assert 'dev: 1 files are not UTF-8' in told


def test_answers_of_race_may_be_one_text(tmp_path):
    folder = race_folder(tmp_path)
    file = folder / 'high' / '1.txt'
    file.write_text(json.dumps(json.loads(file.read_text()) | {'answers': 'DB'}))
    assert [q.answer for q in tiny.task('race').read(folder, True)][2:] == [3, 1]


def test_an_id_twice_in_race(tmp_path, capsys):
    """Each question has a name of its own, by which predictions are written."""
    folder = race_folder(tmp_path)
    (folder / 'high' / '1.txt').write_text((folder / 'middle' / '1.txt').read_text())
    for is_training, is_labelled in ((True, True), (False, True), (False, False)):
        questions = tiny.task('race').read(folder, is_training, is_labelled)
        assert [q.key for q in questions] == [
            'middle/1.txt-0', 'middle/1.txt-1', 'high/1.txt-0', 'high/1.txt-1',
        ]  # fmt: skip
        told = capsys.readouterr().err
        assert 'dev: 4 questions have the id of another one; they are called by their' in told
