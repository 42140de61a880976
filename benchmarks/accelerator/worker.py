"""One process of measurements; `benchmarks.accelerator` starts it and reads what it tells."""

import importlib.metadata
import json
import os
import sys
from typing import Any

# Before anything imports JAX: what is reserved is what a batch can have.
os.environ.setdefault('XLA_PYTHON_CLIENT_MEM_FRACTION', '0.92')

import jax

from albert_jax.cli.libtpu import silence_without_chips
from albert_jax.model.flops import peak_flops
from benchmarks.accelerator.data import DESCRIPTION
from benchmarks.accelerator.rows import guarded, tell


def describe() -> None:
    """Tells what the devices are."""
    devices = jax.devices()
    version = getattr(devices[0].client, 'platform_version', '').replace('\n', ' ')
    tell(
        what='device',
        kind=devices[0].device_kind,
        platform=devices[0].platform,
        num_devices=len(devices),
        peak_flops_per_device=peak_flops(devices[0].device_kind),
        peak_flops_source="the makers' data sheets, dense bfloat16 (albert_jax/model/flops.py)",
        jax=jax.__version__,
        jaxlib=importlib.metadata.version('jaxlib'),
        platform_version=version,
        python=sys.version.split()[0],
        data=DESCRIPTION,
    )


def run(job: dict[str, Any]) -> None:
    """Makes the measurements of a job: its `kind`, and the arguments of what that runs."""
    from benchmarks.accelerator import kernels, ours, peer

    arguments = {name: value for name, value in job.items() if name != 'kind'}
    match job['kind']:
        case 'device':
            guarded({'what': 'device'}, describe)
            if jax.default_backend() == 'cpu':
                # Tiny shapes, which take no longer than to start one more process.
                guarded({'what': 'attention'}, lambda: kernels.main('tiny', **arguments))
                ours.main('tiny', 32, 'auto', 0, **arguments)
        case 'attention':
            guarded({'what': 'attention'}, lambda: kernels.main(**arguments))
        case 'ours':
            ours.main(**arguments)
        case 'peer':
            peer.main(config=ours.config_of(job['model']), **arguments)


if __name__ == '__main__':
    silence_without_chips()
    run(json.loads(sys.argv[1]))
