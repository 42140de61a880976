"""Answers over HTTP: `python -m albert_jax.serve --help`."""

import argparse
import ctypes
import logging
import math
import os
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from albert_jax.cli import command
from albert_jax.cli.errors import UserError

if TYPE_CHECKING:
    from albert_jax.cli.progress import Progress

_DESCRIPTION = """\
Serve trained models over HTTP, with a page at / to try them. Needs the extra 'serve'.

  POST /v1/predict     the head's own answer: labels with probabilities, spans, tags, scores
  POST /v1/fill-mask   the likeliest pieces for every [MASK]
  POST /v1/embed       a vector for each text
  POST /v1/inspect     attention, and which words moved the answer
  GET  /v1/models      what there is to ask
  GET  /healthz /readyz /metrics /openapi.json

Every shape is compiled before /readyz says ready, and nothing afterwards."""
_EPILOG = """\
examples:
  python -m albert_jax.serve --checkpoint=runs/sst2
  curl -s localhost:8000/v1/predict -H 'Content-Type: application/json' \\
      -d '{"input": "A gripping, beautiful film."}'
  python -m albert_jax.serve --checkpoint=mood=runs/sst2 --checkpoint=base=runs/base --port=9000

docs/SERVING.md tells of limits, metrics, load balancers and TPUs.
"""
_MISSING = "The service needs the extra 'serve': install it with pip install 'albert_jax[serve]'."


def main(arguments: Sequence[str]) -> int:
    """Loads, compiles and serves until it is told to stop."""
    flags = _parser().parse_args(arguments)
    _check(flags)
    key = _api_key(flags.api_key_file)
    _keep_memory()
    # Programs that were compiled once are there at the next start.
    os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(command.cache() / 'compiled'))
    os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
    try:
        from albert_jax.service import app, metrics, server
    except ImportError as error:
        raise UserError(_MISSING) from error
    from albert_jax.service import models
    from albert_jax.service.batching import Device

    limits = app.Limits(
        flags.max_body, flags.max_texts, flags.max_characters, flags.max_waiting, flags.timeout
    )
    _check_address(flags.host, flags.port)
    counted = metrics.Metrics()
    service = app.Service(limits, counted)
    loaded = models.load(
        flags.checkpoint, Device(), flags.max_waiting, flags.max_length, counted.batch
    )
    is_closing = threading.Event()

    def compile_all() -> None:
        try:
            with _progress() as progress:

                def tell(what: str, num_shapes: int) -> None:
                    if is_closing.is_set():
                        raise SystemExit
                    progress.advance(1, num_shapes, is_quiet=flags.verbose)
                    if flags.verbose:
                        progress.console.print(f'Compiled {what}.', markup=False, soft_wrap=True)

                service.compile(loaded, tell)
            print(f'Ready with {service.num_compiled} programs.', flush=True)
        except SystemExit:
            pass
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            print(f'error: a model cannot be run here: {reason}', file=sys.stderr, flush=True)
            os._exit(2)

    print(f'Listening on http://{flags.host}:{flags.port}; compiling …', flush=True)
    # Nonsense that is sent by strangers is no news.
    logging.getLogger('uvicorn.error').setLevel(logging.ERROR)
    logging.basicConfig(format='%(asctime)s %(message)s', stream=sys.stderr)
    logging.getLogger('albert_jax.service').setLevel(
        logging.INFO if flags.verbose else logging.WARNING
    )

    def start() -> None:
        threading.Thread(target=compile_all, name='compile', daemon=True).start()

    server.run(
        app.make_app(service, start, is_closing.set, key), flags.host, flags.port, flags.timeout
    )
    return 0


def _progress() -> 'Progress':
    from rich.progress import MofNCompleteColumn

    from albert_jax.cli.progress import Progress

    def line(done: float, total: float, seconds: float) -> str:
        left = seconds / done * (total - done)
        return f'compiled {done:.0f} of {total:.0f} shapes, ETA {left:.0f} s'

    return Progress('compiling', MofNCompleteColumn(), line=line)


def _keep_memory() -> None:
    """Keeps freed memory for the next batch; pages given back have to be faulted in (glibc)."""
    trim_threshold, mmap_max, arena_max = -1, -4, -8
    try:
        mallopt = ctypes.CDLL('libc.so.6').mallopt
    except OSError:
        return
    for option, value in ((trim_threshold, 2**31 - 1), (mmap_max, 0), (arena_max, 1)):
        mallopt(option, value)


def _parser() -> argparse.ArgumentParser:
    parser = command.parser('albert_jax.serve', _DESCRIPTION, _EPILOG)
    parser.add_argument(
        '--checkpoint', required=True, action='append', metavar='[NAME=]PATH',
        help='anything that convert reads; more than once for several',
    )  # fmt: skip
    parser.add_argument('--host', default='127.0.0.1', help='address to listen on (127.0.0.1)')
    parser.add_argument('--port', type=int, default=8000, help='port to listen on (8000)')
    parser.add_argument(
        '--api_key_file', default='', metavar='FILE', help='requests to /v1 must bear its content'
    )
    parser.add_argument(
        '--max_length', type=int, default=0, help="tokens of a text (the task's, or up to 512)"
    )
    parser.add_argument('--max_body', type=int, default=1 << 20, help='bytes (1048576)')
    parser.add_argument('--max_texts', type=int, default=64, help='of a request (64)')
    parser.add_argument('--max_characters', type=int, default=20_000, help='of a text (20000)')
    parser.add_argument(
        '--max_waiting', type=int, default=1024, help='texts in the queue of a model (1024)'
    )
    parser.add_argument(
        '--timeout', type=float, default=30.0, help='seconds for a body, and for an answer (30)'
    )
    parser.add_argument(
        '--verbose', action='store_true', help='a line for each request, never with its texts'
    )
    return parser


def _check(flags: argparse.Namespace) -> None:
    for name in ('max_body', 'max_texts', 'max_characters', 'max_waiting', 'timeout'):
        if not 0 < getattr(flags, name) < math.inf:
            raise UserError(f'--{name} is {getattr(flags, name)}; it must be a number above 0.')
    if flags.max_length and flags.max_length < 8:
        raise UserError(f'--max_length is {flags.max_length}; it must be 8 or above.')
    if not 0 < flags.port < 65536:
        raise UserError(f'--port is {flags.port}; it must be 1 to 65535.')


def _api_key(path: str) -> str:
    """The key of a file: not of a flag, which every process of the machine could read."""
    if not path:
        return ''
    try:
        key = Path(path).read_text(encoding='utf-8').strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'--api_key_file={path} cannot be read: {error}.') from error
    if len(key) < 16 or not key.isascii() or not key.isprintable():
        raise UserError(
            f'--api_key_file={path} must hold 16 or more printable characters, and no more lines '
            f'than one.'
        )
    return key


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
        reason = getattr(error, 'strerror', None) or 'no such address'
        raise UserError(
            f'{host}:{port} cannot be listened on ({reason}); choose another --host or --port.'
        ) from error


if __name__ == '__main__':
    command.run(main)
