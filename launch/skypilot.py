"""Members of a sweep as managed jobs of SkyPilot, which finds and replaces the machines."""

import argparse
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from albert_jax.cli.errors import UserError
from albert_jax.planning.topologies import Slice
from launch.machine import KINDS
from launch.stages import Member
from launch.topology import check_one_host, check_shared_folder, member_command

_YAML = Path(__file__).parent / 'skypilot.yaml'


def run_members(members: Sequence[Member], flags: argparse.Namespace) -> int:
    """Submits a job for each member; SkyPilot keeps the queue, and runs as many as it may.

    Raises:
      UserError: if SkyPilot is not installed or refuses a job, or the flags cannot be.
    """
    where = check_one_host(flags.topology)
    check_shared_folder(flags)
    for flag in ('zone', 'project', 'service_account', 'runtime', 'network'):
        if getattr(flags, flag):
            raise UserError(f'--{flag} is for --runner=tpu_vm; SkyPilot has settings of its own.')
    folder = flags.corpus.removeprefix(f'{flags.bucket}/')
    if '://' in folder:
        raise UserError(f'--corpus={flags.corpus} must be a folder in --bucket={flags.bucket}.')
    if not flags.dry_run and shutil.which('sky') is None:
        raise UserError('SkyPilot is not installed; run pip install "skypilot[gcp]" first.')
    with tempfile.TemporaryDirectory() as scratch:
        return _submit(members, flags, write_yaml(where, flags.spot, Path(scratch)), folder)


def write_yaml(where: Slice, is_spot: bool, folder: Path) -> Path:
    """skypilot.yaml for other chips: SkyPilot would keep the runtime of those in the file."""
    kind, cores, runtime = KINDS[where.chip.kind]
    text = _YAML.read_text(encoding='utf-8')
    for old, new in (
        (
            'accelerators: tpu-v5litepod-16:1',
            f'accelerators: tpu-{kind}-{where.num_chips * cores}:1',
        ),
        ('runtime_version: v2-alpha-tpuv5-lite', f'runtime_version: {runtime}'),
        ('use_spot: true', f'use_spot: {str(is_spot).lower()}'),
    ):
        assert old in text
        text = text.replace(old, new)
    path = folder / _YAML.name
    path.write_text(text, encoding='utf-8')
    return path


def _submit(members: Sequence[Member], flags: argparse.Namespace, yaml: Path, corpus: str) -> int:
    for member in members:
        command = [
            'sky', 'jobs', 'launch', str(yaml), '--yes', '--detach-run',
            f'--name={member.change.name}',
            f'--env=BUCKET={flags.bucket.removeprefix("gs://")}',
            *([f'--env=CORPUS={corpus}'] if corpus else []),
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
