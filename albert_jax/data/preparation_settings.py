"""What decides the records of a prepared corpus, and the flags of the commands that make one."""

import argparse
import dataclasses
import functools
from typing import Annotated

from albert_jax.cli.flags import FlagSettings
from albert_jax.cli.paths import expand, expand_after
from albert_jax.cli.settings import NonNegative, Probability, at_least
from albert_jax.data.corpus import Source, parse_source
from albert_jax.data.normalization import Normalization


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreparationSettings(FlagSettings):
    """What decides the records, apart from the text and the vocabulary.

    Raises:
      UserError: if a value is impossible.
    """

    sequence_length: Annotated[
        int, at_least(8), 'tokens of the longest sequence to train on, [CLS] and two [SEP] included'
    ] = 512
    validation_fraction: Annotated[
        float, Probability, 'fraction of the documents for validation, by content and seed'
    ] = 0.01
    seed: Annotated[int, 'of the choice of validation documents'] = 0
    keep_case: Annotated[bool, 'do not lower the case'] = False
    keep_accents: Annotated[
        bool,
        'do not decompose and drop accents (use it for Japanese, Korean and the like)',
    ] = False
    # Cleaning.
    html: Annotated[
        bool, 'documents are HTML: take their text; counted in corpus.json as all cleaning'
    ] = False
    drop_control_characters: Annotated[bool, 'leave out control characters'] = False
    drop_duplicates: Annotated[bool, 'leave out exact duplicates of documents'] = False
    min_characters: Annotated[int, NonNegative, 'leave out shorter documents'] = 0

    @property
    def normalization(self) -> Normalization:
        """What the tokenizer does to text first."""
        return Normalization(self.keep_case, self.keep_accents)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags for input, output and `PreparationSettings`."""
    parser.add_argument(
        '--input', action='append', required=True, metavar='SOURCE', help='text',
        type=functools.partial(expand_after, ':'),
    )  # fmt: skip
    parser.add_argument('--output', required=True, type=expand, help='directory of the corpus')
    parser.add_argument(
        '--vocabulary',
        required=True,
        type=expand,
        metavar='MODEL|train',
        help='a SentencePiece model of ALBERT, or train to make one of this text',
    )
    parser.add_argument('--text_key', default='text', help='key or feature of the text (text)')
    parser.add_argument(
        '--one_document_per_file', action='store_true', help='of text: inputs; not blank lines'
    )
    PreparationSettings.add_flags(parser)


def sources_from_flags(flags: argparse.Namespace) -> list[Source]:
    """The inputs, in their order.

    Raises:
      UserError: if one is no source.
    """
    return [parse_source(spec, flags.text_key, flags.one_document_per_file) for spec in flags.input]
