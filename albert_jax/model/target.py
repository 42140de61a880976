"""The platform that programs are compiled for, which need not be attached."""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

# What programs are compiled for, where that is not the default backend.
_target: contextvars.ContextVar[str | None] = contextvars.ContextVar('target', default=None)


@contextlib.contextmanager
def compiling_for(backend: str) -> Iterator[None]:
    """Inside the context, `backend()` is the given platform, which need not be attached.

    Args:
      backend: 'cpu', 'gpu' or 'tpu'.
    """
    token = _target.set(backend)
    try:
        yield
    finally:
        _target.reset(token)


def backend() -> str:
    """The platform that the model is compiled for."""
    return _target.get() or jax.default_backend()


def nvidia_problem() -> str:
    """Why the GPUs that the model is compiled for cannot run cuDNN's attention; '' if they can.

    GPUs that are not attached are taken to be able to.
    """
    if jax.default_backend() != 'gpu':
        return ''
    device = jax.local_devices()[0]
    if 'cuda' not in device.client.platform_version.lower():
        return f'that kernel needs an NVIDIA GPU, and this is a {device.device_kind}'
    # bfloat16 products came with Ampere.
    if tuple(int(x) for x in device.compute_capability.split('.')) < (8, 0):
        return (
            f'that kernel needs compute capability 8.0, and a {device.device_kind} has '
            f'{device.compute_capability}'
        )
    return ''
