"""A sentence and one of its predicates as a sequence: semantic roles (docs/REFERENCE.md, 11)."""

from collections.abc import Sequence
from typing import NamedTuple

from albert_jax.cli.errors import UserError
from albert_jax.data.hub_tokenizer import AnyTokenizer

# The label of a word without a role, in a model; no role of a file has a space.
NO_ROLE = 'no role'
# What a person has to know who makes the inputs of such a model without this package.
INPUT_OF_ROLES = (
    '`[CLS] sentence [SEP] predicate [SEP]`, word by word; `token_type_ids` are 1 for the pieces '
    'of the predicate in the sentence and for all that follows the first [SEP]; the role of a word '
    f'is the label of its first piece, and `{NO_ROLE}` is none'
)


class PredicateSequence(NamedTuple):
    """What stands between the special pieces of `[CLS] first [SEP] second [SEP]`.

    All but `second` and `is_cut` have an item for each piece of `first`.
    """

    first: list[int]
    # Of the predicate alone.
    second: list[int]
    # 1 for the pieces of the predicate.
    types: list[int]
    # The word, from 0, that a piece is the first of; -1 for other pieces.
    words: list[int]
    # Whether pieces were left out.
    is_cut: bool

    @property
    def token_type_ids(self) -> list[int]:
        """Of the whole sequence, [CLS] and both [SEP] included."""
        return [0, *self.types, 0, *[1] * (len(self.second) + 1)]


def predicate_sequence(
    pieces: Sequence[Sequence[int]], predicate: int, max_length: int
) -> PredicateSequence:
    """The sequence of a predicate, with the words around it as far as they fit.

    Args:
      pieces: of each word of the sentence, at least one each.
      predicate: the word, counted from 0.
      max_length: of the whole sequence, special pieces included; 5 or more.
    """
    room = max_length - 3
    second = list(pieces[predicate][: room // 2])
    room -= len(second)
    own = list(pieces[predicate][:room])
    room -= len(own)
    begin, end = predicate, predicate + 1
    is_open = [True, True]
    # A word before the predicate and one behind it in turn, each side as far as it goes.
    while any(is_open):
        for side, word in ((0, begin - 1), (1, end)):
            if not is_open[side]:
                continue
            is_open[side] = 0 <= word < len(pieces) and len(pieces[word]) <= room
            if is_open[side]:
                room -= len(pieces[word])
                begin, end = min(begin, word), max(end, word + 1)
    first: list[int] = []
    types: list[int] = []
    words: list[int] = []
    for word in range(begin, end):
        kept = own if word == predicate else list(pieces[word])
        first += kept
        types += [int(word == predicate)] * len(kept)
        words += [word] + [-1] * (len(kept) - 1)
    num_pieces = sum(map(len, pieces))
    is_cut = len(first) < num_pieces or len(second) < len(pieces[predicate])
    return PredicateSequence(first, second, types, words, is_cut)


def encode_predicate(
    tokenizer: AnyTokenizer, words: Sequence[str], predicate: int
) -> tuple[list[int], list[int]]:
    """The ids of `[CLS] sentence [SEP] predicate [SEP]`, however long, and their token types.

    Args:
      tokenizer: of the model.
      words: of the sentence.
      predicate: the word, counted from 0.
    """
    # A word of which nothing is left still needs a piece for its role.
    pieces = [ids or [tokenizer.unk_id] for ids in tokenizer.encode(list(words))]
    # Each piece may be one of the predicate, which is there twice.
    sequence = predicate_sequence(pieces, predicate, 2 * sum(map(len, pieces)) + 3)
    sep = tokenizer.sep_id
    ids = [tokenizer.cls_id, *sequence.first, sep, *sequence.second, sep]
    return ids, sequence.token_type_ids


def find_predicate(words: Sequence[str], given: object, where: str) -> int:
    """The place, from 0, of the predicate that someone named.

    Args:
      words: of the sentence.
      given: the word itself, or its number as in the column ID of CoNLL, from 1; a text of digits
        is a number.
      where: what to call it in messages.

    Raises:
      UserError: if there is no such word, or more than one.
    """
    if isinstance(given, bool) or not isinstance(given, int | str):
        raise UserError(f'{where}: predicate must be a word of the sentence or its number, from 1.')
    given = given.strip() if isinstance(given, str) else given
    if isinstance(given, str) and not (given.isascii() and given.isdigit()):
        places = [place for place, word in enumerate(words) if word == given]
        if not places:
            raise UserError(
                f'{where}: the predicate {given!r} is no word of the sentence; give one of its '
                f'words, which have spaces between them, or the number of one, from 1.'
            )
        if len(places) > 1:
            numbers = ', '.join(str(place + 1) for place in places)
            raise UserError(
                f'{where}: the predicate {given!r} is in the sentence {len(places)} times; give '
                f'the number of the word, one of {numbers}.'
            )
        return places[0]
    # A longer text of digits is no number of a word.
    number = given if isinstance(given, int) else int(given) if len(given) < 10 else 0
    if not 1 <= number <= len(words):
        raise UserError(
            f'{where}: the predicate is word {given}, but the sentence has {len(words)} words, '
            f'counted from 1.'
        )
    return number - 1
