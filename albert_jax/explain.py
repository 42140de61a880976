"""Shows what a model does inside with a text: `python -m albert_jax.explain --help`."""

import argparse
import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from albert_jax.cli import command
from albert_jax.cli.errors import UserError

if TYPE_CHECKING:
    from albert_jax.interpretability.inspector import Attribution, Inside

_DESCRIPTION = """\
Show what a model does inside with a text: attention of every depth and head, attention rollout,
which words moved the answer (integrated gradients), and how much each layer changes its input.
"""
_EPILOG = """\
examples:
  python -m albert_jax.explain --checkpoint=runs/sst2 --output=inspector.html 'A dull, loud film.'
  python -m albert_jax.explain --checkpoint=runs/base --output=inspector.png 'The [MASK] barked.'
  python -m albert_jax.explain --checkpoint=runs/mrpc --output=pair.html 'One text.' 'Another.'

A classifier's likeliest label is explained, or --label; of a pretrained model the likeliest piece
at the first [MASK], or --piece. Without either there is attention alone.
"""


def main(arguments: Sequence[str]) -> int:
    """Writes one HTML or PNG file."""
    parser = command.parser('albert_jax.explain', _DESCRIPTION, _EPILOG)
    parser.add_argument('--checkpoint', required=True, help='anything that albert_jax.load takes')
    parser.add_argument('--output', required=True, type=Path, help='FILE.html or FILE.png')
    parser.add_argument('--label', help='of a classifier, to explain in place of its answer')
    parser.add_argument('--piece', help='at the first [MASK], to explain in place of its answer')
    parser.add_argument('text', help='what the model reads')
    parser.add_argument('pair', nargs='?', help='a second text, of a task with pairs')
    flags = parser.parse_args(arguments)
    if flags.output.suffix not in ('.html', '.png'):
        raise UserError(f'--output={flags.output}: it must end in .html or .png.')
    return run(flags)


def run(flags: argparse.Namespace) -> int:
    """Looks inside and writes the file.

    Raises:
      UserError: if the checkpoint or the text cannot be used.
    """
    from albert_jax.interop import source
    from albert_jax.interpretability import inspector

    model = source.read(flags.checkpoint)
    encoded = inspector.encode(model, flags.text, flags.pair)
    output = None
    if model.head is not None and model.head.kind == 'sequence_classification':
        output = inspector.class_output(model, encoded, flags.label)
    elif flags.label:
        raise UserError(f'--label={flags.label}: {flags.checkpoint} is no classifier.')
    elif model.tokenizer is not None and model.tokenizer.mask_id in encoded.input_ids:
        output = inspector.masked_output(model, encoded, flags.piece)
    if flags.piece and (output is None or model.head is not None):
        raise UserError(f'--piece={flags.piece} is for a text with [MASK] and a pretrained model.')
    found = inspector.look(model, encoded)
    moved = None if output is None else inspector.integrated_gradients(model, encoded, output)
    text = ' · '.join(part for part in (flags.text, flags.pair) if part)
    try:
        if flags.output.suffix == '.html':
            flags.output.write_text(page(found, moved, text, flags.checkpoint), encoding='utf-8')
        else:
            picture(found, moved, text).savefig(flags.output)
    except OSError as error:
        raise UserError(f'{flags.output} cannot be written: {error.strerror}.') from error
    if moved is not None:
        _show(moved)
    print(f'Wrote {flags.output}.')
    return 0


def _show(moved: 'Attribution') -> None:
    from rich.console import Console
    from rich.table import Table

    from albert_jax.interpretability.inspector import words_of

    words = words_of(moved.encoded.pieces, moved.scores)
    table = Table(title=f'{moved.output!r}: {moved.baseline_value:.3f} → {moved.value:.3f}')
    table.add_column('word')
    table.add_column('moved it by', justify='right')
    for word, score in sorted(words, key=lambda item: -abs(item[1]))[:10]:
        table.add_row(word, f'{score:+.3f}')
    Console().print(table)


def page(found: 'Inside', moved: 'Attribution | None', text: str, origin: str) -> str:
    """One HTML file that needs no network."""
    from albert_jax.interpretability.inspector import rollout, similarity_by_depth

    distances, angles = similarity_by_depth(found.hidden)
    layers, heads = found.attention.shape[:2]
    data = {
        'pieces': found.encoded.pieces,
        'attention': _rounded(found.attention),
        'rollout': _rounded(rollout(found.attention)),
        'distances': _rounded(distances),
        'angles': _rounded(angles),
    }
    parts = {
        'TEXT': html.escape(text),
        'ABOUT': html.escape(f'{origin}: {layers} layers, {heads} heads'),
        'WORDS': '' if moved is None else _words(moved),
        # What ends the element early would be a tag; JSON can say < otherwise.
        'DATA': json.dumps(data).replace('<', '\\u003c'),
    }
    template = Path(__file__).with_suffix('.html').read_text(encoding='utf-8')
    return re.sub('__([A-Z]+)__', lambda mark: parts[mark[1]], template)


def _rounded(values: Any) -> Any:
    return values.astype(float).round(5).tolist()


def _words(moved: 'Attribution') -> str:
    from albert_jax.interpretability.inspector import words_of

    words = words_of(moved.encoded.pieces, moved.scores)
    most = max((abs(score) for _, score in words), default=1.0) or 1.0
    spans = []
    for word, score in words:
        red, green, blue = (0, 158, 115) if score > 0 else (213, 94, 0)
        share = 0.7 * abs(score) / most
        spans.append(
            f'<span title="{score:+.3f}" style="background: rgb({red} {green} {blue} / '
            f'{share:.3f})">{html.escape(word)}</span>'
        )
    return (
        f'<h2>Which words moved it to “{html.escape(moved.output)}”</h2>'
        f'<p>From {moved.baseline_value:.2f} with every word masked to {moved.value:.2f}: green '
        f'towards it, orange away from it (integrated gradients; {1 - moved.gap:.1%} of the '
        f'difference is accounted for).</p><div class="card words">{" ".join(spans)}</div>'
    )


def picture(found: 'Inside', moved: 'Attribution | None', text: str) -> Any:
    """A matplotlib figure: mean attention by depth, rollout, words and layer changes."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    from albert_jax.interpretability.inspector import rollout, similarity_by_depth, words_of

    layers = found.attention.shape[0]
    figure, axes = pyplot.subplots(2, 3, figsize=(13, 8.5), dpi=110, layout='constrained')
    pieces = [piece.replace('▁', '') or '␣' for piece in found.encoded.pieces]

    def image(axis: Any, values: Any, title: str) -> None:
        axis.imshow(values, vmin=0, cmap='Blues')
        axis.set_title(title, fontsize=10)
        axis.set_xticks(range(len(pieces)), pieces, rotation=90, fontsize=7)
        axis.set_yticks(range(len(pieces)), pieces, fontsize=7)

    for axis, depth in zip(axes[0], (0, layers // 2, layers - 1), strict=True):
        title = f'attention at depth {depth + 1}, mean of heads'
        image(axis, found.attention[depth].mean(0), title)
    image(axes[1, 0], rollout(found.attention)[-1], f'rollout over {layers} layers')
    if moved is None:
        axes[1, 1].axis('off')
    else:
        words = words_of(moved.encoded.pieces, moved.scores)
        colours = ['#009e73' if score > 0 else '#d55e00' for _, score in words]
        axes[1, 1].barh(range(len(words)), [score for _, score in words], color=colours)
        axes[1, 1].set_yticks(range(len(words)), [word for word, _ in words], fontsize=8)
        axes[1, 1].invert_yaxis()
        axes[1, 1].set_title(f'what moved it to {moved.output!r}', fontsize=10)
    distances, angles = similarity_by_depth(found.hidden)
    axes[1, 2].plot(range(1, layers + 1), distances, marker='.', label='distance')
    axes[1, 2].plot(range(1, layers + 1), angles, marker='.', label='angle (degrees)')
    axes[1, 2].set(xlabel='depth', ylim=(0, None))
    axes[1, 2].set_title("a layer's input against its output", fontsize=10)
    axes[1, 2].legend()
    figure.suptitle(text[:120])
    return figure


if __name__ == '__main__':
    command.run(main)
