"""Semantic roles: who did what to whom, for one predicate of a sentence at a time.

An example is `[CLS] sentence [SEP] predicate [SEP]` (arXiv 1904.05255), and every word of the
sentence has a role or none.
"""

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from albert_jax.cli.errors import UserError
from albert_jax.cli.json_text import check_text, is_json_object, parse_json
from albert_jax.data.hub_tokenizer import AnyTokenizer
from albert_jax.data.predicate import NO_ROLE, find_predicate, predicate_sequence
from albert_jax.model.heads import Head
from albert_jax.runs.task import TaskSettings
from albert_jax.tasks import metrics
from albert_jax.tasks.class_labels import note_alike
from albert_jax.tasks.conll import blocks_of, split_lines
from albert_jax.tasks.features import Features, FeaturesWriter
from albert_jax.tasks.inputs import parse_lines
from albert_jax.tasks.known_tags import Tags, check_tags
from albert_jax.tasks.role_files import PredicateMarks, has_columns, read_sentences
from albert_jax.tasks.role_layout import NOTHING, Sentence, plain_sentence, render_all
from albert_jax.tasks.tables import read_text
from albert_jax.tasks.task import Outputs, Task, check_fields, key_of


@dataclasses.dataclass(frozen=True)
class RoleExample:
    """A predicate of a sentence; the roles are None where they are not known."""

    # 'FILE, line N' of the first word, for messages.
    where: str
    key: str
    words: tuple[str, ...]
    # The place of its word, from 0.
    predicate: int
    # Of every word, `_` for none.
    roles: tuple[str, ...] | None
    sentence: Sentence = dataclasses.field(repr=False, compare=False)

    @property
    def is_labelled(self) -> bool:
        """Whether the roles are known."""
        return self.roles is not None

    @property
    def group(self) -> str:
        """All predicates of a sentence are held out together."""
        return str(self.words)


class RolesTask(Task[RoleExample]):
    """A role, or none, for every word of a sentence, for one of its predicates.

    A word is judged by its first piece.

    Args:
      settings: of the task.
    """

    head_kind = 'token_classification'
    best_metric = 'f1'
    metric_names = tuple(metrics.set_f1([], []))
    # Files that are no columns are lines, whatever they are called.
    file_endings = (*Task.file_endings, '.txt', '.gz', '.conllup', '.conll09')

    def __init__(self, settings: TaskSettings) -> None:
        super().__init__(settings)
        # Where the predicates of a file are that is predicted, if not where its layout has them.
        self.predicate_marks: PredicateMarks | None = None

    @property
    def fields(self) -> tuple[str, ...]:
        """Words with spaces between them, and one of them or its number from 1."""
        return ('sentence', 'predicate')

    @property
    def sample(self) -> dict[str, Any]:
        """A short sentence and its first word."""
        return {'sentence': 'a', 'predicate': 1}

    def parse(self, content: str | dict[str, Any], where: str, key: str) -> RoleExample:
        """The example of an object with the task's fields."""
        fields = check_fields(content, where, ['sentence'], ['predicate'])
        given = fields['predicate']
        if isinstance(given, str):
            check_text(given, f'{where}, predicate')
        return self._example(fields['sentence'], given, where, key_of(fields, where, key))

    def parse_line(self, line: str, where: str, key: str) -> RoleExample:
        """The example of a sentence and its predicate with a tab between, or of a JSON object."""
        names = (*self.fields, 'id')
        if is_json_object(line, names):
            return self.parse(parse_json(line, where, names), where, key)
        texts = line.split('\t')
        if len(texts) != 2:
            raise UserError(
                f'{where} must be a sentence, a tab, and its predicate (a word of it, or the '
                f'number of one, from 1), or JSON with {" and ".join(self.fields)}.'
            )
        return self._example(texts[0], texts[1], where, key)

    @staticmethod
    def _example(text: str, given: Any, where: str, key: str) -> RoleExample:
        words = tuple(text.split())
        predicate = find_predicate(words, given, where)
        return RoleExample(
            where, key, words, predicate, None, plain_sentence(where, words, predicate)
        )

    def check_lines(self, lines: Sequence[str], origin: str) -> None:
        """Refuses lines that are columns, and those without where predicates are in a column.

        Raises:
          UserError: if they are.
        """
        if has_columns(blocks_of('\n'.join(line.rstrip('\r\n') for line in lines))):
            raise UserError(
                f'{origin} has columns and no sentences; give it as a file with the ending .conllu '
                f'or .conll.'
            )
        if self.predicate_marks:
            raise UserError(
                f'{origin} has no columns, and --predicates names one of them; give each sentence '
                f'with its predicate and no --predicates.'
            )

    def suits(self, head: Head) -> bool:
        """A token classifier that has an output for words without a role."""
        return super().suits(head) and NO_ROLE in head.labels

    def use_head(self, head: Head, origin: str) -> None:
        """Takes a model's head, one of whose labels must be that of words without a role.

        Raises:
          UserError: if it has no such label, or is no token classifier.
        """
        super().use_head(head, origin)
        if not self.suits(head):
            raise UserError(
                f'{origin} has the labels {", ".join(head.labels)}, and none for words without a '
                f'role ({NO_ROLE!r}): it is no model of semantic roles.'
            )

    def labels_of(self, example: RoleExample) -> tuple[str, ...]:
        """The roles, where they are known."""
        return tuple(role for role in example.roles or () if role != NOTHING)

    def read(self, path: Path, is_training: bool, is_labelled: bool = True) -> list[RoleExample]:
        """An example for each predicate of a file of columns.

        A file to predict may also have a sentence with its predicate, or JSON, in each line.

        Raises:
          UserError: as of `read_sentences`, or if there are no roles to train on.
        """
        text = read_text(path)
        if not is_labelled and not has_columns(blocks_of(text)):
            return parse_lines(self, split_lines(text), str(path))
        marks = None if is_labelled else self.predicate_marks
        sentences = read_sentences(path, text, is_labelled, marks)
        if is_training and sentences[0].roles is None:
            raise UserError(f'{path} has predicates and no columns of roles for them.')
        examples = [
            RoleExample(
                sentence.where,
                f'{number}.{predicate + 1}',
                sentence.words,
                predicate,
                None if sentence.roles is None else sentence.roles[place],
                sentence,
            )
            for number, sentence in enumerate(sentences)
            for place, predicate in enumerate(sentence.predicates)
        ]
        if is_training:
            roles = (role for one in examples for role in dict.fromkeys(self.labels_of(one)))
            note_alike(collections.Counter(roles), str(path), 'role')
        return examples

    def head(self, examples: Sequence[RoleExample]) -> Head:
        """An output for each role of the examples, and one for none.

        Raises:
          UserError: if no predicate has a role.
        """
        roles = sorted({role for example in examples for role in self.labels_of(example)})
        if not roles:
            raise UserError(
                f'{examples[0].where.rpartition(",")[0]}: no predicate has a role; there is '
                f'nothing to learn.'
            )
        return Head(self.head_kind, (NO_ROLE, *roles))

    def encode(
        self,
        examples: Sequence[RoleExample],
        tokenizer: AnyTokenizer,
        head: Head,
        is_training: bool,
    ) -> Features:
        """[CLS] sentence [SEP] predicate [SEP]; of a long sentence what is around the predicate.

        A role that the head does not know is counted as missed, and not learnt from.

        Raises:
          UserError: if a role of the training file is none of the head's, or none of another's is.
        """
        ids = {NOTHING if role == NO_ROLE else role: n for n, role in enumerate(head.labels)}
        if not is_training:
            all_roles = [Tags(e.where, self.labels_of(e)) for e in examples]
            check_tags(all_roles, head.labels, kind='role')
        writer = FeaturesWriter(tokenizer)
        labels: list[int] = []
        word_indices: list[int] = []
        types: list[int] = []
        for example, encoded in zip(examples, _encoded(examples, tokenizer), strict=True):
            roles = example.roles or (NOTHING,) * len(example.words)
            unknown = set(roles) - set(ids)
            if is_training and unknown:
                raise UserError(
                    f'{example.where}: the role {min(unknown)!r} is unknown; the model has '
                    f'{", ".join(head.labels)}.'
                )
            sequence = predicate_sequence(encoded, example.predicate, self.settings.max_length)
            writer.add(sequence.first, sequence.second)
            writer.num_cut += sequence.is_cut
            types += sequence.token_type_ids
            # [CLS] before the sentence, and [SEP], the predicate and [SEP] behind it.
            rest = [-1] * (len(sequence.second) + 2)
            word_indices += [-1, *sequence.words, *rest]
            labels += [-1, *(ids.get(roles[w], -1) if w >= 0 else -1 for w in sequence.words)]
            labels += rest
        return writer.finish(
            token_targets={
                'token_labels': np.array(labels, np.int32),
                'word': np.array(word_indices, np.int32),
                'token_type_ids': np.array(types, np.int32),
            }
        )

    def roles(
        self, examples: Sequence[RoleExample], features: Features, outputs: Outputs, head: Head
    ) -> list[list[str]]:
        """The predicted role of every word, `_` for none and for a word that was cut off."""
        names = [NOTHING if label == NO_ROLE else label for label in head.labels]
        predicted = [[NOTHING] * len(example.words) for example in examples]
        for row, of_words in enumerate(predicted):
            words = features.token_targets['word'][features.starts[row] : features.starts[row + 1]]
            for token in np.flatnonzero(words >= 0):
                of_words[words[token]] = names[int(outputs['tags'][row][token])]
        return predicted

    def metrics(
        self, examples: Sequence[RoleExample], features: Features, outputs: Outputs, head: Head
    ) -> dict[str, float]:
        """Precision, recall and F1 of (predicate, word, role), V left out."""
        predicted = self.roles(examples, features, outputs, head)
        pairs = [(e.roles, roles) for e, roles in zip(examples, predicted, strict=True) if e.roles]
        if not pairs:
            return {}
        return metrics.set_f1([_arguments(t) for t, _ in pairs], [_arguments(p) for _, p in pairs])

    def predictions(
        self, examples: Sequence[RoleExample], features: Features, outputs: Outputs, head: Head
    ) -> list[dict[str, Any]]:
        """The words of the sentence, the number of the predicate from 1, and the words' roles."""
        predicted = self.roles(examples, features, outputs, head)
        return [
            {
                'id': example.key,
                'words': list(example.words),
                'predicate': example.predicate + 1,
                'prediction': roles,
            }
            for example, roles in zip(examples, predicted, strict=True)
        ]

    def write(
        self,
        examples: Sequence[RoleExample],
        predictions: Sequence[Mapping[str, Any]],
        folder: Path,
    ) -> list[Path]:
        """The sentences as they were read, with columns of the predicted roles."""
        file = folder / 'predictions.conllu'
        rows = (
            (example.sentence, example.predicate, row['prediction'])
            for example, row in zip(examples, predictions, strict=True)
        )
        file.write_text(render_all(rows), encoding='utf-8', newline='\n')
        return [file]


def _encoded(examples: Sequence[RoleExample], tokenizer: AnyTokenizer) -> Iterator[list[list[int]]]:
    """The pieces of each example's words; those of a sentence once for all its predicates."""
    # A word of which nothing is left still needs a piece for its role.
    sentences = list(dict.fromkeys(example.words for example in examples))
    pieces = iter(tokenizer.encode([word for words in sentences for word in words]))
    encoded = {words: [next(pieces) or [tokenizer.unk_id] for _ in words] for words in sentences}
    return (encoded[example.words] for example in examples)


def _arguments(roles: Sequence[str]) -> set[tuple[int, str]]:
    return {(word, role) for word, role in enumerate(roles) if role != NOTHING}
