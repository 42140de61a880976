"""Semantic roles through the commands: trained, scored, predicted, explained, converted."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from albert_jax import convert, evaluate, explain, finetune, predict
from albert_jax.cli import command
from albert_jax.cli.errors import UserError
from albert_jax.data.predicate import NO_ROLE
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.interop import model_card, portable, source
from albert_jax.interop.exported import _signature
from albert_jax.interop.native import Pretrained
from albert_jax.model.heads import HEADS, Head
from albert_jax.runs.runs import FinetuneRun
from albert_jax.tasks.answering import Answerer
from albert_jax.tasks.features import Features
from albert_jax.tasks.prepared import prepare
from tests import tiny
from tests.reference_roles import score
from tests.test_role_files import UP, row

HEAD = Head('token_classification', (NO_ROLE, 'ARG0', 'ARG1', 'C-ARG1', 'R-ARG0'))


@pytest.fixture(scope='module')
def model(vocabulary, tmp_path_factory):
    """A model with random weights, of which only the labels say that it has roles."""
    config = tiny.wider_config()
    params = tiny.random_params(config)
    weights = HEADS[HEAD.kind].init(len(HEAD.labels), config, jax.random.key(1))
    params['head'] = tiny.random_tree(weights)
    parts = {part: params[part] for part in ('embeddings', 'encoder', 'pooler', 'head')}
    made = Pretrained(config, parts, Tokenizer(vocabulary), HEAD)
    return tiny.write(made, tmp_path_factory.mktemp('roles') / 'model')


def test_a_run_of_the_config_is_prepared_from_the_published_names(checkpoint, tmp_path):
    for split in ('train', 'dev'):
        (tmp_path / f'en_ewt-up-{split}.conllu').write_text(UP)
    flags = tiny.finetune_flags(checkpoint, tmp_path, tmp_path / 'cache', task='roles')
    config = command.read_config(flags[0].removeprefix('--config='), flags[1:])
    prepared = prepare(FinetuneRun.from_dict(config))
    assert set(prepared.head.labels) == set(HEAD.labels)
    assert prepared.train.num_examples == 3
    (_, features) = prepared.validation['']
    assert features.num_examples == 3
    # Those that are cached are the same.
    again = prepare(FinetuneRun.from_dict(config))
    assert isinstance(prepared.train, Features) and isinstance(again.train, Features)
    for name, values in prepared.train.token_targets.items():
        np.testing.assert_array_equal(again.train.token_targets[name], values)


def test_a_run_learns_who_did_what(checkpoint, tmp_path):
    for split, count in (('train', 12), ('dev', 1)):
        text = (UP + '\n').replace('Bush', 'list').replace('them', 'value') * count
        (tmp_path / f'en_ewt-up-{split}.conllu').write_text(text)
    flags = tiny.finetune_flags(checkpoint, tmp_path, tmp_path / 'cache', task='roles')
    longer = ['--config.loop.num_steps=160', '--config.loop.eval_every=40']
    assert finetune.main([*flags, *longer, f'--workdir={tmp_path}/run']) == 0
    # The same sentences as in training, of which each predicate has its own roles.
    assert json.loads((tmp_path / 'run/results.json').read_text())['f1'] > 0.9
    written = tmp_path / 'run/predictions/validation/predictions.conllu'
    assert (
        score((tmp_path / 'en_ewt-up-dev.conllu').read_text(), written.read_text(), 10, 11)['f1']
        > 0.9
    )


def test_what_is_evaluated_is_scored_as_its_files_are(model, tmp_path, capsys):
    file = tmp_path / 'x.conllu'
    file.write_text(UP)
    flags = [f'--checkpoint={model}', f'--output={tmp_path / "out"}', f'--data={file}']
    assert evaluate.main(flags) == 0
    written = (tmp_path / 'out/predictions.conllu').read_text()
    expected = score(UP, written, 10, 11)
    told = capsys.readouterr().out
    assert f'f1        │ {expected["f1"]:.4f}' in told and f'{file}: 3 examples' in told
    assert f'precision │ {expected["precision"]:.4f}' in told
    assert 0 < expected['f1'] < 1


def test_the_commands_that_read_a_checkpoint(model, tmp_path, capsys):
    lines = ['list value class\tvalue', '{"sentence": "list list list", "predicate": 2, "id": "q"}']
    texts = tiny.write_lines(tmp_path / 'texts', *lines)
    plain = tiny.write_lines(
        tmp_path / 'x.conllu',
        *(row(number=n + 1, word=w) for n, w in enumerate(['list', 'value', 'class'])),
    )
    assert predict.main([f'--checkpoint={model}', f'--input={texts}']) == 0
    answers = capsys.readouterr().out
    first, second = (json.loads(line) for line in answers.splitlines())
    assert (first['id'], first['predicate'], second['id']) == ('0', 2, 'q')
    assert second['words'] == ['list'] * 3 and second['predicate'] == 2
    flags = [f'--checkpoint={model}', f'--input={plain}']
    with pytest.raises(UserError, match='has the 10 columns of CoNLL-U, and none behind them'):
        predict.main(flags)
    roles = [x if x != '_' or n != 1 else 'V' for n, x in enumerate(first['prediction'])]
    assert predict.main([*flags, '--predicates=1:value', f'--server={tmp_path / "out"}']) == 0
    assert [
        line.split('\t')[10:]
        for line in (tmp_path / 'out/predictions.conllu').read_text().splitlines()
    ] == [['_', first['prediction'][0]], ['value', roles[1]], ['_', roles[2]]]
    with pytest.raises(UserError, match='texts has no columns, and --predicates names one of them'):
        predict.main([f'--checkpoint={model}', f'--input={texts}', '--predicates=3'])
    # Hugging Face's form, which does not say that it is of roles.
    assert convert.main([str(model), str(tmp_path / 'hf'), '--to=huggingface']) == 0
    told = ' '.join(''.join(capsys.readouterr()).split())
    assert 'no pipeline of transformers makes its input: `[CLS] sentence [SEP]' in told
    assert predict.main([f'--checkpoint={tmp_path / "hf"}', f'--input={texts}']) == 0
    assert capsys.readouterr().out == answers
    with pytest.raises(UserError, match='The model finds the roles for one predicate; give it as'):
        explain.main([f'--checkpoint={model}', f'--output={tmp_path / "x.html"}', 'list value'])


def test_the_program_on_the_card_has_a_predicate(model):
    loaded = source.read(model)
    assert loaded.tokenizer is not None
    function = portable.portable(loaded)
    signature = _signature(loaded, function)
    card = model_card.render(loaded, str(model), 'stablehlo', signature, [])
    assert (
        '| input | `[CLS] sentence [SEP] predicate [SEP]`, word by word; `token_type_ids`' in card
    )
    program = card.split('```python\n')[1].split('from jax import')[0]
    names = {}
    exec(program, names)
    inputs = names['inputs']
    assert inputs['input_ids'].shape == inputs['token_type_ids'].shape
    pieces = loaded.tokenizer.encode(['try'])[0]
    marked = inputs['input_ids'][inputs['token_type_ids'] == 1].tolist()
    assert marked == [*pieces, *pieces, loaded.tokenizer.sep_id]
    assert set(inputs) == set(function.inputs) and jax.tree.leaves(inputs)


def test_predicates_are_for_roles(model):
    tagger = dataclasses.replace(source.read(model), head=Head(HEAD.kind, tuple('ABCDE')))
    with pytest.raises(UserError, match='--predicates is for semantic roles .task roles., not for'):
        Answerer(tagger, predicates='3')
