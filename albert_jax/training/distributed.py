"""Several processes that train one model: how they meet, agree and part."""

import argparse
import ctypes
import json
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from albert_jax.cli.errors import UserError

# Seconds until a process gives up on a coordinator, and on a peer that no longer answers.
INIT_TIMEOUT = 60
HEARTBEAT_TIMEOUT = 30
_AUTO = 'auto'
_LAST_WORDS_SECONDS = 3
_PR_SET_PDEATHSIG = 1
_LOST = (
    'Another process was lost, or this one failed ({}). What was saved is good; start the same '
    'command again on all hosts to go on.'
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of a command that several processes run together."""
    group = parser.add_argument_group(
        'several hosts', 'start the same command on every host; --workdir must be shared by all'
    )
    group.add_argument(
        '--coordinator',
        metavar='HOST:PORT',
        help="of process 0; 'auto' asks the TPU or cluster, and then needs nothing else",
    )
    group.add_argument('--num_processes', type=int, help='how many there are')
    group.add_argument('--process_id', type=int, help='which one this is, from 0')


def start(flags: argparse.Namespace) -> None:
    """Meets the other processes, if there are any. To be called before devices are used.

    Raises:
      UserError: if the flags do not fit together or the coordinator does not answer in
        `INIT_TIMEOUT`.
    """
    address, count, number = flags.coordinator, flags.num_processes, flags.process_id
    if address is None:
        if count is not None or number is not None:
            raise UserError('--num_processes and --process_id need --coordinator=HOST:PORT.')
        return
    if address == _AUTO:
        count = number = None
    else:
        _check(address, count, number)
    _reachable(address, number)
    _watch_over_a_child()
    import jax

    # CPUs run computations side by side, and their messages to other processes would get mixed up.
    jax.config.update('jax_cpu_enable_async_dispatch', False)
    # It would take SIGTERM away from us.
    jax.config.update('jax_enable_preemption_service', False)
    try:
        jax.distributed.initialize(
            None if address == _AUTO else address,
            count,
            number,
            initialization_timeout=INIT_TIMEOUT,
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f'--coordinator={address}: the {count or ""} processes did not meet within '
            f'{INIT_TIMEOUT} s ({_first_line(error)}); start the same command on all hosts, and '
            f'check that they reach the address.'
        ) from error


def _check(address: str, count: int | None, number: int | None) -> None:
    host, _, port = address.rpartition(':')
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise UserError(
            f"--coordinator={address}: it must be HOST:PORT, as in 10.0.0.2:8476, or 'auto'."
        )
    if count is None or number is None:
        raise UserError(f'--coordinator={address} needs --num_processes and --process_id too.')
    if not 0 <= number < count:
        raise UserError(
            f'--process_id={number}: it must be from 0 to {count - 1}, one below --num_processes.'
        )


def _reachable(address: str, number: int | None) -> None:
    """Waits until the coordinator's port is open: JAX's own client ends the process if it is not.

    Raises:
      UserError: if it does not open in `INIT_TIMEOUT`.
    """
    import socket

    if address == _AUTO or number == 0:
        return
    host, _, port = address.rpartition(':')
    deadline = time.monotonic() + INIT_TIMEOUT
    while True:
        try:
            with socket.create_connection((host, int(port)), timeout=5):
                return
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f'--coordinator={address} did not answer within {INIT_TIMEOUT} s '
                    f'({_first_line(error)}); start process 0 there first, with the same address.'
                ) from error
            time.sleep(0.5)


def _watch_over_a_child() -> None:
    """Goes on in a child process; this one waits for it and says why it ended.

    When a peer is lost, libraries below Python abort the process that is left, with nothing that a
    person could read. To be called before JAX has started any thread.
    """
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        # If the parent is killed, so is the child.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        return
    signal.signal(signal.SIGTERM, lambda number, frame: os.kill(child, number))
    # A terminal sends Ctrl-C to both.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGTERM:
        os._exit(128 + signal.SIGTERM)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        print(f'error: {_LOST.format(name)}', file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(os.WEXITSTATUS(status))


def is_main() -> bool:
    """Whether this process is the one that writes logs."""
    import jax

    return jax.process_index() == 0


def is_multiprocess() -> bool:
    """Whether there are other processes."""
    import jax

    return jax.process_count() > 1


def wait_for_all(name: str) -> None:
    """Returns when every process has come here."""
    if is_multiprocess():
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def check_same(description: Mapping[str, Any]) -> None:
    """Compares what all processes are about to do.

    Raises:
      UserError: on all of them, with the first field that differs.
    """
    all_of_them = [_flat(other) for other in gathered(description)]
    first = all_of_them[0]
    for number, other in enumerate(all_of_them):
        for name in sorted(first.keys() | other.keys()):
            if first.get(name) != other.get(name):
                raise UserError(
                    f'Process {number} was started with {name} = {other.get(name)!r}, process 0 '
                    f'with {first.get(name)!r}; start all of them with the same command.'
                )


def gathered(content: Any) -> list[Any]:
    """What each process has to say, as JSON takes it, in the order of the processes."""
    if not is_multiprocess():
        return [content]
    import numpy as np
    from jax.experimental import multihost_utils

    text = json.dumps(content, sort_keys=True, default=str).encode()
    longest = int(np.max(multihost_utils.process_allgather(np.array([len(text)]))))
    padded = np.frombuffer(text.ljust(longest), np.uint8)
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(bytes(np.asarray(row, np.uint8))) for row in rows]


def broadcast_from_main(content: Any) -> Any:
    """What process 0 has to say: what it has read decides for all."""
    return gathered(content)[0]


def check_shared(folder: Path) -> None:
    """Checks that a folder is the same for all processes.

    Raises:
      UserError: on all of them, if it is not.
    """
    if not is_multiprocess():
        return
    file = folder / 'shared'
    if is_main():
        file.write_text(secrets.token_hex(16))
    token = broadcast_from_main(file.read_text() if is_main() else '')
    found = gathered(file.exists() and file.read_text() == token)
    if not all(found):
        raise UserError(
            f'{folder} of process {found.index(False)} is not that of process 0; --workdir must '
            f'be on storage that all hosts share.'
        )
    wait_for_all('storage is shared')
    if is_main():
        file.unlink()


def _flat(content: Any, path: str = '') -> dict[str, Any]:
    if not isinstance(content, dict):
        return {path: content}
    return {
        name: value
        for key, inner in content.items()
        for name, value in _flat(inner, f'{path}.{key}' if path else key).items()
    }


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def exit_on_lost_peer(work: Callable[[], int]) -> int:
    """Runs the training; a peer that is lost ends this process with a sentence, not a hang.

    Returns:
      The exit status of the work.

    A mistake that only this process has seen ends it too, so that the others do not wait.
    """
    if not is_multiprocess():
        return work()
    import jax

    try:
        return work()
    except UserError as error:
        print(f'error: {error}', file=sys.stderr, flush=True)
        # Others may be about to say the same; those that are not must not wait for this one.
        time.sleep(_LAST_WORDS_SECONDS)
        os._exit(2)
    except jax.errors.JaxRuntimeError as error:
        print(f'error: {_LOST.format(_first_line(error))}', file=sys.stderr, flush=True)
        # JAX's own farewell would wait for the process that is gone.
        os._exit(1)


def shutdown(status: int) -> None:
    """Parts from the others when the work is done, without waiting for ever for one that is gone.

    Args:
      status: to exit with if one is.
    """
    if not is_multiprocess():
        return
    import jax

    timer = threading.Timer(HEARTBEAT_TIMEOUT, os._exit, [status])
    timer.daemon = True
    timer.start()
    jax.distributed.shutdown()
    timer.cancel()
