"""Programs that are compiled before they are needed, and kept on disk.

JAX's own cache spares XLA's part of the work. Its key is the traced program, so that each start
traces everything again, which takes ten times as long as reading the result. Here the key is what
the program is made from: the code of this package, the versions of its libraries, the function's
settings, the shapes it is for and the devices. What has the same key is read and not traced.
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import os
import pickle
import platform
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import NamedSharding
from jaxtyping import PyTree

from albert_jax.cli.phase import phase

_PACKAGE = Path(__file__).parents[1]
_LIBRARIES = ('jax', 'jaxlib', 'flax', 'optax')
# What XLA reads from the environment.
_VARIABLES = ('XLA_FLAGS', 'LIBTPU_INIT_ARGS')


@dataclasses.dataclass
class _Store:
    # None where nothing is kept.
    folder: Path | None = None


_store = _Store()


def keep_programs_whole() -> None:
    """Makes all Programs keep what they compile from now on, in a folder of JAX's own cache.

    That cache is turned off: what comes out of it cannot be written again (on CPUs it would lack
    its functions). Where it is not in use, or there are several processes, nothing is kept.
    """
    folder = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    is_enabled = jax.config.jax_enable_compilation_cache  # pyright: ignore[reportAttributeAccessIssue]
    if not folder or not is_enabled or '://' in folder or jax.process_count() > 1:
        return
    _store.folder = Path(folder) / 'programs'
    jax.config.update('jax_enable_compilation_cache', False)
    compilation_cache.reset_cache()


class Programs:
    """A jitted function with the programs that were compiled for it beforehand.

    Called with other shapes than theirs, the function compiles as jax.jit does.

    Args:
      function: what jax.jit gives.
      identity: all that the function is made from and its arguments do not show; two functions of
        one identity must compute the same.
    """

    def __init__(self, function: Any, *identity: Any) -> None:
        self.function, self._identity = function, repr(identity)
        self._compiled: dict[Any, Callable[..., Any]] = {}
        self._called: set[Any] = set()

    @property
    def num_compiled(self) -> int:
        """How many programs there are."""
        return len(self._compiled) + self.function._cache_size()

    def compile(self, *arguments: PyTree) -> None:
        """Reads the program for the shapes of some arguments, or compiles and writes it.

        Nothing is computed.
        """
        shapes = _shapes(arguments)
        if shapes in self._compiled:
            return
        file = self._file(arguments)
        compiled = None if file is None else _read(file, _devices(arguments))
        if compiled is None:
            compiled = self.function.lower(*arguments).compile()
            if file is not None:
                _write(compiled, file)
        self._compiled[shapes] = compiled

    def __call__(self, *arguments: PyTree) -> Any:
        """The function's value."""
        shapes = _shapes(arguments)
        if shapes in self._compiled:
            return self._compiled[shapes](*arguments)
        if shapes in self._called:
            return self.function(*arguments)
        self._called.add(shapes)
        with phase('Compiling for texts of this length …'):
            return self.function(*arguments)

    def _file(self, arguments: tuple[PyTree, ...]) -> Path | None:
        """Where the program is kept; None where nothing is."""
        if _store.folder is None:
            return None
        leaves, structure = jax.tree.flatten(arguments)
        places = [
            str(x.sharding) if isinstance(x, jax.Array) and x.committed else '' for x in leaves
        ]
        parts = (self._identity, str(structure), _shapes(arguments), places, *_environment())
        return _store.folder / hashlib.sha256(repr(parts).encode()).hexdigest()


def _shapes(arguments: tuple[PyTree, ...]) -> tuple[Any, ...]:
    return tuple((x.shape, x.dtype) for x in jax.tree.leaves(arguments))


@functools.cache
def _environment() -> tuple[Any, ...]:
    """The code, the libraries, the devices and JAX's settings."""
    code = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob('*.py')):
        code.update(str(path.relative_to(_PACKAGE)).encode() + path.read_bytes())
    devices = jax.devices()
    return (
        code.hexdigest(),
        platform.python_version(),
        [importlib.metadata.version(name) for name in _LIBRARIES],
        [(device.id, device.platform, device.device_kind) for device in devices],
        devices[0].client.platform_version,
        _processor(),
        sorted((name, repr(value)) for name, value in jax.config.values.items()),
        [os.environ.get(name) for name in _VARIABLES],
    )


def _processor() -> str:
    """What a program for a CPU depends on: its kind and its instructions."""
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:
        lines = []
    wanted = ('model name', 'flags', 'Features')
    return '\n'.join([platform.machine(), *sorted({x for x in lines if x.startswith(wanted)})])


def _devices(arguments: tuple[PyTree, ...]) -> list[Any]:
    """Where a program for some arguments runs, in its order."""
    for leaf in jax.tree.leaves(arguments):
        if isinstance(leaf, jax.Array) and leaf.committed:
            if isinstance(leaf.sharding, NamedSharding):
                devices: Any = leaf.sharding.mesh.devices
                return list(devices.flat)
            return sorted(leaf.sharding.device_set, key=lambda device: device.id)
    return [jax.local_devices()[0]]


def _read(file: Path, devices: list[Any]) -> Callable[..., Any] | None:
    """The program in a file; None where there is none that can be used."""
    try:
        content = pickle.loads(zlib.decompress(file.read_bytes()))
        return serialize_executable.deserialize_and_load(*content, execution_devices=devices)
    except FileNotFoundError:
        return None
    except Exception:  # damaged, or of a runtime that takes none: it is compiled anew
        with contextlib.suppress(OSError):
            file.unlink()
        return None


def _write(compiled: Any, file: Path) -> None:
    """Writes a program, whole or not at all."""
    try:
        content = pickle.dumps(serialize_executable.serialize(compiled))
        temporary = file.with_name(f'{file.name}.{os.getpid()}')
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary.write_bytes(zlib.compress(content, 1))
            temporary.replace(file)
        except OSError:
            temporary.unlink(missing_ok=True)
    except Exception:  # a runtime that gives none, or a full disk: the next start compiles
        return
