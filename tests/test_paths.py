"""A leading ~ is the home folder in every path option of every command, and nowhere else."""

import argparse
import gzip
import importlib
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import albert_jax
from albert_jax import prepare
from albert_jax.cli import command
from albert_jax.cli.errors import UserError
from albert_jax.cli.paths import expand, expand_after, local_path
from albert_jax.cli.settings import Settings, declared
from albert_jax.runs.data import PretrainDataSettings
from albert_jax.runs.runs import FinetuneRun, PretrainRun, TeacherFields
from albert_jax.service.settings import ServiceSettings
from launch import stages
from tests import tiny
from tests.conftest import ROOT

COMMANDS = [
    *(
        f'albert_jax.{path.stem}'
        for path in sorted((ROOT / 'albert_jax').glob('*.py'))
        if path.stem not in ('__init__', '__main__')
    ),
    'launch.sweep', 'launch.search', 'launch.report', 'launch.tpu_vm',
]  # fmt: skip
# Options that take a text and no local path. A new option is either expanded or listed here.
NOT_PATHS = {
    'help',
    'text', 'pair', 'label', 'piece', 'task', 'labels', 'text_key', 'host', 'topology',
    'coordinator', 'name', 'zone', 'project', 'runtime', 'service_account', 'network', 'bucket',
    'corpus', 'confirm', 'only', 'pair_columns', 'compare', 'predicates',
    # Whose values are expanded where a field is read.
    'override', 'api_key_file',
}  # fmt: skip
# Fields of configs that are texts and no paths. A new one is marked as LocalPath or listed here.
NOT_PATH_FIELDS = {
    'model.size', 'model.hidden_act', 'model.sharing', 'model.compute_dtype', 'model.remat',
    'model.attention', 'pretraining.sentence_loss', 'optimizer.name', 'optimizer.schedule',
    'loop.best_metric', 'task.name', 'task.text', 'task.text_pair', 'task.label', 'task.labels',
    'distillation.hidden_layers', '--host', 'model.kernel_initializer', 'model.norm_placement',
    'model.position_encoding', 'decoder.decoder_sharing', 'decoder.cross_attention', 'task.source',
    'task.target', 'task.label_names', 'loop.tracker',
}  # fmt: skip


class Captured(Exception):
    """Holds the parser of a command, which was about to parse."""


def parser_of(module: str, monkeypatch) -> argparse.ArgumentParser:
    def capture(parser, *_):
        raise Captured(parser)

    with monkeypatch.context() as patch:
        # The first that is called: a parser may ask another one what its arguments are about.
        for name in ('parse_args', 'parse_known_args'):
            patch.setattr(argparse.ArgumentParser, name, capture)
        with pytest.raises(Captured) as captured:
            importlib.import_module(module).main([])
    return captured.value.args[0]


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv('HOME', str(tmp_path))
    return tmp_path


@pytest.mark.parametrize('module', COMMANDS)
def test_every_path_option_of_a_command_takes_the_home_folder(module, home, monkeypatch):
    actions = [
        action
        for action in parser_of(module, monkeypatch)._actions
        if action.type not in (int, float) and action.nargs != 0 and not action.choices
    ]
    taken = {
        action.dest: str(action.type('~/a b') if action.type else '~/a b') for action in actions
    }
    paths = {name: value for name, value in taken.items() if name not in NOT_PATHS}
    assert paths == dict.fromkeys(paths, f'{home}/a b')
    assert paths or module == 'launch.tpu_vm'
    # What is no local path is as it was.
    for action, value in itertools.product(actions, ('gs://b/~/c', 'x/~', '-', 'albert-base-v2')):
        if action.type:
            assert str(action.type(value)).replace('gs:/b', 'gs://b') == value


def text_fields(settings: type[Settings]):
    for field in declared(settings):
        if issubclass(field.kind, Settings):
            yield from text_fields(field.kind)
        elif field.kind is str:
            yield settings, field


def test_every_field_that_is_a_path_takes_the_home_folder(home):
    kinds = (PretrainRun, FinetuneRun, TeacherFields, ServiceSettings)
    fields = [pair for kind in kinds for pair in text_fields(kind)]
    paths = {kind.address(field.name) for kind, field in fields if field.is_path}
    assert {'init_from', 'teacher', 'data.path', 'data.cache', '--api_key_file'} < paths
    assert {kind.address(field.name) for kind, field in fields} - paths == NOT_PATH_FIELDS
    for kind, field in fields:
        if field.is_path:
            assert getattr(kind(**{field.name: '~/x'}), field.name) == f'{home}/x', field
            for other in ('tfds:glue/sst2', 'gs://b/c', 'a/~', ''):
                assert getattr(kind(**{field.name: other}), field.name) == other


@given(st.text(st.characters(exclude_characters='\0'), max_size=20))
@example('gs://bucket/~')
@example('~nobody-has-this-name/x')
@example('~')
def test_only_a_leading_tilde_is_replaced(path):
    if not path.startswith('~'):
        assert expand(path) == path
    assert not expand(f'~/{path}').startswith('~')
    assert expand(f'./~{path}') == f'./~{path}'
    assert local_path(path) == Path(expand(path))


def test_a_name_or_a_kind_before_the_path_stays(home):
    assert expand_after('=', 'mood=~/run') == f'mood={home}/run'
    assert expand_after('=', '~/run=1') == f'{home}/run=1'
    assert expand_after('=', 'runs/a=~b') == 'runs/a=~b'
    assert expand_after(':', 'jsonl:~/x*.gz') == f'jsonl:{home}/x*.gz'
    assert expand_after(':', 'builtin') == 'builtin'
    assert expand_after(':', 'tfds:wikipedia') == 'tfds:wikipedia'
    assert expand('~nobody-has-this-name/x') == '~nobody-has-this-name/x'


def test_a_corpus_is_prepared_from_the_home_folder(text_file, vocabulary, home, monkeypatch):
    monkeypatch.setattr(prepare.signal, 'signal', lambda *_: None)
    (home / 'v.model').write_bytes(vocabulary)
    with gzip.open(home / 'x.gz', 'wt') as file:
        file.writelines(text_file.read_text().splitlines(keepends=True)[:40])
    flags = ['--input=jsonl:~/x.gz', '--vocabulary=~/v.model', '--output=~/corpus', '--workers=1']
    assert prepare.main([*flags, '--sequence_length=64']) == 0
    assert json.loads((home / 'corpus' / 'corpus.json').read_text())['fingerprint']
    assert not Path('~').exists()
    assert PretrainDataSettings(path='~/corpus').path == f'{home}/corpus'


def test_a_config_and_a_sweep_are_found_in_the_home_folder(home):
    (home / 'mine.py').write_text(
        'from configs.pretrain import get_config as named\n'
        'def get_config(name):\n'
        '    config = named(name)\n'
        "    config.data.path = '~/corpus'\n"
        '    return config\n'
    )
    values = command.read_config('~/mine.py:tiny', ['--config.init_from=~/run'])
    run = PretrainRun.from_dict(values)
    assert (run.data.path, run.init_from) == (f'{home}/corpus', f'{home}/run')
    (home / 'sweep.py').write_text((ROOT / 'configs/sweeps/sharing.py').read_text())
    sweep = stages.read_sweep('~/sweep.py:mini')
    overrides = stages.read_overrides(['pretrain.data.path=~/corpus'])
    members = stages.make_members(sweep, overrides)
    assert {member.run.data.path for member in members if member.run} == {f'{home}/corpus'}
    names = ', '.join(member.change.name for member in members)
    assert stages.missing_inputs(members) == [
        f'{names}: pretrain.data.path is {home}/corpus, which is not there.'
    ]
    (home / 'corpus').mkdir()
    (told,) = stages.missing_inputs(members)
    assert f"pretrain.data.path is '{home}/corpus', which holds no prepared corpus" in told
    (told,) = stages.unnamed_inputs(members)
    assert told.startswith(f'{names}: nothing is named to fine-tune sst2 on')


def test_a_model_is_loaded_from_the_home_folder(vocabulary, home):
    tiny.write(tiny.random_model(tiny.config(), vocabulary), home / 'run')
    assert albert_jax.load('~/run').config == tiny.config()
    with pytest.raises(UserError, match=f'no file or directory {home}/nothing'):
        albert_jax.load('~/nothing')
