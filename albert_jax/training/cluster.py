"""How the processes of a training meet. Nothing here imports JAX before it has to."""

import argparse
import ctypes
import os
import signal
import socket
import sys
import time

from albert_jax.cli.errors import UserError, first_line

# Seconds until a process gives up on a coordinator, and on a peer that no longer answers.
INIT_TIMEOUT = 60
HEARTBEAT_TIMEOUT = 30
# What a process says when a peer is gone.
LOST_PEER = (
    'Another process was lost, or this one failed ({}). What was saved is good; start the same '
    'command again on all hosts to resume.'
)
_AUTO = 'auto'
_PR_SET_PDEATHSIG = 1


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
            f'{INIT_TIMEOUT} s ({first_line(error)}); start the same command on all hosts, and '
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
                    f'({first_line(error)}); start process 0 there first, with the same address.'
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
        print(f'error: {LOST_PEER.format(name)}', file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(os.WEXITSTATUS(status))
