"""From text to a corpus on disk: sources, cleaning, sentences, chunks, bytes, refusals."""

import contextlib
import gzip
import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from albert_jax.cli.errors import UserError
from albert_jax.data import source_notes
from albert_jax.data.corpus import Source, parse_source
from albert_jax.data.dataset import PreparedCorpus
from albert_jax.data.preparation import (
    PreparationSettings,
    pack,
    prepare,
    split_sentences,
    vocabulary_for,
)
from tests import tfds_data_sets
from tests.conftest import documents


def write_jsonl(path: Path, texts) -> Source:
    path.write_text(''.join(json.dumps({'text': text}) + '\n' for text in texts))
    return Source('jsonl', str(path))


def digests(directory: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.iterdir())
    }


# Sources.


def test_text_files_have_blank_lines_between_documents(tmp_path):
    (tmp_path / 'b.txt').write_text('\n\nFirst line.\nSecond line.\n\n \nAnother one.\n')
    (tmp_path / 'a.txt').write_text('Before.')
    source = parse_source(f'text:{tmp_path}/*.txt')
    assert list(source.documents()) == ['Before.', 'First line.\nSecond line.\n', 'Another one.\n']
    whole = parse_source(f'text:{tmp_path}/*.txt', is_file_document=True)
    assert len(list(whole.documents())) == 2


@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
@pytest.mark.parametrize('ending', ['', '.gz'])
def test_lines_end_as_any_system_ends_them(end, ending, tmp_path):
    def write(name, *lines):
        with (gzip.open if ending else open)(path := f'{tmp_path}/{name}{ending}', 'wb') as file:
            file.write(end.join([*lines, '']).encode('latin-1'))
        return path

    path = write('a.txt', 'one a.', 'b.', '', 'two.', '', '', 'three.')
    documents = list(Source('text', path).documents())
    assert [text.split() for text in documents] == [['one', 'a.', 'b.'], ['two.'], ['three.']]
    assert [split_sentences(text) for text in documents][0] == ['one a.', 'b.']
    (whole,) = Source('text', path, is_file_document=True).documents()
    assert whole == end.join(['one a.', 'b.', '', 'two.', '', '', 'three.', ''])
    path = write('a.jsonl', '{"text": "one"}', '', '{"text": "two"}')
    assert list(Source('jsonl', path).documents()) == ['one', 'two']
    with pytest.raises(UserError, match='bad.txt.*, line 2: not UTF-8 .byte 0xe9 at column 4'):
        list(Source('text', write('bad.txt', 'one', 'caf\xe9')).documents())


def test_json_lines_are_read_gzipped_or_not(tmp_path):
    lines = b'{"text": "one"}\n\n{"text": "two", "id": 3}\n'
    (tmp_path / 'a.jsonl').write_bytes(lines)
    with gzip.open(tmp_path / 'a.jsonl.gz', 'wb') as file:
        file.write(lines)
    for name in ('a.jsonl', 'a.jsonl.gz'):
        assert list(parse_source(f'jsonl:{tmp_path / name}').documents()) == ['one', 'two']
    # What is not read may be there twice.
    (tmp_path / 'b.jsonl').write_text('{"body": "three", "id": 1, "id": 2}\n')
    other = parse_source(f'jsonl:{tmp_path}/b.jsonl', text_key='body')
    assert list(other.documents()) == ['three']


def test_the_builtin_corpus_is_real_prose():
    source = parse_source('builtin')
    texts = []
    for text in source.documents():
        texts.append(text)
        if len(texts) == 2000:
            break
    assert sum(map(len, texts)) > 500_000
    assert sum(' the ' in text for text in texts) > 1000
    assert not any('>>> ' in text[:4] for text in texts[200:])


def test_the_builtin_corpus_has_the_packages_wherever_they_are_imported_from(tmp_path, monkeypatch):
    docstring = 'What this module is for, ' + 'in many words, ' * 10
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'elsewhere/__init__.py').write_text(f'"""{docstring}"""\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr('albert_jax.data.corpus._DOCUMENTED_PACKAGES', ('elsewhere',))
    monkeypatch.setattr('sysconfig.get_path', lambda name: str(tmp_path / name))
    assert list(parse_source('builtin').documents())[-1] == docstring.strip()
    monkeypatch.setattr('albert_jax.data.corpus._DOCUMENTED_PACKAGES', ('nowhere_to_be_found',))
    with pytest.raises(UserError, match='documentation of nowhere_to_be_found, which is not inst'):
        list(parse_source('builtin').documents())


def test_tfds_is_a_source(tmp_path):
    rows = [{'text': 'one \xe9', 'n': 1}, {'text': 'two', 'n': 2}]
    features = {'text': np.str_, 'n': np.int64}
    path = tfds_data_sets.write('documents', features, {'test': rows, 'train': rows[1:]}, tmp_path)
    assert list(parse_source(f'{path}:test').documents()) == ['one \xe9', 'two']
    assert list(parse_source(path).documents()) == ['two']
    assert list(parse_source(f'{path}:test[:1]').documents()) == ['one \xe9']
    for spec, text_key, message in (
        (path, 'body', "documents has no feature 'body'; there are n, text; choose another --text"),
        (path, 'n', "documents: the feature 'n' is .*dtype=int64.*, which is no text; choose"),
        (f'{path}:dev', 'text', 'The split dev of tfds:documents cannot be opened'),
        ('tfds:no_such_thing', 'text', 'tfds:no_such_thing cannot be opened'),
    ):
        with pytest.raises(UserError, match=message):
            list(parse_source(spec, text_key=text_key).documents())
    latin = [{'text': 'ok'}, {'text': b'caf\xe9'}]
    path = tfds_data_sets.write('latin', {'text': np.str_}, {'train': latin}, tmp_path)
    message = r'tfds:latin:train, example 1: text is not UTF-8 \(byte 0xe9 at position 4\)'
    with pytest.raises(UserError, match=message):
        list(parse_source(path).documents())


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'{"text": "ok"}\n{"text": "\xff"}\n', r'a.jsonl, line 2: not UTF-8 \(byte 0xff'),
        (b'{"text": "ok"}\n{"text": \n', 'a.jsonl, line 2 is not JSON'),
        (b'{"text": "ok"}\n\n{"id": 3}\n', 'a.jsonl, line 3: a document without text'),
        (
            b'{"text": "a", "text": "b"}\n',
            "a.jsonl, line 1: a JSON object has the key 'text' twice",
        ),
        (b'{"text": "a", "x": ' + b'[' * 100_000 + b'\n', 'a.jsonl, line 1 is JSON that is nested'),
        (b'{"text": "a", "x": ' + b'1' * 5000 + b'}\n', 'a.jsonl, line 1 is not JSON'),
        (b'{"text": 5}\n', 'a.jsonl, line 1: a document without text'),
        (b'[1, 2]\n', 'a.jsonl, line 1: a document without text'),
        (b'[{"text": "a"}, {"text": "b"}]', 'a.jsonl begins with a JSON list; give one object a l'),
        (b'\n[\n{"text": "a"},\n{"text": "b"}\n]', 'a.jsonl begins with a JSON list; give one obj'),
        (b'{\n  "text": "a"\n}\n', 'a.jsonl begins with a JSON object over several lines; give'),
        (b'{"text": "half \\ud83d"}\n', 'a.jsonl, line 1 has half a surrogate pair'),
    ],
)
def test_a_bad_line_is_told_with_file_and_line(tmp_path, content, message):
    (tmp_path / 'a.jsonl').write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(parse_source(f'jsonl:{tmp_path}/a.jsonl').documents())


def test_a_cut_gzip_file_is_told(tmp_path):
    whole = gzip.compress(b'{"text": "a document"}\n' * 5000)
    (tmp_path / 'a.jsonl.gz').write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match='a.jsonl.gz, after line .*: cannot be read'):
        list(parse_source(f'jsonl:{tmp_path}/a.jsonl.gz').documents())


def test_a_bad_line_is_told_when_a_vocabulary_is_trained_too(tmp_path):
    source = write_jsonl(tmp_path / 'a.jsonl', documents()[:5])
    with (tmp_path / 'a.jsonl').open('ab') as file:
        file.write(b'{"text": "\xff"}')
    with pytest.raises(UserError, match='line 6: not UTF-8'):
        vocabulary_for([source], PreparationSettings(), 100)


@pytest.mark.parametrize('spec', ['books', 'text:', 'json:a', 'builtin:x'])
def test_what_is_no_source_is_refused(spec):
    with pytest.raises(UserError, match='is not a source; give builtin, text:GLOB'):
        parse_source(spec)


def test_a_glob_without_files_is_refused(tmp_path):
    with pytest.raises(UserError, match='No file matches'):
        parse_source(f'text:{tmp_path}/*.txt').files()


@pytest.mark.parametrize('kind', ['text', 'jsonl'])
def test_a_link_to_nothing_among_the_files_is_refused(kind, tmp_path):
    write_jsonl(tmp_path / 'a.jsonl', ['here'])
    (tmp_path / 'b.jsonl').symlink_to(tmp_path / 'elsewhere.jsonl')
    with pytest.raises(UserError, match=r'b\.jsonl cannot be read \(No such file or directory\)'):
        list(parse_source(f'{kind}:{tmp_path}/*.jsonl').documents())


def test_folders_that_match_are_counted_in_a_note(tmp_path, capsys):
    write_jsonl(tmp_path / 'a.jsonl', ['here'])
    (tmp_path / 'b.jsonl').mkdir()
    write_jsonl(tmp_path / 'b.jsonl' / 'c.jsonl', ['there'])
    source = parse_source(f'jsonl:{tmp_path}/*.jsonl')
    source_notes.tell_of(source)
    assert list(source.documents()) == ['here']
    assert f'matches 1 folders or pipes beside its files, such as {tmp_path}/b.jsonl' in (
        capsys.readouterr().err
    )
    source_notes.tell_of(parse_source(f'jsonl:{tmp_path}/**'))
    assert not capsys.readouterr().err


def test_a_name_with_brackets_is_that_file_before_it_is_a_pattern(tmp_path):
    for name in ('data[1].txt', 'data1.txt', 'data2.txt'):
        (tmp_path / name).write_text(name)
    assert list(parse_source(f'text:{tmp_path}/data[1].txt').documents()) == ['data[1].txt']
    both = parse_source(f'text:{tmp_path}/data[12].txt')
    assert list(both.documents()) == ['data1.txt', 'data2.txt']
    (tmp_path / 'data[1].txt').unlink()
    assert list(parse_source(f'text:{tmp_path}/data[1].txt').documents()) == ['data1.txt']


def test_a_file_named_as_a_pattern_that_matches_it_hides_no_others(tmp_path):
    for name in ('*.txt', 'a.txt'):
        (tmp_path / name).write_text(name)
    assert list(parse_source(f'text:{tmp_path}/*.txt').documents()) == ['*.txt', 'a.txt']


def test_json_lines_that_are_read_as_text_are_told(tmp_path, capsys):
    write_jsonl(tmp_path / 'a.jsonl', ['One.'])
    (tmp_path / 'b.txt').write_text('{braces} begin a text.\n{"a": 1}\n')
    source_notes.tell_of(parse_source(f'text:{tmp_path}/*'))
    told = capsys.readouterr().err
    assert f'note: {tmp_path}/a.jsonl of --input=text:' in told
    assert 'the first line is a JSON object' in told
    assert f'--input=jsonl:{tmp_path}/* takes the text of each line' in told
    source_notes.tell_of(parse_source(f'text:{tmp_path}/b.txt'))
    source_notes.tell_of(parse_source(f'jsonl:{tmp_path}/a.jsonl'))
    assert not capsys.readouterr().err


# Sentences and chunks.


@pytest.mark.parametrize(
    ('text', 'num_sentences'),
    [
        ('Mr. Smith left at 5 p.m. on Monday. He paid $3.50! Really?', 3),
        ('"What?" he said. See e.g. the U.S. army (No. 5).', 2),
        ('A heading\nA sentence below it.', 2),
        ('他走了。你好吗？我很好！', 3),
        ('彼は行った。元気ですか。はい！', 3),
        (' \n\n', 0),
    ],
)
def test_sentences(text, num_sentences):
    sentences = split_sentences(text)
    assert len(sentences) == num_sentences
    assert ''.join(''.join(sentences).split()) == ''.join(text.split())


def test_chunks_hold_whole_sentences_and_lose_nothing():
    rng = np.random.default_rng(0)
    starts_word = np.ones(100, bool)
    sentences = [rng.integers(0, 100, rng.integers(1, 30)).tolist() for _ in range(200)]
    chunks = list(pack(sentences, 50, starts_word))
    assert sum((tokens for tokens, _ in chunks), []) == sum(sentences, [])
    boundaries = set(np.cumsum([len(s) for s in sentences]))
    offset = 0
    for tokens, ends in chunks:
        assert len(tokens) <= 50 and ends[-1] == len(tokens)
        assert {offset + end for end in ends} <= boundaries
        offset += len(tokens)
    # No chunk would have had room for the sentence after it.
    lengths = [len(tokens) for tokens, _ in chunks]
    assert min(lengths[:-1]) > 50 - 30


def test_a_long_sentence_is_cut_before_a_word():
    starts_word = np.array([True, False])
    sentence = ([0] + [1] * 6) * 5  # words of seven pieces
    chunks = [tokens for tokens, _ in pack([sentence], 20, starts_word)]
    assert sum(chunks, []) == sentence
    assert all(chunk[0] == 0 for chunk in chunks) and max(map(len, chunks)) <= 20
    # A word longer than a chunk is cut anywhere.
    assert [len(t) for t, _ in pack([[0] + [1] * 49], 20, starts_word)] == [20, 20, 10]


# The corpus on disk.


def test_the_corpus_is_a_tfds_data_set(corpus_directory):
    was_loaded = 'tensorflow' in sys.modules
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(corpus_directory)
    manifest = json.loads((corpus_directory / 'corpus.json').read_text())
    for split in ('train', 'validation'):
        source = builder.as_data_source(split=split)
        assert len(source) == manifest['counts']['chunks'][split] > 50
        example = source[len(source) - 1]
        tokens = np.frombuffer(example['tokens'], '<u2')
        ends = np.frombuffer(example['sentence_ends'], '<u4')
        assert ends[-1] == len(tokens) <= 125 and (np.diff(ends) > 0).all()
    assert ('tensorflow' in sys.modules) == was_loaded


def test_the_corpus_holds_the_whole_text_in_order(corpus_directory, text_file):
    corpus = PreparedCorpus(corpus_directory)
    found: dict[int, list[int]] = {}
    for split in ('train', 'validation'):
        read = corpus.split(split)
        chunks = read.read(np.arange(len(read)))
        for i, document in enumerate(chunks.documents):
            tokens = chunks.tokens[chunks.starts[i] : chunks.starts[i + 1]]
            found.setdefault(int(document), []).extend(tokens.tolist())
    texts = documents()
    assert len(found) == len(texts)
    for number in range(0, len(texts), 7):
        sentences = corpus.tokenizer.encode(split_sentences(texts[number]))
        assert found[number] == sum(sentences, [])
    counts = corpus.token_counts
    assert counts.sum() == corpus.manifest['counts']['tokens/train']


def test_held_out_documents_are_whole_and_about_as_many_as_asked(corpus_directory):
    corpus = PreparedCorpus(corpus_directory)
    seen = {}
    for split in ('train', 'validation'):
        read = corpus.split(split)
        seen[split] = set(read.read(np.arange(len(read))).documents.tolist())
    assert not seen['train'] & seen['validation']
    share = len(seen['validation']) / len(seen['train'] | seen['validation'])
    assert share == pytest.approx(0.2, abs=0.12)


def test_the_bytes_do_not_depend_on_the_number_of_workers(
    corpus_directory, text_file, vocabulary, tmp_path, monkeypatch
):
    monkeypatch.setattr('albert_jax.data.preparation._BLOCK_CHARACTERS', 20_000)
    settings = PreparationSettings(sequence_length=128, validation_fraction=0.2)
    prepare([Source('jsonl', str(text_file))], tmp_path / 'c', vocabulary, settings, 3)
    assert digests(tmp_path / 'c') == digests(corpus_directory)


def test_another_seed_holds_out_other_documents(text_file, vocabulary, tmp_path, corpus_directory):
    settings = PreparationSettings(sequence_length=128, validation_fraction=0.2, seed=1)
    manifest = prepare([Source('jsonl', str(text_file))], tmp_path / 'c', vocabulary, settings, 1)
    assert manifest['fingerprint'] != PreparedCorpus(corpus_directory).fingerprint
    assert (tmp_path / 'c' / 'corpus.json').exists()


def test_cleaning_is_counted(tmp_path, vocabulary):
    page = '<html><head><style>p {}</style></head><body><p>Some <b>t</b>ext here.<p>More.</body>'
    source = write_jsonl(
        tmp_path / 'a.jsonl',
        [page, page, 'tiny', ' ', 'A control\x07 character and a zero\u200bwidth space in a text.'],
    )
    settings = PreparationSettings(
        sequence_length=64,
        validation_fraction=0.0,
        html=True,
        drop_control_characters=True,
        drop_duplicates=True,
        min_characters=10,
    )
    counts = prepare([source], tmp_path / 'c', vocabulary, settings, 1)['counts']
    assert counts['documents_read'] == 5
    assert counts['documents_duplicate'] == 1
    assert counts['documents_too_short'] == 1
    assert counts['documents_empty'] == 1
    assert counts['control_characters_dropped'] == 2
    assert counts['documents'] == 2
    corpus = PreparedCorpus(tmp_path / 'c')
    chunks = corpus.split('train').read(np.array([0, 1]))
    text = corpus.tokenizer.decode(chunks.tokens.tolist())
    assert 'some text here' in text and '{' not in text and '<' not in text
    assert 'zerowidth' in text.replace(' ', '')


def test_several_inputs_are_mixed(tmp_path, vocabulary):
    first = write_jsonl(tmp_path / 'a.jsonl', ['First text. It is short.'])
    (tmp_path / 'b.txt').write_text('Second text.\n\nThird text.')
    second = Source('text', str(tmp_path / 'b.txt'))
    settings = PreparationSettings(sequence_length=64, validation_fraction=0.0)
    manifest = prepare([first, second], tmp_path / 'c', vocabulary, settings, 1)
    assert manifest['counts']['documents'] == 3 and len(manifest['sources']) == 2


# Interruptions and refusals.


def test_an_empty_corpus_is_refused_and_leaves_nothing(tmp_path, vocabulary):
    source = write_jsonl(tmp_path / 'a.jsonl', [' ', ''])
    with pytest.raises(UserError, match='The corpus is empty: no text was left of jsonl:'):
        prepare([source], tmp_path / 'c', vocabulary, PreparationSettings(), 1)
    assert [path.name for path in tmp_path.iterdir()] == ['a.jsonl']


@pytest.mark.parametrize(
    ('texts', 'message'),
    [
        (['Held out.'], 'the only document of jsonl:.* went into validation; lower --validation_f'),
        (['Held out.', 'And this.'], 'all 2 documents of jsonl:.* went into validation'),
        ([' '], 'no text was left of jsonl:'),
    ],
)
def test_a_corpus_of_nothing_but_held_out_documents_says_so(texts, message, tmp_path, vocabulary):
    source = write_jsonl(tmp_path / 'a.jsonl', texts)
    settings = PreparationSettings(validation_fraction=0.9999)
    with pytest.raises(UserError, match=message):
        prepare([source], tmp_path / 'c', vocabulary, settings, 1)
    assert [path.name for path in tmp_path.iterdir()] == ['a.jsonl']


def test_an_error_half_way_leaves_nothing(tmp_path, vocabulary):
    source = write_jsonl(tmp_path / 'a.jsonl', documents()[:5])
    with (tmp_path / 'a.jsonl').open('a') as file:
        file.write('{"text": \n')
    with pytest.raises(UserError, match='line 6 is not JSON'):
        prepare([source], tmp_path / 'c', vocabulary, PreparationSettings(), 1)
    assert [path.name for path in tmp_path.iterdir()] == ['a.jsonl']


def test_a_killed_run_leaves_nothing_that_looks_whole_and_can_be_started_again(
    tmp_path, text_file, vocabulary, corpus_directory
):
    (tmp_path / 'v.model').write_bytes(vocabulary)
    command = [
        sys.executable, '-m', 'albert_jax.prepare', f'--input=jsonl:{text_file}',
        f'--output={tmp_path}/c', f'--vocabulary={tmp_path}/v.model', '--sequence_length=128',
        '--validation_fraction=0.2',
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    partial = tmp_path / 'c.incomplete'

    def has_begun() -> bool:
        # The folder comes and goes while it is looked at.
        with contextlib.suppress(FileNotFoundError):
            return any(partial.glob('shard-*'))
        return False

    while not has_begun():
        assert process.poll() is None
        time.sleep(0.002)  # the core is the process's
    process.kill()
    process.wait()
    assert not (tmp_path / 'c').exists() and partial.exists()
    with pytest.raises(UserError, match='holds no prepared corpus'):
        PreparedCorpus(partial)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert not partial.exists()
    assert digests(tmp_path / 'c') == digests(corpus_directory)


def test_a_damaged_corpus_is_told(corpus_directory, tmp_path):
    import shutil

    copy = shutil.copytree(corpus_directory, tmp_path / 'c')
    (copy / 'vocabulary.model').write_bytes(b'something else')
    with pytest.raises(UserError, match='is not a SentencePiece model'):
        PreparedCorpus(copy)
    (copy / 'corpus.json').write_text('{"format": 99}')
    with pytest.raises(UserError, match='format 99, and this version reads format 1'):
        PreparedCorpus(copy)


def test_a_split_without_text_is_told(tmp_path, vocabulary):
    source = write_jsonl(tmp_path / 'a.jsonl', documents()[:3])
    settings = PreparationSettings(validation_fraction=0.0)
    prepare([source], tmp_path / 'c', vocabulary, settings, 1)
    with pytest.raises(UserError, match='has no validation split; prepare the corpus again'):
        PreparedCorpus(tmp_path / 'c').split('validation')
