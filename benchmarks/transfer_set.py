"""Texts for a student to hear its teacher on: phrases of a training file, and pairs of them joined.

    python -m benchmarks.transfer_set GLUE/SST-2/train.tsv transfer.tsv

A teacher labels any text, so a student need not stop at those that have labels. SST-2's phrases are
short (half of them have at most 7 words) and its dev set's sentences are long; here each phrase is
kept, and up to as many texts of 12 to 40 words are made of two phrases and a joint. The label
column is a 0 that a distillation with `label_weight=0` never looks at.
"""

import argparse
import csv
import io
import random
from pathlib import Path

_JOINTS = (',', ', and', 'and', ', but', 'but', 'but', '--', '.', ';', 'while')
_WORDS = range(12, 41)
_TRIES = 20


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


def main() -> None:
    """Writes the file."""
    form = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument('train', type=Path, help='a TSV with a column sentence')
    parser.add_argument('output', type=Path, help='a TSV with columns sentence and label')
    flags = parser.parse_args()
    if flags.output.absolute() == flags.train.absolute():
        raise SystemExit(f'error: {flags.output} is the training file; give another name.')
    phrases = _phrases(flags.train)
    draw = random.Random(0)
    joined: set[str] = set()
    for _ in range(_TRIES * len(phrases)):
        first, second = draw.choices(phrases, k=2)
        text = f'{first} {draw.choice(_JOINTS)} {second}'
        if len(text.split()) in _WORDS:
            joined.add(text)
        if len(joined) == len(phrases):
            break
    texts = phrases + sorted(joined)
    content = ''.join(f'{text}\t0\n' for text in texts)
    try:
        flags.output.write_text('sentence\tlabel\n' + content, encoding='utf-8')
    except OSError as error:
        raise SystemExit(f'error: {flags.output} cannot be written: {error}.') from error
    print(f'Wrote {len(texts)} texts to {flags.output}, {len(joined)} of them joined.')


if __name__ == '__main__':
    main()
