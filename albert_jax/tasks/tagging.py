"""A tag for every word: CoNLL columns (IOB1, IOB2 or any tags) and CoNLL-U (UPOS)."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from albert_jax.cli.errors import UserError
from albert_jax.data.hub_tokenizer import AnyTokenizer
from albert_jax.model.heads import Head
from albert_jax.runs.task import TaskSettings
from albert_jax.tasks import metrics
from albert_jax.tasks.features import Features, FeaturesWriter
from albert_jax.tasks.known_tags import Tags, check_tags
from albert_jax.tasks.tables import read_text
from albert_jax.tasks.task import Outputs, Task

# Of CoNLL-U's ten columns.
_UPOS = 3


@dataclasses.dataclass(frozen=True)
class Sentence:
    """Words and their tags; the tags are None where they are not known."""

    # 'FILE, line N' of the first word, for messages.
    where: str
    key: str
    words: tuple[str, ...]
    tags: tuple[str, ...] | None

    @property
    def is_labelled(self) -> bool:
        """Whether the tags are known."""
        return self.tags is not None

    @property
    def group(self) -> str:
        """Sentences of the same words are held out together."""
        return str(self.words) if self.words else str(self)


class _Line(NamedTuple):
    """A line of a file: a word and its tag."""

    number: int
    word: str
    tag: str


class TaggingTask(Task[Sentence]):
    """Words with a tag each. A word is judged by its first piece.

    Args:
      settings: of the task.
      has_chunks: tags are IOB and scored by chunks, as for named entities.
      is_conllu: files are CoNLL-U and the tags UPOS.
    """

    head_kind = 'token_classification'
    # The CoNLL files are published as .txt.
    file_endings = (*Task.file_endings, '.txt')

    def __init__(
        self, settings: TaskSettings, has_chunks: bool = False, is_conllu: bool = False
    ) -> None:
        super().__init__(settings)
        self.has_chunks, self.is_conllu = has_chunks, is_conllu
        self.best_metric = 'f1' if has_chunks else 'accuracy'

    @property
    def fields(self) -> tuple[str, ...]:
        """None: a sentence is a text."""
        return ()

    def parse(self, content: str | dict[str, Any], where: str, key: str) -> Sentence:
        """The sentence of a text with spaces between its words."""
        if not isinstance(content, str):
            raise UserError(f'{where} must be words with spaces between them.')
        return Sentence(where, key, tuple(content.split()), None)

    def parse_line(self, line: str, where: str, key: str) -> Sentence:
        """The sentence of a line with spaces between its words."""
        return self.parse(line, where, key)

    def labels_of(self, example: Sentence) -> tuple[str, ...]:
        """The tags, where they are known."""
        return example.tags or ()

    def read(self, path: Path, is_training: bool, is_labelled: bool = True) -> list[Sentence]:
        """The sentences of a file, blank lines between them.

        Raises:
          UserError: if a line has too few columns or there is no sentence.
        """
        del is_training
        sentences: list[Sentence] = []
        lines: list[_Line] = []
        text = read_text(path).replace('\r\n', '\n')
        # A blank line ends the last sentence too.
        for number, line in enumerate([*text.split('\n'), ''], 1):
            if line.strip():
                columns = self._columns(line, f'{path}, line {number}', is_labelled)
                if columns is not None:
                    lines.append(_Line(number, *columns))
            elif lines:
                words, tags = (tuple(column) for column in list(zip(*lines, strict=True))[1:])
                where = f'{path}, line {lines[0].number}'
                key = str(len(sentences))
                sentences.append(Sentence(where, key, words, tags if is_labelled else None))
                lines = []
        if not sentences:
            raise UserError(f'{path} has no sentences.')
        return sentences

    def _columns(self, line: str, where: str, is_labelled: bool) -> tuple[str, str] | None:
        """The word and the tag of a line; None for a line that is no word."""
        is_comment = self.is_conllu and line.startswith('#')
        if is_comment or line.startswith('-DOCSTART-'):
            return None
        if self.is_conllu:
            fields = line.split('\t')
            if len(fields) != 10:
                raise UserError(f'{where} has {len(fields)} columns; CoNLL-U has 10, with tabs.')
            # A range of words that are written as one, or a word that is not written.
            if not fields[0].isdigit():
                return None
            return fields[1], fields[_UPOS]
        fields = line.split('\t') if '\t' in line else line.split()
        if not is_labelled:
            return fields[0], ''
        column = self.settings.tag_column
        if len(fields) < 2 or not -len(fields) <= column < len(fields):
            raise UserError(
                f'{where} has {len(fields)} column(s); a word and its tag are needed '
                f'(task.tag_column is {column}).'
            )
        tag = fields[column]
        if self.has_chunks and tag != 'O' and tag[:2] not in ('B-', 'I-'):
            raise UserError(f'{where}: the tag {tag!r} is none of IOB: O, B-TYPE or I-TYPE.')
        return fields[0], tag

    def head(self, examples: Sequence[Sentence]) -> Head:
        """An output for each tag of the examples."""
        tags = sorted({tag for example in examples for tag in example.tags or ()})
        return Head(self.head_kind, tuple(tags))

    def encode(
        self, examples: Sequence[Sentence], tokenizer: AnyTokenizer, head: Head, is_training: bool
    ) -> Features:
        """[CLS] words [SEP]; a sentence that is too long continues in another sequence.

        A tag that the head does not know is counted as wrong, and not learnt from.

        Raises:
          UserError: if a tag of the training file is none of the head's, or none of another's is.
        """
        ids = {tag: index for index, tag in enumerate(head.labels)}
        if not is_training:
            check_tags([Tags(e.where, e.tags) for e in examples], head.labels)
        writer = FeaturesWriter(tokenizer)
        owners: list[int] = []
        labels: list[int] = []
        word_indices: list[int] = []
        pieces = iter(tokenizer.encode([word for example in examples for word in example.words]))
        for number, example in enumerate(examples):
            tags = example.tags or ('',) * len(example.words)
            unknown = set(tags) - set(ids)
            if is_training and unknown:
                raise UserError(
                    f'{example.where}: the tag {min(unknown)!r} is unknown; the model has '
                    f'{", ".join(head.labels)}.'
                )
            # A word of which nothing is left still needs a piece for its tag.
            encoded = [next(pieces) or [tokenizer.unk_id] for _ in tags]
            for part in _parts(encoded, self.settings.max_length - 2):
                writer.add([piece for index in part for piece in encoded[index]])
                owners.append(number)
                # The first piece of a word stands for it; [CLS] and [SEP] for nothing.
                rests = [[-1] * (len(encoded[index]) - 1) for index in part]
                firsts = [[ids.get(tags[index], -1)] for index in part]
                indices = [[index] for index in part]
                labels += [-1, *itertools.chain(*_interleaved(firsts, rests)), -1]
                word_indices += [-1, *itertools.chain(*_interleaved(indices, rests)), -1]
        return writer.finish(
            {'example': np.array(owners, np.int32)},
            {
                'token_labels': np.array(labels, np.int32),
                'word': np.array(word_indices, np.int32),
            },
        )

    def tags(
        self, examples: Sequence[Sentence], features: Features, outputs: Outputs, head: Head
    ) -> list[list[str]]:
        """The predicted tag of every word."""
        predicted = [[''] * len(example.words) for example in examples]
        owners = features.targets['example']
        for row, tags in enumerate(outputs['tags']):
            begin, end = features.starts[row], features.starts[row + 1]
            word_indices = features.token_targets['word'][begin:end]
            for token in np.flatnonzero(word_indices >= 0):
                predicted[owners[row]][word_indices[token]] = head.labels[int(tags[token])]
        return predicted

    def metrics(
        self, examples: Sequence[Sentence], features: Features, outputs: Outputs, head: Head
    ) -> dict[str, float]:
        """Accuracy of words, and for chunks precision, recall and F1."""
        predicted = self.tags(examples, features, outputs, head)
        pairs = [(e.tags, tags) for e, tags in zip(examples, predicted, strict=True) if e.tags]
        if not pairs:
            return {}
        true = [tag for tags, _ in pairs for tag in tags]
        scores = {'accuracy': float(np.mean(np.array(true) == [t for _, ts in pairs for t in ts]))}
        if self.has_chunks:
            scores |= metrics.span_f1(
                [list(tags) for tags, _ in pairs], [tags for _, tags in pairs]
            )
        return scores

    def predictions(
        self, examples: Sequence[Sentence], features: Features, outputs: Outputs, head: Head
    ) -> list[dict[str, Any]]:
        """The words of each sentence with their tags."""
        predicted = self.tags(examples, features, outputs, head)
        return [
            {'id': example.key, 'words': list(example.words), 'prediction': tags}
            for example, tags in zip(examples, predicted, strict=True)
        ]

    def write(
        self, examples: Sequence[Sentence], predictions: Sequence[Mapping[str, Any]], folder: Path
    ) -> list[Path]:
        """CoNLL columns, as conlleval takes them: word, true tag if known, predicted tag."""
        file = folder / 'predictions.conll'
        with file.open('w', encoding='utf-8') as stream:
            for example, row in zip(examples, predictions, strict=True):
                for index, (word, tag) in enumerate(
                    zip(example.words, row['prediction'], strict=True)
                ):
                    true = f'{example.tags[index]} ' if example.tags else ''
                    stream.write(f'{word} {true}{tag}\n')
                stream.write('\n')
        return [file]


def _interleaved(firsts: list[list[int]], rests: list[list[int]]) -> list[list[int]]:
    return [values for pair in zip(firsts, rests, strict=True) for values in pair]


def _parts(encoded: list[list[int]], room: int) -> list[list[int]]:
    """The words' indices, in runs whose pieces fit into the room; too long a word is cut."""
    parts: list[list[int]] = [[]]
    used = 0
    for index, pieces in enumerate(encoded):
        del pieces[room:]
        if used + len(pieces) > room:
            parts.append([])
            used = 0
        parts[-1].append(index)
        used += len(pieces)
    return parts
