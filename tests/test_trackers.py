"""Trackers of experiments: what they are given, and Weights & Biases by its own records."""

import json
import signal
import struct
from pathlib import Path
from typing import Any

import pytest

from albert_jax.cli.errors import UserError
from albert_jax.training import telemetry, trackers
from albert_jax.training.telemetry import Telemetry, Work
from tests.test_resume import NUM_STEPS, command, environment, last_step, lines, wait_for


class Recorder:
    """A third tracker."""

    def __init__(self) -> None:
        self.records: list[tuple[str, int, dict[str, float]]] = []
        self.is_closed = False

    def write(self, split: str, step: int, values: dict[str, float]) -> None:
        self.records.append((split, step, dict(values)))

    def close(self) -> None:
        self.is_closed = True


def test_every_tracker_gets_the_records_of_the_metrics_file(tmp_path, monkeypatch):
    recorder, opened = Recorder(), []
    assert isinstance(recorder, trackers.Tracker)

    def open_recorder(*arguments: Any) -> list[Recorder]:
        opened.append(arguments)
        return [recorder]

    monkeypatch.setattr(telemetry, 'open_trackers', open_recorder)
    work = Work(8, 1e9)
    with Telemetry(tmp_path, 3, 10, 4, lambda step: work, 1, 'none', {'a': 1}) as log:
        log.train_line(5, {'loss': 2.5, 'grad_norm': None})
        log.eval_line(5, {'loss': float('nan'), 'mlm_accuracy': 0.5})
    assert opened == [('none', tmp_path, 3, True, {'a': 1})] and recorder.is_closed
    (train, train_step, values), (held_out, _, evaluated) = recorder.records
    assert (train, train_step, held_out) == ('train', 5, 'validation')
    # What is no number is left out.
    assert values['loss'] == 2.5 and 'grad_norm' not in values and 'tokens_per_second' in values
    assert evaluated == {'mlm_accuracy': 0.5}


def test_tensorboard_is_always_there(tmp_path):
    [board] = trackers.open_trackers('none', tmp_path, 0, True, {})
    board.write('train', 1, {'loss': 1.0})
    board.close()
    assert list((tmp_path / 'tensorboard').glob('events*'))


def test_a_tracker_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match=r"pip install -e '.\[wandb\]' first"):
        trackers.check('wandb')
    trackers.check('none')


def read_records(path: Path) -> list[Any]:
    """The records of a .wandb file: a log of LevelDB, in blocks of 32 KiB, behind 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    content, position, parts, records = path.read_bytes(), 7, b'', []
    while position + 7 <= len(content):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack('<IHB', content[position : position + 7])
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        # 1: whole; 2, 3, 4: the first, a middle, the last part.
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            records.append(record)
            parts = b''
    return records


@pytest.mark.slow
def test_a_killed_run_is_one_run_at_weights_and_biases(corpus_directory, tmp_path):
    pytest.importorskip('wandb', reason='needs the extra wandb')
    import subprocess

    arguments = [*command(corpus_directory, tmp_path), '--config.loop.tracker=wandb']
    offline = environment() | {'WANDB_MODE': 'offline'}
    process = subprocess.Popen(arguments, env=offline, stdout=subprocess.DEVNULL)
    wait_for(lambda: last_step(tmp_path) >= 12, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (
        subprocess.run(arguments, env=offline, stdout=subprocess.DEVNULL, check=False).returncode
        == 0
    )
    files = sorted((tmp_path / 'wandb').glob('offline-run-*/*.wandb'))
    assert len(files) == 2
    ids, logged, configs = set(), {}, []
    for file in files:
        for record in read_records(file):
            if record.WhichOneof('record_type') == 'run':
                ids.add(record.run.run_id)
                configs.append(
                    {item.key: json.loads(item.value_json) for item in record.run.config.update}
                )
            if record.WhichOneof('record_type') == 'history':
                row = {
                    item.key or '.'.join(item.nested_key): json.loads(item.value_json)
                    for item in record.history.item
                }
                step = record.history.step.num
                for name, value in row.items():
                    if not name.startswith('_') and 'per_second' not in name and 'wait' not in name:
                        # A step that was logged twice was logged alike.
                        assert logged.setdefault((step, name), value) == value
    assert ids == {(tmp_path / 'wandb_id').read_text().strip()}
    assert configs[0]['loop']['num_steps'] == NUM_STEPS
    expected = {
        (line['step'], f'{line["split"]}/{name}'): value
        for line in lines(tmp_path)
        for name, value in line.items()
        if name not in ('step', 'split', 'speed') and value is not None
    }
    assert {key: logged[key] for key in expected} == pytest.approx(expected)
