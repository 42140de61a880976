"""Sentences with predicates, in the two layouts of files of semantic roles."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

NOTHING = '_'
# What Universal Propositions write at the predicate, in its own column.
VERB = 'V'
FORM = 1
# The last of CoNLL-U's own columns, after which those of predicates and roles stand.
NUM_CONLLU = 10


class Layout(NamedTuple):
    """Where the columns are, counted from 0."""

    name: str
    # The first is what marks predicates.
    predicate_columns: tuple[int, ...]
    first_role: int
    # What the first of these columns has at a predicate; empty for anything.
    mark: str
    # What the column of a predicate has at the predicate itself.
    own_role: str


CONLL_U = Layout('CoNLL-U with predicate columns', (NUM_CONLLU,), NUM_CONLLU + 1, '', VERB)
CONLL_2009 = Layout('CoNLL-2009', (12, 13), 14, 'Y', NOTHING)


@dataclasses.dataclass(frozen=True)
class Sentence:
    """A sentence with predicates, as it is in a file."""

    # 'FILE, line N' of its first word, for messages.
    where: str
    words: tuple[str, ...]
    # Places of the words, from 0.
    predicates: tuple[int, ...]
    # For each predicate the role of every word, `_` for none; None where they are not known.
    roles: tuple[tuple[str, ...], ...] | None
    layout: Layout
    # Its lines, which of them are words, and all text before and behind it that is no example.
    lines: tuple[str, ...]
    are_words: tuple[bool, ...]
    before: str = ''
    after: str = ''

    def render(self, roles: Mapping[int, Sequence[str]]) -> str:
        """The sentence in its layout, with columns of roles for its predicates.

        Args:
          roles: of every word, by predicate.
        """
        words = iter(range(len(self.words)))
        rendered = [
            self._word_line(line, next(words), roles) if is_word else self._other_line(line)
            for line, is_word in zip(self.lines, self.are_words, strict=True)
        ]
        return self.before + ''.join(f'{line}\n' for line in rendered) + self.after

    def _other_line(self, line: str) -> str:
        """A comment as it is; a range or an empty node with as many columns as the words."""
        fields, num_roles = line.split('\t'), len(self.predicates)
        if line.startswith('#') or len(fields) == self.layout.first_role + num_roles:
            return line
        return '\t'.join([*_padded(fields, self.layout.first_role), *[NOTHING] * num_roles])

    def _word_line(self, line: str, word: int, roles: Mapping[int, Sequence[str]]) -> str:
        fields = _padded(line.split('\t'), self.layout.first_role)
        for column in self.layout.predicate_columns:
            mark = fields[column].strip(' ')
            if word not in self.predicates:
                mark = NOTHING
            elif mark in ('', NOTHING) and column == self.layout.predicate_columns[0]:
                mark = self.layout.mark or self.words[word]
            fields[column] = mark
        for predicate in self.predicates:
            role = roles[predicate][word] if predicate in roles else NOTHING
            is_own = role == NOTHING and word == predicate
            fields.append(self.layout.own_role if is_own else role)
        return '\t'.join(fields)


def _padded(fields: Sequence[str], width: int) -> list[str]:
    return [*fields, *[NOTHING] * width][:width]


def plain_sentence(where: str, words: Sequence[str], predicate: int) -> Sentence:
    """A sentence that comes from no file, as CoNLL-U has it."""
    lines = tuple(
        '\t'.join([str(number), word, *[NOTHING] * (NUM_CONLLU - 2)])
        for number, word in enumerate(words, 1)
    )
    is_word = (True,) * len(lines)
    return Sentence(where, tuple(words), (predicate,), None, CONLL_U, lines, is_word, after='\n')


def render_all(roles: Iterable[tuple[Sentence, int, Sequence[str]]]) -> str:
    """The text of a file of sentences with roles.

    Args:
      roles: a sentence, one of its predicates, and the roles of its words; those of a sentence one
        after another.
    """
    texts: list[str] = []
    current: Sentence | None = None
    columns: dict[int, Sequence[str]] = {}
    for sentence, predicate, of_words in roles:
        if current is not None and sentence is not current:
            texts.append(current.render(columns))
            columns = {}
        current = sentence
        columns[predicate] = of_words
    if current is not None:
        texts.append(current.render(columns))
    return ''.join(texts)
