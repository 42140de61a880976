"""A stage as a process of this machine: started, signalled, and locked against a second one."""

import contextlib
import ctypes
import dataclasses
import fcntl
import functools
import os
import signal
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator, Set
from pathlib import Path
from types import FrameType
from typing import IO

from albert_jax.cli.errors import UserError, reason
from launch.record import LOG_FILE, last_line
from launch.stages import Stage, python_line

_PR_SET_PDEATHSIG = 1


@dataclasses.dataclass
class StageProcess:
    """The running process of a stage."""

    stage: Stage
    popen: subprocess.Popen[bytes]
    log: IO[bytes]
    # Of `time.monotonic`.
    started: float
    # Of the processes that worked on the stage before.
    seconds_before: float
    # The last step that those logged.
    first_step: int
    # None for all.
    cores: Set[int] | None

    @property
    def elapsed(self) -> float:
        """Seconds since this process was started."""
        return time.monotonic() - self.started

    @property
    def total_seconds(self) -> float:
        """Seconds of all processes that worked on the stage."""
        return self.seconds_before + self.elapsed

    def send(self, signal_number: int) -> None:
        """Sends a signal to the process and its children, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal_number)


def start_process(
    root: Path, stage: Stage, seconds_before: float, cores: Set[int] | None = None
) -> StageProcess:
    """Starts a stage, with its output appended to the log in its folder.

    Args:
      root: folder of the sweep; that of the stage is there already.
      stage: to start.
      seconds_before: of the processes that worked on the stage before.
      cores: of the machine that it computes on; None for all.
    """
    log = (root / stage.key / LOG_FILE).open('ab')
    with warnings.catch_warnings():
        # JAX's threads, which this is about, do not matter to a child of system calls alone.
        warnings.filterwarnings('ignore', r'os\.fork', RuntimeWarning)
        popen = subprocess.Popen(
            python_line(stage, str(root)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for the sweep, which passes it on once.
            start_new_session=True,
            # No thread of ours holds a lock that the child would wait for.
            preexec_fn=functools.partial(_begin, cores),  # noqa: PLW1509
        )
    first_step = int(last_line(root, stage.key).get('step', 0))
    return StageProcess(stage, popen, log, time.monotonic(), seconds_before, first_step, cores)


def _begin(cores: Set[int] | None) -> None:
    """In a child: keeps to its cores; if the sweep is killed, it saves and ends too (Linux)."""
    if cores is not None:
        os.sched_setaffinity(0, cores)
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    except (OSError, AttributeError):
        return


@contextlib.contextmanager
def stop_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Calls a handler on SIGINT and SIGTERM inside the context; restores the handlers after it."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


@contextlib.contextmanager
def sweep_lock(path: Path) -> Iterator[None]:
    """Holds a lock file, so that one process at a time runs a sweep.

    Raises:
      UserError: if the file cannot be written or another process holds it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open('w')
    except OSError as error:
        raise UserError(f'{path} cannot be written: {reason(error)}.') from error
    with file:
        if not can_lock(file):
            raise UserError(f'Another process runs the sweep in {path.parent}.')
        yield


def can_lock(file: IO[str]) -> bool:
    """Locks an open file if no other process holds it; whether it did."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
