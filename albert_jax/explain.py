"""Shows what a model does with a text: `python -m albert_jax.explain --help`."""

from collections.abc import Sequence

from albert_jax.cli import command
from albert_jax.cli.errors import UserError
from albert_jax.cli.paths import expand, local_path
from albert_jax.cli.phase import phase

_DESCRIPTION = """\
Show what a model does with a text: attention of every depth and head, attention rollout, the
contribution of each word to the answer (integrated gradients), and how much each layer changes its
input. Of a model from text to text: the cross-attention between the two texts, and what each target
word's log-probability loses if a source word is left out.
"""
_EPILOG = """\
examples:
  python -m albert_jax.explain --checkpoint=runs/sst2 --output=explained.html 'A dull, loud film.'
  python -m albert_jax.explain --checkpoint=runs/base --output=inspector.png 'The [MASK] barked.'
  python -m albert_jax.explain --checkpoint=runs/mrpc --output=pair.html 'One text.' 'Another.'
  python -m albert_jax.explain --checkpoint=runs/en-de --output=why.html 'Two dogs play.'

The answer and how sure it is come first. A classifier's likeliest label is explained, or --label;
of a pretrained model the likeliest piece at the first [MASK], or --piece. Without either there is
attention alone. Of a model from text to text what it writes is explained, or the second text.
"""


def main(arguments: Sequence[str]) -> int:
    """Writes one HTML or PNG file."""
    parser = command.parser('albert_jax.explain', _DESCRIPTION, _EPILOG)
    parser.add_argument(
        '--checkpoint', required=True, type=expand, help='anything that albert_jax.load takes'
    )
    parser.add_argument('--output', required=True, type=local_path, help='FILE.html or FILE.png')
    parser.add_argument('--label', help='of a classifier, to explain in place of its answer')
    parser.add_argument('--piece', help='at the first [MASK], to explain in place of its answer')
    parser.add_argument('text', help='what the model reads')
    parser.add_argument(
        'pair', nargs='?', help='a second text, of a task with pairs; or the target to explain'
    )
    flags = parser.parse_args(arguments)
    if flags.output.suffix not in ('.html', '.png'):
        raise UserError(f'--output={flags.output}: it must end in .html or .png.')

    from albert_jax.interop import source
    from albert_jax.interpretability import explanation
    from albert_jax.tasks.second_text import check_second_text

    with phase('Explaining the text …'):
        model = source.read(flags.checkpoint)
        check_second_text(model, flags.pair)
        explained = explanation.explain(
            model, flags.checkpoint, flags.text, flags.pair, flags.label, flags.piece
        )
    # A target is shown beside its source.
    is_pair = isinstance(explained, explanation.PairExplanation)
    shown = (flags.text,) if is_pair else (flags.text, flags.pair)
    text = ' · '.join(part for part in shown if part)
    explanation.write(explained, flags.output, text, flags.checkpoint)
    explained.show()
    print(f'Wrote {flags.output}.')
    return 0


if __name__ == '__main__':
    command.run(main)
