"""What a sweep's folder says of each stage, in files that a kill cannot leave half written."""

import dataclasses
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from albert_jax.cli.errors import UserError
from launch.stages import Member, Stage

PLAN_FILE, STAGE_FILE, LOG_FILE = 'sweep.json', 'stage.json', 'log.txt'
# As albert_jax.telemetry, which imports jax and so is slow to import.
METRICS_FILE = 'metrics.jsonl'
WAITING, RUNNING, FINISHED, FAILED, STOPPED = 'waiting', 'running', 'finished', 'failed', 'stopped'


@dataclasses.dataclass(frozen=True)
class Record:
    """Where a stage is."""

    state: str
    settings: Mapping[str, Any]
    exit_status: int | None = None
    # Over all processes that worked on it.
    seconds: float = 0.0


def write_json(path: Path, content: Any) -> None:
    """Writes a file that is either whole or not there.

    Raises:
      UserError: if it cannot be written.
    """
    # Machines that share a bucket do not share a name.
    partial = path.with_name(f'{path.name}.{socket.gethostname()}.{os.getpid()}.partial')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(content, indent=2) + '\n')
        partial.replace(path)
    except OSError as error:
        raise UserError(f'{path} cannot be written: {error.strerror}.') from error


def read_json(path: Path) -> Any:
    """What `write_json` wrote.

    Raises:
      UserError: if it is not there or damaged.
    """
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}.') from error
    except ValueError as error:
        raise UserError(f'{path} is damaged ({error}).') from error


def read_record(root: Path, key: str) -> Record:
    """The record of a stage; waiting if it was never started."""
    path = root / key / STAGE_FILE
    if not path.exists():
        return Record(WAITING, {})
    content = read_json(path)
    try:
        return Record(**content)
    except TypeError as error:
        raise UserError(f'{path} is of another version ({error}); delete it.') from error


def write_record(root: Path, stage: Stage, record: Record) -> None:
    """Replaces the record of a stage."""
    write_json(root / stage.key / STAGE_FILE, dataclasses.asdict(record))


def settings_of(stage: Stage) -> dict[str, str]:
    """What decides the result of a stage, as text; the digest is of the whole config."""
    fields = {name: str(value) for name, value in stage.settings.items()}
    return {'config': stage.config, **fields, 'digest': stage.digest}


def check_same(root: Path, members: list[Member]) -> None:
    """Refuses stages that have begun to train with other settings.

    Raises:
      UserError: naming the stage and the first field that differs.
    """
    for member in members:
        for stage in member.stages:
            found, new = read_record(root, stage.key), settings_of(stage)
            old = found.settings
            if found.state != FINISHED and not (root / stage.key / 'checkpoints').exists():
                # Nothing is lost if it begins again.
                continue
            for name in sorted({*old, *new}, key=lambda name: (name == 'digest', name)):
                if name == 'digest' and old.get(name) != new[name]:
                    raise UserError(
                        f'{root / stage.key} was started with another {stage.config}, or another '
                        f'corpus; take that back, or choose another --workdir.'
                    )
                if old.get(name) != new.get(name):
                    raise UserError(
                        f'{root / stage.key} was started with {name}={old.get(name)}, now it is '
                        f'{new.get(name)}; take that back, or choose another --workdir.'
                    )


def last_line(root: Path, key: str) -> dict[str, Any]:
    """The last whole line of a stage's metrics; empty if there is none."""
    path = root / key / METRICS_FILE
    try:
        with path.open('rb') as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - 4096))
            lines = stream.read().splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    return {}


def log_tail(root: Path, key: str) -> str:
    """What a stage has printed last: its error, if it has printed one."""
    try:
        lines = (root / key / LOG_FILE).read_text(errors='replace').splitlines()
    except OSError:
        return ''
    errors = [line for line in lines if line.startswith('error: ')]
    return (errors or [line for line in lines if line.strip()] or [''])[-1]
