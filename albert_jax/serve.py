"""Answers over HTTP: `python -m albert_jax.serve --help`."""

import functools
from collections.abc import Sequence

from albert_jax.cli import command
from albert_jax.cli.errors import UserError
from albert_jax.cli.paths import expand_after
from albert_jax.service import memory
from albert_jax.service.settings import ServiceSettings

_DESCRIPTION = """\
Serve trained models over HTTP, with a page at / to try them. Needs the extra 'serve'.

  POST /v1/predict     the head's own answer: labels with probabilities, spans, tags, scores
  POST /v1/fill-mask   the likeliest pieces for every [MASK]
  POST /v1/embed       a vector for each text
  POST /v1/generate    a text for each source, of a model from text to text
  POST /v1/inspect     attention, and the contribution of each word to the answer
  GET  /v1/models      what there is to ask
  GET  /healthz /readyz /metrics /openapi.json

It answers when the first shapes are compiled, and compiles the others behind that; /readyz says how
many programs there are. They are kept: the second start takes seconds."""
_EPILOG = """\
examples:
  python -m albert_jax.serve --checkpoint=runs/sst2
  curl -s localhost:8000/v1/predict -H 'Content-Type: application/json' \\
      -d '{"input": "A gripping, beautiful film."}'
  python -m albert_jax.serve --checkpoint=mood=runs/sst2 --checkpoint=base=runs/base --port=9000

docs/SERVING.md tells of limits, metrics, load balancers and TPUs.
"""


def main(arguments: Sequence[str]) -> int:
    """Loads, compiles and serves until it is told to stop."""
    parser = command.parser('albert_jax.serve', _DESCRIPTION, _EPILOG)
    parser.add_argument(
        '--checkpoint', required=True, action='append', metavar='[NAME=]PATH',
        type=functools.partial(expand_after, '='),
        help='anything that convert reads; more than once for several',
    )  # fmt: skip
    ServiceSettings.add_flags(parser)
    flags = parser.parse_args(arguments)
    settings = ServiceSettings.from_flags(flags)
    api_key = settings.read_api_key()
    memory.keep_freed()
    try:
        from albert_jax.service import startup
    except ImportError as error:
        raise UserError(
            "The service needs the extra 'serve': install it with pip install -e '.[serve]'."
        ) from error

    startup.run(flags.checkpoint, settings, api_key)
    return 0


if __name__ == '__main__':
    command.run(main)
