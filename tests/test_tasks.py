"""The task families: files of each published layout in, features and predictions out."""

import csv
import io
import json
import math
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from albert_jax.cli.errors import UserError
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.model.heads import Head
from albert_jax.runs.task import TaskSettings
from albert_jax.tasks import tfds_source
from albert_jax.tasks.registry import TASKS, find_files, make_task
from albert_jax.tasks.splits import hold_out
from tests.conftest import shared_data


@pytest.fixture(scope='module')
def tokenizer(vocabulary) -> Tokenizer:
    return Tokenizer(vocabulary)


def family(name: str, **settings):
    return make_task(TaskSettings(name=name, **settings))


def write(path: Path, *lines: str) -> Path:
    path.write_text(''.join(f'{line}\n' for line in lines), 'utf-8')
    return path


# GLUE: a line of each task's published files, training and test.
GLUE = {
    'cola': ("gj04\t1\t\tOur friends won't buy this.", 'index\tsentence\n0\tBill whistled.'),
    'sst2': ('sentence\tlabel\nhide new secretions \t0', 'index\tsentence\n0\tuneasy mishmash'),
    'mrpc': (
        'Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tAmrozi "accused" him.\tHe was.',
        'index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t7\t8\tPCCW said.\tMr So said.',
    ),
    'stsb': (
        'index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n'
        '0\tmain\tMSR\t2012\t1\tnone\tnone\tA plane.\tAn air plane.\t4.750',
        'index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\n'
        '0\tmain\tMSR\t2012\t1\tnone\tnone\tA girl.\tA woman.',
    ),
    'qqp': (
        'id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n133273\t1\t2\tHow?\tWhy?\t1',
        'id\tquestion1\tquestion2\n0\tWould it?\tIs it?',
    ),
    'mnli': (
        'index\tpromptID\tpairID\tgenre\tsentence1\tsentence2\tlabel1\tgold_label\n'
        '0\t3\t3n\tgov\tCream skimming.\tProduct.\tneutral\tneutral',
        'index\tpromptID\tpairID\tgenre\tsentence1\tsentence2\n0\t3\t3n\tgov\tHotels.\tNo.',
    ),
    'qnli': (
        'index\tquestion\tsentence\tlabel\n0\tWhen?\tThen.\tentailment',
        'index\tquestion\tsentence\n0\tWhat?\tThat.',
    ),
    'rte': (
        'index\tsentence1\tsentence2\tlabel\n0\tNo weapons.\tWeapons.\tnot_entailment',
        'index\tsentence1\tsentence2\n0\tMangla.\tIn.',
    ),
    'wnli': (
        'index\tsentence1\tsentence2\tlabel\n0\tI stuck a pin.\tIt had.\t1',
        'index\tsentence1\tsentence2\n0\tMaude.\tDora.',
    ),
    'ax': (None, 'index\tsentence1\tsentence2\n0\tThe cat sat.\tIt did not.'),
}
LABELS = {'cola': '1', 'sst2': '0', 'mrpc': '1', 'stsb': '4.750', 'qqp': '1', 'mnli': 'neutral',
          'qnli': 'entailment', 'rte': 'not_entailment', 'wnli': '1'}  # fmt: skip


@pytest.mark.parametrize('name', GLUE)
def test_glue_in_its_published_files(name, tokenizer, tmp_path):
    task = family(name, max_length=16)
    train, test = GLUE[name]
    (answered,) = task.read(write(tmp_path / 'test.tsv', test), False, is_labelled=False)
    assert answered.label is None and answered.key == '0'
    examples = [answered]
    if train:
        (example,) = task.read(write(tmp_path / 'train.tsv', train), True)
        assert example.label == LABELS[name]
        assert (example.second is None) == (name in ('cola', 'sst2'))
        # What is in quotation marks stays so: GLUE's TSV has no quoting.
        assert name != 'mrpc' or '"accused"' in example.first
        examples = [example]
    head = task.head(examples)
    features = task.encode(examples, tokenizer, head, True)
    assert features.lengths.max() <= 16
    is_regression = name == 'stsb'
    assert len(head.labels) == (1 if is_regression else 3 if name in ('mnli', 'ax') else 2)
    if not is_regression and train:
        assert head.labels[features.targets['labels'][0]] == LABELS[name]
    logits = {'logits': [np.array([7.0] if is_regression else [0.0, 2.0, 1.0][: len(head.labels)])]}
    rows = task.predictions([answered], features, logits, head)
    (file,) = task.write([answered], rows, tmp_path)
    header, row = csv.reader(io.StringIO(file.read_text()), delimiter='\t')
    assert header == ['index', 'prediction']
    # STS-B's scores go from 0 to 5.
    assert row == ['0', '5.000' if is_regression else head.labels[1]]
    assert file.name == f'{task.layout.server_name}.tsv'


def test_real_glue_files(tokenizer):
    counts = {'SST-2': 872, 'MRPC': 408, 'RTE': 277, 'STS-B': 1500, 'WNLI': 71, 'QNLI': 5463}
    for folder, count in counts.items():
        task = family(folder.lower().replace('-', ''), max_length=64)
        _, validation, test = find_files(task.settings.name, shared_data(f'tasks/glue/{folder}'))
        examples = task.read(validation[''], False)
        assert len(examples) == count, folder
        assert all(example.label is not None for example in examples)
        if test:
            tested = task.read(test[''], False, is_labelled=False)
            assert len({example.key for example in tested}) == len(tested)
    features = task.encode(examples[:50], tokenizer, task.head(examples), False)
    assert features.num_examples == 50


def test_mnli_has_two_validation_files(tmp_path):
    for name in ('train', 'dev_matched', 'dev_mismatched', 'test_matched', 'test_mismatched'):
        write(tmp_path / f'{name}.tsv', 'x')
    train, validation, test = find_files('mnli', tmp_path)
    assert train is not None and set(validation) == set(test) == {'', '_mismatched'}
    task = family('mnli')
    rows = [{'id': '0', 'prediction': 'neutral'}]
    file = write(tmp_path / 'test_mismatched.tsv', GLUE['mnli'][1])
    examples = task.read(file, False, is_labelled=False)
    assert task.write(examples, rows, tmp_path)[0].name == 'MNLI-mm.tsv'


# One's own files.


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        ('d.tsv', 'id\tbody\tmood\n1\tAll "good"\tgood\n2\tBad, very\tbad\n'),
        ('d.csv', 'id,body,mood\r\n1,"All ""good""",good\r\n2,"Bad, very",bad\r\n'),
        ('d.jsonl', '{"body": "All \\"good\\"", "mood": "good"}\n{"body": "Bad, very", "mood": "bad"}'),
    ],
)  # fmt: skip
def test_ones_own_files_with_named_columns(name, content, tokenizer, tmp_path):
    (tmp_path / name).write_bytes(b'\xef\xbb\xbf' + content.encode())
    task = family('classification', text='body', label='mood')
    examples = task.read(tmp_path / name, True)
    assert [(e.first, e.label) for e in examples] == [('All "good"', 'good'), ('Bad, very', 'bad')]
    head = task.head(examples)
    assert head == Head('sequence_classification', ('bad', 'good'))
    assert task.encode(examples, tokenizer, head, True).targets['labels'].tolist() == [1, 0]
    ordered = family('classification', text='body', label='mood', labels='good, bad')
    assert ordered.head(examples).labels == ('good', 'bad')


def test_regression_to_a_constant_is_undefined(tokenizer, tmp_path):
    task = family('regression', text='a', text_pair='b', label='score')
    file = write(tmp_path / 'x.csv', 'a,b,score', 'x,y,1.5', 'z,w,-2')
    examples = task.read(file, True)
    head = task.head(examples)
    features = task.encode(examples, tokenizer, head, True)
    assert features.targets['labels'].dtype == np.float32
    found = task.metrics(examples, features, {'logits': [np.array([3.0]), np.array([3.0])]}, head)
    assert math.isnan(found['pearson']) and found['mean_squared_error'] > 0


# fmt: off
BAD_FILES = [  # the lines are long: one case each
    ('classification', 'x.csv', 'text,sign\na,1\n', r"x.csv, line 2 has no column 'label'; there are"),
    ('classification', 'x.csv', 'body,label\na,1\n', r"line 2 has no column 'text'"),
    ('classification', 'x.csv', 'text,label\na,1\nb,\n', r'line 3 has no label in column .label.; remove'),
    ('classification', 'x.csv', 'text,label\na,1\nb,2,3\n', r'line 3 has 3 fields; the first line has 2'),
    ('classification', 'x.csv', 'text,label\na,1\nb,1\n', r"the labels are \['1'\]; classification needs two"),
    ('classification', 'x.csv', '', r'x.csv is empty'),
    ('classification', 'x.csv', 'text,label\n', r'x.csv has no examples'),
    ('classification', 'x.jsonl', '{"text": "a", "label": "1"}\nnot json\n', r'line 2 is not JSON'),
    ('classification', 'x.jsonl', '[1]\n', r'line 1 is not a JSON object'),
    ('classification', 'x.parquet', 'abc', r'is none of .tsv, .csv and .jsonl'),
    ('regression', 'x.csv', 'text,label\na,high\n', r"line 2: the label 'high' is not a number"),
    ('regression', 'x.csv', 'text,label\na,nan\n', r"line 2: the label 'nan' is not a number"),
    ('sst2', 'x.tsv', 'sentence\tlabel\nok\t2\n', r"line 2: the label '2' is unknown; there are 0, 1"),
    ('upos', 'x.conllu', '1\tword\n', r'x.conllu, line 1 has 2 columns; CoNLL-U has 10'),
    ('ner', 'x.txt', 'word PERSON\n', r"line 1: the tag 'PERSON' is none of IOB"),
    ('ner', 'x.txt', 'word\n', r'line 1 has 1 column\(s\); a word and its tag are needed'),
    ('tags', 'x.txt', '\n\n', r'x.txt is empty'),
    ('squad1', 'x.json', '{"data": 3}', r'x.json'),
    ('squad1', 'x.json', '[]', r"x.json is not of SQuAD's layout"),
    ('squad2', 'x.json', '{"data": []}', r'x.json has no questions'),
]


@pytest.mark.parametrize(('name', 'file', 'content', 'message'), BAD_FILES, ids=str)
def test_bad_files_are_refused_with_file_line_and_reason(name, file, content, message, tmp_path):
    (tmp_path / file).write_text(content)
    task = family(name)
    with pytest.raises(UserError, match=message) as caught:
        task.head(task.read(tmp_path / file, True))
    assert '\n' not in str(caught.value)


def test_mixed_encodings_are_refused_with_the_line(tmp_path):
    (tmp_path / 'x.csv').write_bytes('text,label\nnaïve,1\n'.encode() + 'é,0\n'.encode('latin-1'))
    with pytest.raises(UserError, match=r'x.csv, line 3 is not UTF-8 \(byte 0xe9\); convert'):
        family('classification').read(tmp_path / 'x.csv', True)


def test_a_label_that_the_model_does_not_know(tokenizer, tmp_path):
    task = family('classification')
    examples = task.read(write(tmp_path / 'x.csv', 'text,label', 'a,maybe'), False)
    with pytest.raises(
        UserError, match=r"line 2: the label 'maybe' is unknown; the model has no, y"
    ):
        task.encode(examples, tokenizer, Head('sequence_classification', ('no', 'yes')), False)


def test_unknown_tasks_and_missing_folders(tmp_path):
    with pytest.raises(UserError, match="task.name is 'sst'; it must be one of cola"):
        family('sst')
    with pytest.raises(UserError, match='which is not a directory'):
        find_files('sst2', tmp_path / 'nothing')
    with pytest.raises(UserError, match='has none of the files of sst2'):
        find_files('sst2', tmp_path)
    assert set(TASKS) >= {'squad1', 'squad2', 'race', 'ner', 'upos', 'regression'}


# Tagging.


def test_conll_columns(tokenizer, tmp_path):
    file = write(
        tmp_path / 'x.txt', '-DOCSTART- -X- O O', '', 'EU NNP I-NP I-ORG', 'rejects VBZ I-VP O', '',
        'Peter NNP I-NP I-PER', 'Blackburn NNP I-NP I-PER',
    )  # fmt: skip
    task = family('ner', max_length=8)
    examples = task.read(file, True)
    assert [e.words for e in examples] == [('EU', 'rejects'), ('Peter', 'Blackburn')]
    assert examples[1].where.endswith('line 6')
    head = task.head(examples)
    assert head.labels == ('I-ORG', 'I-PER', 'O')
    features = task.encode(examples, tokenizer, head, True)
    assert features.lengths.max() <= 8
    labels = features.token_targets['token_labels']
    assert (labels >= 0).sum() == 4
    perfect = {
        'tags': [
            np.where((part := labels[s:e]) >= 0, part, 0)
            for s, e in zip(features.starts[:-1], features.starts[1:], strict=True)
        ]
    }
    assert task.metrics(examples, features, perfect, head) == {
        'accuracy': 1.0, 'precision': 1.0, 'recall': 1.0, 'f1': 1.0,
    }  # fmt: skip
    rows = task.predictions(examples, features, perfect, head)
    (written,) = task.write(examples, rows, tmp_path)
    assert written.read_text().splitlines()[0] == 'EU I-ORG I-ORG'


def test_a_long_sentence_goes_on_in_another_sequence(tokenizer, tmp_path):
    words = [f'word{index % 7}' for index in range(60)]
    file = write(tmp_path / 'x.txt', *(f'{w} {"A" if i % 3 else "B"}' for i, w in enumerate(words)))
    task = family('tags', max_length=16)
    examples = task.read(file, True)
    head = task.head(examples)
    features = task.encode(examples, tokenizer, head, False)
    assert features.num_examples > 5 and features.lengths.max() <= 16
    tags = [
        np.maximum(features.token_targets['token_labels'][s:e], 0)
        for s, e in zip(features.starts[:-1], features.starts[1:], strict=True)
    ]
    (found,) = task.tags(examples, features, {'tags': tags}, head)
    assert found == list(examples[0].tags)


def test_conll_u(tokenizer):
    task = family('upos', max_length=128)
    examples = task.read(shared_data('tasks/ud_ewt/en_ewt-ud-dev.conllu'), True)
    assert len(examples) == 2001
    head = task.head(examples)
    assert len(head.labels) == 17 and 'NOUN' in head.labels
    # Words that are written as one ("don't") are two, and are not there thrice.
    assert all('_' not in example.tags for example in examples)
    features = task.encode(examples, tokenizer, head, True)
    num_words = sum(len(example.words) for example in examples)
    assert (features.token_targets['token_labels'] >= 0).sum() == num_words
    unknown = task.read(shared_data('tasks/ud_ewt/en_ewt-ud-test.conllu'), False)
    with pytest.raises(UserError, match='the tag .* is unknown; the model has NOUN, VERB'):
        task.encode(unknown, tokenizer, Head('token_classification', ('NOUN', 'VERB')), True)


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


@pytest.mark.parametrize('answer', ['Café Ångström', 'Paris', '1,984', 'closed', 'The Café', 'later'])
def test_answers_are_slices_of_the_original_text(answer, tokenizer, tmp_path):
    task = family('squad1', max_length=128)
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
    task = family('squad2', max_length=48, stride=16)
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
    old = family('squad1', max_length=48, stride=16)
    trained = old.encode(examples, tokenizer, old.head(examples), True)
    assert trained.num_examples == len(impossible) - impossible.sum()
    assert old.encode(examples, tokenizer, old.head(examples), False).num_examples == len(
        impossible
    )


def test_no_answer(tokenizer, tmp_path):
    task = family('squad2', max_length=64)
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
        family('squad1').read(squad_file(tmp_path, bad), True)
    with pytest.raises(UserError, match='has no answer; that is SQuAD 2.0'):
        family('squad1').read(squad_file(tmp_path, ask(None)), True)


def test_real_questions_are_recovered_but_for_two():
    """Two answers are 'Japan' within 'Japanese', which is one piece."""
    tokenizer = Tokenizer.from_file(shared_data('spm/30k-clean.model'))
    task = family('squad2', max_length=384)
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


def test_race(tokenizer, tmp_path):
    folder = race_folder(tmp_path)
    task = family('race', max_length=64, max_option_length=12)
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
    task = family('race')
    assert len(task.read(tmp_path / 'race.tar.gz' / 'dev', False)) == 4
    with pytest.raises(UserError, match='has no questions'):
        task.read(tmp_path / 'race.tar.gz' / 'train', True)
    (folder / 'high' / '1.txt').write_text('{"article": 1}')
    with pytest.raises(UserError, match='1.txt is not of RACE'):
        task.read(folder, True)
    with pytest.raises(UserError, match='give a split of RACE'):
        task.read(tmp_path / 'nothing', True)


# Holding out, and TFDS.


def test_what_is_held_out_depends_on_the_text_alone(tmp_path):
    file = write(tmp_path / 'x.tsv', 'text\tlabel', *(f't{i}\t{i % 2}' for i in range(500)))
    examples = family('classification').read(file, True)
    train, held = hold_out(examples, 0.2)
    assert len(train) + len(held) == 500 and 70 < len(held) < 130
    again, _ = hold_out(examples[::-1], 0.2)
    assert {e.first for e in again} == {e.first for e in train}
    with pytest.raises(UserError, match='which leaves 500 examples for training and 0'):
        hold_out(examples, 1e-9)


class FakeBuilder:
    """As much of a TFDS builder as is used."""

    rows = {
        'train': [{'sentence': b'good', 'label': 1, 'idx': 7}, {'sentence': b'bad', 'label': 0}],
        'validation': [{'sentence': 'fine', 'label': 1}],
        'test': [{'sentence': 'so', 'label': -1}],
    }

    class info:
        splits = rows_of = None
        features = {'label': type('Label', (), {'int2str': lambda self, i: 'ab'[i]})()}

    def __init__(self):
        self.info.splits = dict.fromkeys(self.rows)

    def download_and_prepare(self, file_format):
        assert file_format == 'array_record'

    def as_data_source(self, split):
        return self.rows[split]


def test_tfds(monkeypatch):
    tfds = pytest.importorskip('tensorflow_datasets')
    monkeypatch.setattr(tfds, 'builder', lambda name: {'glue/sst2': FakeBuilder()}[name])
    train, validation, test = tfds_source.read('tfds:glue/sst2', family('sst2'))
    assert [(e.first, e.label, e.key) for e in train] == [('good', '1', '7'), ('bad', '0', '1')]
    assert validation[''][0].label == '1' and test[''][0].label is None
    named = family('classification', text='sentence')
    assert tfds_source.read('tfds:glue/sst2', named)[0][0].label == 'b'
    with pytest.raises(
        UserError, match=r'tfds:x cannot be opened: .*\[tensorflow\]'
    ):
        tfds_source.read('tfds:x', family('sst2'))
    with pytest.raises(UserError, match='squad1 from its published files'):
        tfds_source.read('tfds:squad', family('squad1'))


def test_a_line_separator_of_unicodes_does_not_end_a_csv_row(tmp_path):
    (tmp_path / 'x.csv').write_text('text,label\n"a\u2028b",1\nc\x85d,0\n', 'utf-8')
    examples = family('classification').read(tmp_path / 'x.csv', True)
    assert [e.first for e in examples] == ['a\u2028b', 'c\x85d']


def test_broken_rows_of_qqp_are_left_out_and_counted(tmp_path, capsys):
    header, row = GLUE['qqp'][0].split('\n')
    file = write(tmp_path / 'train.tsv', header, row, '7\t1\t2\tHow?', row)
    assert len(family('qqp').read(file, True)) == 2
    assert '1 broken rows were left out' in capsys.readouterr().err
    broken = write(tmp_path / 'rte.tsv', *GLUE['rte'][0].split('\n'), 'a\tb\tc')
    with pytest.raises(UserError, match='line 3 has 3 fields; the first line has 4'):
        family('rte').read(broken, True)


def test_where_a_text_was_found_is_not_part_of_it(tmp_path):
    from albert_jax.tasks.task import digest_of

    rows = ('text\tlabel', 'a\t1', 'b\t0')
    one, two = (write(tmp_path / f'{name}.tsv', *rows) for name in 'xy')
    task = family('classification')
    assert digest_of(task.read(one, True)) == digest_of(task.read(two, True))
    other = write(tmp_path / 'z.tsv', *rows[:2], 'b\t1')
    assert digest_of(task.read(one, True)) != digest_of(task.read(other, True))


def test_cola_is_read_with_and_without_a_header(tmp_path):
    train, test = GLUE['cola']
    task = family('cola')
    for name, content in (('dev.tsv', train), ('test.tsv', test)):
        (example,) = task.read(write(tmp_path / name, content), False, is_labelled=False)
        assert 'won' in example.first or 'Bill' in example.first
