"""Speed of the data path, on one core.

    python -m benchmarks.data [--text=FILE.jsonl.gz --vocabulary=MODEL] [--memory]

Without a text the builtin corpus is used. Prints prepare throughput, and batch(step) at 512 tokens
from disk beside what google-research/albert's builder makes (240 sequences a second on one core,
measured once with TF 2.21, which is not run here: docs/REFERENCE.md, 2).
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from albert_jax.data.corpus import Source

_REFERENCE_SEQUENCES = 240
_BATCH = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--text', default='', help='JSON Lines; the builtin corpus if left out')
    parser.add_argument('--vocabulary', default='', help='a SentencePiece model; trained if empty')
    parser.add_argument(
        '--memory', action='store_true', help='peak memory, once and ten times over'
    )
    flags = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

    from albert_jax.data.corpus import parse_source
    from albert_jax.data.dataset import PreparedCorpus
    from albert_jax.data.preparation import PreparationSettings, prepare, vocabulary_for
    from albert_jax.data.pretraining import PretrainingData
    from albert_jax.runs.pretraining import PretrainingSettings

    source = parse_source(f'jsonl:{flags.text}' if flags.text else 'builtin')
    settings = PreparationSettings()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / 'vocabulary.model'
        if flags.vocabulary:
            model.write_bytes(Path(flags.vocabulary).read_bytes())
        else:
            model.write_bytes(vocabulary_for([source], settings, 8000))
        started = time.monotonic()
        output = Path(folder) / 'corpus'
        manifest = prepare([source], output, model.read_bytes(), settings, num_workers=1)
        megabytes = manifest['counts']['bytes_read'] / 1e6
        speed = megabytes / (time.monotonic() - started)
        bare = _bare_sentencepiece(source, model.read_bytes())
        print(
            f'prepare: {megabytes:.0f} MB of text, {speed:.2f} MB/s on one core, '
            f'{speed / bare:.2f} × SentencePiece alone on its documents ({bare:.2f} MB/s)'
        )

        data = PretrainingData(PreparedCorpus(output), 'train', PretrainingSettings(), _BATCH, 0)
        data.batch(0)
        best = 0.0
        for trial in range(3):
            started = time.monotonic()
            num_batches = 16
            for step in range(num_batches):
                data.batch(trial * num_batches + step)
            best = max(best, num_batches * _BATCH / (time.monotonic() - started))
        print(
            f'batch(step), 512 tokens, one core: {best:,.0f} sequences/s, '
            f"{best / _REFERENCE_SEQUENCES:.0f} × the reference builder's {_REFERENCE_SEQUENCES}"
        )
        if flags.memory:
            for copies in (1, 10):
                peak = _peak_memory(source.target or '', str(model), copies, folder)
                print(f'prepare, text × {copies}: peak {peak:.0f} MB in one process')


def _bare_sentencepiece(source: 'Source', model: bytes) -> float:
    """MB/s of SentencePiece on raw documents: no normalisation, sentences, chunks or files."""
    import sentencepiece

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


def _peak_memory(text: str, vocabulary: str, copies: int, folder: str) -> float:
    """Peak resident megabytes of the largest process that prepares the text so many times over."""
    command = [sys.executable, '-m', 'albert_jax.prepare', f'--output={folder}/copies-{copies}']
    command += [f'--vocabulary={vocabulary}', '--workers=1']
    command += [f'--input=jsonl:{text}' if text else '--input=builtin'] * copies
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
