"""A tag for every word: CoNLL columns (IOB1, IOB2 or any tags) and CoNLL-U (UPOS)."""

import collections
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from albert_jax.cli.errors import UserError
from albert_jax.cli.json_text import check_text, is_object_with_keys
from albert_jax.cli.notes import note
from albert_jax.data.hub_tokenizer import AnyTokenizer
from albert_jax.data.predicate import NO_ROLE
from albert_jax.model.heads import Head
from albert_jax.runs.task import TaskSettings
from albert_jax.tasks import conll, conll_checks, conll_layout, metrics
from albert_jax.tasks.class_labels import note_alike
from albert_jax.tasks.features import Features, FeaturesWriter
from albert_jax.tasks.inputs import parse_lines
from albert_jax.tasks.known_tags import Tags, check_tags
from albert_jax.tasks.tables import read_text, text_ending
from albert_jax.tasks.task import Outputs, Task

# The share of lines with a known tag from which on a file has columns.
_MOST = 0.5
# The share from which on lines cannot be sentences.
_NEARLY_ALL = 0.9


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


class TaggingTask(Task[Sentence]):
    """Words with a tag each. A word is judged by its first piece.

    Args:
      settings: of the task.
      has_chunks: tags are IOB and scored by chunks, as for named entities.
      is_conllu: files are CoNLL-U and the tags UPOS.
    """

    head_kind = 'token_classification'
    # The CoNLL files are published as .txt, eng.train, eng.testa and eng.testb; what is in a file
    # says what it is.
    reads_any_file = True

    def __init__(
        self, settings: TaskSettings, has_chunks: bool = False, is_conllu: bool = False
    ) -> None:
        super().__init__(settings)
        self.has_chunks, self.is_conllu = has_chunks, is_conllu
        self.best_metric = 'f1' if has_chunks else 'accuracy'
        self.metric_names = ('accuracy', *(metrics.span_f1([], []) if has_chunks else ()))
        # Those of the model or of the files that were read, by which columns can be told.
        self._known_tags: set[str] = set()

    @property
    def fields(self) -> tuple[str, ...]:
        """None: a sentence is a text."""
        return ()

    def parse(self, content: str | dict[str, Any], where: str, key: str) -> Sentence:
        """The sentence of a text with spaces between its words."""
        if not isinstance(content, str):
            raise UserError(f'{where} must be words with spaces between them.')
        return Sentence(where, key, tuple(check_text(content, where).split()), None)

    def parse_line(self, line: str, where: str, key: str) -> Sentence:
        """The sentence of a line with spaces between its words.

        Raises:
          UserError: if it is JSON.
        """
        if is_object_with_keys(line):
            raise UserError(
                f'{where} is a JSON object; a sentence is its words with spaces between them.'
            )
        return self.parse(line, where, key)

    def check_lines(self, lines: Sequence[str], origin: str) -> None:
        """Refuses lines that are columns, each with a word and a tag, and no sentences.

        Raises:
          UserError: if they are.
        """
        blocks = conll.blocks_of('\n'.join(line.rstrip('\r\n') for line in lines))
        rows = conll.lines_of(blocks)
        conll_checks.check_sentences(blocks, origin)
        has_tags = self._share_of_tags(blocks) > _NEARLY_ALL
        # O is a word, too.
        if has_tags and len(rows) > 1 and any(row.fields[-1] != 'O' for row in rows):
            raise UserError(
                f'{origin} has a word and its tag in each line, and no sentences; give it as a '
                f'file with the ending .conll.'
            )

    def use_head(self, head: Head, origin: str) -> None:
        """Takes the tags of a model's head.

        Raises:
          UserError: if it is no token classifier, or one of semantic roles.
        """
        super().use_head(head, origin)
        if NO_ROLE in head.labels:
            raise UserError(
                f'{origin} tags the words for one predicate of a sentence; give --task=roles.'
            )
        self._known_tags.update(head.labels)

    def labels_of(self, example: Sentence) -> tuple[str, ...]:
        """The tags, where they are known."""
        return example.tags or ()

    def read(self, path: Path, is_training: bool, is_labelled: bool = True) -> list[Sentence]:
        """The sentences of a file of columns, blank lines between them.

        A file without known tags may also have a sentence in each line.

        Raises:
          UserError: if a line has too few columns, there is no sentence, or the words' column has
            running numbers.
        """
        text = read_text(path)
        blocks = conll.blocks_of(text)
        conll_checks.check_kind(path, blocks)
        if self._is_conllu(path, blocks, is_labelled):
            sentences = conll.conllu_rows(path, blocks)
            has_tags = any(row.tag is not None for rows in sentences for row in rows)
            if is_training and sentences and not has_tags:
                raise UserError(f'{path} has no tags: UPOS is _ in every line.')
            is_labelled = is_labelled and has_tags
        else:
            blocks, num_comments = self._columns(blocks, is_labelled)
            if not is_labelled and not self._has_columns(path, blocks):
                return parse_lines(self, conll.split_lines(text), str(path))
            if num_comments:
                note(f'{path}: {num_comments} line(s) that begin with # are comments.')
            sentences = self._column_rows(path, blocks, is_labelled)
        if not sentences:
            raise UserError(f'{path} has no sentences.')
        if is_training:
            tags = (row.tag for rows in sentences for row in rows if row.tag is not None)
            note_alike(collections.Counter(tags), str(path), 'tag')
        return [
            Sentence(
                f'{path}, line {rows[0].number}',
                str(number),
                tuple(row.word for row in rows),
                tuple(row.tag or '' for row in rows) if is_labelled else None,
            )
            for number, rows in enumerate(sentences)
        ]

    def _is_conllu(self, path: Path, blocks: Sequence[conll.Block], is_labelled: bool) -> bool:
        """Whether a file is read as CoNLL-U; one without known tags by what is in it."""
        if is_labelled:
            return self.is_conllu
        return conll.is_conllu(blocks) or (self.is_conllu and text_ending(path) == '.conllu')

    def _columns(
        self, blocks: list[conll.Block], is_labelled: bool
    ) -> tuple[list[conll.Block], int]:
        """The words' lines, and the number of the comments between them."""
        wide = conll.split_at_any_space(blocks)
        if wide and (is_labelled or self._share_of_tags(wide) >= _MOST):
            blocks = wide
        is_iob = _is_iob if self.has_chunks else None
        return conll_layout.without_comments(blocks, self.settings.tag_column, is_iob)

    def _share_of_tags(self, blocks: Sequence[conll.Block]) -> float:
        is_iob = _is_iob if self.has_chunks else None
        return conll_layout.share_of_tags(
            conll.lines_of(blocks), self.settings.tag_column, self._known_tags, is_iob
        )

    def _has_columns(self, path: Path, blocks: Sequence[conll.Block]) -> bool:
        """Whether a file without known tags has columns, and not sentences.

        Raises:
          UserError: if this cannot be told, or it is a file of another kind.
        """
        if text_ending(path) in ('.conll', '.conllu'):
            return True
        kind = conll_layout.kind_of(
            blocks,
            self.settings.tag_column,
            self._known_tags,
            _is_iob if self.has_chunks else None,
        )
        if 'columns' not in kind:
            conll_checks.check_ending(path)
        if kind == 'unclear':
            raise UserError(
                f'{path} may have CoNLL columns or sentences: rename it to .conll if it has '
                f'columns, or give its sentences, a line each, on standard input (--input=-).'
            )
        if kind == 'likely columns':
            note(
                f'{path} is read as CoNLL columns with the words in column '
                f'{self.settings.word_column}, counted from 0; if its lines are sentences, give '
                f'them on standard input (--input=-).'
            )
        return kind != 'sentences'

    def _column_rows(
        self, path: Path, blocks: Sequence[conll.Block], is_labelled: bool
    ) -> list[list[conll.Row]]:
        if not blocks:
            return []
        word_column, tag_column = self.settings.word_column, self.settings.tag_column
        if not is_labelled and all(len(line.fields) == 1 for line in conll.lines_of(blocks)):
            # Words and nothing else, wherever they are in the files of the task.
            word_column = 0
        rows = conll.column_rows(path, blocks, word_column, tag_column if is_labelled else None)
        has_tags = is_labelled or self._share_of_tags(blocks) >= _MOST
        conll_checks.check_widths(path, blocks, tag_column if has_tags else None)
        conll_checks.check_words(path, blocks, word_column, tag_column if has_tags else None)
        if self.has_chunks and is_labelled:
            for row in (row for sentence in rows for row in sentence):
                if not _is_iob(row.tag or ''):
                    raise UserError(
                        f'{path}, line {row.number}: the tag {row.tag!r} is none of IOB: O, B-TYPE '
                        f'or I-TYPE.'
                    )
        if is_labelled:
            conll_checks.check_header(path, blocks, word_column, tag_column)
            conll_checks.check_tags(path, blocks, word_column, tag_column)
            self._known_tags.update(row.tag or '' for sentence in rows for row in sentence)
        return rows

    def head(self, examples: Sequence[Sentence]) -> Head:
        """An output for each tag of the examples.

        Raises:
          UserError: if there are fewer than two tags.
        """
        tags = sorted({tag for example in examples for tag in example.tags or ()})
        if len(tags) < 2:
            raise UserError(
                f'{examples[0].where.rpartition(",")[0]}: the tags are {tags}; tagging needs two '
                f'or more.'
            )
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
        """CoNLL columns, as conlleval takes them: word, true tag if known, predicted tag.

        With tabs between them where a word or a tag has a space.
        """
        file = folder / 'predictions.conll'
        sentences = [
            [
                (word, *([example.tags[index]] if example.tags else []), tag)
                for index, (word, tag) in enumerate(
                    zip(example.words, row['prediction'], strict=True)
                )
            ]
            for example, row in zip(examples, predictions, strict=True)
        ]
        has_space = any(' ' in field for rows in sentences for row in rows for field in row)
        separator = '\t' if has_space else ' '
        with file.open('w', encoding='utf-8', newline='\n') as stream:
            for rows in sentences:
                stream.writelines(f'{separator.join(row)}\n' for row in rows)
                stream.write('\n')
        return [file]


def _is_iob(tag: str) -> bool:
    """Whether a tag is O, B-TYPE or I-TYPE."""
    return tag == 'O' or (tag[:2] in ('B-', 'I-') and len(tag) > 2)


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
