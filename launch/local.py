"""Runs the stages of a sweep as processes of this machine."""

import ctypes
import dataclasses
import fcntl
import os
import signal
import subprocess
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from albert_jax.cli.errors import UserError
from launch.record import (
    FAILED,
    FINISHED,
    LOG_FILE,
    RUNNING,
    STOPPED,
    WAITING,
    Record,
    last_line,
    log_tail,
    read_record,
    settings_of,
    write_record,
)  # fmt: skip
from launch.stages import Member, Stage, python_line

_POLL_SECONDS = 0.2
# Between lines where there is no terminal to draw a table on.
_LINE_SECONDS = 60.0
_PR_SET_PDEATHSIG = 1
_CACHE = {'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.5'}


@dataclasses.dataclass
class _Process:
    stage: Stage
    popen: subprocess.Popen[bytes]
    log: IO[bytes]
    started: float
    seconds_before: float
    first_step: int


class LocalRunner:
    """Runs what is not finished, so many at a time; a stage that fails stops those that need it.

    Args:
      root: folder of the sweep.
      members: of the sweep.
      num_jobs: processes at a time.
      only: the one member that this is for, where others run elsewhere.
    """

    def __init__(
        self, root: Path, members: Sequence[Member], num_jobs: int, only: str = ''
    ) -> None:
        self._root = root
        # Machines that share the folder each have a member of their own.
        self._lock_file = root / (f'{only}.lock' if only else 'sweep.lock')
        self._num_jobs = num_jobs
        self._stages = {stage.key: stage for member in members for stage in member.stages}
        self._states: dict[str, str] = {}
        self._seconds: dict[str, float] = {}
        self._running: dict[str, _Process] = {}
        self._signal: int | None = None
        self._num_signals = 0
        # Seeds, and fine-tunings of models of one shape, are the same programs.
        self._env = {'JAX_COMPILATION_CACHE_DIR': str(root / 'compiled'), **_CACHE, **os.environ}
        self._console = Console()
        self._last_line = time.monotonic()

    def run(self, write_plan: Callable[[], None] = lambda: None) -> int:
        """Runs until all is finished, failed, or a signal has stopped it; the exit status.

        Args:
          write_plan: called once this process alone has the folder.

        Raises:
          UserError: if another process runs this sweep, or a member starts from one that is not
            here and not finished.
        """
        self._check_needs()
        for key in self._stages:
            record = read_record(self._root, key)
            # What failed or was stopped before is tried again.
            self._states[key] = FINISHED if record.state == FINISHED else WAITING
            self._seconds[key] = record.seconds
        with _Lock(self._lock_file), self._signals():
            write_plan()
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
        self._console.print(self.table())
        return self._report()

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
                while self._signal is None and not _can_lock(file):
                    time.sleep(_POLL_SECONDS)

    def _report(self) -> int:
        failed = [key for key, state in self._states.items() if state == FAILED]
        for key in failed:
            print(f'failed: {key}: {log_tail(self._root, key)}')
            print(f'  see {self._root / key / LOG_FILE}')
        left = [key for key, state in self._states.items() if state not in (FINISHED, FAILED)]
        if self._signal:
            print('Stopped; what was running is saved. Start the same command again to go on.')
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
        """Looks after the processes once; whether there is something left to wait for."""
        for key, process in list(self._running.items()):
            status = process.popen.poll()
            if status is not None:
                self._ended(key, process, status)
        if self._signal is None:
            for key, stage in self._stages.items():
                if len(self._running) >= self._num_jobs:
                    break
                # What is not of this run was finished before it.
                is_ready = all(self._states.get(need, FINISHED) == FINISHED for need in stage.needs)
                if self._states[key] == WAITING and is_ready:
                    self._start(stage)
        return bool(self._running)

    def _start(self, stage: Stage) -> None:
        folder = self._root / stage.key
        write_record(
            self._root, stage, Record(RUNNING, settings_of(stage), None, self._seconds[stage.key])
        )
        log = (folder / LOG_FILE).open('ab')
        with warnings.catch_warnings():
            # JAX's threads, which this is about, do not matter to a child that calls prctl alone.
            warnings.filterwarnings('ignore', r'os\.fork', RuntimeWarning)
            popen = subprocess.Popen(
                python_line(stage, str(self._root)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                # Ctrl-C is for the sweep, which passes it on once.
                start_new_session=True,
                # No thread of ours holds a lock that the child would wait for.
                preexec_fn=_die_with_parent,  # noqa: PLW1509
            )
        first = int(last_line(self._root, stage.key).get('step', 0))
        self._running[stage.key] = _Process(
            stage, popen, log, time.monotonic(), self._seconds[stage.key], first
        )
        self._states[stage.key] = RUNNING
        self._say(f'{stage.key}: started')

    def _ended(self, key: str, process: _Process, status: int) -> None:
        process.log.close()
        del self._running[key]
        seconds = process.seconds_before + time.monotonic() - process.started
        self._seconds[key] = seconds
        if status == 0:
            state = FINISHED
        elif self._signal is not None:
            state = STOPPED
        else:
            state = FAILED
        self._states[key] = state
        record = Record(state, settings_of(process.stage), status, round(seconds, 1))
        write_record(self._root, process.stage, record)
        why = f': {log_tail(self._root, key)}' if state == FAILED else ''
        self._say(f'{key}: {state} after {_duration(seconds)}{why}')

    def _end_all(self) -> None:
        """Lets every process save and end."""
        is_told: set[str] = set()
        while self._running:
            for key, process in list(self._running.items()):
                if self._num_signals > 1:
                    _signal_group(process.popen, signal.SIGKILL)
                elif key not in is_told:
                    is_told.add(key)
                    _signal_group(process.popen, signal.SIGTERM)
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
        for key in self._running:
            _, step, what, eta = self._progress(key)
            print(f'{done}/{len(self._states)} finished; {key} {step} {what} ETA {eta}', flush=True)

    def table(self) -> Table:
        """Every member with where it is."""
        done = sum(state == FINISHED for state in self._states.values())
        table = Table(title=f'{done} of {len(self._states)} finished')
        for name in ('member', 'done', 'now', 'state', 'step', '', 'time', 'ETA'):
            is_number = name in ('done', 'step', 'time', 'ETA')
            table.add_column(name, justify='right' if is_number else 'left')
        members: dict[str, list[str]] = {}
        for key, stage in self._stages.items():
            members.setdefault(stage.member, []).append(key)
        for member, keys in members.items():
            finished = [key for key in keys if self._states[key] == FINISHED]
            key = min((key for key in keys if key not in finished), key=self._urgency, default='')
            total = sum(self._progress(key)[0] for key in keys)
            _, step, what, eta = self._progress(key) if key else (0, '', '', '')
            state = self._states[key] if key else FINISHED
            style = {FINISHED: 'green', FAILED: 'red', RUNNING: 'yellow'}.get(state, 'dim')
            table.add_row(
                member, f'{len(finished)}/{len(keys)}', self._stages[key].name if key else '',
                f'[{style}]{state}[/]', step, what, _duration(total) if total else '', eta,
            )  # fmt: skip
        return table

    def _urgency(self, key: str) -> int:
        """What of a member is shown first."""
        return (RUNNING, FAILED, STOPPED, WAITING).index(self._states[key])

    def _progress(self, key: str) -> tuple[float, str, str, str]:
        """Seconds so far, step, a metric and the time left."""
        stage, process = self._stages[key], self._running.get(key)
        line = last_line(self._root, key) if self._states[key] != WAITING else {}
        step = int(line.get('step', 0))
        shown = f'{step}/{stage.num_steps}' if line and stage.num_steps else ''
        seconds, eta = self._seconds[key], ''
        if process is not None:
            elapsed = time.monotonic() - process.started
            seconds = process.seconds_before + elapsed
            if step > process.first_step:
                left = elapsed / (step - process.first_step) * (stage.num_steps - step)
                eta = _duration(left)
        return seconds, shown, _metric(line), eta

    def _signals(self) -> '_Signals':
        def told(number: int, frame: FrameType | None) -> None:
            del frame
            self._num_signals += 1
            if self._signal is None:
                self._signal = number
                print('\nStopping: each run saves what it has. Once more to kill them.', flush=True)

        return _Signals(told)


class _Signals:
    def __init__(self, handler: Any) -> None:
        self._handler = handler
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handler)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


class _Lock:
    """One process at a time runs a sweep."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open('w')
        except OSError as error:
            raise UserError(f'{self._path} cannot be written: {error.strerror}.') from error
        if not _can_lock(self._file):
            raise UserError(f'Another process runs the sweep in {self._path.parent}.')

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _can_lock(file: IO[Any]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _die_with_parent() -> None:
    """In a child: if the sweep itself is killed, save and end too (Linux)."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    except (OSError, AttributeError):
        return


def _signal_group(popen: subprocess.Popen[bytes], number: int) -> None:
    try:
        os.killpg(popen.pid, number)
    except ProcessLookupError:
        return


def _metric(line: Mapping[str, Any]) -> str:
    names = [
        name for name, value in line.items()
        if name not in ('step', 'split', 'speed', 'learning_rate', 'skipped_steps', 'grad_norm')
        and isinstance(value, float)
    ]  # fmt: skip
    return ' '.join(f'{name} {line[name]:.4g}' for name in names[:2])


def _duration(seconds: float) -> str:
    whole = int(seconds)
    return f'{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}'
