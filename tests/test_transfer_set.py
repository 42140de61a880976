"""Texts for a teacher to label (benchmarks/transfer_set.py)."""

import json
import sys

import pytest

from benchmarks import transfer_set


def test_texts_for_a_teacher_to_label(tmp_path, monkeypatch, capsys):
    phrases = [f'{word} ' * 4 + 'film' for word in ('dull', 'fine', 'long', 'odd')]
    (tmp_path / 'train.tsv').write_text(
        'sentence\tlabel\n' + ''.join(f'{phrase}\t1\n' for phrase in [*phrases, 'short'])
    )
    arguments = ['', str(tmp_path / 'train.tsv'), str(tmp_path / 'out.tsv')]
    monkeypatch.setattr(sys, 'argv', arguments)
    transfer_set.main()
    header, *rows = (tmp_path / 'out.tsv').read_text().splitlines()
    assert header == 'sentence\tlabel' and all(row.endswith('\t0') for row in rows)
    texts = [row[:-2] for row in rows]
    assert texts[:5] == [*phrases, 'short'] and len(texts) == 10
    for text in texts[5:]:
        assert 12 <= len(text.split()) <= 40
        assert any(text.startswith(phrase) for phrase in phrases)
        assert any(text.endswith(phrase) for phrase in phrases)
    # Where nothing can be joined, it ends all the same.
    (tmp_path / 'train.tsv').write_text('sentence\tlabel\nshort\t1\n')
    transfer_set.main()
    assert 'Wrote 1 texts' in capsys.readouterr().out
    for content, message in (
        ('text\nshort\n', 'has no column sentence'),
        ('label\tsentence\n1\n', 'line 2 of .* has no sentence'),
        ('sentence\tlabel\n', 'has no sentences'),
        ('', 'has no column sentence'),
    ):
        (tmp_path / 'train.tsv').write_text(content)
        with pytest.raises(SystemExit, match=message):
            transfer_set.main()
    monkeypatch.setattr(sys, 'argv', ['', str(tmp_path / 'no.tsv'), arguments[2]])
    with pytest.raises(SystemExit, match='cannot be read'):
        transfer_set.main()
    (tmp_path / 'train.tsv').write_text('sentence\tlabel\nshort\t1\n')
    monkeypatch.setattr(sys, 'argv', [*arguments[:2], str(tmp_path / 'no' / 'out.tsv')])
    with pytest.raises(SystemExit, match='cannot be written'):
        transfer_set.main()
    monkeypatch.setattr(sys, 'argv', ['', arguments[1], arguments[1]])
    with pytest.raises(SystemExit, match='is the training file'):
        transfer_set.main()


def test_words_and_sentences_for_a_teacher_to_label(tmp_path, monkeypatch, capsys):
    (tmp_path / 'train.tsv').write_text('sentence\tlabel\nshort\t1\n')
    (tmp_path / 'vocab.txt').write_text('[PAD]\n##ing\nof\ngood\nfilm\n2nd\nshort\n')
    said = '“Was It good, then?” He’s asked us twice. Yes. ' + 'word ' * 37 + 'ends.'
    lines = [said, 'It rained in the town.\nIt rained in the town.']
    path = tmp_path / 'text.jsonl'
    path.write_text(''.join(json.dumps({'text': line}) + '\n' for line in lines))
    out = tmp_path / 'out.tsv'
    arguments = ['', str(tmp_path / 'train.tsv'), str(out), f'--input=jsonl:{path}']
    monkeypatch.setattr(sys, 'argv', [*arguments, f'--vocabulary={tmp_path / "vocab.txt"}'])
    transfer_set.main()
    texts = [row[:-2] for row in out.read_text().splitlines()[1:]]
    # Each text once, words whole, sentences neither short nor long and written as the task's are.
    assert texts[:3] == ['short', 'good', 'film']
    assert sorted(texts[3:]) == [
        '" was it good , then ?',
        "he's asked us twice .",
        'it rained in the town .',
    ]
    assert '1 phrases, 0 joined, 3 words, 3 sentences' in capsys.readouterr().out
    monkeypatch.setattr(sys, 'argv', [*arguments, '--sentences=1'])
    transfer_set.main()
    assert len(out.read_text().splitlines()) == 3
    before = out.read_text()
    (tmp_path / 'empty').write_text('')
    monkeypatch.setattr(sys, 'argv', [*arguments, arguments[-1], '--sentences=1'])
    with pytest.raises(SystemExit, match='at least 1 for each'):
        transfer_set.main()
    for flag, message in (
        ('--vocabulary=no.txt', 'no.txt cannot be read'),
        ('--input=no.txt', 'is not a source'),
        ('--input=text:no.txt', 'No file matches'),
        ('--sentences=0', 'at least 1'),
        (f'--vocabulary={tmp_path / "empty"}', 'empty has no words'),
        (f'--input=text:{tmp_path / "empty"}', 'empty has no sentences'),
    ):
        monkeypatch.setattr(sys, 'argv', [*arguments, flag])
        with pytest.raises(SystemExit, match=message):
            transfer_set.main()
    assert out.read_text() == before
