"""Pseudo-log-likelihoods and minimal pairs."""

import dataclasses
import gzip
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from albert_jax import evaluate
from albert_jax.cli import progress
from albert_jax.cli.errors import UserError
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.pretraining.pseudo_likelihood import (
    PieceScores,
    PseudoLikelihood,
    Sentence,
    masked_rows,
)
from albert_jax.tasks import minimal_pairs
from albert_jax.tasks.minimal_pairs import PairScores, read_pairs, results, score_pairs
from tests import reference_albert, tiny
from tests.conftest import shared_data

_TEXTS = ['The iterator yields items.', 'An iterator that yields uncountabilities, twice.', 'a']


@pytest.fixture(scope='module')
def model(vocabulary: bytes):
    return tiny.random_model(tiny.wider_config(), vocabulary)


@pytest.fixture(scope='module')
def scorer(model):
    return PseudoLikelihood(model)


def test_the_rows_of_a_sentence() -> None:
    # Two words: one of three pieces, one of one.
    rows = masked_rows(Sentence((7, 8, 9, 6), (True, False, False, True)), 2, 3, 4)
    assert rows.input_ids.tolist() == [
        [2, 4, 4, 4, 6, 3],
        [2, 7, 4, 4, 6, 3],
        [2, 7, 8, 4, 6, 3],
        [2, 7, 8, 9, 4, 3],
        [2, 4, 8, 9, 6, 3],
        [2, 7, 4, 9, 6, 3],
    ]
    assert rows.positions.tolist() == [1, 2, 3, 4, 1, 2]
    assert rows.plain_pieces.tolist() == [0, 1]


@given(st.lists(st.tuples(st.integers(5, 99), st.booleans()), min_size=1, max_size=12))
def test_every_piece_is_asked_for_once_by_each_score(pieces: list[tuple[int, bool]]) -> None:
    sentence = Sentence(tuple(i for i, _ in pieces), tuple(starts for _, starts in pieces))
    rows = masked_rows(sentence, 2, 3, 4)
    num_pieces = len(pieces)
    assert rows.positions[:num_pieces].tolist() == list(range(1, num_pieces + 1))
    assert len(rows.positions) == PseudoLikelihood.num_rows([sentence])
    for row, position in zip(rows.input_ids, rows.positions, strict=True):
        assert row[position] == 4
        # What stands before is never masked, nor is another word.
        assert row[1:position].tolist() == list(sentence.ids[: position - 1])


def _naive(model, tokenizer: Tokenizer, sentence: Sentence, whole_word: bool) -> np.ndarray:
    """One piece at a time through the NumPy model."""
    config = dataclasses.asdict(model.config)
    params = reference_albert.to_float64(model.params)
    found = []
    for index, piece in enumerate(sentence.ids):
        ids = [tokenizer.cls_id, *sentence.ids, tokenizer.sep_id]
        ids[index + 1] = tokenizer.mask_id
        rest = index + 1
        while whole_word and rest < len(sentence.ids) and not sentence.starts_word[rest]:
            ids[rest + 1] = tokenizer.mask_id
            rest += 1
        input_ids = np.array([ids])
        output = reference_albert.albert_forward(
            params, config, input_ids, np.ones_like(input_ids), np.zeros_like(input_ids)
        )
        logits = output['mlm_logits'][0, index + 1]
        found.append(logits[piece] - np.log(np.exp(logits - logits.max()).sum()) - logits.max())
    return np.array(found)


def test_scores_are_those_of_one_piece_at_a_time(model, scorer, tokenizer: Tokenizer) -> None:
    sentences = scorer.encode(_TEXTS)
    assert not all(sentences[1].starts_word)
    for sentence, scores in zip(sentences, scorer(sentences), strict=True):
        for name, values in scores._asdict().items():
            naive = _naive(model, tokenizer, sentence, name == 'word_l2r')
            np.testing.assert_allclose(values, naive, rtol=1e-5, atol=1e-5)
    differs = scorer(sentences)[1]
    assert np.abs(differs.word_l2r - differs.plain).max() > 1e-3


def test_a_sentence_scores_the_same_in_any_company(scorer) -> None:
    sentences = scorer.encode([f'Then {text}' for text in _TEXTS] * 2 + _TEXTS)
    together, counted = [], []
    together = scorer(sentences, counted.append)
    assert sum(counted) == scorer.num_rows(sentences)
    for sentence, scores in zip(sentences, together, strict=True):
        alone = scorer([sentence])[0]
        np.testing.assert_allclose(scores.word_l2r, alone.word_l2r, atol=1e-5)
        np.testing.assert_allclose(scores.plain, alone.plain, atol=1e-5)
    assert together[0].plain.tobytes() == together[3].plain.tobytes()


def test_words_are_runs_of_letters_and_digits(scorer) -> None:
    (sentence,) = scorer.encode(["Uncountabilities don't end-up; 1234567!"])
    words: list[str] = []
    for piece, starts in zip(sentence.ids, sentence.starts_word, strict=True):
        text = scorer._tokenizer.pieces[piece].strip('▁')
        if starts:
            words.append('')
        words[-1] += text
    assert words == ['uncountabilities', 'don', "'", 't', 'end', '-', 'up', ';', '1234567', '!']


class _Fixed(PseudoLikelihood):
    """The real class, but for what a model would say."""

    def __init__(self, log_probs: dict[int, float]) -> None:
        self.log_probs = log_probs

    def __call__(self, sentences, advance=lambda num_rows: None):
        plain = [np.array([self.log_probs[i] for i in s.ids], np.float32) for s in sentences]
        return [PieceScores(2 * values, values) for values in plain]


def _sentence(*ids: int) -> Sentence:
    return Sentence(ids, (True,) * len(ids))


def test_crows_pairs_compare_what_both_sentences_share() -> None:
    scorer = _Fixed({5: -1.0, 6: -2.0, 7: -4.0, 8: -8.0, 9: -16.0})
    encoded = [(_sentence(5, 7, 6), _sentence(5, 8, 9, 6)), (_sentence(7, 5), _sentence(8, 5, 5))]
    scores = score_pairs(scorer, encoded, only_shared=True)
    assert scores[0] == PairScores({'shared': -3.0}, {'shared': -3.0})
    assert scores[1] == PairScores({'shared': -1.0}, {'shared': -1.0})


def test_a_tie_is_wrong() -> None:
    scorer = _Fixed({5: -1.0, 6: -2.0})
    encoded = [(_sentence(5), _sentence(6)), (_sentence(5, 6), _sentence(6, 5))]
    pairs = [minimal_pairs.Pair('x', 'a', 'b', 'g', '')] * 2
    found = results(pairs, encoded, score_pairs(scorer, encoded))
    assert found.overall == {'word_l2r': 0.5, 'plain': 0.5}
    assert found.num_ties == {'word_l2r': 1, 'plain': 1}
    assert found.num_same_pieces == 0


def test_with_phenomena_groups_are_averaged() -> None:
    right, wrong = (
        PairScores({'plain': 0.0}, {'plain': -1.0}),
        PairScores({'plain': 0.0}, {'plain': 1.0}),
    )
    pairs = [
        minimal_pairs.Pair('x', 'a', 'b', group, phenomenon)
        for group, phenomenon in (
            ('u', 'binding'),
            ('u', 'binding'),
            ('v', 'binding'),
            ('w', 'npi'),
        )
    ]
    encoded = [(_sentence(5), _sentence(6))] * 4
    found = results(pairs, encoded, [right, wrong, wrong, right])
    assert found.groups == {'u': {'plain': 0.5}, 'v': {'plain': 0.0}, 'w': {'plain': 1.0}}
    assert found.phenomena == {'binding': {'plain': 0.25}, 'npi': {'plain': 1.0}}
    assert found.overall == {'plain': 0.5}


def _blimp(path: Path, *pairs: tuple[str, str, str]) -> Path:
    lines = [
        json.dumps(
            {
                'sentence_good': good,
                'sentence_bad': bad,
                'UID': uid,
                'linguistics_term': 'agreement',
                'field': 'syntax',
                'pairID': str(number),
            }
        )
        for number, (good, bad, uid) in enumerate(pairs)
    ]
    path.write_text('\n'.join(lines) + '\n')
    return path


def test_groups_without_a_name_and_of_several_phenomena_have_their_rows() -> None:
    right, wrong = PairScores({'p': 0.0}, {'p': -1.0}), PairScores({'p': 0.0}, {'p': 1.0})
    encoded = [(_sentence(5), _sentence(6))] * 3

    def found(*names: tuple[str, str]) -> minimal_pairs.PairResults:
        pairs = [
            minimal_pairs.Pair('x', 'a', 'b', group, phenomenon) for phenomenon, group in names
        ]
        return results(pairs, encoded, [right, wrong, right])

    of_one = found(('', 'u'), ('', ''), ('', 'u'))
    assert of_one.groups == {'u': {'p': 1.0}, '': {'p': 0.0}}
    assert of_one.overall == {'p': pytest.approx(2 / 3)}
    assert found(('', ''), ('', ''), ('', '')).groups == {}
    # BLiMP's groups have names of their own.
    of_two = found(('npi', 'u'), ('binding', 'u'), ('npi', ''))
    assert of_two.groups == {'npi/u': {'p': 1.0}, 'binding/u': {'p': 0.0}, '': {'p': 1.0}}
    assert of_two.overall == {'p': pytest.approx(2 / 3)}
    assert found(('npi', ''), ('npi', ''), ('binding', '')).groups == {
        'npi/': {'p': 0.5}, 'binding/': {'p': 1.0},
    }  # fmt: skip


def test_the_first_pairs_of_each_group_of_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    _blimp(tmp_path / 'a.jsonl', ('A b.', 'A c.', 'u'), ('D e.', 'D f.', 'u'), ('G h.', 'G.', 'u'))
    _blimp(tmp_path / 'b.jsonl', ('I j.', 'I k.', 'v'))
    (tmp_path / 'README').write_text('not a table')
    (tmp_path / 'c.json').write_text('{}')
    (tmp_path / '.hidden').write_text('')
    layout, pairs = read_pairs(tmp_path, limit_per_group=2)
    assert layout == minimal_pairs.BLIMP
    assert [(pair.better, pair.group) for pair in pairs] == [
        ('A b.', 'u'),
        ('D e.', 'u'),
        ('I j.', 'v'),
    ]
    told = capsys.readouterr().err
    assert '2 files or folders that are no .jsonl, .csv or .tsv are not read, the first' in told
    assert f'{tmp_path}: 3 of 4 pairs are scored, the first 2 of each group.' in told
    file = tmp_path / 'd.csv'
    file.write_text('good,bad\na,b\nc,d\n')
    assert len(read_pairs(file, ('good', 'bad'), 1)[1]) == 1
    told = capsys.readouterr().err
    assert 'd.csv: 1 of 2 pairs are scored, the first 1 as they have no groups.' in told
    assert len(read_pairs(file, ('good', 'bad'), 2)[1]) == 2 and not capsys.readouterr().err


def test_crows_pairs_are_known_by_their_columns(tmp_path: Path) -> None:
    file = tmp_path / 'crows.csv'
    file.write_text(',sent_more,sent_less,bias_type\n0,"He, the man.","She, the man.",gender\n')
    layout, (pair,) = read_pairs(file)
    assert layout.only_shared
    assert (pair.better, pair.worse, pair.group) == ('He, the man.', 'She, the man.', 'gender')


def test_the_published_file_of_crows_pairs_is_read() -> None:
    layout, pairs = read_pairs(shared_data('pairs/crows_pairs.csv'))
    assert layout.only_shared and len(pairs) == 1508
    counts = Counter(pair.group for pair in pairs)
    # Table 2 of arXiv 2010.00133.
    assert counts['race-color'] == 516 and counts['gender'] == 262 and len(counts) == 9
    assert pairs[1].better.startswith('The poor are') and pairs[1].worse.startswith('The rich are')


@pytest.mark.parametrize(
    ('lacks', 'message'), [('mlm', 'no masked-LM head'), ('tokenizer', 'no vocabulary')]
)
def test_a_model_that_scores_nothing_is_refused(
    lacks: str, message: str, vocabulary: bytes
) -> None:
    model = tiny.random_model(tiny.config(), vocabulary)
    if lacks == 'tokenizer':
        model = dataclasses.replace(model, tokenizer=None)
    else:
        params = {part: tree for part, tree in model.params.items() if part != lacks}
        model = dataclasses.replace(model, params=params)
    with pytest.raises(UserError, match=f'The checkpoint has {message}; sentences are scored'):
        PseudoLikelihood(model)


@pytest.mark.parametrize(
    ('content', 'columns', 'message'),
    [
        ('good\tbad\na\tb\n', (), 'line 2 has neither the columns sentence_good and'),
        ('good\tbad\na\tb\n', ('good', 'worse'), "line 2 has no column 'worse'"),
        ('good\tbad\na\tb\nc\t \n', ('good', 'bad'), 'line 3: bad is empty'),
        ('good\tbad\na\tb\nc\tc \n', ('good', 'bad'), 'line 3: good and bad are the same'),
        ('good\tbad\n', ('good', 'bad'), 'has no pairs'),
        (
            'good\tbad\ttopic\na\tb\tx\n',
            ('good', 'bad', 'topics'),
            "line 2 has no column 'topics'; there are good, bad, topic",
        ),
    ],
)
def test_pairs_that_cannot_be_scored_are_refused(
    content: str, columns: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    file = tmp_path / 'pairs.tsv'
    file.write_text(content)
    with pytest.raises(UserError, match=message):
        read_pairs(file, columns)


def test_a_first_row_without_a_sentence_has_its_columns(tmp_path: Path) -> None:
    file = tmp_path / 'x.jsonl'
    file.write_text('{"sentence_good": "a", "sentence_bad": null}\n')
    with pytest.raises(UserError, match=r"line 1: 'sentence_bad' is null; give it a value or rem"):
        read_pairs(file)
    file.write_text('{"good": "a", "bad": null}\n')
    with pytest.raises(UserError, match=r'has neither the columns .* \(there are good, bad\)'):
        read_pairs(file)


def test_a_row_of_json_lines_may_have_no_group(tmp_path: Path) -> None:
    rows = [{'topic': 'x'}, {}, {'topic': None}, {'topic': ' '}, {'topic': 3}]
    file = tmp_path / 'x.jsonl'
    file.write_text(''.join(json.dumps({'g': 'a', 'b': 'c'} | row) + '\n' for row in rows))
    _, pairs = read_pairs(file, ('g', 'b', 'topic'))
    assert [pair.group for pair in pairs] == ['x', '', '', '', '3']


@pytest.mark.parametrize('name', ['UID', 'linguistics_term'])
def test_half_a_character_in_the_name_of_a_group_is_refused(name: str, tmp_path: Path) -> None:
    row = {'sentence_good': 'a', 'sentence_bad': 'b', 'UID': 'u', 'linguistics_term': 't'}
    (tmp_path / 'x.jsonl').write_text(json.dumps(row | {name: 'a\ud83d'}))
    with pytest.raises(UserError, match=f'x.jsonl, line 1: {name} has half a surrogate pair'):
        read_pairs(tmp_path / 'x.jsonl')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('yields ' * 60, r'x has a sentence of \d+ pieces; the model takes 46'),
        ('\u200b', 'nothing'),
    ],
)
def test_sentences_that_the_model_cannot_take(text: str, message: str, scorer) -> None:
    with pytest.raises(UserError, match=message):
        minimal_pairs.encode_pairs(scorer, [minimal_pairs.Pair('x', 'a', text, '', '')])


def test_the_command(
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = _blimp(
        tmp_path / 'blimp.jsonl',
        ('The iterators yield items.', 'The iterators yields items.', 'verbs'),
        ('An item is returned.', 'An item are returned.', 'verbs'),
        ('It sees itself.', 'It sees themselves.', 'binding'),
    )
    output = tmp_path / 'out'
    monkeypatch.setattr(progress, '_SECONDS_BETWEEN_LINES', -1)
    assert (
        evaluate.main([f'--checkpoint={checkpoint}', f'--pairs={file}', f'--output={output}']) == 0
    )
    printed = capsys.readouterr().out
    assert re.search(r'scored (\d+) of \1 masked sentences, 0 s to go', printed)
    assert '3 pairs' in printed
    assert 'agreement' in printed
    assert 'mean of 2 groups' in printed
    found = json.loads((output / 'pairs.json').read_text())
    lines = [json.loads(line) for line in (output / 'pairs.jsonl').read_text().splitlines()]
    verbs = [line['plain_better'] > line['plain_worse'] for line in lines[:2]]
    assert found['groups']['verbs']['plain'] == np.mean(verbs)
    assert found['num_pairs'] == 3


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--pairs=x.csv', '--data=y'], 'one of --data and --pairs'),
        ([], 'one of --data and --pairs'),
        (['--data=x', '--pair_columns=a,b'], '--pair_columns is for --pairs'),
        (['--data=x', '--limit_per_group=3'], '--limit_per_group is for --pairs'),
        # Before the checkpoint, which is not there either.
        (['--pairs=none.csv'], 'none.csv cannot be read'),
        (['--pairs=x.csv', '--pair_columns=a'], 'BETTER,WORSE'),
        (['--pairs=x.csv', '--limit_per_group=-1'], '--limit_per_group is -1'),
        (['--pairs=x.csv', '--task=sst2'], '--task is for fine-tuned models'),
    ],
)
def test_flags_that_do_not_fit(flags: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        evaluate.main(['--checkpoint=none', *flags])


def test_packed_files_are_read(tmp_path: Path) -> None:
    plain = _blimp(tmp_path / 'a.jsonl', ('A b.', 'A c.', 'u'))
    packed = tmp_path / 'packed.jsonl.gz'
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_pairs(packed)[1][0].better == 'A b.'
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(UserError, match=r'packed\.jsonl\.gz cannot be read'):
        read_pairs(packed)


def test_equal_sentences_of_blimp_are_ties(scorer, tmp_path: Path) -> None:
    _, pairs = read_pairs(_blimp(tmp_path / 'a.jsonl', ('It was left.', 'It was left.', 'u')))
    encoded = minimal_pairs.encode_pairs(scorer, pairs)
    found = results(pairs, encoded, score_pairs(scorer, encoded))
    assert found.overall == {'word_l2r': 0.0, 'plain': 0.0}
    assert found.num_same_pieces == 1
