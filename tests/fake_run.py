"""In place of a training, for the tests of launch: does what a file beside the workdir says.

Behaves as albert_jax.pretrain does towards a sweep: writes metrics, saves on SIGTERM and goes on
from there, ends with status 2 and a sentence for a mistake.
"""

import argparse
import fcntl
import json
import math
import os
import signal
import sys
import time
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument('--config')
    parser.add_argument('--workdir', type=Path)
    # Of the trials of a search: the better the nearer to 1e-4.
    parser.add_argument('--config.optimizer.learning_rate', dest='rate', type=float)
    flags, _ = parser.parse_known_args()
    quality = 0.5 if flags.rate is None else 1 - abs(math.log10(flags.rate) + 4) / 4
    lock = (flags.workdir / 'lock').open('w')
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    how = json.loads((flags.workdir.parent.parent / 'how.json').read_text())
    name = f'{flags.workdir.parent.name}/{flags.workdir.name}'
    with (flags.workdir.parent.parent / 'started.txt').open('a') as started:
        started.write(name + '\n')
    with (flags.workdir.parent.parent / 'cores.txt').open('a') as cores:
        cores.write(json.dumps(sorted(os.sched_getaffinity(0))) + '\n')
    if how.get(name) == 'fail':
        print('error: the corpus is on another planet.', file=sys.stderr)
        return 2
    told = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(1))
    metrics = flags.workdir / 'metrics.jsonl'
    first = len(metrics.read_text().splitlines()) if metrics.exists() else 0
    for step in range(first, 5):
        if how.get(name) == 'slow':
            time.sleep(0.5)
        if told:
            print('saved')
            return 128 + signal.SIGTERM
        with metrics.open('a') as stream:
            line = {'step': step + 1, 'split': 'validation', 'mlm_loss': 7.0 - step / 10}
            if flags.rate is not None:
                line['accuracy'] = quality * (step + 1) / 5
            stream.write(json.dumps(line) + '\n')
    (flags.workdir / 'results.json').write_text(json.dumps({'step': 5, 'accuracy': quality}))
    return 0


if __name__ == '__main__':
    sys.exit(main())
