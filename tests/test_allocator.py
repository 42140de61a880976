"""Whether memory that is freed is mapped again, which a process that trains should not wait for."""

import os
import platform
import subprocess
import sys

import pytest

_SCRIPT = """
import resource, sys
from pathlib import Path
import numpy as np
from albert_jax.cli.allocator import keep_freed_memory

keep_freed_memory(Path(sys.argv[1]))

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

np.ones(10**7)
before = faults()
for _ in range(10):
    np.ones(10**7)
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='it is a setting of glibc')
@pytest.mark.parametrize(
    ('device', 'variables', 'is_kept'),
    [
        (None, {}, True),
        ('accel0', {}, False),
        ('vfio/0', {}, False),
        ('nvidia0', {}, False),
        (None, {'MALLOC_ARENA_MAX': '4'}, False),
        (None, {'GLIBC_TUNABLES': 'glibc.malloc.tcache_count=7'}, False),
    ],
)
def test_freed_memory_is_kept_on_a_machine_that_computes_on_its_cpu(
    device, variables, is_kept, tmp_path
):
    if device:
        (tmp_path / device).parent.mkdir(exist_ok=True)
        (tmp_path / device).touch()
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(('MALLOC', 'GLIBC'))}
    command = [sys.executable, '-c', _SCRIPT, str(tmp_path)]
    answer = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**inherited, **variables}
    )
    # Ten arrays of 80 MB.
    num_pages = 10 * 80_000_000 / os.sysconf('SC_PAGE_SIZE')
    if is_kept:
        assert int(answer.stdout) < 0.01 * num_pages
    else:
        # Huge pages are one fault for 512.
        assert int(answer.stdout) > num_pages / 600
