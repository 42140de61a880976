"""Tags of a labelled file that the model has no output for."""

import collections
import re
from collections.abc import Sequence
from typing import NamedTuple

from albert_jax.cli.errors import UserError
from albert_jax.cli.notes import note
from albert_jax.tasks.class_labels import look_alike

# What a model of Hugging Face calls its outputs where nobody has named them.
_UNNAMED = re.compile(r'LABEL_\d+')


class Tags(NamedTuple):
    """The tags of a sentence."""

    # 'FILE, line N', for messages.
    where: str
    # None where they are not known.
    tags: tuple[str, ...] | None


def check_tags(sentences: Sequence[Tags], known: Sequence[str], kind: str = 'tag') -> None:
    """Refuses tags of another set than the model's, and notes single ones that it does not know.

    Args:
      sentences: to be scored.
      known: tags of the model, in the order of its outputs.
      kind: what to call a tag in messages.

    Raises:
      UserError: if no tag is known, or some are not and outputs of the model have no name.
    """
    counts = collections.Counter(tag for one in sentences for tag in one.tags or ())
    unknown = [tag for tag in counts if tag not in known]
    if not unknown:
        return
    where = next(one.where for one in sentences if not set(one.tags or ()) <= set(known))
    has_unnamed = any(_UNNAMED.fullmatch(tag) and tag not in counts for tag in known)
    if has_unnamed or len(unknown) == len(counts):
        raise UserError(
            f'{where}: the {kind} {unknown[0]!r} is unknown; the model has {", ".join(known)}: '
            f'name the {kind}s in the order of its outputs with --labels=A,B.'
        )
    num_words = sum(counts[tag] for tag in unknown)
    # In escapes where it would read as one that is known.
    shown = [ascii(tag) if look_alike(tag, known) else tag for tag in unknown]
    note(
        f'{where.rpartition(",")[0]}: {num_words} words have a {kind} that the model does not know '
        f'and count as wrong: {", ".join(shown)}.'
    )
