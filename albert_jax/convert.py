"""Reads and writes everyone's checkpoints: `python -m albert_jax.convert --help`."""

from collections.abc import Sequence

from albert_jax.cli import command
from albert_jax.cli.files import check_is_free
from albert_jax.cli.notes import note
from albert_jax.cli.paths import expand, local_path

_DESCRIPTION = """\
Convert a model: from what it holds SRC is recognised as

  a run or checkpoint of albert_jax,
  a directory of Hugging Face (ALBERT or BERT with any head; config.json and safetensors),
  a TensorFlow checkpoint of google-research/albert, its tar.gz, or a TF-Hub module
    (extra 'tensorflow'),
  a name on the Hugging Face Hub, such as albert-base-v2 (extra 'huggingface').

Every tensor of SRC is used, skipped by a named rule, or an error. DST is written complete or not at
all. Fine-tuned models keep their head and its labels."""
_EPILOG = """\
examples:
  python -m albert_jax.convert albert_base_v2.tar.gz runs/albert-base
  python -m albert_jax.convert albert-base-v2 runs/albert-base
  python -m albert_jax.convert runs/mine runs/mine-hf --to=huggingface

docs/CHECKPOINTS.md says what maps to what, what each format loses, and how to check.
"""


def main(arguments: Sequence[str]) -> int:
    """Converts, and says what was read and written."""
    parser = command.parser('albert_jax.convert', _DESCRIPTION, _EPILOG)
    parser.add_argument('source', type=expand, metavar='SRC', help='file, directory or name')
    parser.add_argument(
        'destination', type=local_path, metavar='DST', help='directory that does not exist yet'
    )
    parser.add_argument(
        '--to', choices=('albert_jax', 'huggingface'), default='albert_jax', help='format of DST'
    )
    parser.add_argument(
        '--vocabulary',
        type=expand,
        metavar='FILE',
        help="use this .model, vocab.txt or tokenizer.json in place of SRC's own",
    )
    flags = parser.parse_args(arguments)
    destination = flags.destination
    check_is_free(destination)

    from albert_jax.interop import conversion
    from albert_jax.interop.source import read

    model = read(flags.source, flags.vocabulary)
    missing = conversion.missing_parts(model)
    for text in (*model.notes, *([missing] if missing else [])):
        note(f'{flags.source}: {text}')
    for lost in conversion.convert(model, destination, flags.to):
        print(f'note: {destination}: {lost}')
    conversion.show(model, destination, flags.to)
    return 0


if __name__ == '__main__':
    command.run(main)
