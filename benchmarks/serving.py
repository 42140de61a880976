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
from pathlib import Path

NUM_CLIENTS = 32
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


def _clients(port: int, texts: list[str], seconds: float, found) -> None:
    """Threads that each ask one text after the other; times in seconds go to `found`."""
    times: list[float] = []
    end = time.monotonic() + seconds

    def client(number: int) -> None:
        connection = http.client.HTTPConnection('127.0.0.1', port)
        place = number * 27
        while (started := time.monotonic()) < end:
            _ask(connection, texts[place % len(texts)])
            times.append(time.monotonic() - started)
            place += 1

    threads = [threading.Thread(target=client, args=(n,)) for n in range(NUM_CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found.put(times)


def wait_until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            connection = http.client.HTTPConnection('127.0.0.1', port, timeout=5)
            connection.request('GET', '/readyz')
            if connection.getresponse().status == 200:
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
    parser.add_argument('--texts', required=True, type=Path, help='a TSV with a column sentence')
    parser.add_argument('--seconds', type=float, default=20, help='of each turn (20)')
    parser.add_argument('--turns', type=int, default=2, help='of each server (2)')
    flags = parser.parse_args()
    with flags.texts.open(encoding='utf-8') as stream:
        rows = csv.DictReader(stream, delimiter='\t', quoting=csv.QUOTE_NONE)
        texts = [row['sentence'] for row in rows]

    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
    with tempfile.TemporaryDirectory() as folder:
        theirs = Path(folder) / 'huggingface'
        subprocess.run(
            [sys.executable, '-m', 'albert_jax.convert', flags.checkpoint, str(theirs),
             '--to=huggingface'],
            check=True, env=environment, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        ports = {'Flask, torch': free_port(), 'albert_jax': free_port()}
        commands = {
            'Flask, torch': [sys.executable, '-c', _FLASK, str(theirs), str(ports['Flask, torch'])],
            'albert_jax': [
                sys.executable, '-m', 'albert_jax.serve', f'--checkpoint={flags.checkpoint}',
                f'--port={ports["albert_jax"]}', '--max_length=128',
            ],
        }  # fmt: skip
        processes = {
            name: subprocess.Popen(
                command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            for name, command in commands.items()
        }
        try:
            _measure(ports, processes, texts, flags.seconds, flags.turns)
        finally:
            for process in processes.values():
                process.kill()


def _measure(ports, processes, texts, seconds, turns) -> None:
    answers = {}
    for name, port in ports.items():
        wait_until_ready(port, processes[name])
        connection = http.client.HTTPConnection('127.0.0.1', port)
        answers[name] = [_ask(connection, text) for text in texts[:100]]
    gaps = [
        abs(a - b) for one, other in zip(*answers.values(), strict=True)
        for a, b in zip(one, other, strict=True)
    ]  # fmt: skip
    print(f'largest difference of 100 probabilities: {max(gaps):.1e}')
    spawn = multiprocessing.get_context('spawn')
    times = {name: [] for name in ports}
    for _ in range(turns):
        for name, port in ports.items():
            found = spawn.Queue()
            process = spawn.Process(target=_clients, args=(port, texts, seconds, found))
            process.start()
            times[name] += found.get()
            process.join()
    print(f'{"":14}{"answers/s":>12}{"median ms":>12}{"p99 ms":>12}')
    rates, p99 = {}, {}
    for name, each in times.items():
        rates[name] = len(each) / (seconds * turns)
        p99[name] = statistics.quantiles(each, n=100)[98]
        median = statistics.median(each)
        print(f'{name:14}{rates[name]:12.1f}{1e3 * median:12.1f}{1e3 * p99[name]:12.1f}')
    rate = rates['albert_jax'] / rates['Flask, torch']
    print(f'ratio: {rate:.2f} times the answers a second, '
          f'{p99["albert_jax"] / p99["Flask, torch"]:.2f} of the p99')  # fmt: skip


if __name__ == '__main__':
    main()
