"""Trains the same run twice, once killed by SIGKILL and resumed, and compares them bit for bit.

    python benchmarks/resume.py --corpus=runs/books --workdir=runs/resume --kills=2 \
        -- --config=configs/pretrain.py:tiny --config.model.vocab_size=30000

What follows `--` goes to albert_jax.pretrain. Both runs train side by side, on a core each, and
their wall-clock time is printed. Kills fall at equal distances in steps.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np

import albert_jax
from albert_jax.cli.paths import local_path


def start(workdir: Path, corpus: Path, arguments: list[str], core: int) -> subprocess.Popen:
    workdir.mkdir(parents=True, exist_ok=True)
    log = (workdir / 'log.txt').open('a')
    command = [
        'taskset', '-c', str(core), sys.executable, '-m', 'albert_jax.pretrain',
        f'--workdir={workdir}', f'--config.data.path={corpus}', *arguments,
    ]  # fmt: skip
    return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


def lines(workdir: Path) -> list[dict]:
    path = workdir / 'metrics.jsonl'
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith('}')]


def run_killed(workdir: Path, corpus: Path, arguments: list[str], kill_steps: list[int]) -> None:
    for kill_step in kill_steps:
        process = start(workdir, corpus, arguments, core=1)
        while not any(line['step'] >= kill_step for line in lines(workdir)):
            if process.poll() is not None:
                sys.exit(f'the run ended before step {kill_step}; see {workdir}/log.txt')
            time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
        process.wait()
        print(f'killed at step {lines(workdir)[-1]["step"]}', flush=True)
    if start(workdir, corpus, arguments, core=1).wait():
        sys.exit(f'the run failed; see {workdir}/log.txt')


def compare(uninterrupted: Path, killed: Path) -> bool:
    steps = [
        max(int(p.name) for p in (w / 'checkpoints').iterdir() if p.name.isdigit())
        for w in (uninterrupted, killed)
    ]
    left, right = (
        albert_jax.load(workdir / 'checkpoints' / str(step))
        for workdir, step in zip((uninterrupted, killed), steps, strict=True)
    )
    same = [
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(left.params), jax.tree.leaves(right.params), strict=True)
    ]
    metrics = [
        [{name: line[name] for name in line if name != 'speed'} for line in lines(workdir)]
        for workdir in (uninterrupted, killed)
    ]
    print(f'steps: {steps}; equal parameter arrays: {sum(same)} of {len(same)}')
    print(f'equal metric lines: {metrics[0] == metrics[1]} ({len(metrics[0])} lines)')
    return all(same) and metrics[0] == metrics[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('--corpus', type=local_path, required=True)
    parser.add_argument('--workdir', type=local_path, required=True)
    parser.add_argument('--steps', type=int, required=True)
    parser.add_argument('--kills', type=int, default=2)
    parser.add_argument('arguments', nargs='*')
    flags = parser.parse_args()
    arguments = [*flags.arguments, f'--config.loop.num_steps={flags.steps}']
    uninterrupted, killed = flags.workdir / 'uninterrupted', flags.workdir / 'killed'
    started = time.time()
    process = start(uninterrupted, flags.corpus, arguments, core=0)
    kill_steps = [flags.steps * (i + 1) // (flags.kills + 1) for i in range(flags.kills)]
    run_killed(killed, flags.corpus, arguments, kill_steps)
    if process.wait():
        sys.exit(f'the run failed; see {uninterrupted}/log.txt')
    print(f'{(time.time() - started) / 60:.1f} minutes')
    sys.exit(0 if compare(uninterrupted, killed) else 'the runs differ')


if __name__ == '__main__':
    main()
