"""Members of a sweep as managed jobs of SkyPilot, which finds and replaces the machines."""

import argparse
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from albert_jax.errors import UserError
from launch.machine import check_bucket
from launch.stages import Member
from launch.topology import check_one_host, member_command

_YAML = Path(__file__).parent / 'skypilot.yaml'
_GPUS = {'v2': 'tpu-v2', 'v3': 'tpu-v3', 'v4': 'tpu-v4', 'v5e': 'tpu-v5litepod', 'v5p': 'tpu-v5p',
         'v6e': 'tpu-v6e'}  # fmt: skip


def run_members(members: Sequence[Member], flags: argparse.Namespace) -> int:
    """Submits a job for each member; SkyPilot keeps the queue, and runs as many as it may.

    Raises:
      UserError: if SkyPilot is not installed or refuses a job, or the flags cannot be.
    """
    where = check_one_host(flags.topology)
    check_bucket(flags.bucket)
    if not flags.bucket:
        raise UserError('--runner=skypilot needs --bucket=gs://NAME, where the members leave all.')
    if not flags.dry_run and shutil.which('sky') is None:
        raise UserError('SkyPilot is not installed; run pip install "skypilot[gcp]" first.')
    cores = where.num_chips * (2 if where.chip.kind in ('v2', 'v3', 'v4', 'v5p') else 1)
    for member in members:
        command = [
            'sky', 'jobs', 'launch', str(_YAML), '--yes', '--detach-run',
            f'--name={member.change.name}', f'--gpus={_GPUS[where.chip.kind]}-{cores}:1',
            f'--env=BUCKET={flags.bucket.removeprefix("gs://")}',
            f'--env=COMMAND={shlex.join(member_command(member, flags))}',
        ]  # fmt: skip
        print(shlex.join(command), flush=True)
        if flags.dry_run:
            continue
        done = subprocess.run(command, check=False)
        if done.returncode:
            raise UserError(
                f'sky ended with status {done.returncode} for {member.change.name}; those before '
                f'it are submitted (sky jobs queue).'
            )
    print('See them with sky jobs queue; their folders are below --workdir in the bucket.')
    return 0
