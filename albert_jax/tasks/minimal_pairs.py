"""Minimal pairs: does the model find the better of two sentences likelier?

BLiMP's files (arXiv 1912.00582), CrowS-Pairs' (arXiv 2010.00133) and tables of one's own. A pair
counts if the better sentence scores strictly higher: a tie is wrong.
"""

import collections
import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from albert_jax.cli.errors import UserError
from albert_jax.cli.json_text import check_text, is_visible
from albert_jax.cli.notes import note
from albert_jax.pretraining.pseudo_likelihood import PieceScores, PseudoLikelihood, Sentence
from albert_jax.tasks.tables import Row, read_rows


class Layout(NamedTuple):
    """The columns of a file of pairs."""

    better: str
    worse: str
    # Pairs of a group are one test, groups of a phenomenon are averaged; '' for none.
    group: str = ''
    phenomenon: str = ''
    # What is compared: all pieces of the sentences, or those alone that both have in common.
    only_shared: bool = False


BLIMP = Layout('sentence_good', 'sentence_bad', 'UID', 'linguistics_term')
# Measures stereotypes: the "better" sentence is the more stereotyped one, and 50 % is neutral.
CROWS_PAIRS = Layout('sent_more', 'sent_less', 'bias_type', only_shared=True)

# Of the files of a folder that are read, perhaps with .gz behind.
_ENDINGS = ('.jsonl', '.csv', '.tsv')
# Of a sentence; no piece has such a number.
_START, _END = -1, -2


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two sentences that differ in little."""

    where: str
    better: str
    worse: str
    group: str
    phenomenon: str


class PairScores(NamedTuple):
    """Log-probabilities of the better and the worse sentence, by the name of the score."""

    better: dict[str, float]
    worse: dict[str, float]

    def is_right(self, name: str) -> bool:
        """Whether the better sentence is strictly likelier."""
        return self.better[name] > self.worse[name]


def read_pairs(
    path: Path, columns: Sequence[str] = (), limit_per_group: int = 0
) -> tuple[Layout, list[Pair]]:
    """The pairs of a file, or of all files of a folder.

    Args:
      path: .jsonl, .csv or .tsv, or a folder of such.
      columns: names of the better sentence's column, the worse one's, and perhaps the group's;
        those of BLiMP or CrowS-Pairs, whichever the file has, if left out.
      limit_per_group: at most so many pairs of a group, the first; 0 for all.

    Raises:
      UserError: if a file cannot be read, a column is missing (a group's that is named: in all
        rows), or a sentence is empty or, but in BLiMP's own files, both are the same.
    """
    layout = Layout(*columns[:2], group=''.join(columns[2:])) if columns else None
    pairs: list[Pair] = []
    sizes: collections.Counter[tuple[str, str]] = collections.Counter()
    without_column: Row | None = None
    has_column = False
    for file in _tables(path) if path.is_dir() else [path]:
        for row in read_rows(file):
            layout = layout or _layout_of(row)
            pair = _pair(row, layout)
            if layout.group in row.values or layout.group in row.kinds:
                has_column = True
            else:
                without_column = without_column or row
            sizes[pair.phenomenon, pair.group] += 1
            if not limit_per_group or sizes[pair.phenomenon, pair.group] <= limit_per_group:
                pairs.append(pair)
    if layout is None or not pairs:
        raise UserError(
            f'{path} has no pairs; it must be a .jsonl, .csv or .tsv file, or a folder of them.'
        )
    if columns and layout.group and without_column and not has_column:
        # Refuses it with the names of the columns that there are.
        without_column.value(layout.group)
    if len(pairs) < sizes.total():
        of_what = 'of each group' if any(map(any, sizes)) else 'as they have no groups'
        note(
            f'{path}: {len(pairs)} of {sizes.total()} pairs are scored, the first '
            f'{limit_per_group} {of_what}.'
        )
    return layout, pairs


def _tables(folder: Path) -> list[Path]:
    """The tables of a folder; a note tells what else is there, but for hidden files."""
    paths = sorted(folder.iterdir())
    files = [path for path in paths if path.name.removesuffix('.gz').endswith(_ENDINGS)]
    others = [p.name for p in paths if p not in files and not p.name.startswith('.')]
    if others:
        note(
            f'{folder}: {len(others)} files or folders that are no .jsonl, .csv or .tsv are not '
            f'read, the first is {others[0]}.'
        )
    return files


def _layout_of(row: Row) -> Layout:
    names = dict.fromkeys([*row.values, *row.kinds])
    for layout in (BLIMP, CROWS_PAIRS):
        if layout.better in names and layout.worse in names:
            return layout
    raise UserError(
        f'{row.where} has neither the columns {BLIMP.better} and {BLIMP.worse} nor '
        f'{CROWS_PAIRS.better} and {CROWS_PAIRS.worse}; name its own with '
        f'--pair_columns=BETTER,WORSE (there are {", ".join(names)}).'
    )


def _pair(row: Row, layout: Layout) -> Pair:
    texts = []
    for column in (layout.better, layout.worse):
        text = row.value(column).strip()
        if not text:
            raise UserError(f'{row.where}: {column} is empty; a pair has two sentences.')
        texts.append(check_text(text, f'{row.where}: {column}'))
    better, worse = texts
    # Seven pairs of BLiMP as it was published are so; like any tie they are wrong.
    if better == worse and layout != BLIMP:
        raise UserError(
            f'{row.where}: {layout.better} and {layout.worse} are the same sentence; they must '
            f'differ.'
        )
    group, phenomenon = (_name(row, column) for column in (layout.group, layout.phenomenon))
    return Pair(row.where, better, worse, group, phenomenon)


def _name(row: Row, column: str) -> str:
    """What a column, or none, says of a pair, which may be any text; '' where it says nothing."""
    if not column:
        return ''
    if column in row.repeated:
        row.get(column)
    text = check_text(row.values.get(column, ''), f'{row.where}: {column}')
    return text if is_visible(text) else ''


def encode_pairs(
    scorer: PseudoLikelihood, pairs: Sequence[Pair]
) -> list[tuple[Sentence, Sentence]]:
    """The pieces of both sentences of each pair.

    Raises:
      UserError: if nothing is left of a sentence, or it is longer than the model's positions.
    """
    better = scorer.encode([pair.better for pair in pairs])
    worse = scorer.encode([pair.worse for pair in pairs])
    for pair, sentences in zip(pairs, zip(better, worse, strict=True), strict=True):
        for sentence in sentences:
            if not sentence.ids:
                raise UserError(
                    f"{pair.where}: nothing is left of a sentence in the model's vocabulary; "
                    f'leave the pair out.'
                )
            if len(sentence.ids) > scorer.max_pieces:
                raise UserError(
                    f'{pair.where} has a sentence of {len(sentence.ids)} pieces; the model takes '
                    f'{scorer.max_pieces}: leave the pair out.'
                )
    return list(zip(better, worse, strict=True))


def score_pairs(
    scorer: PseudoLikelihood,
    encoded: Sequence[tuple[Sentence, Sentence]],
    only_shared: bool = False,
    advance: Callable[[int], None] = lambda num_rows: None,
) -> list[PairScores]:
    """The scores of pairs.

    Args:
      scorer: the model.
      encoded: both sentences of each pair.
      only_shared: CrowS-Pairs' score: of the pieces that both sentences have in common, each
        masked alone, under the name `shared`; else `word_l2r` and `plain`.
      advance: as of `PseudoLikelihood`.
    """
    scores = scorer([sentence for pair in encoded for sentence in pair], advance)
    both = zip(encoded, scores[::2], scores[1::2], strict=True)
    if only_shared:
        return [_shared(pair, better, worse) for pair, better, worse in both]
    return [PairScores(_sums(better), _sums(worse)) for _, better, worse in both]


def _sums(scores: PieceScores) -> dict[str, float]:
    return {name: float(values.sum(dtype=np.float64)) for name, values in scores._asdict().items()}


def _shared(pair: tuple[Sentence, Sentence], better: PieceScores, worse: PieceScores) -> PairScores:
    # With the ends as anchors, as the published program matches them.
    first, second = ((_START, *sentence.ids, _END) for sentence in pair)
    blocks = difflib.SequenceMatcher(None, first, second).get_matching_blocks()
    sums = []
    for side, scores in enumerate((better, worse)):
        places = [block[side] + i for block in blocks for i in range(block.size)]
        inner = np.array([place - 1 for place in places if 0 < place <= len(scores.plain)], int)
        sums.append({'shared': float(scores.plain[inner].sum(dtype=np.float64))})
    return PairScores(*sums)


@dataclasses.dataclass(frozen=True)
class PairResults:
    """Shares of pairs whose better sentence is strictly likelier, by the name of the score."""

    # Over all pairs; with phenomena, the mean of the groups, as BLiMP is reported.
    overall: dict[str, float]
    # The means of their groups.
    phenomena: dict[str, dict[str, float]]
    # By name, '' for pairs without one where others have one; with that of the phenomenon before it
    # where several phenomena have such a group. None where no pair has a group.
    groups: dict[str, dict[str, float]]
    num_pairs: int
    # Pairs whose sentences scored the same, which are wrong, by the name of the score.
    num_ties: dict[str, int]
    # Those of them whose sentences are the same pieces to the model.
    num_same_pieces: int


def results(
    pairs: Sequence[Pair],
    encoded: Sequence[tuple[Sentence, Sentence]],
    scores: Sequence[PairScores],
) -> PairResults:
    """What the scores of at least one pair say."""
    names = list(scores[0].better)
    by_group: dict[tuple[str, str], list[PairScores]] = collections.defaultdict(list)
    for pair, score in zip(pairs, scores, strict=True):
        by_group[pair.phenomenon, pair.group].append(score)
    groups = {key: _accuracies(of_group, names) for key, of_group in by_group.items()}
    by_phenomenon: dict[str, list[dict[str, float]]] = collections.defaultdict(list)
    for (phenomenon, _), accuracies in groups.items():
        by_phenomenon[phenomenon].append(accuracies)
    phenomena = {name: _mean(of_one) for name, of_one in by_phenomenon.items()}
    has_phenomena = any(phenomena)
    return PairResults(
        overall=_mean(list(groups.values())) if has_phenomena else _accuracies(scores, names),
        phenomena={n: _mean(of_one) for n, of_one in by_phenomenon.items()}
        if has_phenomena
        else {},
        groups=_named(groups),
        num_pairs=len(pairs),
        num_ties={n: sum(s.better[n] == s.worse[n] for s in scores) for n in names},
        num_same_pieces=sum(better.ids == worse.ids for better, worse in encoded),
    )


def _named(groups: Mapping[tuple[str, str], dict[str, float]]) -> dict[str, dict[str, float]]:
    """The groups of (phenomenon, group) by their names; none if there is nothing to tell apart."""
    counts = collections.Counter(group for _, group in groups)
    if len(groups) == 1 and '' in counts:
        return {}
    return {
        group if counts[group] == 1 else f'{phenomenon}/{group}': accuracies
        for (phenomenon, group), accuracies in groups.items()
    }


def _accuracies(scores: Sequence[PairScores], names: Sequence[str]) -> dict[str, float]:
    return {name: float(np.mean([score.is_right(name) for score in scores])) for name in names}


def _mean(accuracies: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in accuracies])) for name in accuracies[0]}
