"""Every field of a run: declared once, listed by --help, set from the command line."""

import functools
import importlib
import inspect
import itertools

import pytest

from albert_jax import distill, finetune, pretrain
from albert_jax.cli import command
from albert_jax.cli.errors import UserError
from albert_jax.cli.settings import Field, Settings, all_fields, declared
from albert_jax.runs.runs import DistillRun, FinetuneRun, PretrainRun, TeacherFields

# A named config of every command and kind of run, and what its fields are declared in.
CONFIGS = {
    'configs/pretrain.py:tiny': (PretrainRun, (PretrainRun,)),
    'configs/finetune.py:sst2': (FinetuneRun, (FinetuneRun,)),
    'configs/distill.py:sst2': (DistillRun, (FinetuneRun, TeacherFields)),
    'configs/distill.py:tiny': (DistillRun, (PretrainRun, TeacherFields)),
}
# Of fields that take one of a few values, or whose value has to fit others.
VALUES = {
    'model.size': 'albert_large', 'model.hidden_size': 256, 'model.num_attention_heads': 2,
    'model.num_hidden_groups': 2, 'model.inner_group_num': 2, 'model.max_position_embeddings': 1024,
    'model.hidden_act': 'relu', 'model.sharing': 'none', 'model.compute_dtype': 'bfloat16',
    'model.remat': 'dense', 'model.attention': 'einsum', 'model.embedding_size': 32,
    'model.kernel_initializer': 'fan_in', 'model.norm_placement': 'pre',
    'model.position_encoding': 'rope', 'model.num_loops': 2,
    'pretraining.sequence_length': 48, 'pretraining.sentence_loss': 'nsp',
    'pretraining.short_phase_steps': 7, 'pretraining.short_phase_length': 32,
    'optimizer.name': 'adamw', 'optimizer.schedule': 'cosine',
    'optimizer.warmup_steps': 7, 'loop.checkpoint_every': 200, 'loop.eval_every': 50,
    'loop.tracker': 'wandb',
    'distillation.hidden_layers': 'last', 'decoder.decoder_sharing': 'copy',
    'decoder.cross_attention': 'per_layer',
}  # fmt: skip
# What another field must be for that value.
BESIDE = {
    'continue_training': ['--config.init_from=runs/trunk'],
    'optimizer.num_decay_steps': ['--config.optimizer.schedule=wsd'],
    'model.use_embedding_projection': ['--config.model.embedding_size=128'],
    'pretraining.short_phase_steps': ['--config.pretraining.short_phase_length=16'],
    'model.num_hidden_groups': ['--config.model.num_hidden_layers=4'],
    'model.inner_group_num': ['--config.model.num_hidden_layers=4'],
    'decoding.num_return_sequences': ['--config.decoding.num_beams=4'],
    'decoding.top_k': ['--config.decoding.temperature=0.5'],
    'decoding.top_p': ['--config.decoding.temperature=0.5'],
}
NO_DEFAULT = {'int': 3, 'float': 0.25, 'bool': False, 'str': 'x'}
# The settings of the commands that train; the model's own config beside them is what its section
# is made from, and `prepare` has flags in place of a config.
OTHERS = ('AlbertConfig', 'PreparationSettings')


def fields_of(config: str) -> list[Field]:
    """All fields of a config but those that the command sets itself."""
    fields = itertools.chain.from_iterable(all_fields(kind) for kind in CONFIGS[config][1])
    own = DistillRun.DERIVED_FIELDS if CONFIGS[config][0] is DistillRun else ()
    return [field for field in fields if field.address not in own]


def another_value(field: Field):
    """A value that a field may have, other than its default."""
    if field.address in VALUES:
        return VALUES[field.address]
    if field.default is None:
        return NO_DEFAULT[field.kind]
    match field.kind:
        case 'bool':
            return not field.default
        case 'int':
            return field.default + 1
        case 'float':
            return field.default * 0.5 or 0.125
    return f'other_{field.default}'


def read(config: str, overrides: list[str]) -> Settings | DistillRun:
    given = ['--config.teacher=large'] * ('distill' in config)
    return CONFIGS[config][0].from_dict(command.read_config(config, [*given, *overrides]))


def value_of(run: Settings | DistillRun, address: str):
    if isinstance(run, DistillRun) and address.split('.', maxsplit=1)[0] not in (
        'teacher',
        'distillation',
    ):
        run = run.student  # pyright: ignore
    return functools.reduce(getattr, address.split('.'), run)


@pytest.mark.parametrize('config', CONFIGS)
def test_every_field_is_set_from_the_command_line(config):
    for field in fields_of(config):
        value = another_value(field)
        overrides = [*BESIDE.get(field.address, []), f'--config.{field.address}={value}']
        assert value_of(read(config, overrides), field.address) == value, field.address


@pytest.mark.parametrize('config', CONFIGS)
def test_an_unknown_field_of_each_section_is_refused(config):
    sections = {field.address.rpartition('.')[0] for field in fields_of(config)}
    assert {'', 'data', 'loop', 'model', 'optimizer'} < sections
    for section in sections:
        address = f'{section}.nonsense' if section else 'nonsense'
        with pytest.raises(UserError, match=address):
            read(config, [f'--config.{address}=1'])
        # And where a config file has it, not the command line.
        values = command.read_config(config, ['--config.teacher=large'] * ('distill' in config))
        (values[section] if section else values)['nonsense'] = 1
        with pytest.raises(UserError, match=address):
            CONFIGS[config][0].from_dict(values)


@pytest.mark.parametrize(
    ('module', 'config'), list(zip((pretrain, finetune, distill, distill), CONFIGS, strict=True))
)
def test_help_lists_every_field(module, config, capsys):
    with pytest.raises(SystemExit):
        module.main(['--help'])
    listed = {line.strip().partition('=')[0] for line in capsys.readouterr().out.splitlines()}
    assert {f'--config.{field.address}' for field in fields_of(config)} <= listed


def subclasses(kind: type[Settings]) -> set[type[Settings]]:
    found = set(kind.__subclasses__())
    return found.union(*(subclasses(other) for other in found))


def test_a_field_is_declared_once():
    """A section that two kinds of run have is one class, or one and its subclass; `data` alone is
    two, for two kinds of data, which have the field `path` in common."""
    importlib.import_module('albert_jax.data.preparation')
    classes = [
        kind for kind in subclasses(Settings)
        if kind.__module__.startswith('albert_jax.') and kind.__name__ not in OTHERS
    ]  # fmt: skip
    # Sections that the runs have: each of their classes is among those looked at.
    sections = {
        field.kind for run in (PretrainRun, FinetuneRun, TeacherFields) for field in declared(run)
        if issubclass(field.kind, Settings)
    }  # fmt: skip
    assert sections <= set(classes)
    declarations: dict[str, list[type[Settings]]] = {}
    for kind in classes:
        if kind.SECTION:
            for name in inspect.get_annotations(kind).keys() - {'SECTION'}:
                declarations.setdefault(kind.address(name), []).append(kind)
    twice = {address: kinds for address, kinds in declarations.items() if len(kinds) > 1}
    assert set(twice) == {'data.path'}
