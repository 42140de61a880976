"""Speed of the data path, on one core.

    python -m benchmarks.data [--text=FILE.jsonl.gz --vocabulary=MODEL] [--memory]

Without a text the builtin corpus is used. Prints prepare throughput, the time of the sentences and
of the chunks of one long line, and batch(step) at 512 tokens from disk beside what
google-research/albert's builder makes (240 sequences a second on one core, measured once with TF
2.21, which is not run here: docs/REFERENCE.md, 2).
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import sentencepiece

from albert_jax.data.corpus import Source, parse_source
from albert_jax.data.dataset import PreparedCorpus
from albert_jax.data.documents import pack, split_sentences
from albert_jax.data.preparation import PreparationSettings, prepare, vocabulary_for
from albert_jax.data.pretraining import PretrainingData
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.runs.pretraining import PretrainingSettings

_REFERENCE_SEQUENCES = 240
_BATCH = 512
_NUM_BATCHES = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--text', default='', help='JSON Lines; the builtin corpus if left out')
    parser.add_argument('--vocabulary', default='', help='a SentencePiece model; trained if empty')
    parser.add_argument(
        '--memory', action='store_true', help='peak memory, once and ten times over'
    )
    flags = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    source = parse_source(f'jsonl:{flags.text}' if flags.text else 'builtin')
    with tempfile.TemporaryDirectory() as folder:
        vocabulary, corpus = Path(folder) / 'vocabulary.model', Path(folder) / 'corpus'
        if flags.vocabulary:
            vocabulary.write_bytes(Path(flags.vocabulary).read_bytes())
        else:
            vocabulary.write_bytes(vocabulary_for([source], PreparationSettings(), 8000))
        _measure_prepare(source, vocabulary.read_bytes(), corpus)
        _measure_batches(corpus)
        _measure_long_lines(PreparedCorpus(corpus).tokenizer)
        _measure_long_paragraphs()
        if flags.memory:
            for repeats in (1, 10):
                peak = _peak_memory(source.target or '', str(vocabulary), repeats, folder)
                print(f'prepare, text × {repeats}: peak {peak:.0f} MB in one process')


def _measure_prepare(source: Source, vocabulary: bytes, corpus: Path) -> None:
    """Prepares the corpus, and prints the MB/s of that and of SentencePiece alone."""
    started = time.monotonic()
    manifest = prepare([source], corpus, vocabulary, PreparationSettings(), num_workers=1)
    megabytes = manifest['counts']['bytes_read'] / 1e6
    speed = megabytes / (time.monotonic() - started)
    bare = _bare_sentencepiece(source, vocabulary)
    print(
        f'prepare: {megabytes:.0f} MB of text, {speed:.2f} MB/s on one core, '
        f'{speed / bare:.2f} × SentencePiece alone on its documents ({bare:.2f} MB/s)'
    )


def _measure_batches(corpus: Path) -> None:
    """Prints the sequences a second of batch(step), the best of three trials."""
    data = PretrainingData(PreparedCorpus(corpus), 'train', PretrainingSettings(), _BATCH, 0)
    data.batch(0)
    best = 0.0
    for trial in range(3):
        started = time.monotonic()
        for step in range(_NUM_BATCHES):
            data.batch(trial * _NUM_BATCHES + step)
        best = max(best, _NUM_BATCHES * _BATCH / (time.monotonic() - started))
    print(
        f'batch(step), 512 tokens, one core: {best:,.0f} sequences/s, '
        f"{best / _REFERENCE_SEQUENCES:.0f} × the reference builder's {_REFERENCE_SEQUENCES}"
    )


def _measure_long_lines(tokenizer: Tokenizer) -> None:
    """Prints the seconds that chunks of one line without punctuation take, the best of three."""
    capacity = PretrainingSettings().sequence_length - 3
    for length in (100_000, 200_000, 400_000, 800_000):
        ids = tokenizer.encode([('the words of a line ' * (length // 20))])
        best = float('inf')
        for _ in range(3):
            started = time.monotonic()
            num_chunks = sum(1 for _ in pack(ids, capacity, tokenizer.starts_word))
            best = min(best, time.monotonic() - started)
        print(f'pack: one line of {length:,} characters, {num_chunks:,} chunks, {best:.4f} s')


def _measure_long_paragraphs() -> None:
    """Prints the seconds that the sentences of one line take, the best of three."""
    for unit in ('It is a sentence of a line. ', '一行の中の文の一つである。'):
        for length in (100_000, 200_000, 400_000, 800_000):
            line = unit * (length // len(unit))
            best = float('inf')
            for _ in range(3):
                started = time.monotonic()
                num_sentences = len(split_sentences(line))
                best = min(best, time.monotonic() - started)
            print(
                f'split_sentences: one line of {length:,} characters, {num_sentences:,} sentences, '
                f'{best:.4f} s'
            )


def _bare_sentencepiece(source: Source, model: bytes) -> float:
    """MB/s of SentencePiece on raw documents: no normalisation, sentences, chunks or files."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    texts, size = [], 0
    for text in source.documents():
        texts.append(text)
        size += len(text.encode())
        if size > 5_000_000:
            break
    started = time.monotonic()
    processor.encode(texts, num_threads=1)
    return size / 1e6 / (time.monotonic() - started)


def _peak_memory(text: str, vocabulary: str, repeats: int, folder: str) -> float:
    """Peak resident megabytes of the largest process that prepares the text so many times over."""
    command = [sys.executable, '-m', 'albert_jax.prepare', f'--output={folder}/repeats-{repeats}']
    command += [f'--vocabulary={vocabulary}', '--workers=1']
    command += [f'--input=jsonl:{text}' if text else '--input=builtin'] * repeats
    code = (
        'import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, '
        'stdout=subprocess.DEVNULL); '
        'print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)'
    )
    result = subprocess.run(
        [sys.executable, '-c', code, *command], capture_output=True, text=True, check=True
    )
    return int(result.stdout) / 1024


if __name__ == '__main__':
    main()
