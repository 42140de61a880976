"""SQuAD 1.1 and 2.0: windows over the passage, answers as slices of the original text."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from albert_jax.cli.json_output import to_json
from albert_jax.cli.json_text import is_visible
from albert_jax.cli.notes import note
from albert_jax.data.hub_tokenizer import AnyTokenizer
from albert_jax.model.heads import Head
from albert_jax.runs.task import TaskSettings
from albert_jax.tasks import metrics
from albert_jax.tasks.features import Features, FeaturesWriter
from albert_jax.tasks.squad_file import Question, QuestionReader, has_question_lines
from albert_jax.tasks.task import Outputs, Task, check_fields, key_of, note_empty


class Candidate(NamedTuple):
    """An answer to a question, and how much speaks for it (a sum of log-probabilities)."""

    text: str
    score: float


class SquadTask(Task[Question]):
    """Questions about passages.

    Args:
      settings: of the task.
      has_impossible: some questions have no answer, as in version 2.0.
    """

    writes_by_key = True

    def __init__(self, settings: TaskSettings, has_impossible: bool) -> None:
        super().__init__(settings)
        self.has_impossible = has_impossible
        self.best_metric = 'best_f1' if has_impossible else 'f1'
        self.metric_names = _metric_names(has_impossible)
        # Of the odds that there is no answer, a logit: above it the answer is ''.
        self.no_answer_threshold = 0.0
        # For version 2.0 with answerability (docs/REFERENCE.md, 4).
        self.head_kind = (
            'conditional_question_answering' if has_impossible else 'question_answering'
        )

    @property
    def fields(self) -> tuple[str, ...]:
        """The question and its passage."""
        return ('question', 'passage')

    @property
    def other_fields(self) -> tuple[str, ...]:
        """Of a question in the official layout what is no text to read."""
        return ('id', 'title', 'answers', 'is_impossible')

    def parse(self, content: str | dict[str, Any], where: str, key: str) -> Question:
        """The question of an object."""
        fields = check_fields(content, where, self.fields)
        question, passage = fields['question'], fields['passage']
        return Question(where, key_of(fields, where, key), '', question, passage, None)

    def reads_file(self, path: Path) -> bool:
        """JSON Lines are a question each, unless they are one object in the official layout."""
        return super().reads_file(path) and not has_question_lines(path)

    def read(self, path: Path, is_training: bool, is_labelled: bool = True) -> list[Question]:
        """The questions of a file in the official layout.

        Raises:
          UserError: as `QuestionReader.read` does.
        """
        questions = QuestionReader(self.has_impossible, is_training, is_labelled).read(path)
        note_empty(self, questions, str(path))
        return questions

    def empty_texts(self, example: Question) -> tuple[str, ...]:
        """The question, or its passage."""
        texts = zip(self.fields, (example.question, example.passage), strict=True)
        return tuple(name for name, text in texts if not is_visible(text))

    def head(self, examples: Sequence[Question]) -> Head:
        """Start and end; for version 2.0 with answerability."""
        del examples
        return Head(self.head_kind, ())

    def encode(
        self, examples: Sequence[Question], tokenizer: AnyTokenizer, head: Head, is_training: bool
    ) -> Features:
        """[CLS] question [SEP] window [SEP], windows `stride` tokens apart.

        In training a window without the whole answer is impossible in version 2.0, and left out
        in version 1.1. Of a question that is too long the first tokens are kept; a passage is never
        cut.
        """
        del head
        settings = self.settings
        writer = FeaturesWriter(tokenizer)
        targets: dict[str, list[int]] = {
            name: [] for name in ('example', 'start', 'end', 'is_impossible')
        }
        token_targets: dict[str, list[np.ndarray]] = {
            name: [] for name in ('can_answer', 'owns', 'begin_character', 'end_character')
        }
        numbers = {passage: i for i, passage in enumerate({e.passage: 0 for e in examples})}
        passages = tokenizer.encode_with_offsets(list(numbers))
        asked = tokenizer.encode([example.question for example in examples])
        writer.num_cut = sum(len(question) > self._query_length for question in asked)
        for number, example in enumerate(examples):
            question = asked[number][: self._query_length]
            ids, offsets = passages[numbers[example.passage]]
            answer = self._answer_tokens(example, offsets)
            windows = _windows(len(ids), settings.max_length - len(question) - 3, settings.stride)
            owners, characters = _owners(windows), np.array(offsets, np.int32).reshape(-1, 2)
            for window, (begin, end) in enumerate(windows):
                has_answer = answer is not None and begin <= answer[0] and answer[1] < end
                if is_training and not has_answer and not self.has_impossible:
                    continue
                writer.add(question, ids[begin:end])
                before = len(question) + 2
                span = (answer[0], answer[1]) if has_answer and answer else None
                targets['example'].append(number)
                targets['start'].append(before + span[0] - begin if span else 0)
                targets['end'].append(before + span[1] - begin if span else 0)
                targets['is_impossible'].append(0 if span else 1)
                of_passage = {
                    'can_answer': np.ones(end - begin),
                    'owns': owners[begin:end] == window,
                    'begin_character': characters[begin:end, 0],
                    'end_character': characters[begin:end, 1],
                }
                for name, values in of_passage.items():
                    # Nothing of the question, nor of the last [SEP].
                    token_targets[name].append(np.pad(values, (before, 1)).astype(np.int32))
                token_targets['can_answer'][-1][0] = self.has_impossible
        if is_training:
            self._note_lost(examples, targets)
        return writer.finish(
            {name: np.array(values, np.int32) for name, values in targets.items()},
            {
                name: np.concatenate([np.zeros(0, np.int32), *values])
                for name, values in token_targets.items()
            },
        )

    @property
    def _query_length(self) -> int:
        """Tokens of a question at most."""
        return min(self.settings.max_query_length, self.settings.max_length // 2)

    @property
    def cut_to(self) -> str:
        """Its own length of a question: a longer passage has several windows."""
        return f'the {self._query_length} pieces of a question that the model reads at most'

    def note_cut(self, features: Features, examples: Sequence[Question]) -> None:
        """Notes how many questions were cut."""
        if not features.num_cut:
            return
        settings = self.settings
        reason = f'task.max_query_length is {settings.max_query_length}'
        if self._query_length < settings.max_query_length:
            reason = f'task.max_length is {settings.max_length} and a question has half of it'
        note(
            f'{examples[0].where} and what follows: {features.num_cut} of {len(examples)} '
            f'questions were cut to {self._query_length} tokens, because {reason}.'
        )

    def _note_lost(self, examples: Sequence[Question], targets: Mapping[str, list[int]]) -> None:
        """Tells how many answers are in no window, and what becomes of their questions."""
        rows = zip(targets['example'], targets['is_impossible'], strict=True)
        kept = {number for number, is_impossible in rows if not is_impossible}
        lost = [e for number, e in enumerate(examples) if e.answers and number not in kept]
        if lost:
            effect = 'count as impossible' if self.has_impossible else 'are not trained on'
            note(
                f'{len(lost)} of {len(examples)} questions {effect}, as no window of '
                f'task.max_length, {self.settings.max_length} tokens, has their answer; the first '
                f'is {lost[0].where}.'
            )

    def _answer_tokens(
        self, example: Question, offsets: Sequence[tuple[int, int]]
    ) -> tuple[int, int] | None:
        """The first and last token that the first answer touches."""
        if not example.answers:
            return None
        text, begin = example.answers[0]
        end = begin + len(text)
        touched = [
            token for token, (first, last) in enumerate(offsets) if first < end and last > begin
        ]
        return (touched[0], touched[-1]) if touched else None

    def recovered(self, examples: Sequence[Question], features: Features) -> list[bool | None]:
        """Whether an answer's tokens give the answer back, after SQuAD's normalisation.

        None for a question without an answer; False also where no window holds all of it.
        """
        is_recovered: list[bool | None] = [
            False if example.answers else None for example in examples
        ]
        for row, number in enumerate(features.targets['example']):
            answers = examples[number].answers
            if answers and not features.targets['is_impossible'][row]:
                start, end = (int(features.targets[name][row]) for name in ('start', 'end'))
                text = self._text(examples[number], features, row, start, end)
                same = metrics.normalize_answer(text) == metrics.normalize_answer(answers[0][0])
                is_recovered[number] = same or bool(is_recovered[number])
        return is_recovered

    def _text(self, example: Question, features: Features, row: int, start: int, end: int) -> str:
        first = features.starts[row]
        begin = features.token_targets['begin_character'][first + start]
        stop = features.token_targets['end_character'][first + end]
        return example.passage[begin:stop].strip()

    def candidates(
        self, examples: Sequence[Question], features: Features, outputs: Outputs
    ) -> tuple[list[list[Candidate]], list[float]]:
        """For each question its best answers, best first, and the odds that it has none."""
        best_scores: list[dict[str, float]] = [{} for _ in examples]
        odds = [np.inf] * len(examples)
        for row, number in enumerate(features.targets['example']):
            first, last = features.starts[row], features.starts[row + 1]
            owns = features.token_targets['owns'][first:last]
            can_answer = features.token_targets['can_answer'][first:last].copy()
            can_answer[0] = 0
            spans = self._spans(outputs, row, len(owns))
            best = best_scores[number]
            for start, end, score in spans:
                # A beam of a short text reaches into its padding.
                is_inside = start <= end < min(len(owns), start + self.settings.max_answer_length)
                if not (is_inside and can_answer[start] and can_answer[end] and owns[start]):
                    continue
                text = self._text(examples[number], features, row, start, end)
                if text and score > best.get(text, -np.inf):
                    best[text] = score
            if self.has_impossible:
                odds[number] = min(odds[number], float(outputs['impossible'][row]))
        ranked = [
            [
                Candidate(text, score)
                for text, score in sorted(best.items(), key=lambda item: -item[1])
            ][: self.settings.num_best]
            for best in best_scores
        ]
        return ranked, odds

    def _spans(self, outputs: Outputs, row: int, length: int) -> list[tuple[int, int, float]]:
        if self.has_impossible:
            starts, ends = outputs['start_positions'][row], outputs['end_positions'][row]
            scores = outputs['start_scores'][row][:, None] + outputs['end_scores'][row]
            return [
                (int(starts[i]), int(ends[i, j]), float(scores[i, j]))
                for i, j in np.ndindex(*ends.shape)
            ]
        start_logits, end_logits = (outputs[name][row][:length] for name in ('start', 'end'))
        count = self.settings.num_best
        starts, ends = (np.argsort(-logits)[:count] for logits in (start_logits, end_logits))
        return [
            (int(s), int(e), float(start_logits[s] + end_logits[e])) for s in starts for e in ends
        ]

    def metrics(
        self, examples: Sequence[Question], features: Features, outputs: Outputs, head: Head
    ) -> dict[str, float]:
        """Exact match and F1; for version 2.0 also by answerability and at the best threshold."""
        del head
        ranked, odds = self.candidates(examples, features, outputs)
        known = [i for i, example in enumerate(examples) if example.is_labelled]
        if not known:
            return {}
        answers = {examples[i].key: [t for t, _ in examples[i].answers or ()] for i in known}
        best = {examples[i].key: ranked[i][0].text if ranked[i] else '' for i in known}
        if not self.has_impossible:
            return metrics.squad1(answers, best)
        known_odds = {examples[i].key: odds[i] for i in known}
        return metrics.squad2(answers, best, known_odds, self.no_answer_threshold)

    def predictions(
        self, examples: Sequence[Question], features: Features, outputs: Outputs, head: Head
    ) -> list[dict[str, Any]]:
        """The best answer of each question, '' for none, with the others and the odds."""
        del head
        ranked, odds = self.candidates(examples, features, outputs)
        rows = []
        for example, candidates, odd in zip(examples, ranked, odds, strict=True):
            scores = np.array([candidate.score for candidate in candidates] or [0.0])
            probabilities = np.exp(scores - scores.max())
            probabilities /= probabilities.sum()
            best = candidates[0].text if candidates else ''
            has_none = self.has_impossible and odd > self.no_answer_threshold
            row: dict[str, Any] = {
                'id': example.key,
                'prediction': '' if has_none else best,
                'best': [
                    {'text': candidate.text, 'probability': float(probability)}
                    for candidate, probability in zip(candidates, probabilities, strict=False)
                ],
            }
            if self.has_impossible:
                row['best_text'], row['no_answer_odds'] = best, odd
            rows.append(row)
        return rows

    def write(
        self, examples: Sequence[Question], predictions: Sequence[Mapping[str, Any]], folder: Path
    ) -> list[Path]:
        """The files of the official scripts: predictions, n-best, and odds of no answer."""
        del examples
        content = {
            # The official script of version 2.0 applies thresholds to the odds itself.
            'predictions.json': {
                row['id']: row.get('best_text', row['prediction']) for row in predictions
            },
            'nbest_predictions.json': {row['id']: row['best'] for row in predictions},
        }
        if self.has_impossible:
            content['null_odds.json'] = {row['id']: row['no_answer_odds'] for row in predictions}
        files = []
        for name, answers in content.items():
            files.append(folder / name)
            files[-1].write_text(to_json(answers, indent=1, ensure_ascii=False), 'utf-8')
        return files


def _windows(num_tokens: int, size: int, stride: int) -> list[tuple[int, int]]:
    """Begin and end of each window; the last one reaches the end of the passage."""
    windows = []
    begin = 0
    while True:
        end = min(begin + size, num_tokens)
        windows.append((begin, end))
        if end == num_tokens:
            return windows
        begin += min(size, stride)


def _owners(windows: Sequence[tuple[int, int]]) -> Int[np.ndarray, 'tokens']:
    """For each token the window in which it has the most context (Google's max-context rule)."""
    num_tokens = windows[-1][1]
    owners, most = np.zeros(num_tokens, np.int64), np.full(num_tokens, -np.inf)
    for number, (begin, end) in enumerate(windows):
        before = np.arange(end - begin)
        context = np.minimum(before, before[::-1]) + 0.01 * (end - begin)
        # Of equals the first.
        is_better = context > most[begin:end]
        most[begin:end][is_better] = context[is_better]
        owners[begin:end][is_better] = number
    return owners


def _metric_names(has_impossible: bool) -> tuple[str, ...]:
    """Of a data set with a question that has an answer and, in version 2.0, one that has none."""
    if not has_impossible:
        return tuple(metrics.squad1({'a': ['b']}, {'a': 'b'}))
    answers, predictions = {'a': ['b'], 'c': []}, {'a': 'b', 'c': ''}
    return tuple(metrics.squad2(answers, predictions, {'a': 0.0, 'c': 0.0}, 0.0))
