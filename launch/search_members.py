"""A search as the fine-tunings that make it: read, checked at its corners, before one starts."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from albert_jax.cli.errors import UserError, UserErrors
from albert_jax.cli.python_file import error_in_file
from albert_jax.interop.run_inputs import missing
from albert_jax.runs.reading import read_run
from albert_jax.runs.runs import FinetuneRun
from albert_jax.runs.task import TaskSettings
from configs.changes import Change, FieldValue
from configs.search_space import Choices, Floats, Integers, Parameters, Search
from launch import record
from launch.definitions import read_definition
from launch.digests import finetune_digest_before, run_digest
from launch.stages import Member, Stage

SEARCH_FILE = 'search.json'
# The member in which nothing is searched.
DEFAULT = 'default'


@dataclasses.dataclass(frozen=True)
class Trials:
    """A search with what the command line says of it.

    Args:
      argument: of --study, FILE:NAME.
      search: what is searched.
      overrides: fields of all runs, by their addresses in the config.
      root: folder of the search.
    """

    argument: str
    search: Search
    overrides: Mapping[str, str]
    root: Path

    @functools.cached_property
    def default(self) -> Member:
        """The run in which nothing is searched."""
        return self._member(DEFAULT, {})

    def member(self, number: int, parameters: Parameters) -> Member:
        """The run of a trial.

        Raises:
          UserError: if it cannot be a run.
        """
        return self._member(trial_name(number), self._fields(parameters))

    def _member(self, name: str, fields: Mapping[str, FieldValue]) -> Member:
        settings = {**self.search.common, **fields, **self.overrides}
        run = self._run(settings, is_checked=False, name=name)
        stage = Stage(
            name, run.task.name, 'albert_jax.finetune', self.search.config, settings, (),
            run.loop.num_steps, run_digest(run), finetune_digest_before(run),
        )  # fmt: skip
        return Member(Change(name), (stage,), None)

    def check(self, has_inputs: bool) -> None:
        """Refuses what no run, or not every run, of the search could do.

        Args:
          has_inputs: whether the files that they read must be there.

        Raises:
          UserError: of the first run that is wrong, with its parameters.
        """
        run = self._run({**self.search.common, **self.overrides}, has_inputs, DEFAULT)
        metrics_of: dict[TaskSettings, list[str]] = {}
        self._check_run(run, metrics_of)
        for parameters in self.search.corners():
            fields = self._fields(parameters)
            for name in fields:
                if name in self.overrides:
                    raise UserError(
                        f'--override {name}={self.overrides[name]}: the trials of this search '
                        f'differ in {name}; leave it to them.'
                    )
            settings = {**self.search.common, **fields, **self.overrides}
            self._check_run(self._run(settings, has_inputs, _shown(parameters)), metrics_of)

    def _check_run(self, run: FinetuneRun, metrics_of: dict[TaskSettings, list[str]]) -> None:
        from albert_jax.tasks.registry import make_task, metric_names  # imports JAX

        if run.task not in metrics_of:
            metrics_of[run.task] = metric_names(run.task)
        names, metric = metrics_of[run.task], self.search.metric
        if metric not in names:
            raise UserError(
                f'--study={self.argument}: no run writes the metric {metric!r}; one of '
                f'{run.task.name} writes {", ".join(names)}.'
            )
        task = make_task(run.task)
        is_wrong_way = task.is_lower_better != self.search.is_lower_better
        if metric == task.best_metric and is_wrong_way:
            better = 'lower' if task.is_lower_better else 'higher'
            raise UserError(
                f'--study={self.argument}: is_lower_better is {self.search.is_lower_better}, but a '
                f'{better} {metric} is better.'
            )
        if run.seeds > 1 and self.search.pruner != 'none':
            raise UserError(
                f'--study={self.argument}: a run with seeds={run.seeds} has no metrics of its own '
                f"that could tell when to stop it; set the search's pruner to none."
            )

    def _run(self, settings: Mapping[str, FieldValue], is_checked: bool, name: str) -> FinetuneRun:
        arguments = [f'--config.{field}={value}' for field, value in settings.items()]
        find = functools.partial(missing, workdir=self.root) if is_checked else lambda run: ()
        try:
            return read_run(FinetuneRun, self.search.config, arguments, find)
        except UserError as error:
            parts = [
                str(part).removeprefix('--config.').replace('--config.', '--override ')
                for part in error.parts
            ]
            raise UserErrors([UserError(f'{name}: {part}') for part in parts]) from error

    def _fields(self, parameters: Parameters) -> Mapping[str, FieldValue]:
        """What `fields` of the search makes of parameters."""
        path = self.argument.partition(':')[0]
        try:
            fields = self.search.fields(dict(parameters))
        except Exception as error:  # a person's own function can raise anything
            raise UserError(
                f'--study={self.argument}: {_shown(parameters)}: {error_in_file(error, path)}'
            ) from error
        if not isinstance(fields, Mapping):
            raise UserError(
                f'--study={self.argument}: fields gives {type(fields).__name__}, not a mapping '
                f'from fields of the config to values.'
            )
        return fields

    def identity(self) -> dict[str, Any]:
        """What makes two searches the same, but the fields of each run, as JSON."""
        search = self.search
        return {
            'study': self.argument,
            'title': search.title,
            'config': search.config,
            'task': self.default.stages[0].name,
            'space': {name: _described(values) for name, values in search.space.items()},
            'metric': search.metric,
            'is_lower_better': search.is_lower_better,
            'sampler': search.sampler,
            'pruner': search.pruner,
            'seed': search.seed,
        }

    def check_folder(self) -> None:
        """Refuses the folder of another search, or of a sweep.

        Raises:
          UserError: naming what differs.
        """
        if (self.root / record.PLAN_FILE).exists():
            raise UserError(f'{self.root} is the folder of a sweep; choose another --workdir.')
        path = self.root / SEARCH_FILE
        if not path.exists():
            return
        old, new = read_identity(self.root), self.identity()
        for name in new:
            # The same file by another path is the same.
            if name not in ('study', 'title') and old.get(name) != new[name]:
                raise UserError(
                    f'{self.root} has the trials of another search: its {name} is '
                    f'{old.get(name)!r}, now it is {new[name]!r}; take that back, or choose '
                    f'another --workdir.'
                )

    def write_identity(self) -> None:
        """Writes what `check_folder` and a report read.

        Raises:
          UserError: if it cannot be written.
        """
        record.write_json(self.root / SEARCH_FILE, self.identity())


def trial_name(number: int) -> str:
    """The member of a trial, as in `trial-007`."""
    return f'trial-{number:03d}'


def read_identity(root: Path) -> dict[str, Any]:
    """What `write_identity` has written.

    Raises:
      UserError: if it is not the folder of a search, or damaged.
    """
    path = root / SEARCH_FILE
    if not path.exists():
        raise UserError(
            f'{root} is not the folder of a search (there is no {SEARCH_FILE}); give the '
            f'--workdir of python -m launch.search.'
        )
    content = record.read_json(path)
    if not isinstance(content, dict) or 'space' not in content:
        raise UserError(f'{path} is not what launch.search writes; choose another --workdir.')
    return content


def read_search(argument: str) -> Search:
    """The search of `FILE.py:NAME`, as its `get_search(name)` makes it.

    Raises:
      UserError: if the file, the name or something in it is wrong.
    """
    return read_definition(argument, '--study', Search)


def read_overrides(overrides: Sequence[str]) -> dict[str, str]:
    """`FIELD=VALUE`, each.

    Raises:
      UserError: if one has another form.
    """
    result = {}
    for override in overrides:
        field, equals, value = override.partition('=')
        if not equals or not field:
            raise UserError(f'--override {override}: write FIELD=VALUE, as in data.path=GLUE/MRPC.')
        result[field.removeprefix('--config.')] = value
    return result


def _shown(parameters: Parameters) -> str:
    return ', '.join(f'{name}={value}' for name, value in parameters.items())


def _described(values: Floats | Integers | Choices) -> list[FieldValue | str]:
    if isinstance(values, Choices):
        return ['Choices', *values.values]
    return [type(values).__name__, values.low, values.high, values.is_log]
