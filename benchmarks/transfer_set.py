"""Texts for distillation without labels: the phrases of a training file, and more like them.

    python -m benchmarks.transfer_set GLUE/SST-2/train.tsv transfer.tsv \\
        --vocabulary=vocab.txt --input=jsonl:books.jsonl.gz --input=jsonl:c4_sample.jsonl.gz

A teacher labels any text, so a student need not stop at those that have labels. SST-2's phrases are
mostly short; its dev set's sentences are long and hold words that the phrases hardly have. Here
each phrase is kept, up to as many texts of 12 to 40 words are made of two phrases and a joint, each
word of a vocabulary is a text of its own, and sentences are drawn from what `albert_jax.prepare`
reads, the same number from each input where it has them. The label column is a 0 that a
distillation with `label_weight=0` never looks at.
"""

import argparse
import csv
import io
import random
import re
from collections.abc import Iterator
from pathlib import Path

from albert_jax.cli.errors import UserError
from albert_jax.cli.paths import local_path
from albert_jax.data.corpus import parse_source

_JOINTS = (',', ', and', 'and', ', but', 'but', 'but', '--', '.', ';', 'while')
_WORDS = range(12, 41)
_TRIES = 20
# What a sentence may have of words; a word of the vocabulary has three letters at least.
_SENTENCE = range(5, 37)
_WORD = re.compile('[a-z]{3,}')
_END = re.compile(r'(?<=[.!?])["”’\']* +')
_MARKS = re.compile("([^a-z0-9' -])")
_QUOTES = str.maketrans('“”‘’', '""\'\'')


def _phrases(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise SystemExit(f'error: {path} cannot be read: {error}.') from error
    rows = csv.DictReader(io.StringIO(text), delimiter='\t', quoting=csv.QUOTE_NONE)
    if 'sentence' not in (rows.fieldnames or ()):
        raise SystemExit(f'error: {path} has no column sentence.')
    phrases = []
    for number, row in enumerate(rows, 2):
        if not (row['sentence'] or '').strip():
            raise SystemExit(f'error: line {number} of {path} has no sentence.')
        phrases.append(row['sentence'].strip())
    if not phrases:
        raise SystemExit(f'error: {path} has no sentences.')
    return phrases


def _joined(phrases: list[str], draw: random.Random) -> list[str]:
    joined: set[str] = set()
    for _ in range(_TRIES * len(phrases)):
        first, second = draw.choices(phrases, k=2)
        text = f'{first} {draw.choice(_JOINTS)} {second}'
        if len(text.split()) in _WORDS:
            joined.add(text)
        if len(joined) == len(phrases):
            break
    return sorted(joined)


def _words(path: Path) -> list[str]:
    try:
        pieces = path.read_text(encoding='utf-8').split('\n')
    except (OSError, UnicodeDecodeError) as error:
        raise SystemExit(f'error: {path} cannot be read: {error}.') from error
    words = [piece for piece in pieces if _WORD.fullmatch(piece)]
    if not words:
        raise SystemExit(f'error: {path} has no words; give a file with a piece on each line.')
    return words


def _sentences(spec: str) -> Iterator[str]:
    """Written as SST-2 writes them: small letters, and spaces around each mark."""
    for document in parse_source(spec).documents():
        text = ' '.join(document.translate(_QUOTES).split())
        for sentence in _END.split(text):
            words = _MARKS.sub(r' \1 ', sentence.lower()).split()
            if len(words) in _SENTENCE:
                yield ' '.join(words)


def _draw_sentences(specs: list[str], num_sentences: int, draw: random.Random) -> list[str]:
    """The same number of sentences from each input, where it has them."""
    drawn: list[str] = []
    for spec in specs:
        try:
            sentences = sorted(set(_sentences(spec)))
        except UserError as error:
            raise SystemExit(f'error: {error}') from error
        if not sentences:
            raise SystemExit(f'error: --input={spec} has no sentences of 5 to 36 words.')
        number = num_sentences // len(specs)
        drawn += draw.sample(sentences, min(number, len(sentences)))
    return drawn


def main() -> None:
    """Writes the file."""
    form = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument('train', type=local_path, help='a TSV with a column sentence')
    parser.add_argument('output', type=local_path, help='a TSV with columns sentence and label')
    parser.add_argument('--vocabulary', type=local_path, help="the teacher's pieces, one on a line")
    parser.add_argument('--input', action='append', default=[], help='text:GLOB, jsonl:GLOB')
    parser.add_argument('--sentences', type=int, default=100_000, help='from all inputs together')
    flags = parser.parse_args()
    if flags.output.absolute() == flags.train.absolute():
        raise SystemExit(f'error: {flags.output} is the training file; give another name.')
    if flags.sentences < max(1, len(flags.input)):
        raise SystemExit(f'error: --sentences={flags.sentences}: give at least 1 for each --input.')
    draw = random.Random(0)
    phrases = _phrases(flags.train)
    parts = {
        'phrases': phrases,
        'joined': _joined(phrases, draw),
        'words': _words(flags.vocabulary) if flags.vocabulary else [],
        'sentences': _draw_sentences(flags.input, flags.sentences, draw),
    }
    texts = list(dict.fromkeys(text for part in parts.values() for text in part))
    content = ''.join(f'{text}\t0\n' for text in texts)
    try:
        flags.output.write_text('sentence\tlabel\n' + content, encoding='utf-8')
    except OSError as error:
        raise SystemExit(f'error: {flags.output} cannot be written: {error}.') from error
    counts = ', '.join(f'{len(part)} {name}' for name, part in parts.items())
    print(f'Wrote {len(texts)} texts to {flags.output}: {counts}.')


if __name__ == '__main__':
    main()
