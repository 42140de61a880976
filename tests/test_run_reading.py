"""A run from a config file and flags: what is derived, and all that is wrong at once."""

import importlib
import os
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from albert_jax.__main__ import commands
from albert_jax.cli.errors import UserError
from albert_jax.runs.loop import LoopSettings
from albert_jax.runs.reading import read_run
from albert_jax.runs.runs import DistillRun, FinetuneRun, PretrainRun
from tests.conftest import ROOT

TINY = 'configs/pretrain.py:tiny'


def mistakes(kind, config, *overrides, **options) -> list[str]:
    with pytest.raises(UserError) as caught:
        read_run(kind, config, [f'--config.{field}' for field in overrides], **options)
    assert '\n' not in str(caught.value)
    return [str(part) for part in caught.value.parts]


def run_of(kind, config, *overrides):
    return read_run(kind, config, [f'--config.{field}' for field in overrides])


def test_all_that_is_wrong_is_told_at_once():
    told = mistakes(
        PretrainRun, TINY, 'loop.num_steps=40', 'lop.seed=3', 'optimizer.warmup_stps=50',
        'loop.eval_every=x', 'loop.keep_last=0', 'model.num_attention_heads=5',
        'pretraining.sequence_length=999', 'loop=3', 'loop.log_every',
    )  # fmt: skip
    assert told == [
        '--config.lop.seed is not a field of the config; did you mean loop.seed? --help=loop lists '
        'the fields there.',
        '--config.optimizer.warmup_stps is not a field of the config; did you mean '
        'optimizer.warmup_steps? --help=optimizer lists the fields there.',
        "--config.loop.eval_every is 'x'; it must be a whole number.",
        '--config.loop is a section; set one of its fields with --config.loop.FIELD=VALUE '
        '(--help=loop lists them).',
        '--config.loop.log_every has no value; write --config.loop.log_every=VALUE.',
        'loop.keep_last is 0; it must be above 0.',
        # Of a field whose name was misspelled: as it was meant.
        'optimizer.warmup_steps is 50; it must be below loop.num_steps, which is 40.',
        'model.hidden_size 128 does not divide into 5 attention heads; choose num_attention_heads '
        'among the divisors of hidden_size.',
        'pretraining.sequence_length is 999, but the model has 64 positions; raise '
        'model.max_position_embeddings or shorten the sequences.',
    ]


def test_what_follows_from_a_wrong_field_is_not_told():
    # The config's 600 steps would be too few for the warm-up.
    told = mistakes(PretrainRun, TINY, 'loop.num_steps=many', 'optimizer.warmup_steps=700')
    assert told == ["--config.loop.num_steps is 'many'; it must be a whole number."]
    told = mistakes(DistillRun, 'configs/distill.py:tiny', 'loop.keep_last=0', 'model.size=huge')
    assert [text.partition(';')[0] for text in told] == [
        'loop.keep_last is 0', "model.size is 'huge'", 'teacher is empty',
    ]  # fmt: skip


@given(
    st.sampled_from(
        [
            (PretrainRun, TINY),
            (PretrainRun, 'configs/pretrain.py:mini+modern+short'),
            (FinetuneRun, 'configs/finetune.py:sst2'),
        ]
    ),
    st.integers(1, 10**6),
    st.integers(1, 10**6),
    st.sampled_from(['eval_every', 'checkpoint_every', 'log_every']),
)
@example((PretrainRun, TINY), 1, 7, 'eval_every')
@example((FinetuneRun, 'configs/finetune.py:sst2'), 40, 500, 'checkpoint_every')
def test_a_length_and_an_interval_alone_are_never_refused(kind_and_config, steps, every, name):
    kind, config = kind_and_config
    run = run_of(kind, config, f'loop.num_steps={steps}', f'loop.{name}={every}')
    assert run.loop.num_steps == steps and getattr(run.loop, name) == every
    assert run.optimizer.warmup_steps < steps


def test_a_shorter_run_keeps_the_shares_of_the_config(capsys):
    run = run_of(PretrainRun, 'configs/pretrain.py:mini+short', 'loop.num_steps=100')
    assert run.optimizer.warmup_steps == 10 and run.pretraining.short_phase_steps == 90
    told = capsys.readouterr().err
    assert 'note: optimizer.warmup_steps is 10: as large a share of loop.num_steps (100)' in told
    # What fits stays as it was, and what is given is not touched.
    assert run_of(PretrainRun, TINY, 'loop.num_steps=100').optimizer.warmup_steps == 60
    assert capsys.readouterr().err == ''
    told = mistakes(PretrainRun, TINY, 'loop.num_steps=40', 'optimizer.warmup_steps=60')
    assert told == ['optimizer.warmup_steps is 60; it must be below loop.num_steps, which is 40.']


def test_intervals(capsys):
    run = run_of(PretrainRun, TINY, 'loop.eval_every=30')
    assert run.loop.checkpoint_every == 90
    assert 'note: loop.checkpoint_every is 90' in capsys.readouterr().err
    assert run_of(PretrainRun, TINY, 'loop.checkpoint_every=70').loop.eval_every == 70
    (told,) = mistakes(PretrainRun, TINY, 'loop.eval_every=30', 'loop.checkpoint_every=100')
    assert 'make one a multiple of the other' in told
    # Longer than the run: at its end alone.
    assert LoopSettings(num_steps=40, eval_every=100, checkpoint_every=30).num_steps == 40


@pytest.mark.parametrize(
    ('wrong', 'near'),
    [
        ('num_steps', 'loop.num_steps'),
        ('optim.learning_rate', 'optimizer.learning_rate'),
        ('loop.learningrate', 'optimizer.learning_rate'),
        ('model.hiden_size', 'model.hidden_size'),
        ('pretraining.masked_fractoin', 'pretraining.masked_fraction'),
        ('lr_whatever', ''),
    ],
)
def test_the_nearest_names(wrong, near):
    told = mistakes(PretrainRun, TINY, f'{wrong}=1')[0]
    assert f'did you mean {near}' in told if near else 'did you mean' not in told
    assert '--help=' in told


@pytest.mark.parametrize(
    'command',
    ['albert_jax.pretrain', 'albert_jax.finetune', 'albert_jax.distill', 'albert_jax.plan',
     'launch.sweep', 'launch.search'],
)  # fmt: skip
def test_help_of_a_section(command, capsys):
    main = importlib.import_module(command).main
    for asked in (['--help=loop'], ['--help', 'loop.num_steps']):
        with pytest.raises(SystemExit) as ended:
            main(asked)
        shown = capsys.readouterr().out
        assert ended.value.code == 0
        assert 'steps of the run (int; above 0)' in shown and 'model.size' not in shown
    with pytest.raises(UserError, match='--help=lop: there is no such section; there are .*model'):
        main(['--help=lop'])


@pytest.mark.parametrize(
    ('command', 'arguments', 'shown', 'hidden'),
    [
        # The size's values are the config's, before and behind what asks for them.
        ('pretrain', '--help=model --config=configs/pretrain.py:large',
         ['hidden_size=1024', 'num_hidden_layers=24', 'embedding_initializer_range=None'],
         ["the size's", 'loop.']),
        ('pretrain', '--config=configs/pretrain.py:mini --config.loop.seed=7 --help=loop',
         ['num_steps=600', 'seed=7', 'and on this command line'], ['num_steps=125000']),
        ('plan', '--config=configs/pretrain.py:mini --help', ['usage:', 'loop.num_steps=600'], []),
        ('finetune', '--config=configs/finetune.py:sst2 --help=task.max_length',
         ["name='sst2'", 'max_length=512'], []),
        ('finetune', '--config=configs/finetune.py:sst2 --help=model --config.model.size=bert_base',
         ["size='bert_base'", 'hidden_size=768'], ["the size's"]),
        ('finetune', '--help=model --config=configs/finetune.py:sst2',
         ['size=None', "hidden_size=the size's"], []),
        ('distill', '--config=configs/distill.py:sst2+small --help=loop', ['num_steps=20935'], []),
        ('distill', '--config=configs/distill.py:mini --help', ['num_steps=600'], ['config.task.']),
        ('pretrain', '--help=model', ['hidden_size=768'], []),
    ],
)  # fmt: skip
def test_help_shows_the_values_of_the_config(command, arguments, shown, hidden, capsys):
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f'albert_jax.{command}').main(arguments.split())
    told = capsys.readouterr()
    assert ended.value.code == 0 and not told.err
    assert all(text in told.out for text in shown), told.out
    assert not any(text in told.out for text in hidden), told.out


def test_help_of_a_config_that_is_wrong(capsys):
    from albert_jax.pretrain import main

    with pytest.raises(SystemExit):
        main([f'--config={TINY}', '--config.model.hiden_size=3', '--help=model'])
    told = capsys.readouterr()
    assert 'hidden_size=' in told.out and told.err.startswith('note: --config.model.hiden_size is')
    with pytest.raises(UserError, match="there is no config 'nope'"):
        main(['--config=configs/pretrain.py:nope', '--help=model'])
    with pytest.raises(UserError, match='--help=lop: there is no such section'):
        main([f'--config={TINY}', '--help=lop'])


def test_the_command_checks_its_inputs_before_jax_is_there(tmp_path):
    (tmp_path / 'file').touch()
    code = (
        'import sys, runpy\n'
        'sys.argv[0] = "finetune"\n'
        'try: runpy.run_module("albert_jax.finetune", run_name="__main__")\n'
        'finally: print([x for x in ("jax", "sklearn") if x in sys.modules], file=sys.stderr)'
    )
    result = subprocess.run(
        [sys.executable, '-c', code, '--config=configs/finetune.py:sst2',
         f'--workdir={tmp_path}/file/run', '--config.data.path=/nothing', '--config.seeds=0',
         '--config.init_from=/no/model', '--config.data.vocabulary=/no/words'],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        'error: seeds is 0; it must be 1 or above.',
        f'error: {tmp_path}/file/run cannot be written: {tmp_path}/file is a file.',
        'error: There is no file or directory /no/model; init_from is a model that is there.',
        'error: data.path is /nothing, which is not a directory.',
        'error: data.vocabulary is /no/words, which is not there.',
        '[]',
    ]


def test_a_sweep_tells_of_its_overrides(capsys):
    from launch import sweep

    flags = ['--sweep=configs/sweeps/sharing.py:mini', '--workdir=nowhere', '--dry_run']
    wrong = ['--override=pretrain.loop.sed=1', '--override=sst2.loop.kep_last=2']
    with pytest.raises(UserError) as caught:
        sweep.main([*flags, *wrong])
    assert [str(part).partition('?')[0] for part in caught.value.parts] == [
        'all: pretrain.loop.sed is not a field of the config; did you mean loop.seed',
        'all: sst2.loop.kep_last is not a field of the config; did you mean loop.keep_last',
    ]


@pytest.mark.parametrize('folder', ['mine', 'configs'])
def test_ones_own_config_works_from_anywhere(folder, tmp_path):
    """As the README shows it; also beside a neighbour in a folder of the same name as ours."""
    (tmp_path / folder).mkdir()
    (tmp_path / folder / 'other.py').write_text('NGRAM = 1\n')
    (tmp_path / folder / 'own.py').write_text(
        'from configs.pretrain import get_config as parent\n'
        f'from {folder}.other import NGRAM\n'
        'def get_config(name="base"):\n'
        '    config = parent(name)\n'
        '    config.pretraining.max_ngram = NGRAM\n'
        '    return config\n'
    )
    result = subprocess.run(
        [sys.executable, '-m', 'albert_jax.pretrain', f'--config={folder}/own.py:tiny',
         '--workdir=run', '--config.data.path=nothing'],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {'PYTHONPATH': str(ROOT)},
    )  # fmt: skip
    assert result.stderr.startswith('error: nothing holds no prepared corpus'), result.stderr


def test_python_m_albert_jax_lists_the_commands():
    from tests.test_commands import COMMANDS

    shown = commands()
    assert set(shown) == {name if '.' in name else f'albert_jax.{name}' for name in COMMANDS}
    assert all(shown.values()) and next(iter(shown)) == 'albert_jax.demo'
