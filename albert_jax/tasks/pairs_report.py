"""Scores a file of minimal pairs as the command does it: progress, a table, JSON."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import TextColumn
from rich.table import Table

from albert_jax.cli.errors import UserError, reason
from albert_jax.cli.json_output import to_json
from albert_jax.cli.progress import Progress
from albert_jax.interop import source
from albert_jax.interop.native import check_no_decoder
from albert_jax.pretraining.pseudo_likelihood import PseudoLikelihood
from albert_jax.tasks.minimal_pairs import (
    Pair,
    PairResults,
    PairScores,
    encode_pairs,
    read_pairs,
    results,
    score_pairs,
)


def evaluate_pairs(
    checkpoint: str,
    path: Path,
    columns: Sequence[str] = (),
    limit_per_group: int = 0,
    output: Path | None = None,
    num_loops: int | None = None,
) -> PairResults:
    """Scores the pairs of a file, prints a table, and writes everything as JSON if asked.

    Args:
      checkpoint: of a model with its masked-LM head; read after the pairs.
      path: as of `read_pairs`.
      columns: as of `read_pairs`.
      limit_per_group: as of `read_pairs`.
      output: folder for pairs.json, pairs.jsonl with the scores of each pair, and results.json
        with the last line of the table.
      num_loops: how often the model goes through its layers; None: as in training.

    Raises:
      UserError: if the file or the model does not serve, or a file cannot be written.
    """
    layout, pairs = read_pairs(path, columns, limit_per_group)
    model = source.read_at_depth(checkpoint, num_loops)
    check_no_decoder(model, checkpoint, 'scoring of minimal pairs')
    scorer = PseudoLikelihood(model)
    encoded = encode_pairs(scorer, pairs)
    num_rows = scorer.num_rows([sentence for pair in encoded for sentence in pair])
    print(f'{path}: {len(pairs):,} pairs, {num_rows:,} masked sentences', flush=True)
    with Progress(
        'scoring pairs', TextColumn('{task.percentage:.0f} %'), line=_line, total=num_rows
    ) as progress:
        scores = score_pairs(scorer, encoded, layout.only_shared, progress.advance)
    found = results(pairs, encoded, scores)
    _print(found)
    if output:
        _write(output, found, pairs, scores)
    return found


def _line(done: float, total: float, seconds: float) -> str:
    left = seconds * (total - done) / done if done else 0.0
    return f'scored {done:,.0f} of {total:,.0f} masked sentences, {left:.0f} s to go'


def _print(found: PairResults) -> None:
    names = list(found.overall)
    table = Table()
    table.add_column('phenomenon' if found.phenomena else 'group')
    for name in names:
        table.add_column(f'{name} %', justify='right')
    for label, accuracies in sorted((found.phenomena or found.groups).items()):
        table.add_row(
            escape(label or '(none)'), *[f'{accuracies[name]:.1%}'[:-1] for name in names]
        )
    table.add_section()
    mean_of = f'mean of {len(found.groups)} groups' if found.phenomena else 'all pairs'
    table.add_row(mean_of, *_percent(found.overall, names))
    Console(emoji=False).print(table)
    for name, number in found.num_ties.items():
        if number:
            print(
                f'note: {number} of {found.num_pairs} pairs are ties by {name} and count as wrong.'
            )
    if found.num_same_pieces:
        print(f'note: {found.num_same_pieces} pairs are the same pieces to this vocabulary.')


def _percent(accuracies: dict[str, float], names: Sequence[str]) -> list[str]:
    return [f'{100 * accuracies[name]:.1f}' for name in names]


def _write(
    output: Path, found: PairResults, pairs: Sequence[Pair], scores: Sequence[PairScores]
) -> None:
    lines = [
        to_json(
            {'better': pair.better, 'worse': pair.worse, 'group': pair.group}
            | {f'{name}_better': value for name, value in score.better.items()}
            | {f'{name}_worse': value for name, value in score.worse.items()},
            ensure_ascii=False,
        )
        + '\n'
        for pair, score in zip(pairs, scores, strict=True)
    ]
    contents = {
        'pairs.json': to_json(dataclasses.asdict(found), indent=2) + '\n',
        'pairs.jsonl': ''.join(lines),
        'results.json': to_json(found.overall, indent=2) + '\n',
    }
    for name, content in contents.items():
        file = output / name
        try:
            output.mkdir(parents=True, exist_ok=True)
            file.write_text(content, 'utf-8')
        except OSError as error:
            raise UserError(f'{file} cannot be written: {reason(error)}.') from error
        print(f'Wrote {file}.')
