"""Whole distillation runs: what a student learns, and what is refused."""

import dataclasses
import json

import pytest

from albert_jax import distill
from albert_jax.cli.errors import UserError
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.interop import native
from albert_jax.interop.native import Pretrained
from tests import tiny
from tests.distillation_models import TEACHER


@pytest.fixture(scope='module')
def teacher(finetuned):
    return finetuned


def student_flags(teacher, files, *more, name='classification') -> list[str]:
    start = f'--config.init_from={teacher}'
    given = [
        x for x in tiny.finetune_flags('', files, teacher / 'cache', *more) if 'init_from' not in x
    ]
    assert start not in given
    return [
        f'--config=configs/distill.py:{name}', f'--config.teacher={teacher}', *given[1:],
        '--config.model.size=albert_base', '--config.model.embedding_size=8',
        '--config.model.hidden_size=8', '--config.model.num_hidden_layers=1',
        '--config.model.num_attention_heads=2', '--config.model.intermediate_size=32',
        '--config.model.max_position_embeddings=64',
    ]  # fmt: skip


def evaluated(workdir):
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    return [line for line in lines if line['split'] == 'train']


def test_a_student_learns_from_its_teacher_alone(teacher, mood_files, tmp_path, capsys):
    more = ['--config.distillation.label_weight=0', '--config.distillation.soft_weight=1',
            '--config.distillation.relation_weight=1', '--config.distillation.hidden_weight=1',
            '--config.distillation.relation_heads=4', '--config.loop.log_every=10',
            '--config.distillation.init_embeddings_from_teacher=True',
            # The teacher has the paper's recipe.
            '--config.model.position_encoding=rope', '--config.model.norm_placement=pre',
            '--config.model.is_gated=True']  # fmt: skip
    arguments = [*student_flags(teacher, mood_files, *more), f'--workdir={tmp_path / "student"}']
    assert distill.main(arguments) == 0
    assert 'teacher' in capsys.readouterr().out
    found = json.loads((tmp_path / 'student' / 'distilled.json').read_text())
    assert found['teacher']['metrics']['accuracy'] > 0.9
    assert found['student']['metrics']['accuracy'] > 0.9
    assert found['student']['parameters'] < found['teacher']['parameters']
    assert found['student']['examples_per_second'] > 0
    lines = evaluated(tmp_path / 'student')
    for name in ('soft_loss', 'hidden_loss', 'relation_loss'):
        assert lines[-1][name] < lines[0][name]
    read = native.read(tmp_path / 'student')
    assert set(read.params) == {'embeddings', 'encoder', 'pooler', 'head'}
    # The same command again finds nothing to do; another temperature is another run.
    assert distill.main(arguments) == 0
    with pytest.raises(UserError, match=r'distillation.temperature'):
        distill.main([*arguments, '--config.distillation.temperature=3'])


@pytest.fixture
def other_words(text_file):
    from albert_jax.data.corpus import Source
    from albert_jax.data.preparation import PreparationSettings, vocabulary_for

    return vocabulary_for([Source('jsonl', str(text_file))], PreparationSettings(), 700)


@pytest.mark.slow
def test_another_vocabulary_where_only_answers_are_compared(
    teacher, mood_files, tmp_path, other_words
):  # fmt: skip
    words = tmp_path / 'words.model'
    words.write_bytes(other_words)
    # The labels are in another order than the teacher's, who alone is listened to.
    more = [
        f'--config.data.vocabulary={words}', '--config.task.labels=yes,no',
        '--config.distillation.label_weight=0', '--config.distillation.soft_weight=1',
        '--config.loop.eval_every=40', '--config.loop.checkpoint_every=40',
    ]  # fmt: skip
    arguments = student_flags(teacher, mood_files, *more)
    assert distill.main([*arguments, f'--workdir={tmp_path / "student"}']) == 0
    assert native.read(tmp_path / 'student').config.vocab_size == 700
    found = json.loads((tmp_path / 'student' / 'distilled.json').read_text())
    assert found['teacher']['metrics']['accuracy'] > 0.9
    assert found['student']['metrics']['accuracy'] > 0.7
    for more, message in (
        ('hidden_weight=1', 'compared token by token'),
        (
            'init_embeddings_from_teacher=True',
            'has another vocabulary than the student, whose words',
        ),
    ):
        with pytest.raises(UserError, match=message):
            distill.main(
                [*arguments, f'--config.distillation.{more}', f'--workdir={tmp_path / "x"}']
            )


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        (['--config.teacher='], 'teacher is empty'),
        (['--config.seeds=0'], 'seeds is 0'),
        (['--config.teacher=nowhere'], 'nowhere'),
        (['--config.distillation.soft_weight=0'], 'nothing would come from the teacher'),
        (['--config.distillation.temperature=0'], 'temperature is 0.0; it must be above 0'),
        (['--config.distillation.hidden_layers=two'], 'it must be one of all, last'),
        (
            ['--config.distillation.relation_weight=1', '--config.distillation.relation_heads=5'],
            'does not divide the width of the student, 8',
        ),
        (
            [
                '--config.distillation.relation_weight=1',
                '--config.distillation.relation_layer=9',
                '--config.distillation.relation_heads=4',
            ],
            'the teacher has 2 layers',
        ),
        (['--config.finetuning.adversarial_steps=2'], 'adversarial_steps is 2'),
        (['--config.task.labels=yes,no,perhaps'], 'answers with no, yes, the task with'),
        (['--config.task.max_length=100'], '64 positions'),
        (
            [
                '--config.distillation.init_embeddings_from_teacher=True',
                '--config.model.embedding_size=999',
            ],
            "the teacher's word embeddings are of 8 numbers, the student's of 999; set",
        ),
        (
            [
                '--config.distillation.init_embeddings_from_teacher=True',
                '--config.init_from=runs/small',
            ],
            'init_from=runs/small has word embeddings already',
        ),
    ],
)
def test_refused(teacher, mood_files, tmp_path, more, message):
    with pytest.raises(UserError, match=message):
        distill.main([*student_flags(teacher, mood_files), *more, f'--workdir={tmp_path / "w"}'])
    assert not (tmp_path / 'w').exists()


def test_a_teacher_that_is_not_fine_tuned_or_answers_otherwise(
    checkpoint, teacher, mood_files, tmp_path
):  # fmt: skip
    workdir = f'--workdir={tmp_path / "w"}'
    arguments = student_flags(teacher, mood_files, f'--config.teacher={checkpoint}')
    with pytest.raises(UserError, match='is not fine-tuned'):
        distill.main([*arguments, workdir])
    numbers = tmp_path / 'numbers'
    numbers.mkdir()
    for name in ('train', 'dev'):
        (numbers / f'{name}.tsv').write_text('text\tlabel\ngood\t1.5\nbad\t0.5\n')
    with pytest.raises(UserError, match='answers with no, yes, the task with score'):
        distill.main([*student_flags(teacher, numbers, name='regression'), workdir])
    with pytest.raises(UserError, match='give configs/distill.py:NAME'):
        distill.main(['--config=configs/finetune.py:sst2', workdir])


@pytest.mark.slow
def test_raw_text(corpus_directory, vocabulary, tmp_path):
    config = dataclasses.replace(TEACHER, vocab_size=1000, max_position_embeddings=128)
    folder = tmp_path / 'teacher'
    tokenizer = Tokenizer(vocabulary)
    tiny.write(Pretrained(config, tiny.random_params(config, scale=0.1), tokenizer), folder)
    arguments = [
        '--config=configs/distill.py:tiny', f'--config.teacher={folder}',
        f'--config.data.path={corpus_directory}', '--config.model.vocab_size=1000',
        '--config.model.hidden_size=16', '--config.model.num_hidden_layers=2',
        '--config.model.num_attention_heads=2', '--config.model.embedding_size=8',
        '--config.pretraining.sequence_length=128', '--config.model.max_position_embeddings=128',
        '--config.loop.num_steps=6', '--config.loop.batch_size=8', '--config.loop.log_every=2',
        '--config.loop.eval_every=6', '--config.loop.checkpoint_every=6',
        '--config.loop.num_eval_batches=2', '--config.optimizer.warmup_steps=2',
        '--config.distillation.hidden_weight=1', '--config.distillation.relation_weight=1',
        '--config.distillation.relation_heads=4',
        '--config.distillation.init_embeddings_from_teacher=True',
        f'--workdir={tmp_path / "student"}',
    ]  # fmt: skip
    assert distill.main(arguments) == 0
    lines = [
        json.loads(line)
        for line in (tmp_path / 'student' / 'metrics.jsonl').read_text().splitlines()
    ]
    names = {'soft_loss', 'hidden_loss', 'relation_loss', 'mlm_loss', 'sop_loss'}
    assert all(names <= set(line) for line in lines)
    assert lines[-1]['split'] == 'validation'
    read = native.read(tmp_path / 'student')
    assert set(read.params) == {'embeddings', 'encoder', 'pooler', 'mlm', 'sentence'}
    # Without a masked-LM head there are no softened pieces to learn from.
    bare = tmp_path / 'bare'
    params = {n: tree for n, tree in tiny.random_params(config).items() if n != 'mlm'}
    tiny.write(Pretrained(config, params, tokenizer), bare)
    with pytest.raises(UserError, match='no masked-LM head to ask'):
        distill.main([*arguments[:-1], f'--config.teacher={bare}', f'--workdir={tmp_path / "b"}'])
