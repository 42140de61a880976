"""Runs the stages of a sweep as processes of this machine."""

import contextlib
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table

from albert_jax.cli.errors import UserError
from launch import cores
from launch.process import StageProcess, can_lock, start_process, stop_signals, sweep_lock
from launch.progress import (
    MemberProgress,
    StageProgress,
    format_duration,
    format_metrics,
    progress_table,
)
from launch.record import (
    FAILED,
    FINISHED,
    LOG_FILE,
    PRUNED,
    RUNNING,
    STOPPED,
    WAITING,
    Record,
    last_line,
    log_tail,
    read_record,
    results_of,
    settings_of,
    write_record,
)  # fmt: skip
from launch.stages import Member, Stage

_POLL_SECONDS = 0.2
# Between lines where there is no terminal to draw a table on.
_LINE_SECONDS = 60.0
# Saved and ended as it was told, or at once where there was nothing to save.
_ENDED_BY_SIGTERM = (128 + signal.SIGTERM, -signal.SIGTERM)


class Feed(Protocol):
    """Members that are decided on while others run, as the trials of a search."""

    @property
    def num_to_come(self) -> int:
        """How many it may still give."""
        ...

    def begin(self) -> Sequence[Member]:
        """The members that were started before and not ended.

        Called first, once this process alone has the folder.
        """
        ...

    def next(self) -> Member | None:
        """One more, now that a process is free, or None if there is none."""
        ...

    def is_hopeless(self, key: str) -> bool:
        """Whether a running stage is not worth its end."""
        ...

    def ended(self, key: str, state: str) -> None:
        """Takes the state in which a stage has ended: finished, failed, pruned or stopped."""
        ...


class LocalRunner:
    """Runs the stages that are not finished; one that fails stops those that need it.

    Args:
      root: folder of the sweep.
      members: of the sweep.
      num_jobs: processes at a time.
      only: the members that this is for, where others run elsewhere.
      feed: of further members.
    """

    def __init__(
        self,
        root: Path,
        members: Sequence[Member],
        num_jobs: int,
        only: Sequence[str] = (),
        feed: Feed | None = None,
    ) -> None:
        self._root = root
        # Machines that share the folder have members of their own.
        self._lock_files = [root / f'{name}.lock' for name in sorted(set(only)) or ['sweep']]
        # Of the jobs that do not run; as many as there may be at a time.
        self._free_cores = cores.shares(num_jobs)
        self._members = members
        self._feed = feed
        self._stages: dict[str, Stage] = {}
        # Those that were told to end before their time.
        self._hopeless: set[str] = set()
        self._states: dict[str, str] = {}
        self._seconds: dict[str, float] = {}
        self._reached: dict[str, Mapping[str, object]] = {}
        self._running: dict[str, StageProcess] = {}
        self._signal: int | None = None
        self._num_signals = 0
        # Whether all that runs was told to save and end.
        self._is_ending = False
        self._console = Console()
        self._last_line = time.monotonic()

    def run(self, write_plan: Callable[[], None] = lambda: None) -> int:
        """Runs until all stages are finished or failed, or a signal stops it.

        Args:
          write_plan: called once this process alone has the folder.

        Returns:
          The exit status: 0 if all are finished, 2 if all that failed ended with 2 (a mistake of
          the user's), 1 for other failures, and 128 + the number of a signal.

        Raises:
          UserError: if another process runs this sweep, or a member starts from one that is not
            here and not finished.
        """
        for member in self._members:
            self._add(member)
        self._check_needs()
        with contextlib.ExitStack() as locks:
            for lock_file in self._lock_files:
                locks.enter_context(sweep_lock(lock_file))
            locks.enter_context(stop_signals(self._on_signal))
            write_plan()
            for member in self._feed.begin() if self._feed else ():
                self._add(member)
            self._wait_for_orphans()
            is_terminal = self._console.is_terminal
            live = Live(console=self._console, auto_refresh=False, transient=True)
            try:
                if is_terminal:
                    live.start()
                while self._step() and self._signal is None:
                    if is_terminal:
                        live.update(self.table(), refresh=True)
                    else:
                        self._print_progress()
                    time.sleep(_POLL_SECONDS)
            finally:
                if is_terminal:
                    live.stop()
                self._end_all()
        if not self._feed:
            self._console.print(self.table(has_results=True))
        return self._report()

    def _add(self, member: Member) -> None:
        for stage in member.stages:
            record = read_record(self._root, stage.key)
            self._stages[stage.key] = stage
            # What failed or was stopped before is tried again.
            self._states[stage.key] = FINISHED if record.state == FINISHED else WAITING
            self._seconds[stage.key] = record.seconds

    def _check_needs(self) -> None:
        for stage in self._stages.values():
            for need in stage.needs:
                if need in self._stages or read_record(self._root, need).state == FINISHED:
                    continue
                first = need.partition('/')[0]
                raise UserError(
                    f'{stage.member} starts from {first}, which is not finished in {self._root}; '
                    f'run --only={first} first, or all members without --only.'
                )

    def _wait_for_orphans(self) -> None:
        """A process whose sweep was killed still saves; it holds the lock of its folder."""
        for key in self._stages:
            path = self._root / key / 'lock'
            if read_record(self._root, key).state != RUNNING or not path.exists():
                continue
            with path.open('r+') as file:
                while self._signal is None and not can_lock(file):
                    time.sleep(_POLL_SECONDS)

    def _report(self) -> int:
        failed = [key for key, state in self._states.items() if state == FAILED]
        for key in failed:
            print(f'failed: {key}: {log_tail(self._root, key)}')
            print(f'  see {self._root / key / LOG_FILE}')
        left = [key for key, state in self._states.items() if state in (WAITING, STOPPED)]
        if self._signal:
            print('Stopped; what was running is saved. Start the same command again to resume.')
            return 128 + self._signal
        if failed:
            blocked = f'; {len(left)} that need them were left out' if left else ''
            print(
                f'{len(failed)} of {len(self._states)} failed{blocked}. Start the same command '
                f'again to try those.'
            )
            # A mistake in all of them: whoever starts this again need not.
            statuses = {read_record(self._root, key).exit_status for key in failed}
            return 2 if statuses == {2} else 1
        return 0

    def _step(self) -> bool:
        """Records the processes that have ended and starts those that can; whether any runs."""
        for key, process in list(self._running.items()):
            status = process.popen.poll()
            if status is not None:
                self._ended(key, process, status)
            elif self._feed and key not in self._hopeless and self._feed.is_hopeless(key):
                self._hopeless.add(key)
                process.send(signal.SIGTERM)
        while self._signal is None and self._free_cores:
            stage = self._next()
            if stage is None:
                break
            self._start(stage)
        return bool(self._running)

    def _next(self) -> Stage | None:
        """The first stage that can start now."""
        for key, stage in self._stages.items():
            # What is not of this run was finished before it.
            is_ready = all(self._states.get(need, FINISHED) == FINISHED for need in stage.needs)
            if self._states[key] == WAITING and is_ready:
                return stage
        member = self._feed.next() if self._feed else None
        if member is None:
            return None
        self._add(member)
        return member.stages[0]

    def _start(self, stage: Stage) -> None:
        seconds = self._seconds[stage.key]
        write_record(self._root, stage, Record(RUNNING, settings_of(stage), None, seconds))
        own = self._free_cores.pop(0)
        self._running[stage.key] = start_process(self._root, stage, seconds, own)
        self._states[stage.key] = RUNNING
        self._say(f'{stage.key}: started')

    def _ended(self, key: str, process: StageProcess, status: int) -> None:
        process.log.close()
        del self._running[key]
        self._free_cores.append(process.cores)
        seconds = process.total_seconds
        self._seconds[key] = seconds
        if status == 0:
            state = FINISHED
        elif key in self._hopeless and status in _ENDED_BY_SIGTERM:
            state = PRUNED
        elif self._is_ending or self._signal is not None:
            state = STOPPED
        else:
            state = FAILED
        self._states[key] = state
        record = Record(state, settings_of(process.stage), status, round(seconds, 1))
        write_record(self._root, process.stage, record)
        why = f': {log_tail(self._root, key)}' if state == FAILED else ''
        self._say(f'{key}: {state} after {format_duration(seconds)}{why}')
        if self._feed:
            self._feed.ended(key, state)

    def _end_all(self) -> None:
        """Tells every process to save and end, and waits for it; a second signal kills them."""
        self._is_ending = True
        asked_to_stop: set[str] = set()
        while self._running:
            for key, process in list(self._running.items()):
                if self._num_signals > 1:
                    process.send(signal.SIGKILL)
                elif key not in asked_to_stop:
                    asked_to_stop.add(key)
                    process.send(signal.SIGTERM)
                status = process.popen.poll()
                if status is not None:
                    self._ended(key, process, status)
            time.sleep(_POLL_SECONDS)

    def _say(self, text: str) -> None:
        if not self._console.is_terminal:
            print(text, flush=True)

    def _print_progress(self) -> None:
        if time.monotonic() - self._last_line < _LINE_SECONDS:
            return
        self._last_line = time.monotonic()
        done = sum(state == FINISHED for state in self._states.values())
        num_stages = len(self._states) + (self._feed.num_to_come if self._feed else 0)
        for key in self._running:
            stage = self._progress(key)
            left = f'ETA {stage.eta}' if stage.eta else ''
            known = [part for part in (stage.step, stage.metrics, left) if part]
            print(f'{done}/{num_stages} finished;', key, *known, flush=True)

    def table(self, has_results: bool = False) -> Table:
        """Every member with its stages and their progress; with a feed, those that run.

        Args:
          has_results: whether to show what each stage has reached that is finished.
        """
        members: dict[str, list[StageProgress]] = {}
        for key, stage in self._stages.items():
            members.setdefault(stage.member, []).append(self._progress(key))
        progress = [MemberProgress(*member) for member in members.items()]
        if not self._feed:
            return progress_table(progress, has_results)
        # The last of many members are those that run, and a terminal shows the first lines.
        return progress_table(progress, has_results, self._feed.num_to_come, is_short=True)

    def _progress(self, key: str) -> StageProgress:
        stage, process, state = self._stages[key], self._running.get(key), self._states[key]
        line = last_line(self._root, key) if state != WAITING else {}
        step = int(line.get('step', 0))
        eta = ''
        if process is not None and step > process.first_step:
            seconds_per_step = process.elapsed / (step - process.first_step)
            eta = format_duration(seconds_per_step * (stage.num_steps - step))
        return StageProgress(
            name=stage.name,
            state=state,
            seconds=self._seconds[key] if process is None else process.total_seconds,
            step=f'{step}/{stage.num_steps}' if line and stage.num_steps else '',
            metrics=format_metrics(self._results(key) if state == FINISHED else line),
            eta=eta,
        )

    def _results(self, key: str) -> Mapping[str, object]:
        """What a finished stage has reached, read once."""
        if key not in self._reached:
            self._reached[key] = results_of(self._root, key)
        return self._reached[key]

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._num_signals += 1
        if self._signal is None:
            self._signal = number
            print('\nStopping: each run saves what it has. Once more to kill them.', flush=True)
