"""A line for what takes long: nobody waits more than three seconds without a word."""

import contextlib
import sys
import threading
from collections.abc import Iterator
from types import FrameType

SECONDS = 3.0
_IMPORTING = '<frozen importlib._bootstrap>'


@contextlib.contextmanager
def phase(text: str) -> Iterator[None]:
    """Prints a text to standard error if what is done takes longer than three seconds.

    Args:
      text: what is done, as in `Reading runs/base …`.
    """
    timer = threading.Timer(SECONDS, _tell, [text])
    # Nobody waits for it at the end of a process.
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def tell_of_imports() -> None:
    """Prints a line if the calling thread is still importing modules after three seconds.

    Of a disk that is asked for the first time, JAX and its libraries can take half a minute.
    """
    timer = threading.Timer(SECONDS, _tell_if_importing, [threading.get_ident()])
    timer.daemon = True
    timer.start()


def _tell_if_importing(thread: int) -> None:
    frame: FrameType | None = sys._current_frames().get(thread)
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTING:
            _tell('Loading JAX and the other libraries …')
            return
        frame = frame.f_back
