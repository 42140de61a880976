"""Semantic roles: examples, sequences, scores and predictions."""

import dataclasses
import gzip

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from albert_jax.cli.errors import UserError
from albert_jax.data.predicate import NO_ROLE, find_predicate, predicate_sequence
from albert_jax.interop.native import Pretrained
from albert_jax.interpretability.encoding import encode
from albert_jax.model.heads import HEADS, Head
from albert_jax.service.abilities import Predict
from albert_jax.service.batching import pad_to
from albert_jax.tasks.answering import Answerer
from albert_jax.tasks.inputs import parse_lines, read_input
from albert_jax.tasks.registry import default_task, find_files
from tests import tiny
from tests.reference_roles import score
from tests.test_role_files import OF_2009, UP, row, write

HEAD = Head('token_classification', (NO_ROLE, 'ARG0', 'ARG1', 'R-ARG0', 'C-ARG1'))


def perfect(features):
    """Outputs of a model that makes no mistakes, but at words of unknown roles."""
    labels = features.token_targets['token_labels']
    return {'tags': np.split(np.maximum(labels, 0), features.starts[1:-1])}


def test_an_example_for_each_predicate_marked_by_its_segment(tokenizer, tmp_path):
    task = tiny.task('roles')
    examples = task.read(write(tmp_path, UP), True)
    assert [(e.words[e.predicate], e.key) for e in examples] == [
        ('nominated', '0.2'), ('run', '0.5'), ('Run', '1.1'),
    ]  # fmt: skip
    assert task.head(examples).labels == (NO_ROLE, 'ARG0', 'ARG1', 'C-ARG1', 'R-ARG0')
    features = task.encode(examples, tokenizer, HEAD, True)
    batch = features.batch(np.arange(3), np.ones(3), 32, tokenizer.pad_id)
    words = [tokenizer.encode([word])[0] for word in examples[0].words]
    for number, example in enumerate(examples[:2]):
        own = words[example.predicate]
        expected = [tokenizer.cls_id, *sum(words, []), tokenizer.sep_id, *own, tokenizer.sep_id]
        length = len(expected)
        assert batch['input_ids'][number, :length].tolist() == expected
        assert not batch['attention_mask'][number, length:].any()
        before = 1 + sum(len(x) for x in words[: example.predicate])
        types = np.zeros(32, int)
        types[before : before + len(own)] = 1
        types[length - len(own) - 1 : length] = 1
        assert batch['token_type_ids'][number].tolist() == types.tolist()
    # A word is judged by its first piece; all other pieces by nothing.
    starts = 1 + np.cumsum([0, *map(len, words[:-1])])
    labels = batch['token_labels'][0]
    assert labels[starts].tolist() == [1, 0, 2, 0, 4]
    assert (np.delete(labels, starts) == -1).all()


def test_scores_are_those_of_the_files_that_are_written(tokenizer, tmp_path):
    rng = np.random.default_rng(0)
    for text, columns, roles in (
        (UP, (10, 11), HEAD.labels[1:]),
        (OF_2009, (12, 14), ('A0', 'A1')),
        (gzip.compress(UP.encode()), (10, 11), HEAD.labels[1:]),
    ):
        path = tmp_path / ('x.conllu.gz' if isinstance(text, bytes) else 'x.txt')
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        head = Head(HEAD.kind, (NO_ROLE, *roles))
        task = tiny.task('roles')
        examples = task.read(path, False)
        features = task.encode(examples, tokenizer, head, False)
        drawn = [
            {'tags': [rng.integers(0, len(head.labels), n) for n in features.lengths]}
            for _ in range(10)
        ]
        plain = text if isinstance(text, str) else UP
        values = []
        for outputs in (perfect(features), *drawn):
            answers = task.predictions(examples, features, outputs, head)
            (file,) = task.write(examples, answers, tmp_path)
            expected = score(plain, file.read_text('utf-8'), *columns)
            scores = task.metrics(examples, features, outputs, head)
            assert scores == pytest.approx(expected, abs=1e-12)
            values.append(scores['f1'])
        assert values[0] == 1 and any(0 < value < 1 for value in values)
        outputs = perfect(features)
        # Without labels the same columns are written, and there is nothing to score.
        unknown = read_input(task, str(path))
        assert not any(example.is_labelled for example in unknown)
        assert [(e.key, e.words, e.predicate) for e in unknown] == [
            (e.key, e.words, e.predicate) for e in examples
        ]
        assert task.metrics(unknown, features, outputs, head) == {}
        answers = task.predictions(unknown, features, outputs, head)
        (again,) = task.write(unknown, answers, tmp_path / '..')
        assert score(plain, again.read_text('utf-8'), *columns)['f1'] == 1
        again.unlink()


def test_a_word_of_which_nothing_is_left_can_have_a_role(tokenizer):
    task = tiny.task('roles')
    (example,) = parse_lines(task, ['\u0301 ran\tran'], 'x')
    features = task.encode([example], tokenizer, HEAD, False)
    assert tokenizer.encode(['\u0301']) == [[]] and features.ids[1] == tokenizer.unk_id
    outputs = {'tags': [np.array([0, 1, *[0] * (features.lengths[0] - 2)])]}
    (answer,) = task.predictions([example], features, outputs, HEAD)
    assert answer == {
        'id': '0', 'words': ['\u0301', 'ran'], 'predicate': 2, 'prediction': ['ARG0', '_'],
    }  # fmt: skip


def test_roles_that_the_model_does_not_know_are_counted(tokenizer, tmp_path, capsys):
    task = tiny.task('roles')
    examples = task.read(write(tmp_path, UP), False)
    head = Head(HEAD.kind, (NO_ROLE, 'ARG0', 'ARG1'))
    features = task.encode(examples, tokenizer, head, False)
    told = capsys.readouterr().err
    assert 'x.conllu: 2 words have a role that the model does not know and count as wrong: ' in told
    scores = task.metrics(examples, features, perfect(features), head)
    assert scores == pytest.approx({'precision': 1, 'recall': 1 / 2, 'f1': 2 / 3})
    with pytest.raises(UserError, match="line 2: the role 'C-ARG1' is unknown; the model has no r"):
        task.encode(examples, tokenizer, head, True)
    # Of another inventory than the model's.
    with pytest.raises(
        UserError, match="line 2: the role 'ARG0' is unknown; the model has no role"
    ):
        task.encode(examples, tokenizer, Head(HEAD.kind, (NO_ROLE, 'A0', 'A1')), False)


@hypothesis.given(st.data())
def test_a_sequence_has_the_words_around_its_predicate(data):
    pieces = data.draw(st.lists(st.lists(st.integers(5, 99), min_size=1, max_size=9), min_size=1))
    predicate = data.draw(st.integers(0, len(pieces) - 1))
    length = data.draw(st.integers(8, 60))
    sequence = predicate_sequence(pieces, predicate, length)
    first, second = sequence.first, sequence.second
    assert len(sequence.token_type_ids) == len(first) + len(second) + 3 <= length
    assert second and second == pieces[predicate][: len(second)]
    words = [word for word in sequence.words if word >= 0]
    assert predicate in words and words == list(range(words[0], words[-1] + 1))
    kept = [
        [piece for piece, owner in zip(first, np.maximum.accumulate(sequence.words), strict=True)
         if owner == word]
        for word in words
    ]  # fmt: skip
    for word, ids in zip(words, kept, strict=True):
        whole = pieces[word]
        assert ids == (whole[: len(ids)] if word == predicate else whole)
    owners = np.maximum.accumulate(sequence.words)
    marked = [word for word, one in zip(owners, sequence.types, strict=True) if one]
    assert marked == [predicate] * len(marked) and marked
    needed = sum(map(len, pieces)) + len(pieces[predicate]) + 3
    # What fits is there whole, however long; else no word beside those that are there would fit.
    assert sequence.is_cut == (needed > length or len(pieces[predicate]) > (length - 3) // 2)
    room = length - len(sequence.token_type_ids)
    for word in (words[0] - 1, words[-1] + 1):
        assert not 0 <= word < len(pieces) or len(pieces[word]) > room


def test_a_long_sentence_is_cut_around_its_predicate_and_counted(tokenizer, tmp_path):
    names = [f'word{n}' for n in range(60)]
    lines = [row('_', 'ARG1', number=n + 1, word=name) for n, name in enumerate(names)]
    lines[50] = row('run.01', 'V', number=51, word='word50')
    head = Head(HEAD.kind, (NO_ROLE, 'ARG1'))
    task = tiny.task('roles', max_length=24)
    (example,) = task.read(tiny.write_lines(tmp_path / 'x.conllu', *lines), False)
    features = task.encode([example], tokenizer, head, False)
    assert features.num_cut == 1 and features.lengths.max() <= 24
    (roles,) = task.roles(
        [example], features, perfect(features), Head(HEAD.kind, (NO_ROLE, 'ARG1'))
    )
    found = [place for place, role in enumerate(roles) if role == 'ARG1']
    assert found and min(found) < 50 < max(found)
    scores = task.metrics(
        [example], features, perfect(features), Head(HEAD.kind, (NO_ROLE, 'ARG1'))
    )
    assert scores['precision'] == 1 and scores['recall'] == len(found) / 59


def test_a_predicate_by_its_word_or_its_number():
    words = ['to', 'be', 'or', 'not', 'to', 'be', '7']
    assert find_predicate(words, 'or', 'x') == find_predicate(words, 3, 'x') == 2
    assert find_predicate(words, ' 7 ', 'x') == 6
    for given, message in (
        ('be', "x: the predicate 'be' is in the sentence 2 times; give the number of the word, one"
               ' of 2, 6'),
        ('is', "x: the predicate 'is' is no word of the sentence; give one of its words"),
        ('', "x: the predicate '' is no word"),
        ('³', "x: the predicate '³' is no word"),
        (0, 'x: the predicate is word 0, but the sentence has 7 words, counted from 1'),
        ('8', 'x: the predicate is word 8, but the sentence has 7'),
        ('9' * 5000, 'x: the predicate is word 9'),
        (-1, 'x: the predicate is word -1, but'),
        (True, 'x: predicate must be a word of the sentence or its number, from 1'),
        (2.0, 'x: predicate must be a word'),
        (['be'], 'x: predicate must be a word'),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            find_predicate(words, given, 'x')


# fmt: off
LINES = [
    ('Bush ran', 'x, line 1 must be a sentence, a tab, and its predicate'),
    ('a\tb\tc', 'x has columns and no sentences; give it as a file with the ending .conllu'),
    (row('run.01', 'V'), 'x has columns and no sentences; give it as a file with the ending'),
    ('{"sentence": "Bush ran"}', 'x, line 1 lacks predicate'),
    ('{"sentence": ["Bush"], "predicate": 1}', 'x, line 1: sentence must be a text'),
    ('{"sentence": "Bush ran", "predicate": null}', 'x, line 1: predicate must be a word of th'),
    ('{"sentence": "", "predicate": 1}', 'x, line 1: the predicate is word 1, but the sent'),
    ('{"sentence": "a", "predicate": 1, "predicate": 1}', 'twice'),
    ('{"sentence": "a", "predicate": "\\ud800"}', 'x, line 1, predicate'),
]
# fmt: on


@pytest.mark.parametrize(('line', 'message'), LINES, ids=range(len(LINES)))
def test_a_line_that_is_no_sentence_with_a_predicate(line, message):
    with pytest.raises(UserError, match=message):
        parse_lines(tiny.task('roles'), [line], 'x')


def test_lines_of_texts_and_of_json_and_what_is_written_of_them(tmp_path):
    lines = [
        'a b c d e f g h i j k l\tb', '{"sentence": "Anna  ran ", "predicate": 2, "id": "q"}',
        '#tag rocks\trocks',
    ]  # fmt: skip
    task = tiny.task('roles')
    for ending in ('.txt', '.jsonl', '.tsv', '.lines'):
        path = tiny.write_lines(tmp_path / f'x{ending}', *lines)
        examples = read_input(task, str(path))
        assert [(e.key, e.words[e.predicate]) for e in examples] == [
            ('0', 'b'), ('q', 'ran'), ('2', 'rocks'),
        ]  # fmt: skip
    answers = [{'prediction': ['ARG0'] * len(e.words)} for e in examples[1:]]
    (file,) = task.write(examples[1:], answers, tmp_path)
    none = '\t_' * 8
    assert file.read_text().split('\n') == [
        f'1\tAnna{none}\t_\tARG0', f'2\tran{none}\tran\tARG0', '',
        f'1\t#tag{none}\t_\tARG0', f'2\trocks{none}\trocks\tARG0', '', '',
    ]  # fmt: skip


def test_which_models_have_roles():
    assert default_task(HEAD) == 'roles'
    assert default_task(Head(HEAD.kind, ('_', 'ARG0'))) == 'tags'
    with pytest.raises(UserError, match='DIR has the labels _, ARG0, and none for words without a'):
        tiny.task('roles').use_head(Head(HEAD.kind, ('_', 'ARG0')), 'DIR')
    for name in ('tags', 'ner', 'upos'):
        with pytest.raises(UserError, match='DIR tags the words for one predicate of a sentence'):
            tiny.task(name).use_head(HEAD, 'DIR')


@pytest.mark.parametrize(
    'names',
    [
        ('en_ewt-up-train.conllu', 'en_ewt-up-dev.conllu.gz', 'en_ewt-up-test.conllu'),
        ('train.conll.gz', 'dev.conllu', 'test.conll'),
        ('CoNLL2009-ST-English-train.txt', 'CoNLL2009-ST-English-development.txt',
         'CoNLL2009-ST-evaluation-English.txt'),
    ],
)  # fmt: skip
def test_files_by_their_published_names(names, tmp_path):
    for name in names:
        (tmp_path / name).touch()
    train, validation, test = find_files('roles', tmp_path)
    assert [train, validation[''], test['']] == [tmp_path / name for name in names]


def test_explanations_and_the_service_read_what_training_reads(tokenizer):
    model = Pretrained(tiny.config(), {}, tokenizer, HEAD)
    task = tiny.task('roles', max_length=32)
    example = task.parse({'sentence': 'Anna saw the dog', 'predicate': 'saw'}, 'x', '0')
    features = task.encode([example], tokenizer, HEAD, False)
    batch = features.batch(np.array([0]), np.ones(1), int(features.lengths[0]), tokenizer.pad_id)
    encoded = encode(model, 'Anna saw the dog', '2')
    assert encoded.input_ids.tolist() == batch['input_ids'].tolist()
    assert encoded.token_type_ids.tolist() == batch['token_type_ids'].tolist()
    with pytest.raises(UserError, match='The model finds the roles for one predicate; give it as'):
        encode(model, 'Anna saw the dog')
    with pytest.raises(UserError, match="The text: the predicate 'cat' is no word"):
        encode(model, 'Anna saw the dog', 'cat')
    with pytest.raises(UserError, match='The text has 132 pieces; the model has 64 positions'):
        encode(model, 'a ' * 128, '3')

    weights = HEADS[HEAD.kind].init(len(HEAD.labels), model.config, jax.random.key(1))
    params = tiny.random_params(model.config) | {'head': weights}
    del params['mlm'], params['sentence']
    model = dataclasses.replace(model, params=params)
    ability = Predict(Answerer(model, max_length=32))
    encoded = ability.encode([{'sentence': 'Anna saw the dog', 'predicate': 2}])
    (served,) = encoded.rows
    expected = features.batch(np.array([0]), np.ones(1), served.length, tokenizer.pad_id)
    for name in ('input_ids', 'attention_mask', 'token_type_ids'):
        np.testing.assert_array_equal(served.arrays[name], expected[name])
    assert pad_to(served, 32).arrays['token_type_ids'].sum() == expected['token_type_ids'].sum()
    (answer,) = encoded.answers([{'tags': np.ones(served.length, int)}])
    assert answer == {
        'words': ['Anna', 'saw', 'the', 'dog'], 'predicate': 2, 'prediction': ['ARG0'] * 4,
    }  # fmt: skip
    assert ability.example(32).length == 32
