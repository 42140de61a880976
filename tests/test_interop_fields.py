"""What config.json of Hugging Face says beside the sizes: read, without effect, or refused."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

import albert_jax
from albert_jax.cli.errors import UserError
from albert_jax.interop import conversion, huggingface_config, source
from albert_jax.model.heads import Head
from albert_jax.tasks.answering import Answerer
from tests.huggingface_files import (
    assert_same_model,
    configure,
    edit_json,
    edit_tensors,
    make_model,
    put,
)
from tests.tiny import write_lines


@pytest.fixture
def directory(vocabulary, tmp_path) -> Path:
    conversion.convert(make_model(vocabulary), tmp_path / 'hf', 'huggingface')
    return tmp_path / 'hf'


def classifier(vocabulary, folder, num_labels=3, kind='sequence_classification', **fields) -> Path:
    """A directory with the head of a classifier, its config as transformers saves it."""
    head = Head(kind, tuple(f'LABEL_{number}' for number in range(num_labels)))
    conversion.convert(make_model(vocabulary, head, **fields), folder, 'huggingface')
    edit_json(folder / 'config.json', problem_type=None)
    return folder


# Problem types.


@pytest.mark.parametrize(
    ('problem_type', 'num_labels', 'kind', 'is_bert'),
    [
        ('multi_label_classification', 3, 'multi_label_classification', False),
        ('multi_label_classification', 3, 'multi_label_classification', True),
        ('multi_label_classification', 1, 'multi_label_classification', False),
        ('single_label_classification', 3, 'sequence_classification', False),
        (None, 3, 'sequence_classification', False),
        ('regression', 1, 'sequence_classification', False),
        (None, 1, 'sequence_classification', False),
    ],
)
def test_problem_types(problem_type, num_labels, kind, is_bert, vocabulary, tmp_path):
    fields = {'embedding_size': 16, 'use_embedding_projection': False, 'sharing': 'none'}
    folder = classifier(vocabulary, tmp_path / 'hf', num_labels, **(fields if is_bert else {}))
    configure(problem_type=problem_type)(folder)
    model = albert_jax.load(folder)
    assert model.head.kind == kind and len(model.head.labels) == num_labels
    conversion.convert(model, tmp_path / 'again', 'huggingface')
    written = json.loads((tmp_path / 'again' / 'config.json').read_text())['problem_type']
    implied = 'regression' if num_labels == 1 else 'single_label_classification'
    assert written == (problem_type or implied)
    assert albert_jax.load(tmp_path / 'again').head == model.head
    (answer,) = Answerer(model).answer(['a value'], 'x')
    if kind == 'multi_label_classification':
        assert isinstance(answer['prediction'], list)
        assert abs(sum(answer['probabilities'].values()) - 1) > 1e-3
    elif num_labels == 1:
        assert isinstance(answer['prediction'], float)
    else:
        assert sum(answer['probabilities'].values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ('changes', 'num_labels', 'message'),
    [
        ({'problem_type': 'regression'}, 3, "'regression', but the classifier has 3 output"),
        ({'problem_type': 'single_label_classification'}, 1, 'has 1 output'),
        (
            {'problem_type': 'ranking'},
            3,
            "is 'ranking'; it must be one of single_label",
        ),
        ({'problem_type': ['regression']}, 1, r"problem_type is \['regression'\]; it must be one"),
        ({'id2label': {'0': 'a', '1': 'b'}}, 3, 'id2label has 2 labels, the classifier 3 outputs'),
        ({'id2label': {str(i): 'abcd'[i] for i in range(4)}}, 3, 'id2label has 4 labels'),
        ({'id2label': {'1': 'a', '2': 'b', '3': 'c'}}, 3, 'a label for each, from "0" on'),
        ({'id2label': {'0': 'a', '1': '', '2': 'c'}}, 3, "label 1 of id2label is ''; it must be a"),
        ({'id2label': {'0': 'a', '1': None, '2': 'c'}}, 3, 'label 1 of id2label is None; it must'),
        ({'id2label': {'0': ['x'], '1': 'b', '2': 'c'}}, 3, r"label 0 of id2label is \['x'\]; it"),
        ({'id2label': {'0': 'a', '1': 'b', '2': '\u200b'}}, 3, 'it must be a name that can be'),
        ({'id2label': {'0': 'a', '1': 'b', '2': math.nan}}, 3, 'label 2 of id2label is nan; it'),
        ({'id2label': ['a', 'b', 'c']}, 3, r"id2label has \['a', 'b', 'c'\]"),
    ],
)
def test_problem_types_and_labels_that_do_not_fit(
    changes, num_labels, message, vocabulary, tmp_path
):
    folder = classifier(vocabulary, tmp_path / 'hf', num_labels)
    edit_json(folder / 'config.json', **changes)
    with pytest.raises(UserError, match=message) as caught:
        albert_jax.load(folder)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('kind', ['token_classification', 'question_answering'])
def test_a_problem_type_says_nothing_of_other_heads(kind, vocabulary, tmp_path):
    """transformers reads it for sequences only."""
    head = Head(kind, ('A', 'B') if kind == 'token_classification' else ())
    conversion.convert(make_model(vocabulary, head), tmp_path / 'hf', 'huggingface')
    configure(problem_type='multi_label_classification')(tmp_path / 'hf')
    assert albert_jax.load(tmp_path / 'hf').head == head


def test_labels_without_names_get_those_of_transformers(vocabulary, tmp_path):
    folder = classifier(vocabulary, tmp_path / 'hf')
    edit_json(folder / 'config.json', id2label=None, label2id=None)
    assert albert_jax.load(folder).head.labels == ('LABEL_0', 'LABEL_1', 'LABEL_2')


def test_numbers_and_truth_values_may_name_classes(vocabulary, tmp_path):
    folder = classifier(vocabulary, tmp_path / 'hf')
    edit_json(folder / 'config.json', id2label={'0': 1, '1': False, '2': 2.5})
    assert albert_jax.load(folder).head.labels == ('1', 'False', '2.5')


def test_half_a_surrogate_pair_is_no_name_of_a_class(vocabulary, tmp_path):
    folder = classifier(vocabulary, tmp_path / 'hf')
    with pytest.raises(UserError, match=r'--labels has half a surrogate pair, \\udc80, which'):
        Answerer(folder, labels=('a\udc80', 'b', 'c'))
    edit_json(folder / 'config.json', id2label={'0': 'a\ud83d', '1': 'b', '2': 'c'})
    with pytest.raises(UserError, match=r'label 0 of id2label has half a surrogate pair, \\ud83d'):
        albert_jax.load(folder)
    # A byte of another encoding was the sign of replacement.
    file = folder / 'config.json'
    content = file.read_bytes().replace(b'"a\\ud83d"', b'"n\xe9e"')
    file.write_bytes(content)
    with pytest.raises(UserError, match=r'label 0 of id2label has half a surrogate pair, \\udce9'):
        albert_jax.load(folder)
    # It is no matter where nothing is read.
    edited = content.replace(b'"n\xe9e"', b'"x"').replace(b'{', b'{"note": "\xe9",', 1)
    file.write_bytes(edited)
    assert albert_jax.load(folder).head.labels == ('x', 'b', 'c')


@pytest.mark.parametrize(
    ('file', 'key', 'value', 'other'),
    [
        ('config.json', '0', '"LABEL_0"', '"yes"'),
        ('config.json', 'hidden_size', '16', '32'),
        ('tokenizer_config.json', 'do_lower_case', 'true', 'false'),
    ],
)
def test_a_key_twice_must_say_the_same(file, key, value, other, vocabulary, tmp_path):
    path = classifier(vocabulary, tmp_path / 'hf') / file
    edit_json(path, **({'do_lower_case': True} if key == 'do_lower_case' else {}))
    original = path.read_text()
    assert f'"{key}": {value}' in original
    path.write_text(original.replace(f'"{key}":', f'"{key}": {value}, "{key}":', 1))
    assert albert_jax.load(tmp_path / 'hf').head.labels[0] == 'LABEL_0'
    path.write_text(original.replace(f'"{key}":', f'"{key}": {other}, "{key}":', 1))
    with pytest.raises(UserError, match=f"{file}: a JSON object has the key '{key}' twice, with"):
        albert_jax.load(tmp_path / 'hf')


def test_two_outputs_of_one_name_can_be_named_anew(vocabulary, tmp_path):
    folder = classifier(vocabulary, tmp_path / 'hf')
    edit_json(folder / 'config.json', id2label={'0': 'a', '1': 'b', '2': 'a'})
    with pytest.raises(UserError, match='has the labels a, b, a, of which two are the same; name'):
        Answerer(folder)
    (answer,) = Answerer(folder, labels=('a', 'b', 'c')).answer(['a value'], 'x')
    assert list(answer['probabilities']) == ['a', 'b', 'c']


# A tagger whose tags have no names.


def test_a_tagger_without_names_is_refused_where_it_is_scored(vocabulary, tmp_path, capsys):
    folder = classifier(vocabulary, tmp_path / 'hf', 2, 'token_classification')
    file = write_lines(tmp_path / 'x.txt', 'a O', 'value B-X', '', 'b O')
    answerer = Answerer(folder)
    with pytest.raises(UserError, match="x.txt, line 1: the tag 'O' is unknown; the model has LAB"):
        answerer.evaluate(answerer.task.read(file, False))
    # Answers have the names that there are.
    assert answerer.answer(['a value'], 'x')[0]['prediction'][0].startswith('LABEL_')
    named = Answerer(folder, labels=('O', 'B-X'))
    scores, _ = named.evaluate(named.task.read(file, False))
    assert 0 <= scores['accuracy'] <= 1
    # Half of the names is no better, and neither are those of other tags.
    for labels in (('O', 'LABEL_1'), ('NOUN', 'VERB')):
        other = Answerer(folder, labels=labels)
        with pytest.raises(UserError, match=r'is unknown; the model has .* with --labels=A,B'):
            other.evaluate(other.task.read(file, False))
    # A tag that only the file has is one mistake, which is told.
    capsys.readouterr()
    other = Answerer(folder, labels=('O', 'B-Y'))
    other.evaluate(other.task.read(file, False))
    assert '1 words have a tag that the model does not know and count as wrong: B-X.' in (
        capsys.readouterr().err
    )


# The other fields.

REFUSED = [
    ({'position_embedding_type': 'relative_key_query'}, "only 'absolute' can be read"),
    ({'is_decoder': True}, 'is_decoder is True; only False can be read'),
    ({'add_cross_attention': True}, 'add_cross_attention is True; only False'),
    ({'is_encoder_decoder': True}, 'is_encoder_decoder is True; only False'),
    ({'pruned_heads': {'0': [1]}}, r'pruned_heads is .*; only \{\} can be read'),
    ({'net_structure_type': 1}, 'net_structure_type is 1; only 0 can be read'),
    ({'down_scale_factor': 2}, 'down_scale_factor is 2; only 1'),
    ({'gap_size': 1}, 'gap_size is 1; only 0'),
    ({'num_memory_blocks': 2}, 'num_memory_blocks is 2; only 0'),
    ({'hidden_act': 'quick_gelu'}, "hidden_act is 'quick_gelu'; it must be one of gelu_new"),
    ({'hidden_act': ['gelu']}, r"hidden_act is \['gelu'\]; it must be one of gelu_new"),
    ({'model_type': ['albert']}, r"of the architecture \['albert'\]"),
    ({'tie_word_embeddings': False}, 'tie_word_embeddings is False, but there is no predictions.d'),
    ({'type_vocab_size': 3}, r'token_type_embeddings.weight has the shape \[2, 8\]'),
    ({'embedding_size': 9}, r'its config says \[1000, 9\]'),
    ({'inner_group_num': 2}, 'inner_group_num is 2, but its key albert_jax implies 1'),
]


@pytest.mark.parametrize(('changes', 'message'), REFUSED, ids=[str(c) for c, _ in REFUSED])
def test_values_that_make_another_model_are_refused(changes, message, directory):
    edit_json(directory / 'config.json', **changes)
    with pytest.raises(UserError, match=message) as caught:
        albert_jax.load(directory)
    assert '\n' not in str(caught.value)


def test_fields_without_effect_change_nothing(vocabulary, directory, capsys):
    model = make_model(vocabulary)
    edit_json(
        directory / 'config.json',
        use_cache=True, chunk_size_feed_forward=8, output_attentions=True, bos_token_id=2,
        eos_token_id=[3], finetuning_task='x', pooler_type='first_token_transform',
        summary_type='mean', summary_use_proj=False, net_structure_type=0, down_scale_factor=1,
        gap_size=0, num_memory_blocks=0, pruned_heads={}, is_decoder=None, layers_to_keep=[],
        position_embedding_type=None, classifier_dropout_prob=0.1, tie_word_embeddings=True,
        problem_type='multi_label_classification', id2label={'0': 'a'}, unheard_of={'a': [1]},
    )  # fmt: skip
    assert_same_model(albert_jax.load(directory), model)
    assert capsys.readouterr().err == ''


@pytest.mark.parametrize(
    ('theirs', 'ours'),
    [
        ('gelu_new', 'gelu_tanh'), ('gelu_fast', 'gelu_tanh'), ('gelu_accurate', 'gelu_tanh'),
        ('gelu_pytorch_tanh', 'gelu_tanh'), ('gelu_python_tanh', 'gelu_tanh'),
        ('gelu', 'gelu_erf'), ('gelu_python', 'gelu_erf'), ('relu', 'relu'),
    ],
)  # fmt: skip
def test_activations(theirs, ours, directory):
    content = json.loads((directory / 'config.json').read_text()) | {'hidden_act': theirs}
    assert huggingface_config.read_config(content, 'config.json').hidden_act == ours


def test_a_table_that_is_not_tied_matters_to_a_masked_lm_only(vocabulary, directory, tmp_path):
    """With a copy of the table beside it, the copy decides."""
    configure(tie_word_embeddings=False)(directory)
    table = {}
    edit_tensors(directory, table.update)
    name = 'albert.embeddings.word_embeddings.weight'
    put('predictions.decoder.weight', np.array(table[name]))(directory)
    assert_same_model(albert_jax.load(directory), make_model(vocabulary))
    put('predictions.decoder.weight', np.array(table[name]) + 1)(directory)
    with pytest.raises(UserError, match='is not tied to'):
        albert_jax.load(directory)
    folder = classifier(vocabulary, tmp_path / 'classifier')
    configure(tie_word_embeddings=False)(folder)
    assert albert_jax.load(folder).head is not None


def test_dropout_of_the_classifier_is_told_since_it_is_the_runs(vocabulary, tmp_path):
    folder = classifier(vocabulary, tmp_path / 'hf')
    for value, notes in ((None, 0), (0.1, 0), (0.3, 1)):
        configure(classifier_dropout_prob=value)(folder)
        found = [n for n in source.read(folder).notes if 'dropout' in n]
        assert len(found) == notes
    assert 'is 0.3; fine-tuning takes 0.1: see --config.task.head_dropout' in found[0]
