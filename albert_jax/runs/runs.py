"""The runs that the commands start: a config's sections, checked alone and together."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Self

from albert_jax.cli.errors import UserError, raise_all
from albert_jax.cli.settings import LocalPath, Reading, Settings, at_least, declared
from albert_jax.model.config import AlbertConfig
from albert_jax.model.decoder_config import DecoderConfig
from albert_jax.model.decoding_settings import DecodingSettings
from albert_jax.runs.data import FinetuneDataSettings, PretrainDataSettings
from albert_jax.runs.distillation import DistillationSettings
from albert_jax.runs.loop import LoopSettings, PretrainLoopSettings
from albert_jax.runs.model import ModelSettings
from albert_jax.runs.optimizer import OptimizerSettings
from albert_jax.runs.pretraining import PretrainingSettings
from albert_jax.runs.task import FinetuningSettings, TaskSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainRun(Settings):
    """A pretraining; the defaults are ALBERT-base's in the paper (section 4.1).

    Raises:
      UserError: if a value is impossible, alone or together with another.
    """

    init_from: Annotated[
        str, LocalPath, 'weights to start from: anything that albert_jax.load takes; empty: random'
    ] = ''
    continue_training: Annotated[
        bool,
        "go on at init_from's step with its moments, too: a run of pretrain with the same recipe "
        'up to there',
    ] = False
    model: ModelSettings = ModelSettings(size='albert_base', compute_dtype='bfloat16', remat='full')
    data: PretrainDataSettings = PretrainDataSettings()
    pretraining: PretrainingSettings = PretrainingSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    loop: PretrainLoopSettings = PretrainLoopSettings()

    def conflicts(self) -> Iterator[str]:
        """Of the sections with one another."""
        num_steps, num_short = self.loop.num_steps, self.pretraining.short_phase_steps
        yield from self.optimizer.conflicts_with(num_steps)
        if self.continue_training and not self.init_from:
            yield (
                'continue_training is True, but init_from is empty; set it to the run that this '
                'one goes on from.'
            )
        if num_short >= num_steps:
            yield (
                f'pretraining.short_phase_steps is {num_short}; it must be below loop.num_steps, '
                f'which is {num_steps}.'
            )
        model = self.model.reading()
        yield from map(str, model.errors)
        length = self.pretraining.sequence_length
        positions = model.settings.max_position_embeddings
        if length > positions:
            yield (
                f'pretraining.sequence_length is {length}, but the model has {positions} '
                f'positions; raise model.max_position_embeddings or shorten the sequences.'
            )

    @functools.cached_property
    def albert(self) -> AlbertConfig:
        """The model that is trained."""
        return self.model.resolve()


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneRun(Settings):
    """A fine-tuning on a task.

    Raises:
      UserError: if a value is impossible, alone or together with another.
    """

    init_from: Annotated[str, LocalPath, 'the model: anything that albert_jax.load takes'] = ''
    from_scratch: Annotated[bool, "random weights, of init_from's shape or of model.size"] = False
    seeds: Annotated[int, at_least(1), 'runs, each with its own seed'] = 1
    # Those left empty are init_from's.
    model: ModelSettings = ModelSettings()
    data: FinetuneDataSettings = FinetuneDataSettings()
    decoder: DecoderConfig = DecoderConfig()
    decoding: DecodingSettings = DecodingSettings()
    task: TaskSettings = TaskSettings()
    finetuning: FinetuningSettings = FinetuningSettings()
    optimizer: OptimizerSettings = OptimizerSettings(name='adamw')
    loop: LoopSettings = LoopSettings()

    def conflicts(self) -> Iterator[str]:
        """Of the sections with one another."""
        yield from self.optimizer.conflicts_with(self.loop.num_steps)
        if self.init_from and self.model.size:
            yield (
                f'model.size is {self.model.size!r}, but the model of init_from has its own; leave '
                f'it empty (in configs/distill.py, by a name without +small).'
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherFields(Settings):
    """What the config of a distillation has beside the fields of its student.

    Raises:
      UserError: if there is no teacher, or a value is impossible.
    """

    teacher: Annotated[
        str,
        LocalPath,
        'a fine-tuned model, or a pretrained one for raw text; anything that load takes',
    ] = ''
    distillation: DistillationSettings = DistillationSettings()


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillRun:
    """A student's run, and what it learns from a teacher."""

    # Fields of the student that follow from the others.
    DERIVED_FIELDS: ClassVar[tuple[str, ...]] = ('from_scratch',)

    student: PretrainRun | FinetuneRun
    teacher: str
    distillation: DistillationSettings

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """A distillation on a task, if the config has a section `task`; else on raw text.

        Raises:
          UserError: if there is no teacher, or a value is impossible, with all that is wrong.
        """
        reading = cls.read(values)
        raise_all(reading.errors)
        return reading.settings

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Reading[Self]:
        """As `from_dict`, with what is wrong beside the run.

        Raises:
          UserError: if the config is none of a distillation.
        """
        names = [field.name for field in declared(TeacherFields)]
        missing = [name for name in names if name not in values]
        if missing:
            raise UserError(
                f'The config has no {" and no ".join(missing)}; give configs/distill.py:NAME.'
            )
        fields = TeacherFields.read({name: values[name] for name in names})
        errors, teacher = fields.errors, fields.settings.teacher
        rest = {name: value for name, value in values.items() if name not in names}
        distillation = fields.settings.distillation
        if distillation.init_embeddings_from_teacher and rest.get('init_from'):
            errors.append(
                UserError(
                    f'init_from={rest["init_from"]} has word embeddings already; set '
                    f'distillation.init_embeddings_from_teacher to False, or leave init_from empty.'
                )
            )
        if 'task' in rest:
            # A student is random where it has nothing to start from.
            student = FinetuneRun.read(rest | {'from_scratch': not rest.get('init_from')})
        else:
            student = PretrainRun.read(rest)
        errors += student.errors
        if not teacher and 'teacher' not in fields.wrong:
            errors.append(UserError('teacher is empty; set --config.teacher=CHECKPOINT.'))
        run = cls(student=student.settings, teacher=teacher, distillation=distillation)
        return Reading(run, errors, [*fields.wrong, *student.wrong])
