"""Prepares text beyond one machine with Apache Beam: `python -m albert_jax.prepare_beam --help`."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from albert_jax.cli import command
from albert_jax.cli.errors import UserError
from albert_jax.cli.paths import expand
from albert_jax.cli.phase import phase
from albert_jax.data.preparation_settings import (
    PreparationSettings,
    add_flags,
    sources_from_flags,
)

_DESCRIPTION = """\
Prepare a corpus with Apache Beam (extra `beam`): the same bytes as python -m albert_jax.prepare,
made by as many workers as there are. Give it many files: each is read by one worker.
"""
_EPILOG = """\
examples:
  python -m albert_jax.prepare_beam --input='jsonl:books/*.jsonl.gz' --output=runs/books \\
      --vocabulary=30k-clean.model --scratch=runs/scratch --runner=DirectRunner
  python -m albert_jax.prepare_beam --input='jsonl:gs://BUCKET/c4/*.json.gz' \\
      --output=gs://BUCKET/corpus --vocabulary=30k-clean.model --scratch=gs://BUCKET/scratch \\
      --runner=DataflowRunner --project=PROJECT --region=us-central1 \\
      --temp_location=gs://BUCKET/tmp --sdk_container_image=IMAGE

Any other flag is Beam's own. launch/README.md has the recipe for Dataflow.
"""


def main(arguments: Sequence[str]) -> int:
    """Prepares the corpus unless it is there already."""
    parser = command.parser('albert_jax.prepare_beam', _DESCRIPTION, _EPILOG)
    add_flags(parser)
    parser.add_argument(
        '--scratch', required=True, type=expand, help='folder for intermediate files'
    )
    flags, options = parser.parse_known_args(arguments)
    if flags.vocabulary == 'train':
        raise UserError(
            '--vocabulary=train is for one machine; train it there on a part of the text with '
            'python -m albert_jax.prepare, and give its vocabulary.model.'
        )
    settings, sources = PreparationSettings.from_flags(flags), sources_from_flags(flags)
    if find_spec('apache_beam') is None:
        raise UserError("Apache Beam is not installed; run pip install -e '.[beam]' first.")
    for path in (flags.output, flags.scratch, *flags.input):
        if 'gs://' in path and find_spec('apitools') is None:
            raise UserError("Google's storage needs pip install 'apache-beam[gcp]' as well.")

    from albert_jax.data import beam_preparation, preparation_job, vocabulary_normalization
    from albert_jax.data.tokenizer import Tokenizer

    # As text: a Path would make one slash of the two in gs://.
    beam_preparation.check_is_free(flags.output)
    tokenizer = Tokenizer.from_file(flags.vocabulary)
    settings = vocabulary_normalization.settings_for(Path(flags.vocabulary), tokenizer, settings)
    model = tokenizer.model
    with phase('The pipeline runs; a runner elsewhere shows on its own page how far it is …'):
        manifest = beam_preparation.prepare(
            sources, flags.output, model, settings, flags.scratch, options
        )
    preparation_job.show(manifest, flags.output, tokenizer.vocab_size)
    return 0


if __name__ == '__main__':
    command.run(main)
