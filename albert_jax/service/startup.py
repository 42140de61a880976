"""Starts a service: loads the checkpoints, listens, compiles, and answers until it is stopped."""

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence

from rich.progress import MofNCompleteColumn

from albert_jax.cli.errors import UserError, first_line
from albert_jax.cli.progress import Progress
from albert_jax.service import app, metrics, models, server
from albert_jax.service.batching import Device
from albert_jax.service.models import Compilation, Served
from albert_jax.service.service import Limits, Service
from albert_jax.service.settings import ServiceSettings
from albert_jax.training.programs import keep_programs_whole


def run(checkpoints: Sequence[str], settings: ServiceSettings, api_key: str) -> None:
    """Loads, compiles and serves until SIGTERM or Ctrl-C.

    Args:
      checkpoints: NAME=PATH, or PATH whose last part is the name.
      settings: address and limits.
      api_key: that requests to /v1 have to bear; empty for none.

    Raises:
      UserError: if the address cannot be listened on or a checkpoint cannot be read.
    """
    limits = Limits(
        settings.max_body, settings.max_texts, settings.max_characters, settings.max_waiting,
        settings.timeout,
    )  # fmt: skip
    _check_address(settings.host, settings.port)
    counters = metrics.Metrics()
    service = Service(limits, counters)
    served = models.load(
        checkpoints, Device(), settings.max_waiting, settings.max_length, counters.batch
    )
    keep_programs_whole()
    compilation = _Compilation(service, served, settings)
    print(f'Listening on {settings.host}:{settings.port}; compiling …', flush=True)
    # Nonsense that is sent by strangers is no news.
    logging.getLogger('uvicorn.error').setLevel(logging.ERROR)
    logging.basicConfig(format='%(asctime)s %(message)s', stream=sys.stderr)
    logging.getLogger('albert_jax.service').setLevel(
        logging.INFO if settings.verbose else logging.WARNING
    )
    server.run(
        app.make_app(service, compilation.start, compilation.stop, api_key), settings.host,
        settings.port, settings.timeout,
    )  # fmt: skip


class _Compilation:
    """Compiles everything in a thread of its own, while the server listens and then answers.

    Args:
      service: that takes the models.
      served: the models, by name.
      settings: of the service.
    """

    def __init__(
        self, service: Service, served: Mapping[str, Served], settings: ServiceSettings
    ) -> None:
        self._service, self._served, self._settings = service, served, settings
        self._is_stopped = threading.Event()
        self._is_ready = False
        self._started = time.monotonic()

    def start(self) -> None:
        """Starts to compile; returns at once."""
        threading.Thread(target=self._run, name='compile', daemon=True).start()

    def stop(self) -> None:
        """Ends the thread after the shape that it is compiling."""
        self._is_stopped.set()

    def _run(self) -> None:
        try:
            with compile_progress() as self._progress:
                self._service.compile(self._served, self._report)
            seconds = time.monotonic() - self._started
            num_programs = self._service.num_compiled
            print(f'All {num_programs} programs are compiled, after {seconds:.0f} s.', flush=True)
        except SystemExit:
            pass
        except Exception as error:
            message = f'error: a model cannot be run here: {first_line(error)}'
            print(message, file=sys.stderr, flush=True)
            os._exit(2)

    def _report(self, compilation: Compilation) -> None:
        if self._is_stopped.is_set():
            raise SystemExit
        service, progress, is_verbose = self._service, self._progress, self._settings.verbose
        progress.advance(compilation.num_programs, service.num_programs, is_quiet=is_verbose)
        if is_verbose:
            progress.console.print(f'Compiled {compilation.name}.', markup=False, soft_wrap=True)
        if service.is_ready and not self._is_ready:
            self._is_ready = True
            url = page_url(self._settings.host, self._settings.port)
            line = f'Ready on {url}: open it in a browser; the API is described at {url}/docs.'
            num_left = service.num_programs - service.num_compiled
            if num_left > 0:
                line += f' {num_left} more programs are being compiled; answers become quicker.'
            progress.console.print(line, markup=False, highlight=False, soft_wrap=True)


def compile_progress() -> Progress:
    """How far compiling is."""
    return Progress('compiling', MofNCompleteColumn(), line=_progress_line)


def _progress_line(done: float, total: float, seconds: float) -> str:
    left = seconds / done * (total - done)
    return f'compiled {done:.0f} of {total:.0f} programs, ETA {left:.0f} s'


def page_url(host: str, port: int) -> str:
    """Where a browser on this machine finds the service."""
    host = {'0.0.0.0': '127.0.0.1', '::': '::1', '': '127.0.0.1'}.get(host, host)
    return f'http://[{host}]:{port}' if ':' in host else f'http://{host}:{port}'


def _check_address(host: str, port: int) -> None:
    """Refuses an address that cannot be listened on before anything is loaded."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, UnicodeError) as error:
        told = getattr(error, 'strerror', None) or 'no such address'
        raise UserError(
            f'{host}:{port} cannot be listened on ({told}); choose another --host or --port.'
        ) from error
