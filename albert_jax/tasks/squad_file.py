"""SQuAD's layout: JSON with data → paragraphs → qas, and what is refused in it."""

import collections
import dataclasses
import json
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from albert_jax.cli.errors import UserError
from albert_jax.cli.json_text import check_text, is_object_with_keys, is_visible, parse_json
from albert_jax.cli.notes import note
from albert_jax.tasks.tables import read_text, text_ending
from albert_jax.tasks.task import key_of

# What is read of a file.
_KEYS = (
    'data', 'title', 'paragraphs', 'context', 'qas', 'id', 'question', 'answers', 'text',
    'answer_start', 'is_impossible',
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Question:
    """A question about a passage, and its answers: (text, first character) each."""

    where: str
    key: str
    title: str
    question: str
    passage: str
    # None where they are not known, none where there is no answer.
    answers: tuple[tuple[str, int], ...] | None

    @property
    def is_labelled(self) -> bool:
        """Whether it is known what the answers are, or that there is none."""
        return self.answers is not None

    @property
    def group(self) -> str:
        """All passages of an article are held out together."""
        return self.title or self.passage or str(self)


@dataclasses.dataclass(frozen=True)
class QuestionReader:
    """Reads the questions of files in the official layout.

    Args:
      has_impossible: some questions have no answer, as in version 2.0.
      is_training: every question must have its answers.
      is_labelled: the answers are read.
    """

    has_impossible: bool
    is_training: bool
    is_labelled: bool

    def read(self, path: Path) -> list[Question]:
        """The questions of a file; says how many answers were ignored.

        Raises:
          UserError: if it is of another layout, two questions have the same id outside training, or
            an answer is empty or not in its passage.
        """
        is_lines = has_question_lines(path)
        content = None if is_lines else parse_json(read_text(path), str(path), _KEYS)
        if not isinstance(content, dict) or not isinstance(content.get('data'), list):
            raise UserError(
                f"{path} is not of SQuAD's layout: a JSON object with data → paragraphs → qas. "
                f'Questions that are an object with question and passage in each line are read for '
                f'predictions, from standard input or a file with the ending .jsonl.'
            )
        questions: list[Question] = []
        places: dict[str, str] = {}
        ignored: collections.Counter[str] = collections.Counter()
        for place, asked, title, passage in _asked(content['data'], path):
            key = key_of(asked, place, '')
            if not is_visible(key):
                state = 'no' if asked.get('id') is None else 'an empty'
                raise UserError(
                    f"{place} has {state} id; in SQuAD's layout each question has one of its own."
                )
            if key in places and self.is_training:
                ignored['question(s) have the id of another one before them'] += 1
            elif key in places:
                raise UserError(
                    f'{path} has the question id {key!r} twice, in {places[key]} and in '
                    f'{place.rpartition(", ")[2]}; give each question an id of its own.'
                )
            places[key] = place.rpartition(', ')[2]
            questions.append(self._question(path, key, asked, title, passage, ignored))
        if not questions:
            raise UserError(f'{path} has no questions.')
        for what, count in ignored.items():
            note(f'{path}: {count} {what}.')
        return questions

    def _question(
        self,
        path: Path,
        key: str,
        asked: Mapping[str, Any],
        title: str,
        passage: str,
        ignored: collections.Counter[str],
    ) -> Question:
        where = f'{path}, question {key}'
        text = _text(asked, 'question', where)
        check_text(passage, f'{where}: its context')
        answers = self._answers(asked, passage, where, ignored) if self.is_labelled else None
        return Question(where, key, title, text, passage, answers)

    def _answers(
        self,
        asked: Mapping[str, Any],
        passage: str,
        where: str,
        ignored: collections.Counter[str],
    ) -> tuple[tuple[str, int], ...] | None:
        is_impossible, answers = asked.get('is_impossible'), asked.get('answers')
        if isinstance(is_impossible, str) or is_impossible not in (None, False, True):
            raise UserError(
                f'{where}: is_impossible is {is_impossible!r}; it must be true or false.'
            )
        if is_impossible or answers == []:
            if not self.has_impossible:
                raise UserError(f'{where} has no answer; that is SQuAD 2.0: use the task squad2.')
            if answers:
                ignored['question(s) with is_impossible and answers count as impossible'] += 1
            return ()
        if answers is None:
            if self.is_training:
                raise UserError(f'{where} has no answers.')
            return None
        if not isinstance(answers, list):
            raise UserError(
                f'{where}: answers must be a list of objects with text and answer_start.'
            )
        read = [
            _answer(answer, passage, f'{where}, answers[{i}]') for i, answer in enumerate(answers)
        ]
        known = tuple((text, start) for text, start in read if text)
        if not known:
            raise UserError(
                f'{where} has an empty answer, which no prediction can match; write "answers": [] '
                f'and "is_impossible": true where there is none (task squad2), or remove it.'
            )
        if len(known) < len(read):
            ignored['empty answer(s) beside others are ignored'] += len(read) - len(known)
        return known


def has_question_lines(path: Path) -> bool:
    """Whether a file is JSON Lines by its ending, and not one object in the official layout.

    Raises:
      UserError: if it cannot be read.
    """
    if text_ending(path) != '.jsonl':
        return False
    text = read_text(path)
    return not is_object_with_keys(text) or 'data' not in json.loads(text)


def _asked(articles: list[Any], path: Path) -> Iterator[tuple[str, Mapping[str, Any], str, str]]:
    """Each question with its place ('FILE, data[0].paragraphs[1].qas[2]'), title and passage."""
    for i, article in enumerate(articles):
        place = f'{path}, data[{i}]'
        title = article.get('title') if isinstance(article, dict) else None
        for j, paragraph in enumerate(_list(article, 'paragraphs', place)):
            inner = f'{place}.paragraphs[{j}]'
            qas = _list(paragraph, 'qas', inner)
            passage = _text(paragraph, 'context', inner, is_checked=False)
            for k, asked in enumerate(qas):
                if not isinstance(asked, dict):
                    raise UserError(f'{inner}.qas[{k}] must be an object.')
                yield f'{inner}.qas[{k}]', asked, '' if title is None else str(title), passage


def _field(content: Any, name: str, where: str) -> Any:
    if not isinstance(content, dict):
        raise UserError(f"{where} must be an object with {name}; that is SQuAD's layout.")
    if name not in content:
        raise UserError(f"{where} has no {name}; in SQuAD's layout it must.")
    return content[name]


def _list(content: Any, name: str, where: str) -> list[Any]:
    value = _field(content, name, where)
    if not isinstance(value, list):
        raise UserError(f"{where}: {name} must be a list; that is SQuAD's layout.")
    return value


def _text(content: Any, name: str, where: str, is_checked: bool = True) -> str:
    value = _field(content, name, where)
    if not isinstance(value, str):
        raise UserError(f'{where}: {name} must be a text.')
    return check_text(value, f'{where}: its {name}') if is_checked else value


def _answer(answer: Any, passage: str, where: str) -> tuple[str, int]:
    """The text of an answer, and where it is in its passage."""
    text, start = _text(answer, 'text', where), _field(answer, 'answer_start', where)
    if isinstance(start, bool) or not isinstance(start, int):
        raise UserError(f'{where}: answer_start is {start!r}; it must be an integer.')
    # An empty one is judged with the others of its question.
    if not _has_letters(text):
        return '', 0
    there = passage[start : start + len(text)] if start >= 0 else ''
    if there != text:
        raise UserError(
            f'{where.rpartition(", ")[0]}: the answer {text!r} is not in its passage at character '
            f'{start}; there is {there!r}.'
        )
    return text, start


def _has_letters(text: str) -> bool:
    """Whether a text has more than white space, characters without a shape, and lone accents.

    Of nothing else there are tokens, and so no prediction.
    """
    return is_visible(''.join(x for x in text if not unicodedata.combining(x)))
