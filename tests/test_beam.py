"""The corpus that Apache Beam prepares is the local one, byte for byte (needs the extra `beam`)."""

import gzip
import json
import subprocess
import sys

import pytest

from albert_jax.cli.errors import UserError
from albert_jax.data import dataset
from albert_jax.data.corpus import Source
from albert_jax.data.preparation import PreparationSettings, prepare
from tests.conftest import ROOT, documents

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def beam_preparation():
    pytest.importorskip('apache_beam')
    from albert_jax.data import beam_preparation

    return beam_preparation


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    """Seven files of two kinds, with texts that come twice, in one file and across files."""
    folder = tmp_path_factory.mktemp('texts [a]')
    # Paragraphs of them, for there are fewer than a hundred documents.
    texts = [part for text in documents() for part in text.split(' \n') if len(part) > 200][:120]
    assert len(texts) == 120
    texts[50], texts[51], texts[110] = texts[3], texts[3], texts[40]
    for number in range(5):
        lines = [json.dumps({'text': text}) for text in texts[number * 20 : number * 20 + 20]]
        path = folder / f'part-{number}.jsonl{".gz" if number % 2 else ""}'
        opener = gzip.open if number % 2 else open
        with opener(path, 'wt', encoding='utf-8') as stream:
            stream.write('\n'.join(lines) + '\n')
    for number in (5, 6):
        own = texts[number * 10 + 50 : number * 10 + 60]
        text = '\n\n'.join(' '.join(t.split()) for t in own)
        (folder / f'part-{number}.txt').write_text(text)
    (folder / 'part-9.txt').write_text('')
    escaped = str(folder).replace('[a]', '[[]a]')
    return [Source('jsonl', f'{escaped}/*.jsonl*'), Source('text', f'{escaped}/*.txt')]


@pytest.mark.parametrize(
    'settings',
    [
        PreparationSettings(sequence_length=64, validation_fraction=0.2),
        PreparationSettings(
            sequence_length=96, validation_fraction=0.3, seed=3, drop_duplicates=True,
            min_characters=500, keep_case=True,
        ),
    ],
)  # fmt: skip
def test_every_byte_is_the_local_runs(
    beam_preparation, sources, settings, vocabulary, tmp_path, monkeypatch
):
    # Several shards of a split, cut inside files and across them.
    monkeypatch.setattr(dataset, '_SHARD_BYTES', 3_000)
    local, spread = tmp_path / 'local', tmp_path / 'beam'
    spread.mkdir()
    prepare(sources, local, vocabulary, settings, num_workers=1)
    beam_preparation.prepare(
        sources, str(spread), vocabulary, settings, str(tmp_path / 'scratch'),
        ['--runner=DirectRunner', '--direct_num_workers=1'],
    )  # fmt: skip
    names = sorted(path.name for path in local.iterdir())
    assert names == sorted(path.name for path in spread.iterdir())
    assert sum('array_record' in name for name in names) > 4
    for name in names:
        assert (local / name).read_bytes() == (spread / name).read_bytes(), name
    assert not list((tmp_path / 'scratch').iterdir())


def test_a_broken_file_is_named(beam_preparation, vocabulary, tmp_path):
    (tmp_path / 'a.jsonl').write_text('{"text": "Whole."}\n{"text": \n')
    with pytest.raises(Exception, match=r'a\.jsonl, line 2 is not JSON'):
        beam_preparation.prepare(
            [Source('jsonl', str(tmp_path / 'a.jsonl'))], str(tmp_path / 'out'), vocabulary,
            PreparationSettings(), str(tmp_path / 'scratch'), ['--runner=DirectRunner'],
        )  # fmt: skip
    assert not list((tmp_path / 'out').iterdir()) and not list((tmp_path / 'scratch').iterdir())


def test_nothing_but_held_out_documents_is_told(beam_preparation, vocabulary, tmp_path):
    (tmp_path / 'a.jsonl').write_text('{"text": "Held out."}\n')
    with pytest.raises(UserError, match='the only document of jsonl:.* went into validation'):
        beam_preparation.prepare(
            [Source('jsonl', str(tmp_path / 'a.jsonl'))], str(tmp_path / 'out'), vocabulary,
            PreparationSettings(validation_fraction=0.9999), str(tmp_path / 'scratch'),
            ['--runner=DirectRunner'],
        )  # fmt: skip


def test_what_workers_cannot_share_is_refused(beam_preparation):
    with pytest.raises(UserError, match='not made of files'):
        beam_preparation.find_parts([Source('builtin')])
    with pytest.raises(UserError, match='No file matches'):
        beam_preparation.find_parts([Source('text', '/nowhere/*.txt')])


def test_the_command_prepares_what_pretraining_reads(
    beam_preparation, sources, vocabulary, tmp_path
):
    (tmp_path / 'v.model').write_bytes(vocabulary)
    flags = [f'--input={source}' for source in sources] + [
        f'--output={tmp_path}/out', f'--vocabulary={tmp_path}/v.model',
        f'--scratch={tmp_path}/scratch', '--sequence_length=64', '--runner=DirectRunner',
    ]  # fmt: skip
    command = [sys.executable, '-m', 'albert_jax.prepare_beam', *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(dataset.PreparedCorpus(tmp_path / 'out').split('train')) > 100
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 2 and 'holds a corpus already' in again.stderr
