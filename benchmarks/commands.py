"""How long short commands take, the first time and the second.

    python -m albert_jax.demo --steps=30 --output=demo
    python -m albert_jax.finetune --config=configs/finetune.py:sst2 --config.init_from=demo/run \
        --config.data.path=GLUE/SST-2 --config.loop.num_steps=30 --config.task.max_length=64 \
        --workdir=runs/sst2
    python -m benchmarks.commands --pretrained=demo/run --classifier=runs/sst2 [--without-service]

Each command is a process of its own, with an empty cache of compiled programs the first time.
Prints seconds on the clock, and in brackets those of the processor.
"""

import argparse
import http.client
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from albert_jax.cli.paths import local_path

_TEXTS = 'A gripping, beautiful film.\nDull.\nIt is what it is, and nothing more.\n'
_EMBED = 'import sys, albert_jax; albert_jax.load(sys.argv[1]).embed(sys.argv[2:])'


def commands(pretrained: Path, classifier: Path, folder: Path) -> dict[str, list[str]]:
    """The arguments of Python for each command, by its name."""
    texts, masked = folder / 'texts.txt', 'Returns a new [MASK] with the same elements.'
    texts.write_text(_TEXTS)
    return {
        'predict': ['-m', 'albert_jax.predict', f'--checkpoint={classifier}', f'--input={texts}'],
        'explain': [
            '-m', 'albert_jax.explain', f'--checkpoint={classifier}',
            f'--output={folder / "explained.html"}', _TEXTS.splitlines()[0],
        ],
        'fill_mask': ['-m', 'albert_jax.fill_mask', f'--checkpoint={pretrained}', masked],
        'curve': ['-m', 'albert_jax.curve', f'--output={folder / "curve.png"}', str(pretrained)],
        'load and embed': ['-c', _EMBED, str(pretrained), *_TEXTS.splitlines()],
    }  # fmt: skip


def main() -> None:
    """Measures and prints a table."""
    form = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument('--pretrained', required=True, type=local_path, help='a pretraining run')
    parser.add_argument('--classifier', required=True, type=local_path, help='a fine-tuned one')
    parser.add_argument('--without-service', action='store_true', help='which takes minutes')
    flags = parser.parse_args()
    print(f'{"":24}{"first":>16}{"second":>16}')
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments in commands(flags.pretrained, flags.classifier, Path(folder)).items():
            env = _env(Path(folder) / f'cache of {name}')
            _print(name, [_timed(lambda: _run(arguments, env)) for _ in range(2)])  # noqa: B023
        if not flags.without_service:
            env = _env(Path(folder) / 'cache of serve')
            times = [_timed(lambda: _serve(flags.classifier, env)) for _ in range(2)]
            _print('serve, first answer', [(answer, None) for (_, _, answer) in times])
            _print('serve, all compiled', [(seconds, cpu) for (seconds, cpu, _) in times])


def _env(cache: Path) -> dict[str, str]:
    """The environment of a command, whose cache is empty and JAX's settings the default."""
    env = {name: value for name, value in os.environ.items() if not name.startswith('JAX_')}
    return env | {'XDG_CACHE_HOME': str(cache)}


def _timed(run: Callable[[], float | None]) -> tuple[float, float, float]:
    """Seconds on the clock and of the processor, and what was returned."""
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    returned = run()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - started, cpu, returned or 0.0


def _run(arguments: list[str], env: dict[str, str]) -> None:
    command = [sys.executable, *arguments]
    found = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if found.returncode:
        raise SystemExit(f'{" ".join(command)} failed:\n{found.stderr}')


def _serve(classifier: Path, env: dict[str, str]) -> float:
    """Starts the service, waits until all is compiled, stops it; seconds until its first answer."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    command = ['-m', 'albert_jax.serve', f'--checkpoint={classifier}', f'--port={port}']
    started, answered = time.monotonic(), 0.0
    process = subprocess.Popen([sys.executable, *command], env=env, stdout=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            body = json.dumps({'input': _TEXTS.splitlines()[0]})
            if not answered and _ask(port, 'POST', '/v1/predict', body)[0] == 200:
                answered = time.monotonic() - started
            if _ask(port, 'GET', '/readyz')[1].get('status') == 'ready':
                return answered
            time.sleep(0.1)
    finally:
        process.terminate()
        process.wait()
    raise SystemExit('the service ended')


def _ask(port: int, method: str, path: str, body: str | None = None) -> tuple[int, dict]:
    try:
        connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
        connection.request(method, path, body, {'Content-Type': 'application/json'})
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())
    except OSError:
        return 0, {}


def _print(name: str, times: list[tuple]) -> None:
    cells = [
        f'{seconds:.1f} s' + (f' ({cpu:.1f})' if cpu is not None else '')
        for seconds, cpu, *_ in times
    ]
    print(f'{name:24}' + ''.join(f'{cell:>16}' for cell in cells), flush=True)


if __name__ == '__main__':
    main()
