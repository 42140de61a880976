"""What a service is started with, as flags. Imports neither JAX nor the extra `serve`."""

import dataclasses
import math
from pathlib import Path
from typing import Annotated

from albert_jax.cli.errors import UserError, reason
from albert_jax.cli.flags import FlagSettings
from albert_jax.cli.settings import Bound, LocalPath

_MIN_KEY_LENGTH = 16

_AboveZero = Bound('a number above 0', lambda value: 0 < value < math.inf)
_Length = Bound('8 or above, or 0', lambda value: value == 0 or value >= 8)
_Port = Bound('1 to 65535', lambda value: 0 < value < 65536)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServiceSettings(FlagSettings):
    """Address, key and limits of a service.

    Raises:
      UserError: if a value is impossible.
    """

    host: Annotated[str, 'address to listen on'] = '127.0.0.1'
    port: Annotated[int, _Port, 'port to listen on'] = 8000
    api_key_file: Annotated[str, LocalPath, 'requests to /v1 must bear its content'] = ''
    max_length: Annotated[int, _Length, "tokens of a text; 0 for the task's, or up to 512"] = 0
    max_body: Annotated[int, _AboveZero, 'bytes of a request'] = 1 << 20
    max_texts: Annotated[int, _AboveZero, 'texts of a request'] = 64
    max_characters: Annotated[int, _AboveZero, 'characters of a text'] = 20_000
    max_waiting: Annotated[int, _AboveZero, 'texts in the queue of a model'] = 1024
    timeout: Annotated[float, _AboveZero, 'seconds for a body, and for an answer'] = 30.0
    verbose: Annotated[bool, 'a line for each request, never with its texts'] = False

    def read_api_key(self) -> str:
        """The key of the file; empty for none.

        It is not a flag, which every process of the machine could read.

        Raises:
          UserError: if the file cannot be read or the key is weak.
        """
        if not self.api_key_file:
            return ''
        try:
            key = Path(self.api_key_file).read_text(encoding='utf-8').strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f'--api_key_file={self.api_key_file} cannot be read: {reason(error)}.'
            ) from error
        if len(key) < _MIN_KEY_LENGTH or not key.isascii() or not key.isprintable():
            raise UserError(
                f'--api_key_file={self.api_key_file} must hold {_MIN_KEY_LENGTH} or more printable '
                f'characters, and no more lines than one.'
            )
        return key
