"""Which cores of this machine each of several jobs computes on."""

import os
from collections.abc import Set

from albert_jax.cli.host import has_accelerator


def shares(num_jobs: int) -> list[Set[int] | None]:
    """The cores of each job; None where it may use all.

    Jobs that each start a thread for every core wait for one another: two of `mini` on two cores
    take 98 ms a step, and 84 ms with a core of their own. Where an accelerator computes, and on
    systems that cannot tie a process to cores, all may use all.

    Args:
      num_jobs: at a time.
    """
    if num_jobs == 1 or has_accelerator() or not hasattr(os, 'sched_getaffinity'):
        return [None] * num_jobs
    available = sorted(os.sched_getaffinity(0))
    return [
        set(available[job::num_jobs]) or {available[job % len(available)]}
        for job in range(num_jobs)
    ]
