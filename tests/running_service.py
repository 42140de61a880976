"""The service in a process of its own, and the models that it serves."""

import http.client
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax

from albert_jax.data.tokenizer import Tokenizer
from albert_jax.interop.native import Pretrained
from albert_jax.model import heads
from tests import tiny
from tests.conftest import ROOT

CONFIG = tiny.config()
TEXTS = [
    'returns', 'an index of the list', 'raises an exception when the value is not found',
    'the names of all the modules that were imported so far, and where they are',
    ' '.join(['a longer text'] * 9),
]  # fmt: skip


def write_checkpoints(folder: Path, vocabulary: bytes) -> None:
    """A classifier, mood, and a pretrained model, base, with random weights."""
    tokenizer = Tokenizer(vocabulary)
    params = tiny.random_params(CONFIG)
    head = heads.HEADS['sequence_classification'].init(2, CONFIG, jax.random.key(1))
    encoder = {name: params[name] for name in ('embeddings', 'encoder', 'pooler')}
    classifier = encoder | {'head': tiny.random_tree(head)}
    tiny.write(Pretrained(CONFIG, classifier, tokenizer, tiny.CLASSES), folder / 'mood')
    (folder / 'mood' / 'results.json').write_text('{"step": 3, "accuracy": 0.9127}')
    tiny.write(Pretrained(CONFIG, params, tokenizer), folder / 'base')


def eventually(is_true, seconds):
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.2)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


class Server:
    """The command in a process of its own."""

    def __init__(self, checkpoints, log, names, *flags):
        self.port, self.log = free_port(), log
        with log.open('w') as stream:
            self.process = subprocess.Popen(
                [
                    sys.executable, '-m', 'albert_jax.serve', f'--port={self.port}', '--verbose',
                    *(f'--checkpoint={checkpoints / name}' for name in names), *flags,
                ],
                cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def ask(self, path, content=None, body=None, headers=None, method=None):
        connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=60)
        if content is not None:
            body = json.dumps(content).encode()
        method = method or ('GET' if body is None else 'POST')
        headers = {'Content-Type': 'application/json'} if headers is None else headers
        connection.request(method, path, body, headers)
        reply = connection.getresponse()
        text = reply.read()
        connection.close()
        is_json = reply.headers['Content-Type'] == 'application/json'
        return reply.status, json.loads(text) if is_json else text.decode()

    def is_ready(self):
        """Whether all programs are compiled."""
        assert self.process.poll() is None, self.log.read_text()
        try:
            status, content = self.ask('/readyz')
        except OSError:
            return False
        return status == 200 and content['status'] == 'ready'

    def figure(self, name):
        lines = self.ask('/metrics')[1].splitlines()
        return sum(float(x.rpartition(' ')[2]) for x in lines if x.startswith(name))
