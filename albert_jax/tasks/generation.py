"""From text to text: translation, summaries, splitting of sentences, and one's own pairs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from albert_jax.cli.errors import UserError
from albert_jax.cli.json_text import check_text, is_json_object, is_visible, parse_json
from albert_jax.cli.notes import note
from albert_jax.data.hub_tokenizer import AnyTokenizer
from albert_jax.model.heads import Head
from albert_jax.runs.task import TaskSettings
from albert_jax.tasks import generation_metrics
from albert_jax.tasks.features import Features
from albert_jax.tasks.generation_metrics import Metric, Texts
from albert_jax.tasks.line_checks import check_single_texts
from albert_jax.tasks.pair_features import TARGET_IS_CUT, PairFeatures, as_pairs, encode_pairs
from albert_jax.tasks.task import Outputs, Task, check_fields, check_keys, json_lines, key_of
from albert_jax.tasks.text_pairs import Sides, TextPair, read_pairs

# What stands for a head where a decoder answers.
DECODER = Head('text_to_text', ())
# Of a task's outputs: the texts and their scores, the best first; and the loss of the target.
TEXTS, SCORES, IS_FINISHED, LOSS, NUM_PIECES = (
    'texts', 'scores', 'is_finished', 'loss', 'num_pieces',
)  # fmt: skip


class GenerationTask(Task[TextPair]):
    """Targets that are made of sources.

    Args:
      settings: of the task.
      metrics: of the texts; the first value of the first one has to be best.
      is_translation: the target's name is that of its language.
      sentence_mark: what stands between sentences in the targets, which a space takes the place of.
    """

    head_kind = DECODER.kind
    reads_tfds = True
    keeps_empty_lines = True

    def __init__(
        self,
        settings: TaskSettings,
        metrics: Sequence[Metric] = (
            generation_metrics.bleu,
            generation_metrics.chrf,
            generation_metrics.exact_match,
        ),
        best_metric: str = 'bleu',
        is_translation: bool = False,
        sentence_mark: str = '',
    ) -> None:
        super().__init__(settings)
        if settings.source == settings.target:
            raise UserError(
                f'task.source and task.target are both {settings.source!r}; name the two sides.'
            )
        self._metrics, self._sentence_mark = metrics, sentence_mark
        self._language = settings.target if is_translation else ''
        # Texts are generated during the training, or the loss is all there is to choose by.
        self.best_metric = best_metric if settings.generate_every else 'loss'
        self.is_lower_better = not settings.generate_every

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The loss, and the scores of texts where texts are generated during the training."""
        if not self.settings.generate_every:
            return ('loss',)
        texts = Texts(['a'], ['a'], ['a'], self._language)
        return ('loss', *(name for metric in self._metrics for name in metric(texts).values))

    @property
    def sides(self) -> Sides:
        """What source and target are called."""
        return Sides(self.settings.source, self.settings.target)

    @property
    def fields(self) -> tuple[str, ...]:
        """None: a source is a text."""
        return ()

    @property
    def other_fields(self) -> tuple[str, ...]:
        """The columns of both sides, too."""
        return (*self.sides, 'id')

    def parse(self, content: str | dict[str, Any], where: str, key: str) -> TextPair:
        """The source of a text, or of an object."""
        if isinstance(content, str):
            return TextPair(where, key, check_text(content, where), None)
        fields = check_fields(content, where, [self.settings.source])
        return TextPair(where, key_of(fields, where, key), fields[self.settings.source], None)

    def parse_line(self, line: str, where: str, key: str) -> TextPair:
        """The source of a line, or of a JSON object."""
        names = (self.settings.source, 'id')
        if is_json_object(line, names):
            return self.parse(parse_json(line, where, names), where, key)
        return TextPair(where, key, line, None)

    def check_lines(self, lines: Sequence[str], origin: str) -> None:
        """Refuses lines that are a table.

        Raises:
          UserError: if they are.
        """
        check_single_texts(lines, origin)

    def read(self, path: Path, is_training: bool, is_labelled: bool = True) -> list[TextPair]:
        """The pairs of a table or of two files, as `read_pairs` finds them.

        Raises:
          UserError: as there.
        """
        del is_training
        pairs = read_pairs(path, self.sides, is_labelled)
        check_keys(pairs, str(path), is_refused=False)
        return [self.with_own_target(pair) for pair in pairs]

    def with_own_target(self, pair: TextPair) -> TextPair:
        """A pair as it was read, with spaces in place of the marks between sentences.

        Raises:
          UserError: if its target has marks and no text.
        """
        if not self._sentence_mark or pair.target is None:
            return pair
        target = ' '.join(pair.target.replace(self._sentence_mark, ' ').split())
        if not is_visible(target):
            raise UserError(
                f'{pair.where}: the target is empty but for {self._sentence_mark}, which stands '
                f'between two sentences; remove such pairs, both sides.'
            )
        return TextPair(pair.where, pair.key, pair.source, target)

    def head(self, examples: Sequence[TextPair]) -> Head:
        """A decoder answers."""
        del examples
        return DECODER

    def encode(
        self, examples: Sequence[TextPair], tokenizer: AnyTokenizer, head: Head, is_training: bool
    ) -> Features:
        """As `encode_pairs`."""
        del head, is_training
        return encode_pairs(
            [example.source for example in examples],
            [example.target for example in examples],
            tokenizer,
            self.settings.max_length,
            self.settings.max_target_length,
        )

    def finish(self, features: Features, examples: Sequence[TextPair]) -> PairFeatures:
        """The features as pairs; notes tell what was cut, and how many sides are empty."""
        pairs = as_pairs(features, self.settings.max_target_length)
        origin = examples[0].where
        num_targets = sum(example.target is not None for example in examples)
        self.note_cut(pairs, examples)
        if num_cut := int(pairs.targets[TARGET_IS_CUT].sum()):
            note(
                f'{origin} and what follows: {num_cut} of {num_targets} targets were cut, '
                f'because task.max_target_length is {self.settings.max_target_length} tokens.'
            )
        for num_empty, num_all, side in (
            (pairs.num_without_text, len(examples), 'sources'),
            (pairs.num_targets_without_text, num_targets, 'targets'),
        ):
            if num_empty:
                note(f'{num_empty:,} of {num_all:,} {side} are empty after normalisation.')
        return pairs

    def metrics(
        self, examples: Sequence[TextPair], features: Features, outputs: Outputs, head: Head
    ) -> dict[str, float]:
        """The loss of a target's piece in nats, and the scores of the texts where there are any."""
        del features, head
        labelled = [index for index, example in enumerate(examples) if example.is_labelled]
        if not labelled:
            return {}
        values: dict[str, float] = {}
        if LOSS in outputs:
            loss, num_pieces = (
                np.sum([outputs[n][i] for i in labelled]) for n in (LOSS, NUM_PIECES)
            )
            values['loss'] = float(loss / num_pieces)
        if TEXTS in outputs:
            texts = Texts(
                [examples[index].source for index in labelled],
                [str(outputs[TEXTS][index][0]) for index in labelled],
                [examples[index].target or '' for index in labelled],
                self._language,
            )
            for metric in self._metrics:
                values |= metric(texts).values
        return values

    def signatures(self) -> list[str]:
        """How the metrics are computed, a line each, where that can be written in one."""
        empty = Texts(['a'], ['a'], ['a'], self._language)
        return [signature for metric in self._metrics if (signature := metric(empty).signature)]

    def predictions(
        self, examples: Sequence[TextPair], features: Features, outputs: Outputs, head: Head
    ) -> list[dict[str, Any]]:
        """The best text of each source, and all of them with their scores if there are several."""
        del features, head
        num_cut = sum(not is_finished[0] for is_finished in outputs[IS_FINISHED])
        if num_cut:
            note(
                f'{num_cut} of {len(examples)} texts were cut, because task.max_target_length is '
                f'{self.settings.max_target_length} tokens.'
            )
        rows = []
        for example, texts, scores in zip(examples, outputs[TEXTS], outputs[SCORES], strict=True):
            row: dict[str, Any] = {'id': example.key, 'prediction': str(texts[0])}
            if len(texts) > 1:
                # A search may find fewer texts than are asked for.
                row['best'] = [
                    {'text': str(text), 'score': float(score)}
                    for text, score in zip(texts, scores, strict=True)
                    if np.isfinite(score)
                ]
            rows.append(row)
        return rows

    def shown(self, predictions: Sequence[Mapping[str, Any]], as_json: bool) -> str:
        """The texts, one a line; JSON Lines where there are several of a source."""
        if as_json or any('best' in row for row in predictions):
            return json_lines(predictions)
        return text_lines(predictions)

    def write(
        self, examples: Sequence[TextPair], predictions: Sequence[Mapping[str, Any]], folder: Path
    ) -> list[Path]:
        """The best text of each source, in the order of the file, one a line."""
        del examples
        file = folder / 'predictions.txt'
        file.write_text(text_lines(predictions), encoding='utf-8', newline='\n')
        return [file]


def text_lines(predictions: Sequence[Mapping[str, Any]]) -> str:
    """The best text of each source, one a line."""
    return ''.join(f'{row["prediction"]}\n' for row in predictions)
