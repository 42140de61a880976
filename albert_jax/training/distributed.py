"""Several processes that train one model: what they agree on, and how they part."""

import json
import logging
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from albert_jax.cli.errors import UserError, first_line
from albert_jax.cli.sections import flatten_sections
from albert_jax.training.cluster import HEARTBEAT_TIMEOUT, LOST_PEER

_LAST_WORDS_SECONDS = 3


def is_main() -> bool:
    """Whether this process is the one that writes logs."""
    return jax.process_index() == 0


def is_multiprocess() -> bool:
    """Whether there are other processes."""
    return jax.process_count() > 1


def wait_for_all(name: str) -> None:
    """Returns when every process has come here."""
    if is_multiprocess():
        multihost_utils.sync_global_devices(name)


def check_same(description: Mapping[str, Any]) -> None:
    """Compares what all processes are about to do.

    Raises:
      UserError: on all of them, with the first field that differs.
    """
    all_of_them = [flatten_sections(other) for other in all_gather_json(description)]
    first = all_of_them[0]
    for number, other in enumerate(all_of_them):
        for name in sorted(first.keys() | other.keys()):
            if first.get(name) != other.get(name):
                raise UserError(
                    f'Process {number} was started with {name} = {other.get(name)!r}, process 0 '
                    f'with {first.get(name)!r}; start all of them with the same command.'
                )


def all_gather_json(content: Any) -> list[Any]:
    """The content of each process, which JSON can hold, in the order of the processes."""
    if not is_multiprocess():
        return [content]
    text = json.dumps(content, sort_keys=True, default=str).encode()
    longest = int(np.max(multihost_utils.process_allgather(np.array([len(text)]))))
    padded = np.frombuffer(text.ljust(longest), np.uint8)
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(bytes(np.asarray(row, np.uint8))) for row in rows]


def broadcast_from_main(content: Any) -> Any:
    """The content of process 0, for all of them."""
    return all_gather_json(content)[0]


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
    is_shared = all_gather_json(file.exists() and file.read_text() == token)
    if not all(is_shared):
        raise UserError(
            f'{folder} of process {is_shared.index(False)} is not that of process 0; --workdir '
            f'must be on storage that all hosts share.'
        )
    wait_for_all('storage is shared')
    if is_main():
        file.unlink()


def exit_on_lost_peer(work: Callable[[], int]) -> int:
    """Runs the training; a peer that is lost ends this process with a sentence, not a hang.

    Returns:
      The exit status of the work.

    A mistake that only this process has seen ends it too, so that the others do not wait.
    """
    if not is_multiprocess():
        return work()
    # A save in the background that fails raises at the next one; Orbax logs its traceback as well.
    logging.getLogger('absl').addFilter(_has_no_traceback)
    try:
        return work()
    except UserError as error:
        print(f'error: {error}', file=sys.stderr, flush=True)
        # Others may be about to say the same; those that are not must not wait for this one.
        time.sleep(_LAST_WORDS_SECONDS)
        os._exit(2)
    except jax.errors.JaxRuntimeError as error:
        print(f'error: {LOST_PEER.format(first_line(error))}', file=sys.stderr, flush=True)
        # JAX's own farewell would wait for the process that is gone.
        os._exit(1)


def _has_no_traceback(record: logging.LogRecord) -> bool:
    return record.exc_info is None


def shutdown(status: int) -> None:
    """Parts from the others when the work is done, without waiting for ever for one that is gone.

    Args:
      status: to exit with if one is.
    """
    if not is_multiprocess():
        return
    timer = threading.Timer(HEARTBEAT_TIMEOUT, os._exit, [status])
    timer.daemon = True
    timer.start()
    jax.distributed.shutdown()
    timer.cancel()
