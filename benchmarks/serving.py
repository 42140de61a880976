"""The service against the usual Flask handler with Hugging Face torch, 32 clients on loopback.

    python -m benchmarks.serving --checkpoint=runs/sst2 --texts=GLUE/SST-2/dev.tsv

The same weights (written for Hugging Face by our converter), torch in float32 and we in what the
checkpoint was trained in; the same texts at their natural lengths; one server after the other in
one run, in turns. Prints answers a second, the median and the 99th percentile of the time to an
answer, and the ratios.
"""

import argparse
import csv
import http.client
import json
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing.queues import Queue
from pathlib import Path
from typing import NamedTuple

from albert_jax.cli.paths import local_path

NUM_CLIENTS = 32
_THEIRS, _OURS = 'Flask, torch', 'albert_jax'
_FLASK = """
import sys, logging
import torch
from flask import Flask, jsonify, request
from transformers import AutoModelForSequenceClassification, AutoTokenizer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1]).eval()
app = Flask(__name__)

@app.get("/readyz")
def ready():
    return "ready"

@app.post("/v1/predict")
def predict():
    text = request.get_json()["input"]
    with torch.inference_mode():
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=128)
        chances = model(**inputs).logits.softmax(-1)[0].tolist()
    return jsonify(output={"probabilities": dict(zip(model.config.id2label.values(), chances))})

app.run("127.0.0.1", int(sys.argv[2]), threaded=True)
"""


def _ask(connection: http.client.HTTPConnection, text: str) -> list[float]:
    body = json.dumps({'input': text})
    connection.request('POST', '/v1/predict', body, {'Content-Type': 'application/json'})
    reply = connection.getresponse()
    content = json.loads(reply.read())
    if reply.status != 200:
        raise SystemExit(f'a server answered {reply.status}: {content}')
    return list(content['output']['probabilities'].values())


def _ask_in_turn(
    port: int, texts: list[str], first: int, end: float, latencies: list[float]
) -> None:
    """Asks one text after the other; appends the seconds until each answer.

    Args:
      port: of the server.
      texts: to ask, in turn.
      first: index of the first text.
      end: when to stop, of `time.monotonic`.
      latencies: where the seconds go.
    """
    connection = http.client.HTTPConnection('127.0.0.1', port)
    index = first
    while (started := time.monotonic()) < end:
        _ask(connection, texts[index % len(texts)])
        latencies.append(time.monotonic() - started)
        index += 1


def _clients(port: int, texts: list[str], seconds: float, queue: 'Queue[list[float]]') -> None:
    """Threads that ask one text after the other; all latencies, in seconds, go into a queue."""
    latencies: list[float] = []
    end = time.monotonic() + seconds
    threads = [
        threading.Thread(target=_ask_in_turn, args=(port, texts, 27 * n, end, latencies))
        for n in range(NUM_CLIENTS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    queue.put(latencies)


def wait_until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            connection = http.client.HTTPConnection('127.0.0.1', port, timeout=5)
            connection.request('GET', '/readyz')
            reply = connection.getresponse()
            if reply.status == 200 and b'compiling' not in reply.read():
                return
        except OSError:
            pass
        time.sleep(0.5)
    raise SystemExit('a server ended before it was ready')


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def main() -> None:
    """Measures both and prints a table."""
    form = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument('--checkpoint', required=True, help='a fine-tuned classifier')
    parser.add_argument(
        '--texts', required=True, type=local_path, help='a TSV with a column sentence'
    )
    parser.add_argument('--seconds', type=float, default=20, help='of each turn (20)')
    parser.add_argument('--turns', type=int, default=2, help='of each server (2)')
    flags = parser.parse_args()
    with flags.texts.open(encoding='utf-8') as stream:
        rows = csv.DictReader(stream, delimiter='\t', quoting=csv.QUOTE_NONE)
        texts = [row['sentence'] for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        servers = _start_servers(flags.checkpoint, Path(folder) / 'huggingface')
        try:
            _compare_answers(servers, texts[:100])
            latencies = _measure(servers, texts, flags.seconds, flags.turns)
            _report(latencies, flags.seconds * flags.turns)
        finally:
            for server in servers.values():
                server.process.kill()


class _Server(NamedTuple):
    port: int
    process: subprocess.Popen[bytes]


def _start_servers(checkpoint: str, converted: Path) -> dict[str, _Server]:
    """Starts both servers with the same weights.

    Args:
      checkpoint: of a fine-tuned classifier.
      converted: where its weights are written for Hugging Face.
    """
    env = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
    subprocess.run(
        [sys.executable, '-m', 'albert_jax.convert', checkpoint, str(converted),
         '--to=huggingface'],
        check=True, env=env, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    flask_port, our_port = free_port(), free_port()
    flask = [sys.executable, '-c', _FLASK, str(converted), str(flask_port)]
    ours = [
        sys.executable, '-m', 'albert_jax.serve', f'--checkpoint={checkpoint}',
        f'--port={our_port}', '--max_length=128',
    ]  # fmt: skip
    return {
        _THEIRS: _Server(flask_port, _start(flask, env)),
        _OURS: _Server(our_port, _start(ours, env)),
    }


def _start(command: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _compare_answers(servers: dict[str, _Server], texts: list[str]) -> None:
    """Waits for both servers, and prints the largest difference of their probabilities."""
    answers = {}
    for name, server in servers.items():
        wait_until_ready(server.port, server.process)
        connection = http.client.HTTPConnection('127.0.0.1', server.port)
        answers[name] = [_ask(connection, text) for text in texts]
    differences = [
        abs(a - b) for one, other in zip(*answers.values(), strict=True)
        for a, b in zip(one, other, strict=True)
    ]  # fmt: skip
    print(f'largest difference of {len(texts)} probabilities: {max(differences):.1e}')


def _measure(
    servers: dict[str, _Server], texts: list[str], seconds: float, num_turns: int
) -> dict[str, list[float]]:
    """The latencies of each server in seconds, over all its turns."""
    spawn = multiprocessing.get_context('spawn')
    latencies: dict[str, list[float]] = {name: [] for name in servers}
    for _ in range(num_turns):
        for name, server in servers.items():
            queue = spawn.Queue()
            process = spawn.Process(target=_clients, args=(server.port, texts, seconds, queue))
            process.start()
            latencies[name] += queue.get()
            process.join()
    return latencies


def _report(latencies: dict[str, list[float]], seconds: float) -> None:
    """Prints answers a second and latencies of each server, and their ratios.

    Args:
      latencies: of each server, in seconds.
      seconds: that each server was asked.
    """
    print(f'{"":14}{"answers/s":>12}{"median ms":>12}{"p99 ms":>12}')
    rates, p99 = {}, {}
    for name, values in latencies.items():
        rates[name] = len(values) / seconds
        p99[name] = statistics.quantiles(values, n=100)[98]
        median = statistics.median(values)
        print(f'{name:14}{rates[name]:12.1f}{1e3 * median:12.1f}{1e3 * p99[name]:12.1f}')
    print(
        f'ratio: {rates[_OURS] / rates[_THEIRS]:.2f} times the answers a second, '
        f'{p99[_OURS] / p99[_THEIRS]:.2f} of the p99'
    )


if __name__ == '__main__':
    main()
