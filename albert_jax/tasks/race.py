"""RACE: reading comprehension with four options, middle and high school."""

import dataclasses
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from albert_jax.cli.errors import UserError
from albert_jax.data.hub_tokenizer import AnyTokenizer
from albert_jax.model.heads import Head
from albert_jax.tasks.features import Features, FeaturesWriter
from albert_jax.tasks.task import Outputs, Task, check_fields, softmax

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
    head_kind = 'multiple_choice'

    @property
    def fields(self) -> tuple[str, ...]:
        """The question, its passage and four options."""
        return ('question', 'passage', 'options')

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
            where, fields.get('id', key), '', fields['passage'], fields['question'],
            tuple(map(str, options)), None,
        )  # fmt: skip

    def read(self, path: Path, is_training: bool, is_labelled: bool = True) -> list[Question]:
        """The questions of a split: a folder with `middle` and `high`, or `ARCHIVE.tar.gz:SPLIT`.

        Raises:
          UserError: if a file is not of RACE's layout, or there is none.
        """
        questions = []
        for where, level, text in _files(path):
            try:
                content = json.loads(text)
                fields = [content[n] for n in ('article', 'questions', 'options', 'id')]
                answers = content.get('answers') or [None] * len(fields[1])
                if not len(fields[1]) == len(fields[2]) == len(answers):
                    raise ValueError('questions, options and answers are not as many')
                if not all(isinstance(options, list) for options in fields[2]):
                    raise TypeError('options are not lists')
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f'{where} is not of RACE: JSON with article, questions, options and id '
                    f'({error!r}).'
                ) from error
            article, asked, options, name = fields
            for number, (question, choice, answer) in enumerate(
                zip(asked, options, answers, strict=True)
            ):
                if len(choice) != len(_LETTERS):
                    raise UserError(f'{where}: question {number} has {len(choice)} options, not 4.')
                if answer is not None and answer not in tuple(_LETTERS):
                    raise UserError(f'{where}: the answer {answer!r} is none of A, B, C and D.')
                if answer is None and is_training:
                    raise UserError(f'{where}: question {number} has no answer.')
                letter = None if answer is None or not is_labelled else _LETTERS.index(answer)
                questions.append(
                    Question(
                        where, f'{name}-{number}', level, article, question, tuple(choice),
                        letter,
                    )
                )  # fmt: skip
        if not questions:
            raise UserError(f'{path} has no questions; give a folder with middle and high.')
        return questions

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
        for number, ids in enumerate(asked):
            kept = ids[-self.settings.max_option_length :]
            kept = kept[-(self.settings.max_length - 4) :]
            room = self.settings.max_length - 3 - len(kept)
            writer.add(encoded[examples[number // len(_LETTERS)].passage][:room], kept)
        labels = [example.answer or 0 for example in examples]
        return writer.finish({'labels': np.array(labels, np.int32)})

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


def _with(question: str, option: str) -> str:
    return question.replace('_', option) if '_' in question else f'{question} {option}'


def _files(path: Path) -> Iterator[tuple[str, str, str]]:
    """Name, level and content of each passage's file."""
    archive, _, split = str(path).partition('.tar.gz')
    if not path.is_dir() and split:
        yield from _archived(Path(f'{archive}.tar.gz'), split.strip('/:'))
        return
    if not path.is_dir():
        raise UserError(f'{path} is not a directory; give a split of RACE, such as RACE/dev.')
    for level in _LEVELS:
        for file in sorted((path / level).glob('*.txt')):
            yield str(file), level, file.read_text('utf-8', 'replace')


def _archived(archive: Path, split: str) -> Iterator[tuple[str, str, str]]:
    try:
        with tarfile.open(archive) as members:
            for member in members:
                parts = Path(member.name).parts
                if member.isfile() and len(parts) >= 3 and parts[-3] == split:
                    stream = members.extractfile(member)
                    assert stream is not None
                    text = stream.read().decode('utf-8', 'replace')
                    yield f'{archive}:{member.name}', parts[-2], text
    except (OSError, tarfile.TarError, EOFError) as error:
        raise UserError(f'{archive} cannot be read: {error}.') from error
