"""The commands that commands propose: each is run as it is printed, on tiny models.

Not run here: those of the demo (the same as below), `launch.report` (tests/test_sweep.py) and
Hugging Face's library, which is an extra (tests/test_huggingface_parity.py).
"""

import importlib
import io
import shlex
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from albert_jax import convert, prepare, pretrain
from albert_jax.cli import next_steps
from albert_jax.tasks.inputs import parse_lines
from albert_jax.tasks.registry import TASKS
from launch import actions, tpu_vm
from tests import tiny
from tests.conftest import ROOT

# What makes a proposed training a matter of seconds.
SMALL = [
    f'--config.{field}'
    for field in (
        'model.hidden_size=16', 'model.embedding_size=8', 'model.num_hidden_layers=1',
        'model.intermediate_size=32', 'loop.num_steps=2', 'loop.num_eval_batches=1',
        'loop.num_devices=1',
    )
]  # fmt: skip


def proposed(capsys) -> dict[str, str]:
    """The commands on standard output, by module."""
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    lines = [line for line in lines if line.startswith(('python ', 'echo '))]
    return {shlex.split(line.rpartition('| ')[2])[2]: line for line in lines}


def execute(line: str, monkeypatch, *more: str) -> None:
    """Runs a line as a shell would, in this process."""
    echoed, pipe, command = line.rpartition(' | ')
    words = shlex.split(command)
    assert words[0] == 'python'
    if pipe:
        (text,) = shlex.split(echoed)[1:]
        content = io.BytesIO(f'{text}\n'.encode())
        monkeypatch.setattr('sys.stdin', io.TextIOWrapper(content))
    if words[1] == '-c':
        exec(words[2], {})
    else:
        assert words[1] == '-m'
        assert importlib.import_module(words[2]).main([*words[3:], *more]) == 0


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder with a space in its name, which is no checkout, as the current one."""
    folder = tmp_path / 'my work'
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(prepare.signal, 'signal', lambda *_: None)
    # optax's Muon takes a power of a count.
    with jax.numpy_dtype_promotion('standard'):
        yield folder


def test_from_text_to_a_trained_model(text_file, vocabulary, elsewhere, monkeypatch, capsys):
    (elsewhere / 'v.model').write_bytes(vocabulary)
    flags = [f'--input=jsonl:{text_file}', '--output=corpus', '--vocabulary=v.model',
             '--sequence_length=24', '--validation_fraction=0.2', '--workers=1']  # fmt: skip
    assert prepare.main(flags) == 0
    after = proposed(capsys)
    assert prepare.main(flags) == 0  # prepared already
    assert proposed(capsys) == after
    line = after['albert_jax.pretrain']
    assert '--config.model.vocab_size=1000' in line and '--workdir=corpus-tiny ' in line
    execute(line, monkeypatch, *SMALL)
    trained = proposed(capsys)
    assert trained.keys() == {'albert_jax.fill_mask', 'albert_jax.curve'}
    for proposal in trained.values():
        execute(proposal, monkeypatch)
    # A finished run says how it is lengthened, with the arguments that it was given.
    capsys.readouterr()
    arguments = [*shlex.split(line)[3:], *SMALL]
    assert pretrain.main(arguments) == 0
    further = proposed(capsys)['albert_jax.pretrain']
    assert '--workdir=corpus-tiny-further --config.init_from=corpus-tiny' in further
    execute(further, monkeypatch)
    assert (elsewhere / 'corpus-tiny-further' / 'checkpoints' / '2').is_dir()
    capsys.readouterr()
    # What is converted is used.
    assert convert.main(['corpus-tiny', "it's"]) == 0
    (proposal,) = proposed(capsys).values()
    execute(proposal, monkeypatch)
    assert 'probability' in capsys.readouterr().out


def test_a_classifier_that_is_converted_and_asked(finetuned, elsewhere, monkeypatch, capsys):
    line = next_steps.predict(finetuned, tiny.task('classification').sample)
    execute(line, monkeypatch)
    assert '"prediction": ' in capsys.readouterr().out
    assert convert.main([str(finetuned), 'copy']) == 0
    shown = capsys.readouterr()
    # Not of heads that are not written.
    assert shown.err == '' and 'initialised' not in shown.out
    (line,) = [x.strip() for x in shown.out.splitlines() if x.startswith('  python -c')]
    execute(line, monkeypatch)
    told = capsys.readouterr()
    assert 'classification head (no, yes), from copy' in told.out and told.err == ''


@pytest.mark.parametrize('name', TASKS)
def test_the_example_that_predict_is_given_is_one_of_its_task(name):
    task = tiny.task(name)
    line = next_steps.predict('runs/x', task.sample)
    (text,) = shlex.split(line.partition(' | ')[0])[1:]
    assert len(parse_lines(task, [text], '-')) == 1


def test_a_training_further():
    arguments = [
        '--config=c.py:a',
        '--workdir',
        '~/a b',
        '--config.init_from=x',
        '--config.s.x=y z',
    ]
    assert next_steps.train_further('albert_jax.finetune', arguments, Path('/runs/a b')) == (
        "python -m albert_jax.finetune --config=c.py:a --config.s.x='y z' "
        "--workdir='/runs/a b-further' --config.init_from='/runs/a b'"
    )


def test_free_names_and_places(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert '--config=configs/pretrain.py:tiny' in next_steps.pretrain('gs://b/c', 10, 8)
    assert '--workdir=runs/tiny' in next_steps.pretrain('gs://b/c', 10, 8)
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'c-tiny').mkdir()
    line = next_steps.pretrain('c', 10, 8)
    assert f'--config={ROOT}/configs/pretrain.py:tiny' in line and '--workdir=c-tiny-2' in line


def test_a_machine_that_was_created_is_set_up(monkeypatch, capsys):
    monkeypatch.setattr(actions, 'wait_until_settled', lambda *_: actions.READY)
    monkeypatch.setattr(actions.Machine, 'state', lambda _: actions.ABSENT)
    monkeypatch.setattr(actions.Machine, 'create', lambda _: None)
    monkeypatch.setattr('launch.gcloud.shutil.which', lambda _: '/bin/gcloud')
    places = ['--zone=us-west4-a', '--bucket=gs://my-bucket', '--corpus=gs://my-bucket/corpus']
    assert tpu_vm.main(['create', 'a', *places, '--topology=v5e:2x2']) == 0
    line = proposed(capsys)['launch.tpu_vm']
    assert line == f'python -m launch.tpu_vm setup a {" ".join(places)}'
    monkeypatch.undo()
    execute(line, monkeypatch, '--dry_run')
    assert 'setup.sh gs://my-bucket' in capsys.readouterr().out
