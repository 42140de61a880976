"""Sections `task` and `finetuning` of a config."""

import collections
import dataclasses
from collections.abc import Iterator
from typing import Annotated, ClassVar

from albert_jax.cli.json_text import check_text, is_visible
from albert_jax.cli.settings import NonNegative, Positive, Probability, Settings, at_least


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskSettings(Settings):
    """What is asked, and how examples become sequences.

    Raises:
      UserError: if a value is impossible.
    """

    SECTION: ClassVar[str] = 'task'

    name: Annotated[str, 'a name of tasks.registry.TASKS'] = 'sst2'
    max_length: Annotated[int, at_least(8), 'tokens, special pieces included'] = 512
    head_dropout: Annotated[float, Probability, "dropout of the classifier's input"] = 0.1
    text: Annotated[str, "column of one's own files: the text"] = 'text'
    text_pair: Annotated[str, "column of one's own files: the second text, if any"] = ''
    label: Annotated[str, "column of one's own files: the label or the number"] = 'label'
    labels: Annotated[str, 'the labels, with commas between; empty: the training file’s'] = ''
    label_names: Annotated[
        str, 'what the labels are called in answers, in the order of `labels`; empty: as they are'
    ] = ''
    stride: Annotated[int, Positive, 'questions: tokens between the starts of two windows'] = 128
    max_query_length: Annotated[int, Positive, 'questions: tokens of the question'] = 64
    max_answer_length: Annotated[int, Positive, 'questions: tokens of an answer'] = 30
    num_best: Annotated[int, Positive, 'questions: answers written for each'] = 20
    word_column: Annotated[int, NonNegative, 'CoNLL: the column of the word, counted from 0'] = 0
    tag_column: Annotated[int, 'CoNLL: the column of the tag; -1: the last'] = -1
    max_option_length: Annotated[int, Positive, 'RACE: tokens of question and option'] = 128
    source: Annotated[
        str,
        'seq2seq: the column of the source, or the ending of its file (en: X.en); a number: the '
        'column, counted from 0, of tables without a header',
    ] = 'source'
    target: Annotated[str, 'seq2seq: the same of the target'] = 'target'
    max_target_length: Annotated[
        int, at_least(8), 'seq2seq: tokens of the target, special pieces included'
    ] = 128
    label_smoothing: Annotated[
        float, Probability, 'seq2seq: share of the probability spread over the vocabulary'
    ] = 0.1
    generate_every: Annotated[
        int,
        NonNegative,
        'seq2seq: steps between evaluations that generate texts, too; 0: at the end alone',
    ] = 0
    num_generated: Annotated[
        int, Positive, 'seq2seq: held-out pairs for which they generate texts'
    ] = 256

    @property
    def named(self) -> tuple[str, ...]:
        """The names in `label_names`; none if it is empty."""
        names = self.label_names.split(',') if self.label_names.strip() else []
        return tuple(name.strip() for name in names)

    def conflicts(self) -> Iterator[str]:
        """Names that are empty, or there twice.

        Raises:
          UserError: if one has half a character, as bytes of the command line that are no UTF-8.
        """
        check_text(self.labels, 'task.labels')
        check_text(self.label_names, 'task.label_names')
        counts = collections.Counter(self.named)
        if not all(map(is_visible, self.named)):
            yield f'task.label_names is {self.label_names!r}, which has an empty name.'
        elif repeated := [name for name, count in counts.items() if count > 1]:
            yield (
                f'task.label_names names {repeated[0]!r} twice; each class has a name of its own.'
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuningSettings(Settings):
    """What may make fine-tuning more robust; all off by default.

    Raises:
      UserError: if a value is impossible.
    """

    SECTION: ClassVar[str] = 'finetuning'

    adversarial_steps: Annotated[
        int, NonNegative, 'FreeLB (arXiv 1909.11764): ascent steps a step; 0: none'
    ] = 0
    adversarial_learning_rate: Annotated[
        float, Positive, "norm of an ascent step, over a sequence's word embeddings"
    ] = 0.1
    adversarial_start: Annotated[float, NonNegative, 'norm of the first perturbation'] = 0.05
    adversarial_max_norm: Annotated[
        float, NonNegative, 'largest norm of a perturbation; 0: any'
    ] = 0.0
    replaced_fraction: Annotated[
        float, Probability, 'share of the ordinary tokens that is replaced by random ones'
    ] = 0.0
    head_learning_rate_factor: Annotated[
        float, Positive, "of the learning rate of the head, or of the decoder's own weights"
    ] = 1.0
    layer_decay: Annotated[
        float, Positive, 'factor of the learning rate, a layer down; 1 where layers are shared'
    ] = 1.0
