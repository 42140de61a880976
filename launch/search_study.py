"""The trials of a search, asked of Optuna and told to it: needs the extra `search`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from albert_jax.cli.errors import UserError, first_line
from albert_jax.cli.notes import note
from configs.changes import FieldValue
from configs.search_space import Floats, Integers, Search
from launch import record
from launch.search_members import DEFAULT, Trials
from launch.search_values import evaluations, final_value
from launch.stages import Member

JOURNAL_FILE = 'trials.journal'
_NAME = 'search'
# Trials differ in their number of steps, so that they are compared at equal shares of their
# training: parts of 5 %.
_NUM_PARTS = 20
_QUARTER = _NUM_PARTS // 4
# Before these have ended no other is stopped.
_NUM_WITHOUT_PRUNING = 5


class Feed:
    """Members of a search for the runner: a trial for each process that is free.

    Args:
      trials: of the search.
      num_trials: that are to end, those of earlier processes among them.
    """

    def __init__(self, trials: Trials, num_trials: int) -> None:
        self._trials, self._num_trials = trials, num_trials
        self._running: dict[str, Trial] = {}
        self._num_steps: dict[str, int] = {}
        # Parts of the training at which a trial was reported.
        self._reported: dict[str, set[int]] = {}
        self._num_left = num_trials
        self._has_default_failed = False
        self._study: optuna.Study | None = None

    @property
    def num_to_come(self) -> int:
        """How many it may still give."""
        return 0 if self._has_default_failed else self._num_left

    def begin(self) -> Sequence[Member]:
        """The trials that were asked for and have not ended.

        Raises:
          UserError: if the journal is damaged, or a trial was another run.
        """
        search, root = self._trials.search, self._trials.root
        _drop_half_line(root / JOURNAL_FILE)
        self._study = study = _open(root, search)
        for trial in study.get_trials(states=[TrialState.RUNNING]):
            self._suggest(Trial(study, trial._trial_id))
        begun: list[Member] = []
        for trial in study.get_trials(deepcopy=False):
            if trial.state in (TrialState.WAITING, TrialState.FAIL):
                continue
            member = self._trials.member(trial.number, trial.params)
            record.check_same(root, [member])
            if trial.state == TrialState.RUNNING and not self._was_ended(trial, member):
                begun.append(member)
        if search.sampler == 'grid':
            self._enqueue_grid()
        # One that failed is tried again; with another sampler others take its place.
        counted = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING]
        self._num_left = self._num_trials - len(study.get_trials(states=counted))
        return begun

    def _was_ended(self, trial: FrozenTrial, member: Member) -> bool:
        """Tells a trial that had ended when the search was killed; else it runs again."""
        (stage,) = member.stages
        self._register(Trial(self._get_study(), trial._trial_id), member)
        state = record.read_record(self._trials.root, stage.key).state
        if state not in (record.FINISHED, record.FAILED, record.PRUNED):
            return False
        self.ended(stage.key, state)
        return True

    def _enqueue_grid(self) -> None:
        """Every combination that is not there yet, or has only failed."""
        study = self._get_study()
        there = [
            trial.params or trial.system_attrs['fixed_params']
            for trial in study.get_trials(deepcopy=False)
            if trial.state != TrialState.FAIL
        ]
        for parameters in self._trials.search.corners():
            if parameters not in there:
                study.enqueue_trial(parameters)

    def next(self) -> Member | None:
        """A further trial, or None if there are enough, or the default has failed.

        Raises:
          UserError: if its parameters cannot be a run.
        """
        if self._has_default_failed or self._num_left < 1:
            return None
        study = self._get_study()
        trial = study.ask()
        self._suggest(trial)
        try:
            member = self._trials.member(trial.number, trial.params)
        except UserError:
            study.tell(trial, state=TrialState.FAIL)
            raise
        self._num_left -= 1
        self._register(trial, member)
        return member

    def _register(self, trial: Trial, member: Member) -> None:
        (stage,) = member.stages
        self._running[stage.key] = trial
        self._num_steps[stage.key] = stage.num_steps
        there = self._get_study().get_trials(deepcopy=False)[trial.number].intermediate_values
        self._reported[stage.key] = set(there)

    def _suggest(self, trial: Trial) -> None:
        """A value of each parameter; one that the trial has already stays."""
        self._get_study().sampler = _sampler(self._trials.search, trial.number)
        for name, values in self._trials.search.space.items():
            if isinstance(values, Floats):
                trial.suggest_float(name, values.low, values.high, log=values.is_log)
            elif isinstance(values, Integers):
                trial.suggest_int(name, values.low, values.high, log=values.is_log)
            else:
                trial.suggest_categorical(name, values.values)

    def is_hopeless(self, key: str) -> bool:
        """Whether the pruner would stop a running stage by what it has written."""
        if key not in self._running or self._trials.search.pruner == 'none':
            return False
        return self._report(key, self._running[key])

    def _report(self, key: str, trial: Trial) -> bool:
        """Reports new evaluations of a stage before its last; whether it should end at one."""
        is_hopeless = False
        lines = evaluations(self._trials.root, key, self._trials.search.metric)
        for step, value in lines.items():
            part = round(_NUM_PARTS * step / self._num_steps[key])
            if part not in self._reported[key] and part < _NUM_PARTS:
                self._reported[key].add(part)
                trial.report(value, part)
                # Asked at each, whoever has ended already: hyperband takes note of the values.
                is_hopeless = trial.should_prune() or is_hopeless
        return is_hopeless

    def ended(self, key: str, state: str) -> None:
        """Tells a trial that is finished, pruned or failed; one that was stopped runs again."""
        name = key.partition('/')[0]
        if name == DEFAULT:
            self._has_default_failed = state == record.FAILED
        if name == DEFAULT or state == record.STOPPED:
            return
        search, study, trial = self._trials.search, self._get_study(), self._running.pop(key)
        # Others are compared with all that it has written.
        self._report(key, trial)
        if state == record.PRUNED:
            study.tell(trial, state=TrialState.PRUNED)
            return
        value = None
        if state == record.FINISHED:
            value = final_value(self._trials.root, key, search.metric, search.is_lower_better)
            if value is None:
                note(f'{key} has ended without a value of {search.metric}; it counts as failed.')
        if value is None:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, value)

    def _get_study(self) -> optuna.Study:
        assert self._study is not None
        return self._study


def read_parameters(root: Path) -> dict[int, dict[str, FieldValue]]:
    """The parameters of each trial that was begun, by its number.

    Args:
      root: folder of the search.

    Raises:
      UserError: if the journal is damaged.
    """
    path = root / JOURNAL_FILE
    # A search may have been killed before it had written anything.
    if not path.exists() or not path.stat().st_size:
        return {}
    trials = _open(root, None).get_trials(deepcopy=False)
    return {trial.number: trial.params for trial in trials if trial.state != TrialState.WAITING}


def _open(root: Path, search: Search | None) -> optuna.Study:
    """The study in a folder, made if there is a search to make it for.

    Raises:
      UserError: if its journal is damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = root / JOURNAL_FILE
    try:
        storage = JournalStorage(JournalFileBackend(str(path)))
        if search is None:
            return optuna.load_study(study_name=_NAME, storage=storage)
        return optuna.create_study(
            storage=storage,
            study_name=_NAME,
            pruner=_pruner(search),
            direction='minimize' if search.is_lower_better else 'maximize',
            load_if_exists=True,
        )
    except (ValueError, KeyError) as error:
        raise UserError(
            f'{path} is damaged ({first_line(error)}); choose another --workdir.'
        ) from error


def _drop_half_line(path: Path) -> None:
    """Ends a journal after its last whole line: a kill may have cut the next."""
    if path.exists():
        content = path.read_bytes()
        if not content.endswith(b'\n'):
            path.write_bytes(content[: content.rfind(b'\n') + 1])


def _sampler(search: Search, number: int) -> BaseSampler:
    """The sampler of a trial: of a seed of its own, so that a search that resumes asks no other."""
    (seed,) = np.random.SeedSequence([search.seed, number]).generate_state(1).tolist()
    # Of a grid every trial has its parameters already.
    return TPESampler(seed=seed) if search.sampler == 'tpe' else RandomSampler(seed=seed)


def _pruner(search: Search) -> BasePruner:
    if search.pruner == 'median':
        return MedianPruner(n_startup_trials=_NUM_WITHOUT_PRUNING, n_warmup_steps=_QUARTER)
    if search.pruner == 'hyperband':
        return HyperbandPruner(_QUARTER, _NUM_PARTS, reduction_factor=2)
    return NopPruner()
