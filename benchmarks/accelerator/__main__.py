"""Starts the measurements one after the other, and writes the file after every result."""

import argparse
import contextlib
import importlib.util
import itertools
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from albert_jax.cli.errors import UserError, reason
from albert_jax.cli.files import new_file
from benchmarks.accelerator.rows import parse

# The program's minutes begin here.
_STARTED = time.monotonic()
Job = dict[str, Any]
# Kept for ending a process and writing the last lines.
_RESERVE = 3.0
# A job may take this share of the time that is left, and in any case so many seconds.
_SHARE, _LEAST_LIMIT = 0.4, 90.0
# Seconds for each measurement of tiny shapes.
_TINY_BUDGET = 0.05


def jobs(platform: str, budget: float) -> list[Job]:
    """What to measure after the first job, the most important first.

    Args:
      platform: 'cpu', 'gpu' or 'tpu'.
      budget: seconds for each measurement, without compilation.
    """
    has_torch = _is_installed('torch') and _is_installed('transformers')
    if platform == 'cpu':
        # Ours is measured by the first job.
        return [{'kind': 'peer', 'model': 'tiny', 'length': 32, 'budget': _TINY_BUDGET}] * bool(
            has_torch
        )
    # torch has no TPU here.
    has_peer = has_torch and platform == 'gpu'
    found: list[Job] = [{'kind': 'attention', 'model': 'base', 'budget': budget / 3}]
    for model in ('base', 'large'):
        shapes = [{'model': model, 'length': length, 'budget': budget} for length in (128, 512)]
        found += [{'kind': 'ours', 'implementation': 'auto', 'batch': 0, **of} for of in shapes]
        found += [{'kind': 'peer', **of} for of in shapes] * has_peer
    # The implementations in the whole step, in a batch that the einsum has room for.
    for length, implementation in itertools.product((128, 512), ('auto', 'einsum')):
        of = {'model': 'base', 'length': length, 'budget': budget, 'batch': 2**15 // length}
        found.append({'kind': 'ours', 'implementation': implementation, **of})
    return found


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False


class Report:
    """All results so far, on disk after each.

    Args:
      path: of the file; None for none.
      minutes: that the program has.
    """

    def __init__(self, path: Path | None, minutes: float) -> None:
        self._path = path
        self.content: dict[str, Any] = {
            'minutes': minutes, 'seconds': 0.0, 'ended': 'running', 'device': None, 'rows': [],
            'failures': [],
        }  # fmt: skip
        self.write()

    def add(self, row: dict[str, Any]) -> None:
        """A result, or a measurement that failed."""
        if 'error' in row:
            self.content['failures'].append(row)
        elif row.get('what') == 'device':
            self.content['device'] = row
        else:
            self.content['rows'].append(row)
        print(line_of(row), flush=True)
        self.write()

    def write(self) -> None:
        """Writes the file.

        Raises:
          UserError: if it cannot be written.
        """
        self.content['seconds'] = round(time.monotonic() - _STARTED, 1)
        if self._path is None:
            return
        try:
            with new_file(self._path) as partial:
                partial.write_text(json.dumps(self.content, indent=1) + '\n')
        except OSError as error:
            raise UserError(
                f'--json={self._path} cannot be written ({reason(error)}); name a file in a folder '
                f'that is there and can be written to.'
            ) from error


def line_of(row: dict[str, Any]) -> str:
    """A result as a line for people."""
    names = ('by', 'what', 'model', 'length', 'batch', 'attention')
    title = ' '.join(str(row[name]) for name in names if row.get(name) is not None)
    if 'error' in row:
        return f'{title}: failed: {row["error"]}'
    if row.get('what') == 'device':
        return f'{row["num_devices"]} × {row["kind"]}, jax {row["jax"]}; batches are {row["data"]}'
    parts = [f'{row["milliseconds"]:.2f} ms']
    for name, text in (
        ('sequences_per_second', '{:.1f} sequences/s'), ('mfu', 'MFU {:.1%}'),
        ('compile_seconds', 'compiled in {:.1f} s'), ('device_wait', 'device waits {:.1%}'),
        ('is_within_rounding', 'within rounding of the einsum: {}'),
    ):  # fmt: skip
        if row.get(name) is not None:
            parts.append(text.format(row[name]))
    if row.get('peak_bytes'):
        parts.append(f'{row["peak_bytes"] / 2**30:.1f} GiB')
    return f'{title}: {", ".join(parts)}'


def run_job(job: Job, report: Report, deadline: float) -> bool:
    """Runs a job in a process of its own until it or the time ends; whether it ended by itself."""
    process = subprocess.Popen(
        [sys.executable, '-m', 'benchmarks.accelerator.worker', json.dumps(job)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(process, lines), daemon=True).start()
    try:
        while (left := deadline - time.monotonic()) > 0:
            try:
                line = lines.get(timeout=left)
            except queue.Empty:
                break
            if line is None:
                code = process.wait(max(0.1, deadline - time.monotonic()))
                if code:
                    report.add({**_name(job), 'error': f'the process ended with status {code}'})
                return True
            row = parse(line)
            if row is not None:
                report.add(row)
        report.add({**_name(job), 'error': 'no time was left to end it'})
        return False
    finally:
        # With all that it has started: compilers of torch run in processes of their own.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _name(job: Job) -> dict[str, Any]:
    return {'what': job['kind'], **{k: job[k] for k in ('model', 'length') if k in job}}


def _read(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


def compare(report: Report) -> None:
    """Adds how our speed compares with torch's to our rows, and prints it."""
    rows = report.content['rows']
    for ours in rows:
        if ours.get('by') != 'albert_jax':
            continue
        for theirs in rows:
            is_same = all(ours[k] == theirs.get(k) for k in ('what', 'model', 'length'))
            if is_same and theirs.get('by', 'albert_jax') != 'albert_jax':
                ratio = ours['sequences_per_second'] / theirs['sequences_per_second']
                ours[f'times {theirs["by"]}'] = ratio
                print(
                    f'{ours["what"]} {ours["model"]} {ours["length"]} in batches of '
                    f'{ours["batch"]}: {ratio:.2f} times {theirs["by"]}',
                    flush=True,
                )


def measure(minutes: float, path: Path | None) -> Report:
    """Runs all jobs that go into some minutes.

    Raises:
      UserError: if the file cannot be written.
    """
    deadline = _STARTED + 60 * minutes - _RESERVE
    report = Report(path, minutes)
    run_job({'kind': 'device', 'budget': _TINY_BUDGET}, report, deadline)
    is_complete = time.monotonic() < deadline
    device = report.content['device']
    if device is not None:
        # About sixty measurements, half of the time for compilation.
        budget = min(5.0, max(0.1, 60 * minutes / 120))
        for job in jobs(device['platform'], budget):
            # One that hangs leaves time for others.
            left = deadline - time.monotonic()
            run_job(job, report, deadline - left + min(left, max(_LEAST_LIMIT, left * _SHARE)))
            is_complete = time.monotonic() < deadline
            if not is_complete:
                break
    compare(report)
    report.content['ended'] = 'complete' if is_complete and device else 'out of time'
    if device is None and is_complete:
        report.content['ended'] = 'no device'
    report.write()
    return report


def main() -> int:
    """The exit status: 0 with any result, 1 without, 2 for a mistake in the flags."""
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.accelerator', description='Speed on the devices that are there.'
    )
    parser.add_argument('--minutes', type=float, default=10, help='that it takes at most')
    parser.add_argument('--json', type=Path, help='where all results go')
    flags = parser.parse_args()
    try:
        # Not NaN either.
        if not 0.1 <= flags.minutes <= 24 * 60:
            raise UserError(f'--minutes={flags.minutes:g} must be between 0.1 and 1440.')
        report = measure(flags.minutes, flags.json)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    content = report.content
    print(
        f'{len(content["rows"])} results, {len(content["failures"])} failures in '
        f'{content["seconds"]:.0f} s: {content["ended"]}.'
    )
    return 0 if content['rows'] else 1


if __name__ == '__main__':
    sys.exit(main())
