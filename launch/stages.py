"""A sweep as the commands that make it: read, overridden, checked, before anything starts."""

import dataclasses
import functools
import operator
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from albert_jax.cli.errors import UserError, UserErrors, raise_all
from albert_jax.cli.paths import expand
from albert_jax.data import dataset
from albert_jax.interop.run_inputs import is_there
from albert_jax.runs.reading import read_run
from albert_jax.runs.runs import FinetuneRun, PretrainRun
from configs.changes import Change, FieldValue, Sweep
from launch.definitions import read_definition
from launch.digests import finetune_digest_before, pretrain_digest_before, run_digest

PRETRAIN, INTRINSIC, PAIRS = 'pretrain', 'intrinsic', 'pairs'
# Flags of albert_jax.evaluate for minimal pairs, by the fields of the part `pairs`.
_PAIRS_FLAGS = {'path': 'pairs', 'columns': 'pair_columns', 'limit_per_group': 'limit_per_group'}
_FINETUNE = 'finetune'
_FINETUNE_FILE = 'configs/finetune.py'
_FINETUNE_MODULE = 'albert_jax.finetune'
# Fields that name a file or a folder.
_INPUTS = ('data.path', 'data.train', 'data.validation', 'data.test', 'data.vocabulary')

RunT = TypeVar('RunT', PretrainRun, FinetuneRun)


@dataclasses.dataclass(frozen=True)
class Stage:
    """One process of a member: its pretraining, an evaluation, or one of its fine-tunings."""

    member: str
    name: str
    module: str
    # FILE:NAME, and the fields that differ from it.
    config: str
    settings: Mapping[str, FieldValue]
    # Keys of the stages that must be finished.
    needs: tuple[str, ...]
    num_steps: int
    # Of the run, and of its corpus where that is on this machine.
    digest: str = ''
    # The same, as an earlier version wrote it.
    digest_before: str = ''

    @property
    def key(self) -> str:
        """Its folder below the sweep's."""
        return f'{self.member}/{self.name}'

    def arguments(self, root: str) -> list[str]:
        """What follows `python` on the command line.

        Args:
          root: folder of the sweep, which replaces `{root}` in values.
        """
        values = {name: str(value).replace('{root}', root) for name, value in self.settings.items()}
        if self.name in (INTRINSIC, PAIRS):
            flags = [f'--{name}={value}' for name, value in values.items()]
            return ['-m', self.module, *flags, f'--output={root}/{self.key}']
        overrides = [f'--config.{name}={value}' for name, value in values.items()]
        return ['-m', self.module, f'--config={self.config}', f'--workdir={root}/{self.key}',
                *overrides]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Member:
    """A member with its stages, in order, and its pretraining."""

    change: Change
    stages: tuple[Stage, ...]
    run: PretrainRun | None


def read_sweep(argument: str) -> Sweep:
    """The sweep of `FILE.py:SCALE`, as its `get_sweep(scale)` makes it.

    Raises:
      UserError: if the file, the scale or something in it is wrong.
    """
    return read_definition(argument, '--sweep', Sweep)


def read_overrides(overrides: Sequence[str]) -> dict[str, str]:
    """`[MEMBER/]PART.FIELD=VALUE`, each.

    Raises:
      UserError: if one has another form.
    """
    result = {}
    for override in overrides:
        address, equals, value = override.partition('=')
        if not equals or '.' not in address:
            raise UserError(
                f'--override={override}: write PART.FIELD=VALUE, with PART pretrain, finetune or a '
                f'task, as in pretrain.data.path=runs/books.'
            )
        result[address] = value
    return result


def make_members(sweep: Sweep, overrides: Mapping[str, str]) -> list[Member]:
    """All stages of all members, each checked as its own command would check it.

    Args:
      sweep: what to run.
      overrides: fields by `PART.FIELD`, or `MEMBER/PART.FIELD` for one member.

    Raises:
      UserError: if a field does not exist or a value is impossible, naming the member.
    """
    _check_addresses(sweep, overrides)
    members = []
    for change in sweep.members:
        own = {
            address.rpartition('/')[2]: value
            for address, value in overrides.items()
            if address.rpartition('/')[0] in ('', change.name, change.row)
        }
        try:
            members.append(_member(sweep, change, own))
        except UserError as error:
            raise_all([UserError(f'{change.name}: {part}') for part in error.parts])
    return members


def _check_addresses(sweep: Sweep, overrides: Mapping[str, str]) -> None:
    """Refuses fields of parts or members that the sweep does not have."""
    names = {member.name for member in sweep.members} | {member.row for member in sweep.members}
    parts = {_FINETUNE, *sweep.tasks, *([PRETRAIN, PAIRS] if sweep.pretrain else [])}
    for address in overrides:
        member, slash, field = address.rpartition('/')
        if slash and member not in names:
            raise UserError(f'--override={address}: there is no member {member!r} in this sweep.')
        _check_part(field, parts)
        if not slash and any(field in change.fields for change in sweep.members):
            raise UserError(
                f'--override={address}: the members of this sweep differ in {field}; change it for '
                f'one of them with MEMBER/{field}=VALUE.'
            )
    for change in sweep.members:
        for field in (*change.fields, *sweep.common):
            # --seeds sets that of the pretraining, whether there is one or not.
            _check_part(field, parts | {PRETRAIN})


def _check_part(field: str, parts: set[str]) -> None:
    part = field.partition('.')[0]
    if part not in parts:
        raise UserError(
            f'{field}: there is no part {part!r} in this sweep; there are '
            f'{", ".join(sorted(parts))}.'
        )


def _fields_of(part: str, fields: Mapping[str, FieldValue]) -> dict[str, FieldValue]:
    """The fields of one part, by their names in its config."""
    return {
        name.partition('.')[2]: value
        for name, value in fields.items()
        if name.partition('.')[0] == part
    }


def _member(sweep: Sweep, change: Change, own: Mapping[str, str]) -> Member:
    """A member with its stages.

    Args:
      sweep: that it is of.
      change: its difference from the parent.
      own: overrides that hold for it, by `PART.FIELD`.
    """
    stages: list[Stage] = []
    errors: list[UserError] = []
    run = None
    if sweep.pretrain:
        try:
            pretraining, run = _pretraining(sweep, change, own)
        except UserError as error:
            errors += error.parts
        else:
            stages.append(pretraining)
            if any(name.startswith(f'{INTRINSIC}.') for name in sweep.columns):
                stages.append(_intrinsic_evaluation(pretraining, run))
            given = _fields_of(PAIRS, {**sweep.common, **change.fields}) | _fields_of(PAIRS, own)
            if given:
                stages.append(_pairs_evaluation(pretraining, given))
    for task in sweep.tasks:
        try:
            stages.append(_fine_tuning(sweep, change, task, own))
        except UserError as error:
            errors += error.parts
    raise_all(errors)
    return Member(change, tuple(stages), run)


def _pretraining(sweep: Sweep, change: Change, own: Mapping[str, str]) -> tuple[Stage, PretrainRun]:
    settings = _fields_of(PRETRAIN, {**sweep.common, **change.fields}) | _fields_of(PRETRAIN, own)
    needs = ()
    if change.after:
        settings['init_from'] = f'{{root}}/{change.after}/{PRETRAIN}'
        needs = (f'{change.after}/{PRETRAIN}',)
    run = _read_run(PretrainRun, PRETRAIN, sweep.pretrain, settings)
    corpus = _corpus_fingerprint(run)
    stage = Stage(
        change.name, PRETRAIN, 'albert_jax.pretrain', sweep.pretrain, settings, needs,
        run.loop.num_steps, run_digest(run, **corpus), pretrain_digest_before(run, **corpus),
    )  # fmt: skip
    return stage, run


def _intrinsic_evaluation(pretraining: Stage, run: PretrainRun) -> Stage:
    """What the pretrained model knows by itself: masked-LM, NSP and SOP on held-out text."""
    settings = {'checkpoint': f'{{root}}/{pretraining.key}', 'data': run.data.path}
    return Stage(
        pretraining.member, INTRINSIC, 'albert_jax.evaluate', '', settings, (pretraining.key,), 0
    )


def _pairs_evaluation(pretraining: Stage, given: Mapping[str, FieldValue]) -> Stage:
    """How the pretrained model scores minimal pairs."""
    unknown = sorted(given.keys() - _PAIRS_FLAGS.keys())
    if unknown or 'path' not in given:
        wrong = f'there is no {PAIRS}.{unknown[0]}' if unknown else f'{PAIRS}.path is missing'
        fields = ', '.join(f'{PAIRS}.{name}' for name in _PAIRS_FLAGS)
        raise UserError(f'{wrong}; minimal pairs have {fields}.')
    limit = str(given.get('limit_per_group', 0))
    if not limit.isdecimal():
        raise UserError(
            f'{PAIRS}.limit_per_group is {limit}; it must be a whole number, 0 or above.'
        )
    settings: dict[str, FieldValue] = {'checkpoint': f'{{root}}/{pretraining.key}'}
    settings |= {_PAIRS_FLAGS[name]: value for name, value in given.items()}
    return Stage(
        pretraining.member, PAIRS, 'albert_jax.evaluate', '', settings, (pretraining.key,), 0
    )


def _fine_tuning(sweep: Sweep, change: Change, task: str, own: Mapping[str, str]) -> Stage:
    fields = {**sweep.common, **change.fields}
    # What is given on the command line wins, whether for all tasks or for one.
    sources = [_fields_of(part, source) for source in (fields, own) for part in (_FINETUNE, task)]
    settings = functools.reduce(operator.or_, sources)
    needs = ()
    if sweep.pretrain:
        pretraining = f'{change.name}/{PRETRAIN}'
        settings = {'init_from': f'{{root}}/{pretraining}', **settings}
        needs = (pretraining,)
    config = f'{_FINETUNE_FILE}:{task}'
    run = _read_run(FinetuneRun, task, config, settings)
    return Stage(
        change.name, task, _FINETUNE_MODULE, config, settings, needs,
        run.loop.num_steps, run_digest(run), finetune_digest_before(run),
    )  # fmt: skip


def _read_run(kind: type[RunT], part: str, config: str, settings: Mapping[str, FieldValue]) -> RunT:
    """The run of a part of the sweep; mistakes name its fields as an override does."""
    overrides = [f'--config.{name}={value}' for name, value in settings.items()]
    try:
        return read_run(kind, config, overrides)
    except UserError as error:
        texts = [str(mistake).replace('--config.', f'{part}.') for mistake in error.parts]
        raise UserErrors([UserError(text) for text in texts]) from error


def _corpus_fingerprint(run: PretrainRun) -> dict[str, str]:
    """The fingerprint of the corpus, where that is on this machine."""
    path = run.data.path
    if not path or not dataset.is_prepared(Path(path)):
        return {}
    return {'fingerprint': dataset.read_manifest(Path(path))['fingerprint']}


def missing_inputs(members: Sequence[Member]) -> list[str]:
    """A sentence for each corpus and file of a task that is not there, and who needs it."""
    needed_by: dict[str, list[str]] = {}
    for member in members:
        for stage in member.stages:
            for name in (*_INPUTS, PAIRS):
                path = expand(str(stage.settings.get(name) or ''))
                is_file = name not in ('data.path', PAIRS)
                if path and not (path.startswith('tfds:') or is_there(path, is_file)):
                    field = 'path' if name == PAIRS else name
                    what = f'{stage.name}.{field} is {path}, which is not there.'
                    needed_by.setdefault(what, []).append(member.change.name)
        corpus = Path(member.run.data.path) if member.run and member.run.data.path else None
        if member.run and not (corpus and (not corpus.exists() or dataset.is_prepared(corpus))):
            what = (
                f'pretrain.data.path is {member.run.data.path!r}, which holds no prepared corpus; '
                f'give one with --override pretrain.data.path=DIR.'
            )
            needed_by.setdefault(what, []).append(member.change.name)
    return _by_need(needed_by)


def unnamed_inputs(members: Sequence[Member]) -> list[str]:
    """A sentence for each task for which no files are named, so that its stages will fail."""
    needed_by: dict[str, list[str]] = {}
    for member in members:
        for stage in member.stages:
            is_named = stage.settings.get('data.path') or stage.settings.get('data.train')
            if stage.module == _FINETUNE_MODULE and not is_named:
                what = (
                    f'nothing is named to fine-tune {stage.name} on, so that will fail; give its '
                    f'files with --override {stage.name}.data.path=DIR.'
                )
                needed_by.setdefault(what, []).append(member.change.name)
    return _by_need(needed_by)


def _by_need(needed_by: Mapping[str, Sequence[str]]) -> list[str]:
    return [f'{", ".join(names)}: {what}' for what, names in needed_by.items()]


def shell_line(arguments: Sequence[str]) -> str:
    """A command as a person would type it."""
    return shlex.join(['python', *arguments])


def python_line(stage: Stage, root: str) -> list[str]:
    """The command of a stage on this machine."""
    return [sys.executable, *stage.arguments(root)]
