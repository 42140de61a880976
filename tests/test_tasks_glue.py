"""GLUE in its published files: features and predictions."""

import csv
import io

import numpy as np
import pytest

from albert_jax.cli.errors import UserError
from albert_jax.tasks.registry import find_files
from tests import tiny
from tests.conftest import shared_data
from tests.tiny import write_lines

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
    task = tiny.task(name, max_length=16)
    train, test = GLUE[name]
    (answered,) = task.read(write_lines(tmp_path / 'test.tsv', test), False, is_labelled=False)
    assert answered.label is None and answered.key == '0'
    examples = [answered]
    if train:
        (example,) = task.read(write_lines(tmp_path / 'train.tsv', train), True)
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
        label = LABELS[name]
        assert head.labels[features.targets['labels'][0]] == task.names.get(label, label)
    logits = {'logits': [np.array([7.0] if is_regression else [0.0, 2.0, 1.0][: len(head.labels)])]}
    rows = task.predictions([answered], features, logits, head)
    (file,) = task.write([answered], rows, tmp_path)
    header, row = csv.reader(io.StringIO(file.read_text()), delimiter='\t')
    assert header == ['index', 'prediction']
    # STS-B's scores go from 0 to 5; the server takes the labels of the files.
    assert row == ['0', '5.000' if is_regression else task.labels[1]]
    assert file.name == f'{task.layout.server_name}.tsv'


def test_real_glue_files(tokenizer):
    counts = {'SST-2': 872, 'MRPC': 408, 'RTE': 277, 'STS-B': 1500, 'WNLI': 71, 'QNLI': 5463}
    for folder, count in counts.items():
        task = tiny.task(folder.lower().replace('-', ''), max_length=64)
        _, validation, test = find_files(task.settings.name, shared_data(f'tasks/glue/{folder}'))
        examples = task.read(validation[''], False)
        assert len(examples) == count, folder
        assert all(example.label is not None for example in examples)
        if test:
            tested = task.read(test[''], False, is_labelled=False)
            assert len({example.key for example in tested}) == len(tested)
    features = task.encode(examples[:50], tokenizer, task.head(examples), False)
    assert features.num_examples == 50


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        ('x.tsv', 'sentence\tlabel\nOur friends\t1\n'),
        ('x.csv', 'label,"sentence"\n1,Our friends\n'),
        ('x.jsonl', '{"sentence": "Our friends", "label": 1}\n'),
        ('x.tsv', 'gj04\t1\t\tOur friends\n'),
    ],
)
def test_a_table_of_ones_own_for_cola_may_have_a_header(name, content, tmp_path):
    (tmp_path / name).write_text(content)
    for is_training, is_labelled, label in ((True, True, '1'), (False, False, None)):
        (example,) = tiny.task('cola').read(tmp_path / name, is_training, is_labelled)
        assert (example.first, example.label) == ('Our friends', label)
    (tmp_path / 'one.tsv').write_text('sentence\nOur friends\nAnna\n')
    examples = tiny.task('cola').read(tmp_path / 'one.tsv', False, is_labelled=False)
    assert [example.first for example in examples] == ['Our friends', 'Anna']


def test_mnli_has_two_validation_files(tmp_path):
    for name in ('train', 'dev_matched', 'dev_mismatched', 'test_matched', 'test_mismatched'):
        write_lines(tmp_path / f'{name}.tsv', 'x')
    train, validation, test = find_files('mnli', tmp_path)
    assert train is not None and set(validation) == set(test) == {'', '_mismatched'}
    task = tiny.task('mnli')
    rows = [{'id': '0', 'prediction': 'neutral'}]
    file = write_lines(tmp_path / 'test_mismatched.tsv', GLUE['mnli'][1])
    examples = task.read(file, False, is_labelled=False)
    assert task.write(examples, rows, tmp_path)[0].name == 'MNLI-mm.tsv'


def test_broken_rows_of_qqp_are_left_out_and_counted(tmp_path, capsys):
    header, row = GLUE['qqp'][0].split('\n')
    file = write_lines(tmp_path / 'train.tsv', header, row, '7\t1\t2\tHow?', row)
    assert len(tiny.task('qqp').read(file, True)) == 2
    assert '1 broken rows were left out' in capsys.readouterr().err
    broken = write_lines(tmp_path / 'rte.tsv', *GLUE['rte'][0].split('\n'), 'a\tb\tc')
    with pytest.raises(UserError, match='line 3 has 3 fields; the first line has 4'):
        tiny.task('rte').read(broken, True)


def test_cola_is_read_with_and_without_a_header(tmp_path):
    train, test = GLUE['cola']
    task = tiny.task('cola')
    for name, content in (('dev.tsv', train), ('test.tsv', test)):
        (example,) = task.read(write_lines(tmp_path / name, content), False, is_labelled=False)
        assert 'won' in example.first or 'Bill' in example.first
