"""Fills the masks of a text: `python -m albert_jax.fill_mask --help`."""

from collections.abc import Sequence

from albert_jax.cli import command
from albert_jax.cli.errors import UserError
from albert_jax.cli.paths import expand

_DESCRIPTION = """\
Fill every [MASK] of a text with what a pretrained model finds likely: words, and after ## the rest
of a word."""
_EPILOG = """\
example:
  python -m albert_jax.fill_mask --checkpoint=runs/tiny 'Returns a [MASK] array.'
"""


def main(arguments: Sequence[str]) -> int:
    """Prints a table of words and probabilities for each mask of each text."""
    parser = command.parser('albert_jax.fill_mask', _DESCRIPTION, _EPILOG)
    parser.add_argument(
        '--checkpoint', required=True, type=expand, help='anything that convert reads'
    )
    parser.add_argument('--top', type=int, default=5, help='words for each mask (5)')
    parser.add_argument('text', nargs='+', help='text with [MASK] in it')
    flags = parser.parse_args(arguments)
    if flags.top < 1:
        raise UserError(f'--top is {flags.top}; it must be 1 or above.')
    for text in flags.text:
        if '[MASK]' not in text:
            raise UserError(f'There is no [MASK] in {text!r}; write it where a piece is missing.')

    from albert_jax.interop.native import check_no_decoder
    from albert_jax.interop.source import load
    from albert_jax.pretraining.fill_mask import fill_mask, show

    model = load(flags.checkpoint)
    check_no_decoder(model, flags.checkpoint, 'filling of masks')
    for text in flags.text:
        show(text, fill_mask(model, text, flags.top))
    return 0


if __name__ == '__main__':
    command.run(main)
