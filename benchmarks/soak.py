"""Minutes of good and bad requests at once against the service: its answers and its memory.

    python -m benchmarks.soak --checkpoint=runs/sst2 --minutes=10

Good: texts of one word to too many, one or a list. Bad: huge, empty, not JSON, of wrong types,
invalid UTF-8, half sent, gone before the answer, and 1,000 connections that say nothing. Every good
request must be answered with 200 or a documented 503, no answer may be any other 5xx, and the
memory of the process at the end must be at most a tenth above that after the first minute.
"""

import argparse
import collections
import http.client
import json
import os
import random
import resource
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from benchmarks.serving import free_port, wait_until_ready

WORDS = (
    'a', 'film', 'that', 'is', 'dull', 'and', 'loud', 'but', 'never', 'without', 'its', 'small',
    'quiet', 'joys',
)  # fmt: skip
JSON = {'Content-Type': 'application/json'}


def _memory(pid: int) -> float:
    """Resident memory in MB."""
    pages = int(Path(f'/proc/{pid}/statm').read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def _bad_body(rng: random.Random) -> bytes:
    bodies = [
        b'', b'{', b'\xff\xfe{}', b'[]', b'null', b'{"input": 3}', b'{"input": [[]]}',
        b'{"input": "\\ud800"}', b'{"input": "a", "more": 1}',
        b'{"input": "' + b'a' * 30_000 + b'"}',
        b'"' + b'x' * 2_000_000 + b'"', json.dumps({'input': ['a'] * 100}).encode(),
        b'[' * 50_000, os.urandom(1000),
    ]  # fmt: skip
    return rng.choice(bodies)


class Soak:
    """All clients, the statuses they got, and the answers that must not be."""

    def __init__(self, port: int, seconds: float) -> None:
        self.port, self.end = port, time.monotonic() + seconds
        self.statuses: collections.Counter[tuple[str, int]] = collections.Counter()
        self.errors: list[str] = []

    def _ask(self, kind: str, body: bytes, allowed: range | tuple[int, ...]) -> None:
        connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=60)
        try:
            connection.request('POST', '/v1/predict', body, JSON)
            reply = connection.getresponse()
            content = json.loads(reply.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.errors.append(f'{kind}: {type(error).__name__}')
            return
        finally:
            connection.close()
        self.statuses[kind, reply.status] += 1
        if reply.status not in allowed or ('output' in content) != (reply.status == 200):
            self.errors.append(f'{kind}: {reply.status} {str(content)[:100]}')

    def good(self, seed: int) -> None:
        rng = random.Random(seed)
        while time.monotonic() < self.end:
            texts = [
                ' '.join(rng.choices(WORDS, k=rng.randint(1, 60))) for _ in range(rng.randint(1, 8))
            ]
            body = json.dumps({'input': texts if len(texts) > 1 else texts[0]}).encode()
            self._ask('good', body, (200, 503))

    def bad(self, seed: int) -> None:
        rng = random.Random(seed)
        while time.monotonic() < self.end:
            self._ask('bad', _bad_body(rng), range(400, 500))
            time.sleep(0.02)

    def rude(self, seed: int) -> None:
        rng = random.Random(seed)
        head = b'POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n'
        request = head + b'Content-Type: application/json\r\n\r\n' + b'{"input": "a"}'.ljust(500)
        while time.monotonic() < self.end:
            with socket.create_connection(('127.0.0.1', self.port)) as connection:
                connection.sendall(
                    rng.choice([b'', b'GET', head, request[:200], request, b'\0\r\n\r\n'])
                )
                time.sleep(rng.choice([0, 0, 0.2, 1]))
            self.statuses['rude', 0] += 1

    def crowd(self, seed: int) -> None:
        del seed
        while time.monotonic() < self.end:
            crowd = [socket.create_connection(('127.0.0.1', self.port)) for _ in range(1000)]
            time.sleep(5)
            for connection in crowd:
                connection.close()
            self.statuses['crowds of 1,000', 0] += 1
            time.sleep(5)


def main() -> int:
    """Sends requests for minutes, and prints what came of them; 0 if all is as it must be."""
    form = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument('--checkpoint', required=True, help='a fine-tuned classifier')
    parser.add_argument('--minutes', type=float, default=10)
    flags = parser.parse_args()
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    )
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, '-m', 'albert_jax.serve', f'--checkpoint={flags.checkpoint}',
         f'--port={port}', '--max_length=64'],
        env={**os.environ, 'JAX_PLATFORMS': 'cpu'}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until_ready(port, process)
        soak = Soak(port, 60 * flags.minutes)
        early, late = _soak(soak, process.pid, min(60, 20 * flags.minutes))
        is_up = process.poll() is None
    finally:
        process.kill()
    for (kind, status), count in sorted(soak.statuses.items()):
        print(f'{kind:16} {status or "":4} {count:8}')
    print(f'memory: {early:.0f} MB early, {late:.0f} MB at the end')
    for error, count in collections.Counter(soak.errors).most_common(10):
        print(f'wrong, {count} times: {error}')
    is_good = is_up and not soak.errors and late < 1.1 * early
    print('all as it must be' if is_good else 'NOT as it must be')
    return 0 if is_good else 1


def _soak(soak: Soak, pid: int, early_seconds: float) -> tuple[float, float]:
    """Runs all clients; memory of the service in MB after so many seconds, and at the end."""
    clients = [soak.good] * 8 + [soak.bad] * 4 + [soak.rude] * 4 + [soak.crowd]
    threads = [threading.Thread(target=client, args=(n,)) for n, client in enumerate(clients)]
    for thread in threads:
        thread.start()
    time.sleep(early_seconds)
    early = _memory(pid)
    for thread in threads:
        thread.join()
    return early, _memory(pid)


if __name__ == '__main__':
    sys.exit(main())
