"""The state of each stage in a sweep's folder, in files that a kill cannot leave half written."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from albert_jax.cli.errors import UserError, reason
from albert_jax.cli.files import new_file
from albert_jax.cli.json_output import to_json
from launch.stages import Member, Stage

PLAN_FILE, STAGE_FILE, LOG_FILE = 'sweep.json', 'stage.json', 'log.txt'
# As in albert_jax.training.telemetry, which imports JAX and so is slow to import.
METRICS_FILE = 'metrics.jsonl'
WAITING, RUNNING, FINISHED, FAILED, STOPPED = 'waiting', 'running', 'finished', 'failed', 'stopped'
# Of a trial of a search that was not worth its end.
PRUNED = 'pruned'


@dataclasses.dataclass(frozen=True)
class Record:
    """The state of a stage, and what it was started with."""

    state: str
    settings: Mapping[str, str]
    exit_status: int | None = None
    # Over all processes that worked on it.
    seconds: float = 0.0


def write_json(path: Path, content: Any) -> None:
    """Writes JSON to a file that is either complete or absent, even if the process is killed.

    Args:
      path: of the file; its folder is made if it is not there.
      content: anything that JSON can hold.

    Raises:
      UserError: if it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as partial:
            partial.write_text(to_json(content, indent=2) + '\n')
    except OSError as error:
        raise UserError(f'{path} cannot be written: {reason(error)}.') from error


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
      UserError: if it is not there or damaged.
    """
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise UserError(f'{path} cannot be read: {reason(error)}.') from error
    except ValueError as error:
        raise UserError(f'{path} is damaged ({error}).') from error


def read_record(root: Path, key: str) -> Record:
    """The record of a stage; its state is `waiting` if it was never started.

    Args:
      root: folder of the sweep.
      key: of the stage, its folder below `root`.

    Raises:
      UserError: if the record is damaged or of another version.
    """
    path = root / key / STAGE_FILE
    if not path.exists():
        return Record(WAITING, {})
    content = read_json(path)
    try:
        return Record(**content)
    except TypeError as error:
        raise UserError(f'{path} is of another version ({error}); delete it.') from error


def write_record(root: Path, stage: Stage, record: Record) -> None:
    """Replaces the record of a stage.

    Raises:
      UserError: if it cannot be written.
    """
    write_json(root / stage.key / STAGE_FILE, dataclasses.asdict(record))


def settings_of(stage: Stage) -> dict[str, str]:
    """What decides the result of a stage, as text; the digest is of the whole config."""
    fields = {name: str(value) for name, value in stage.settings.items()}
    return {'config': stage.config, **fields, 'digest': stage.digest}


def check_same(root: Path, members: Sequence[Member]) -> None:
    """Refuses stages that have begun to train with other settings.

    Args:
      root: folder of the sweep.
      members: as they would run now.

    Raises:
      UserError: naming the stage and the first field that differs.
    """
    for member in members:
        for stage in member.stages:
            record = read_record(root, stage.key)
            # Nothing is lost if a stage without checkpoints begins again.
            if record.state == FINISHED or (root / stage.key / 'checkpoints').exists():
                _check_same_settings(root / stage.key, stage, record.settings)


def _check_same_settings(folder: Path, stage: Stage, old: Mapping[str, str]) -> None:
    new = settings_of(stage)
    for name in sorted({*old, *new}, key=lambda name: (name == 'digest', name)):
        is_same = old.get(name) == new.get(name)
        if is_same or (name == 'digest' and old.get(name) == stage.digest_before):
            continue
        if name == 'digest':
            raise UserError(
                f'{folder} was started with another {stage.config}, or another corpus; take that '
                f'back, or choose another --workdir.'
            )
        raise UserError(
            f'{folder} was started with {name}={old.get(name)}, now it is {new.get(name)}; take '
            f'that back, or choose another --workdir.'
        )


def last_line(root: Path, key: str) -> dict[str, Any]:
    """The last complete line of a stage's metrics; empty if there is none."""
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
            metrics = json.loads(line)
        except ValueError:
            continue
        if isinstance(metrics, dict):
            return metrics
    return {}


def results_of(root: Path, key: str) -> dict[str, Any]:
    """What a finished stage has reached: its results.json, or its last evaluation."""
    try:
        content = json.loads((root / key / 'results.json').read_text())
    except (OSError, ValueError):
        content = None
    if isinstance(content, dict):
        # Over several seeds of one fine-tuning, the median.
        return {n: x.get('median') if isinstance(x, dict) else x for n, x in content.items()}
    lines = metric_lines(root, key)
    held_out = [line for line in lines if line.get('split') == 'validation']
    return (held_out or lines or [{}])[-1]


def metric_lines(root: Path, key: str) -> list[dict[str, Any]]:
    """The metrics that a stage has written so far, by step."""
    path = root / key / METRICS_FILE
    lines = []
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:  # the last one, cut by a kill
                break
    return lines


def log_tail(root: Path, key: str) -> str:
    """The last line that a stage has printed: its error, if it has printed one; empty if none."""
    try:
        lines = (root / key / LOG_FILE).read_text(errors='replace').splitlines()
    except OSError:
        return ''
    errors = [line for line in lines if line.startswith('error: ')]
    return (errors or [line for line in lines if line.strip()] or [''])[-1]
