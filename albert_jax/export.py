"""Writes a model that runs without this package: `python -m albert_jax.export --help`."""

from collections.abc import Sequence

from albert_jax.cli import command
from albert_jax.cli.paths import expand, local_path

_DESCRIPTION = """\
Write a model, fine-tuned or pretrained, for machines without this package: any batch, any length
up to its positions (eight pieces at least: pad shorter texts), every head. Of a model from text to
text it is the whole decoding, as its training's evaluation had it, in stablehlo alone.
"""
_EPILOG = """\
formats:
  stablehlo   one file for CPU, CUDA and TPU, read with jax.export.deserialize
  savedmodel  TensorFlow's, with the signature serving_default (extra tensorflow)
  onnx        for ONNX Runtime and whatever else reads opset 23 (extra onnx, in an environment of
              its own: it wants an older orbax-checkpoint than the lock)

example:
  python -m albert_jax.export runs/sst2 runs/sst2-stablehlo --format=stablehlo

Beside the model lie its vocabulary, signature.json (inputs, labels, special pieces) and README.md,
a card with the numbers of its evaluation, an example that runs, and how text becomes pieces.
"""


def main(arguments: Sequence[str]) -> int:
    """Writes the folder."""
    parser = command.parser('albert_jax.export', _DESCRIPTION, _EPILOG)
    parser.add_argument('checkpoint', type=expand, help='anything that albert_jax.load takes')
    parser.add_argument('output', type=local_path, help='folder that is not there or empty')
    parser.add_argument(
        '--format', choices=('stablehlo', 'savedmodel', 'onnx'), required=True, help='see below'
    )
    flags = parser.parse_args(arguments)

    from albert_jax.interop import exported

    exported.export(flags.checkpoint, flags.output, flags.format)
    print(f'Wrote {flags.output}; its README.md has an example.')
    return 0


if __name__ == '__main__':
    command.run(main)
