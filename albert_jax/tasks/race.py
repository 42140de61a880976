"""RACE: reading comprehension with four options, middle and high school."""

import collections
import dataclasses
import json
import math
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from albert_jax.cli.errors import UserError, reason
from albert_jax.cli.json_text import check_text, is_visible, parse_json
from albert_jax.cli.notes import note
from albert_jax.data.hub_tokenizer import AnyTokenizer
from albert_jax.model.heads import Head
from albert_jax.tasks.features import Features, FeaturesWriter, note_cut
from albert_jax.tasks.task import (
    Outputs,
    Task,
    check_fields,
    check_keys,
    key_of,
    note_empty,
    softmax,
)

_LETTERS = 'ABCD'
_LEVELS = ('middle', 'high')


@dataclasses.dataclass(frozen=True)
class Question:
    """A passage, a question and its options; the answer is None where it is not known."""

    where: str
    key: str
    level: str
    passage: str
    question: str
    options: tuple[str, ...]
    answer: int | None

    @property
    def is_labelled(self) -> bool:
        """Whether the answer is known."""
        return self.answer is not None

    @property
    def group(self) -> str:
        """All questions about a passage are held out together."""
        return self.passage or str(self)


class RaceTask(Task[Question]):
    """Questions with four options about a passage.

    Args:
      settings: of the task.
    """

    best_metric = 'accuracy'
    metric_names = ('accuracy', *(f'accuracy_{level}' for level in _LEVELS))
    head_kind = 'multiple_choice'
    # Of JSON Lines each is a question.
    file_endings = tuple(ending for ending in Task.file_endings if ending != '.jsonl')
    writes_by_key = True

    @property
    def fields(self) -> tuple[str, ...]:
        """The question, its passage and four options."""
        return ('question', 'passage', 'options')

    @property
    def other_fields(self) -> tuple[str, ...]:
        """The letter of the right option, too."""
        return ('id', 'answer')

    @property
    def sample(self) -> dict[str, Any]:
        """Four short options."""
        return dict.fromkeys(self.fields, 'a') | {'options': ['a'] * len(_LETTERS)}

    def parse(self, content: str | dict[str, Any], where: str, key: str) -> Question:
        """The question of an object."""
        fields = check_fields(content, where, ['question', 'passage'], ['options'])
        options = fields['options']
        if not isinstance(options, list) or len(options) != len(_LETTERS):
            raise UserError(f'{where}: options must be a list of four texts.')
        return Question(
            where, key_of(fields, where, key), '', fields['passage'], fields['question'],
            tuple(_option(option, where) for option in options), None,
        )  # fmt: skip

    def read(self, path: Path, is_training: bool, is_labelled: bool = True) -> list[Question]:
        """The questions of a split: a folder with `middle` and `high`, or `ARCHIVE.tar.gz:SPLIT`.

        Raises:
          UserError: if a file is not of RACE's layout, or there is none.
        """
        questions = []
        num_replaced = 0
        for where, level, content in _files(path):
            text = content.decode('utf-8-sig', 'replace')
            num_replaced += '\ufffd' in text and '\ufffd'.encode() not in content
            questions.extend(_questions(where, level, text, is_training, is_labelled))
        if num_replaced:
            note(f'{path}: {num_replaced} files are not UTF-8; \ufffd stands for their bytes.')
        if not questions:
            raise UserError(f'{path} has no questions; give a folder with middle and high.')
        note_empty(self, questions, str(path))
        return _with_own_keys(questions, path)

    def empty_texts(self, example: Question) -> tuple[str, ...]:
        """The question, its passage, or all of its options."""
        texts = example.question, example.passage, ''.join(example.options)
        return tuple(
            name for name, text in zip(self.fields, texts, strict=True) if not is_visible(text)
        )

    def head(self, examples: Sequence[Question]) -> Head:
        """One score for each option."""
        del examples
        return Head(self.head_kind, ())

    def encode(
        self, examples: Sequence[Question], tokenizer: AnyTokenizer, head: Head, is_training: bool
    ) -> Features:
        """[CLS] passage [SEP] question with option [SEP], four times (docs/REFERENCE.md, 4).

        A "_" is replaced by the option; of question and option the last tokens are kept, and of
        the passage what then fits.
        """
        del head, is_training
        writer = FeaturesWriter(tokenizer, len(_LETTERS))
        passages = {e.passage: i for i, e in enumerate(examples)}
        encoded = dict(zip(passages, tokenizer.encode(list(passages)), strict=True))
        asked = tokenizer.encode([_with(e.question, o) for e in examples for o in e.options])
        cut = set()
        for number, ids in enumerate(asked):
            kept = ids[-self.settings.max_option_length :]
            kept = kept[-(self.settings.max_length - 4) :]
            room = self.settings.max_length - 3 - len(kept)
            passage = encoded[examples[number // len(_LETTERS)].passage]
            writer.add(passage[:room], kept)
            if len(kept) < len(ids) or len(passage) > room:
                cut.add(number // len(_LETTERS))
        writer.num_cut = len(cut)
        labels = [example.answer or 0 for example in examples]
        return writer.finish({'labels': np.array(labels, np.int32)})

    def note_cut(self, features: Features, examples: Sequence[Question]) -> None:
        """Notes how many questions have a passage, or a question with an option, that was cut."""
        other = f'task.max_option_length {self.settings.max_option_length}'
        note_cut(features, examples[0].where, self.settings.max_length, other)

    def metrics(
        self, examples: Sequence[Question], features: Features, outputs: Outputs, head: Head
    ) -> dict[str, float]:
        """Accuracy, and that of each level."""
        del features, head
        predicted = np.stack(list(outputs['logits'])).argmax(-1)
        right = np.array([e.answer == a for e, a in zip(examples, predicted, strict=True)])
        known = np.array([e.is_labelled for e in examples])
        levels = np.array([example.level for example in examples])
        if not known.any():
            return {}
        scores = {'accuracy': float(right[known].mean())}
        for level in _LEVELS:
            if (known & (levels == level)).any():
                scores[f'accuracy_{level}'] = float(right[known & (levels == level)].mean())
        return scores

    def predictions(
        self, examples: Sequence[Question], features: Features, outputs: Outputs, head: Head
    ) -> list[dict[str, Any]]:
        """The letter of each answer, and the probability of every letter."""
        del features, head
        rows = softmax(np.stack(list(outputs['logits'])))
        return [
            {
                'id': example.key,
                'prediction': _LETTERS[int(row.argmax())],
                'probabilities': dict(zip(_LETTERS, row.tolist(), strict=True)),
            }
            for example, row in zip(examples, rows, strict=True)
        ]

    def write(
        self, examples: Sequence[Question], predictions: Sequence[Mapping[str, Any]], folder: Path
    ) -> list[Path]:
        """A JSON object from the question's id to its letter."""
        del examples
        file = folder / 'predictions.json'
        file.write_text(json.dumps({row['id']: row['prediction'] for row in predictions}, indent=0))
        return [file]


def _questions(
    where: str, level: str, text: str, is_training: bool, is_labelled: bool
) -> Iterator[Question]:
    """The questions of a passage's file."""
    names = ('article', 'questions', 'options', 'id')
    content = parse_json(text, where, (*names, 'answers'))
    missing = [n for n in names if not isinstance(content, dict) or n not in content]
    if missing:
        raise UserError(f'{where} is not of RACE: it lacks {", ".join(missing)}.')
    article, asked, options, name = (content[n] for n in names)
    if not isinstance(article, str):
        raise UserError(f'{where} is not of RACE: article must be a text.')
    answers: Any = content.get('answers')
    if not answers and isinstance(asked, list):
        answers = [None] * len(asked)
    elif isinstance(answers, str):
        answers = list(answers)  # a letter for each question: "ABD"
    if not all(isinstance(part, list) for part in (asked, options, answers)):
        raise UserError(f'{where} is not of RACE: questions, options and answers must be lists.')
    if not len(asked) == len(options) == len(answers):
        raise UserError(
            f'{where} is not of RACE: there are {len(asked)} questions, {len(options)} lists of '
            f'options and {len(answers)} answers.'
        )
    check_text(article, f'{where}, article')
    key = key_of({'id': name}, where, Path(where).name)
    for number, (question, choice, answer) in enumerate(zip(asked, options, answers, strict=True)):
        here = f'{where}, question {number}'
        if not isinstance(question, str):
            raise UserError(f'{here} must be a text.')
        if not isinstance(choice, list) or len(choice) != len(_LETTERS):
            raise UserError(f'{here} must have a list of 4 options.')
        if answer is not None and answer not in tuple(_LETTERS):
            raise UserError(f'{here}: the answer {answer!r} is none of A, B, C and D.')
        if answer is None and is_training:
            raise UserError(f'{here} has no answer.')
        yield Question(
            where, f'{key}-{number}', level, article, check_text(question, here),
            tuple(_option(option, here) for option in choice),
            _LETTERS.index(answer) if answer and is_labelled else None,
        )  # fmt: skip


def _with_own_keys(questions: Sequence[Question], path: Path) -> list[Question]:
    """The questions; those with the id of another one are called by their level and file."""
    counts = collections.Counter(question.key for question in questions)
    renamed = [
        question
        if counts[question.key] == 1
        else dataclasses.replace(
            question,
            key=f'{question.level}/{Path(question.where).name}-{question.key.rpartition("-")[2]}',
        )
        for question in questions
    ]
    num_renamed = sum(count for count in counts.values() if count > 1)
    if num_renamed:
        note(
            f'{path}: {num_renamed} questions have the id of another one; they are called by '
            f'their level and file, as in {next(q.key for q in renamed if "/" in q.key)}.'
        )
    check_keys(renamed, str(path), is_refused=True)
    return renamed


def _option(option: object, where: str) -> str:
    """The text of an option, which may be a number."""
    is_missing = isinstance(option, float) and not math.isfinite(option)
    if is_missing or not isinstance(option, str | int | float):
        raise UserError(f'{where}: the option {option!r} must be a text.')
    return check_text(str(option), f'{where}, options')


def _with(question: str, option: str) -> str:
    return question.replace('_', option) if '_' in question else f'{question} {option}'


def _files(path: Path) -> Iterator[tuple[str, str, bytes]]:
    """Name, level and content of each passage's file."""
    archive, _, split = str(path).partition('.tar.gz')
    if not path.is_dir() and split:
        yield from _archived(Path(f'{archive}.tar.gz'), split.strip('/:'))
        return
    if not path.is_dir():
        raise UserError(f'{path} is not a directory; give a split of RACE, such as RACE/dev.')
    files = [(file, level) for level in _LEVELS for file in sorted((path / level).glob('*.txt'))]
    for file, level in files:
        try:
            content = file.read_bytes()
        except OSError as error:
            raise UserError(f'{file} cannot be read: {reason(error)}.') from error
        yield str(file), level, content
    num_others = sum(file.suffix in ('.txt', '.json') for file in path.rglob('*')) - len(files)
    if num_others:
        note(f'{path}: {num_others} files that are not in middle or high were left out.')


def _archived(archive: Path, split: str) -> Iterator[tuple[str, str, bytes]]:
    try:
        with tarfile.open(archive) as members:
            for member in members:
                parts = Path(member.name).parts
                if member.isfile() and len(parts) >= 3 and parts[-3] == split:
                    stream = members.extractfile(member)
                    assert stream is not None
                    yield f'{archive}:{member.name}', parts[-2], stream.read()
    except (OSError, tarfile.TarError, EOFError) as error:
        raise UserError(f'{archive} cannot be read: {error}.') from error
